"""Choosing tokens and streaming their text, with a table or a script in the place of a model."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.tiny_text import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models

from orrery.errors import CheckpointError, RequestError
from orrery.runtime.decode import Speller, TextSampling, choose, keep_top_k, keep_top_p, penalised, stream, write

VOCAB = 400
EOS = 2
WARM = TextSampling(max_new_tokens=30, temperature=0.8)


class Table:
    """Logits that depend on the last token only, and a count of the calls."""

    def __init__(self, seed=0):
        self.logits = 3 * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))
        self.logits[:, EOS] = -100
        self.calls = []

    def __call__(self, token_ids):
        self.calls.append(list(token_ids))
        return self.logits[token_ids[-1]]


def script(ids):
    """A model that writes these tokens and then ends."""
    coming = iter([*ids, EOS])
    return lambda _: torch.zeros(VOCAB).index_fill(0, torch.tensor([next(coming)]), 50.0)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def run(model, sampling, prompt=(7, 8), seed=0):
    return write(model, list(prompt), tiny_tokenizer().decode, sampling, eos_ids={EOS}, rng=rng(seed))


def streamed(model, sampling):
    """The pieces, and the result."""
    pieces = stream(model, [7], tiny_tokenizer().decode, sampling, eos_ids=[EOS], rng=rng())
    shown = []
    while True:
        try:
            shown.append(next(pieces))
        except StopIteration as end:
            return shown, end.value


def test_greedy_follows_the_likeliest_token_and_calls_the_model_once_for_each():
    model = Table()
    written = run(model, TextSampling(max_new_tokens=12))
    last, expected = 8, []
    for _ in range(12):
        last = int(model.logits[last].argmax())
        expected.append(last)
    assert written.token_ids == tuple(expected)
    assert written.ended == "length"
    assert model.calls == [[7, 8], *([token] for token in expected[:-1])]


@pytest.mark.parametrize("change", [{"temperature": 1e-5}, {"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_the_limits_of_sampling_are_greedy(change):
    greedy = run(Table(), replace(WARM, temperature=0.0))
    for seed in range(5):
        assert run(Table(), replace(WARM, **change), seed=seed) == greedy


def test_a_seed_means_one_text():
    first, second, other = (run(Table(), WARM, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first.token_ids != other.token_ids


def test_tokens_are_drawn_with_their_probability():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    sampling = TextSampling(temperature=1.3)
    generator = rng()
    drawn = torch.tensor([choose(logits, [], [], sampling, generator) for _ in range(1500)])
    frequencies = torch.bincount(drawn, minlength=4) / 1500
    torch.testing.assert_close(frequencies, (logits / 1.3).softmax(-1), rtol=0, atol=0.04)


@pytest.mark.oracle
@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3])
def test_repetition_penalty_agrees_with_transformers(penalty):
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.randn(VOCAB, generator=rng())
    prompt, output = [3, 3, 4, 90], [5, 3, 399]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + output]), logits[None])[0]
    assert torch.equal(penalised(logits, prompt, output, TextSampling(repetition_penalty=penalty)), expected)


def test_presence_penalty_counts_the_output_once_and_comes_second():
    logits = torch.tensor([2.0, 2.0, -2.0, 2.0])
    sampling = TextSampling(repetition_penalty=2.0, presence_penalty=0.5)
    # Token 0 is in the prompt, 1 and 2 in the output, 2 twice; 3 was never used.
    assert penalised(logits, [0], [1, 2, 2], sampling).tolist() == [1.0, 0.5, -4.5, 2.0]
    assert logits.tolist() == [2.0, 2.0, -2.0, 2.0]


@pytest.mark.oracle
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 3), st.integers(1, 60), st.floats(0.05, 1))
def test_the_tokens_kept_agree_with_transformers(seed, temperature, top_k, top_p):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = 2 * torch.randn(50, generator=rng(seed))
    expected = TemperatureLogitsWarper(temperature)(None, logits[None])
    expected = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, expected))[0]
    found = keep_top_p(keep_top_k(logits / temperature, top_k), top_p)
    torch.testing.assert_close(found, expected)


def test_top_k_comes_before_top_p():
    """Of four equal tokens, two stay; half of those two is one token, half of all four would be two."""
    scores = torch.tensor([1.0, 1.0, 0.9, 0.9])
    assert keep_top_p(keep_top_k(scores, 2), 0.5).isfinite().sum() == 1
    drawn = {choose(scores, [], [], TextSampling(temperature=1.0, top_k=2, top_p=0.5), rng(seed)) for seed in range(20)}
    assert len(drawn) == 1


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30))
def test_pieces_are_whole_characters_that_add_up_to_the_text(text):
    ids = tiny_tokenizer().encode(text)
    pieces, written = streamed(script(ids), TextSampling())
    assert "".join(pieces) == written.text == tiny_tokenizer().decode(ids)
    assert written.ended == "eos"
    assert written.token_ids == (*ids, EOS)
    assert all(pieces)
    assert any("\ufffd" in piece for piece in pieces) == ("\ufffd" in written.text)


def test_a_character_of_several_tokens_comes_at_once():
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("a🧿b")
    assert len(ids) > 3
    pieces, _ = streamed(script(ids), TextSampling())
    assert pieces == ["a", "🧿", "b"]


def test_a_decoder_that_treats_the_first_token_differently_is_streamed_as_a_whole():
    words = Tokenizer(models.WordLevel({"▁red": 0, "▁block": 1, "s": 3}, unk_token="s"))
    words.decoder = decoders.Metaspace()
    spelled = Speller(words.decode)
    pieces = [spelled.add(token) for token in (0, 1, 3)]
    assert pieces == ["red", " block", "s"]
    assert words.decode([0, 1, 3]) == "red blocks"


def test_bytes_that_never_make_a_character_are_shown_as_such_at_the_end():
    ids = tiny_tokenizer().encode("ok 🧿")[:-1]
    pieces, written = streamed(script(ids), TextSampling())
    assert "".join(pieces) == written.text == tiny_tokenizer().decode(ids)
    assert written.text.startswith("ok \ufffd")


@settings(max_examples=150, deadline=None)
@given(st.text("ab🤖 ", max_size=25), st.lists(st.text("ab🤖 ", min_size=1, max_size=4), max_size=3))
def test_output_ends_before_the_first_stop_text_and_never_shows_its_beginning(text, stops):
    ids = tiny_tokenizer().encode(text)
    pieces, written = streamed(script(ids), TextSampling(stop=tuple(stops)))
    ends = [text.find(stop) for stop in stops if stop in text]
    # Text is read as it comes: of two stop texts, the one that is complete first counts.
    complete = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert "".join(pieces) == written.text
    assert written.ended == ("stop" if ends else "eos")
    if not ends:
        assert written.text == text
    else:
        assert text.startswith(written.text)
        assert any(text.startswith(stop, len(written.text)) for stop in stops)
        assert min(ends) <= len(written.text) <= min(complete)
        assert not any(stop in written.text for stop in stops)


def test_a_stop_text_may_span_tokens_and_end_inside_one():
    tokenizer = tiny_tokenizer()
    ids = [*tokenizer.encode("the bl"), *tokenizer.encode("ock"), *tokenizer.encode("s")]
    pieces, written = streamed(script(ids), TextSampling(stop=("block",)))
    assert written.text == "".join(pieces) == "the "
    assert written.ended == "stop"
    # What merely began like a stop text is shown after all.
    assert streamed(script(ids), TextSampling(stop=("blood",)))[1].text == "the blocks"


def test_the_longest_length_counts_tokens():
    ids = tiny_tokenizer().encode("The video shows a moving block.")
    written = run(script(ids), TextSampling(max_new_tokens=3))
    assert written.token_ids == tuple(ids[:3])
    assert written.ended == "length"
    assert written.text == tiny_tokenizer().decode(ids[:3])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_refused(value):
    logits = torch.zeros(VOCAB)
    logits[17] = value
    with pytest.raises(CheckpointError, match="not numbers"):
        choose(logits, [], [], TextSampling(), rng())


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 1e-300},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"stop": ("ok", "")},
    ],
    ids=str,
)
def test_settings_outside_their_range_are_refused(settings):
    with pytest.raises(RequestError):
        TextSampling(**settings)
