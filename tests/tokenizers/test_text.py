"""The checkpoint's own tokenizer and chat template: as transformers renders them, and safely."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.tiny_text import TEXTS, THINKING_TEMPLATE, tiny_tokenizer, tiny_tokenizer_folder

from orrery.errors import CheckpointError, RequestError, SettingsError
from orrery.tokenizers.eyes import QWEN_EYES, expand, look_at_image, look_at_video, reason_positions, visual_spans
from orrery.tokenizers.text import LONGEST_PROMPT, TextTokenizer, train_tokenizer

CONVERSATION = [
    {"role": "system", "content": "You are a robot."},
    {"role": "user", "content": "What do you see? "},
    {"role": "assistant", "content": "A Würfel 🤖.\n", "extra": {"ä": [1, None, "<b>"]}},
    {"role": "user", "content": "立方体\n\nagain"},
]


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("template", "config"),
    [
        (None, {}),
        (THINKING_TEMPLATE, {}),
        (
            THINKING_TEMPLATE,
            {
                "bos_token": {"__type": "AddedToken", "content": "<|endoftext|>"},
                "unk_token": None,
                "add_bos_token": True,
            },
        ),
    ],
    ids=["chatml", "thinking", "bos"],
)
@pytest.mark.parametrize("turns", [CONVERSATION, CONVERSATION[1:2], CONVERSATION[1:]], ids=len)
def test_conversations_agree_with_transformers(tmp_path, template, config, turns):
    from transformers import PreTrainedTokenizerFast

    folder = tiny_tokenizer_folder(tmp_path, template=template, config=config)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    ours = TextTokenizer.from_folder(folder)
    options = {"add_generation_prompt": True, "add_vision_id": False}
    assert ours.render(turns) == theirs.apply_chat_template(turns, tokenize=False, **options)
    assert ours.chat(turns) == theirs.apply_chat_template(turns, return_dict=False, **options)
    assert ours.eos_id == theirs.eos_token_id
    assert ours.size == len(theirs)


def test_a_generation_prompt_is_the_chat_then_end_of_turn_and_start_of_vision():
    tokenizer = tiny_tokenizer()
    expected = "<|im_start|>user\nA red block<|im_end|>\n<|im_start|>assistant\n<|im_end|><|vision_start|>"
    assert tokenizer.decode(tokenizer.prompt_ids("A red block"), skip_special=False) == expected
    with_system = tokenizer.decode(tokenizer.prompt_ids("A red block", "Paint."), skip_special=False)
    assert with_system == f"<|im_start|>system\nPaint.<|im_end|>\n{expected}"
    assert tokenizer.prompt_ids("") == [*tokenizer.chat([{"role": "user", "content": ""}]), tokenizer.eos_id, 3]


def test_pictures_have_their_places_in_the_chat():
    parts = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "video"}]
    assert tiny_tokenizer().render([{"role": "user", "content": parts}]) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>and<|vision_start|><|video_pad|><|vision_end|>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_pictures_in_a_chat_are_found_among_its_tokens():
    tokenizer = tiny_tokenizer()
    gray = np.full((4, 64, 96, 3), 128, dtype=np.uint8)
    eyes = replace(QWEN_EYES, image_area=(1024, 65536), video_area=(1024, 65536))
    looks = [look_at_image(gray[0], eyes), look_at_video(gray, [0.0, 0.5, 1.0, 1.5], eyes)]
    parts = [{"type": "image"}, {"type": "text", "text": "then"}, {"type": "video"}]
    ids = tokenizer.encode(expand(tokenizer.render([{"role": "user", "content": parts}]), looks))
    pads = {"image_id": tokenizer.id("<|image_pad|>"), "video_id": tokenizer.id("<|video_pad|>")}
    spans = visual_spans(ids, looks, **pads)
    assert [(span.rows, span.cols) for span in spans] == [(2, 3)] * 3
    assert all(ids[span.start - 1] == tokenizer.id("<|vision_start|>") for span in spans)
    assert all(ids[span.start + 6] == tokenizer.id("<|vision_end|>") for span in spans)
    assert tokenizer.decode(ids[: spans[1].start]).endswith("then<0.2 seconds>")
    positions, following = reason_positions(len(ids), spans)
    assert positions[:, -1].tolist() == [following - 1] * 3
    assert following == len(ids) - 3 * (6 - 3)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_every_text_survives_its_ids(text):
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


def test_training_is_repeatable_and_stays_within_the_size():
    texts = ["a block moves left", "a block moves right", "left and right"] * 3
    first, second = (train_tokenizer(texts, 300) for _ in range(2))
    assert first.files == second.files
    assert 263 < first.size <= 300
    with pytest.raises(SettingsError, match="take 263"):
        train_tokenizer(texts, 262)


def test_a_folder_is_written_as_it_was_read(tmp_path):
    folder = tiny_tokenizer_folder(tmp_path / "a", template=THINKING_TEMPLATE, config={"anything": [1.50, "x"]})
    (folder / "special_tokens_map.json").write_text('{"unk_token":  "<|endoftext|>"}')
    tokenizer = TextTokenizer.from_folder(folder)
    tokenizer.to_folder(tmp_path / "b")
    written = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert written == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert tokenizer.special == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def test_a_template_inside_the_configuration_is_read(tmp_path):
    folder = tiny_tokenizer_folder(tmp_path, config={"chat_template": "{{ messages[0].content }}!"})
    (folder / "chat_template.jinja").unlink()
    assert TextTokenizer.from_folder(folder).render([{"role": "user", "content": "hi"}]) == "hi!"


def test_a_prompt_that_is_too_long_is_refused_not_cut():
    tokenizer = tiny_tokenizer()
    frame = len(tokenizer.chat([{"role": "user", "content": ""}]))
    fitting = "é" * ((LONGEST_PROMPT - frame) // len(tokenizer.encode("é")))
    assert len(tokenizer.prompt_ids(fitting)) <= LONGEST_PROMPT + 2
    with pytest.raises(RequestError, match=f"at most {LONGEST_PROMPT} fit"):
        tokenizer.prompt_ids(fitting + "é" * frame)


def test_a_template_that_refuses_says_why(tmp_path):
    tokenizer = TextTokenizer.from_folder(tiny_tokenizer_folder(tmp_path, template=THINKING_TEMPLATE))
    with pytest.raises(RequestError, match=r"refused the messages: System message must be first\."):
        tokenizer.render([CONVERSATION[1], CONVERSATION[0]])


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ lipsum.__globals__['os'].getcwd() }}",
        "{{ self._TemplateReference__context.name }}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path, attack):
    tokenizer = TextTokenizer.from_folder(tiny_tokenizer_folder(tmp_path, template=attack))
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(RequestError, match="refused the messages"):
        tokenizer.render(messages)
    assert messages == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "No tokenizer.json"),
        ("tokenizer_config.json", None, "No tokenizer_config.json"),
        ("chat_template.jinja", None, "Prompts have no form"),
        ("tokenizer.json", "{}", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", "[]", "holds a list"),
        ("tokenizer_config.json", '{"eos_token": null}', "declares no eos_token"),
        ("chat_template.jinja", "\n{% if %}", "broken at line 2"),
        (
            "tokenizer_config.json",
            json.dumps({"eos_token": "<|im_end|>", "added_tokens_decoder": {"9": {"content": "<|im_end|>"}}}),
            "the id 9, tokenizer.json has 2",
        ),
    ],
)
def test_damaged_folders_are_refused(tmp_path, name, content, message):
    folder = tiny_tokenizer_folder(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        TextTokenizer.from_folder(folder)


def test_a_token_that_does_not_exist_is_named():
    with pytest.raises(CheckpointError, match=r"no token '<\|sound\|>'"):
        tiny_tokenizer().id("<|sound|>")


def test_digits_stand_one_by_one_where_asked():
    texts = ["the cube lies at (312, 405)", "at (312, 405)"] * 20
    single, joined = train_tokenizer(texts, 300, digits=True), train_tokenizer(texts, 300)
    read = [single.decode([token]) for token in single.encode("at (312, 405)")]
    assert [piece for piece in read if piece.isdecimal()] == list("312405")
    assert len(joined.encode("(312, 405)")) < len(single.encode("(312, 405)"))
    assert single.decode(single.encode("12 345,6")) == "12 345,6"


@pytest.mark.parametrize("text", ["", "a cube", "a cube " * 9, "a cube " * 40])
def test_padded_prompts_have_few_lengths_and_end_as_all_do(text):
    plain, padded = train_tokenizer(TEXTS, 300), train_tokenizer(TEXTS, 300, pad_to=32)
    ids, longer = plain.prompt_ids(text), padded.prompt_ids(text)
    pads = len(longer) - len(ids)
    assert len(longer) % 32 == 0
    assert 0 <= pads < 32
    assert longer == [*ids[:-2], *[padded.id("<|endoftext|>")] * pads, *ids[-2:]]
    assert padded.chat([{"role": "user", "content": text}]) == plain.chat([{"role": "user", "content": text}])


def test_the_padding_is_part_of_the_files(tmp_path):
    made = train_tokenizer(TEXTS, 300, pad_to=32)
    made.to_folder(tmp_path)
    assert TextTokenizer.from_folder(tmp_path).pad_to == 32
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for change, message in (
        ({"pad_to": 0}, "multiples of 0"),
        ({"pad_to": True}, "True"),
        ({"pad_token": None}, "pad"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            TextTokenizer.from_folder(tmp_path)
    with pytest.raises(SettingsError, match="got 0"):
        train_tokenizer(TEXTS, 300, pad_to=0)
