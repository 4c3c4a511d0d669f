"""Writing text token by token: penalties, sampling, stop strings and streaming.

The model is an argument, a function from further tokens to the logits after the last one; its key-value cache and the
pictures in the prompt are the caller's. So is the tokenizer, of which only decoding is needed.
"""

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from orrery.errors import CheckpointError, RequestError

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are not a character yet."""

COLDEST = 1e-5
"""The lowest temperature other than 0; dividing float32 by less comes to nothing but overflow."""


NextLogits: TypeAlias = Callable[[Sequence[int]], Float[Tensor, " V"]]
"""One step of a model with a cache: takes in further tokens, gives the logits of what follows the last one."""


@dataclass(frozen=True, kw_only=True)
class TextSampling:
    """How the next token is chosen. The defaults are greedy."""

    max_new_tokens: int = 1024
    temperature: float = 0.0
    """0 takes the likeliest token and leaves top_k and top_p aside."""
    top_k: int | None = None
    """Only so many of the likeliest tokens; None for all."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that together reach this probability."""
    repetition_penalty: float = 1.0
    """Logits of tokens in the prompt or the output are divided by it if positive, multiplied if negative."""
    presence_penalty: float = 0.0
    """Taken from the logits of tokens in the output."""
    stop: tuple[str, ...] = ()
    """Texts before which the output ends; they are not part of it."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise RequestError(f"max_new_tokens must be 1 or more, got {self.max_new_tokens}.")
        if self.temperature != 0 and not COLDEST <= self.temperature < float("inf"):
            raise RequestError(f"temperature must be 0 (greedy), or {COLDEST} or more, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise RequestError(f"top_k must be 1 or more, got {self.top_k}. Leave it out to sample from all tokens.")
        if not 0 < self.top_p <= 1:
            raise RequestError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if not 0 < self.repetition_penalty < float("inf"):
            raise RequestError(f"repetition_penalty must be above 0, got {self.repetition_penalty}.")
        if not abs(self.presence_penalty) < float("inf"):
            raise RequestError(f"presence_penalty must be finite, got {self.presence_penalty}.")
        if "" in self.stop:
            raise RequestError("An empty stop text would end every output at once. Leave it out.")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a model wrote and why it ended."""

    text: str
    """Without special tokens and without the stop text."""
    token_ids: tuple[int, ...]
    """Every token chosen, the ending one and those of the stop text included."""
    ended: Literal["eos", "stop", "length"]


def write(
    next_logits: NextLogits,
    prompt_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    sampling: TextSampling,
    *,
    eos_ids: Collection[int],
    rng: torch.Generator,
) -> Written:
    """As `stream`, all at once."""
    pieces = stream(next_logits, prompt_ids, decode, sampling, eos_ids=eos_ids, rng=rng)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            written: Written = end.value
            return written


def stream(
    next_logits: NextLogits,
    prompt_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    sampling: TextSampling,
    *,
    eos_ids: Collection[int],
    rng: torch.Generator,
) -> Generator[str, None, Written]:
    """Continue a prompt until it ends by itself, at a stop text or at the longest length.

    Args:
        next_logits: called with the whole prompt first and then with one chosen token at a time.
        prompt_ids: the prompt; the repetition penalty counts its tokens, too.
        decode: the text of token ids, without special tokens.
        sampling: how tokens are chosen.
        eos_ids: tokens that end the output.
        rng: of the CPU, so that a seed means the same on every device. Unused when greedy.

    Yields:
        Pieces of text that together are the result's text: whole characters, and nothing that might belong to a stop
        text yet.

    Raises:
        CheckpointError: the model's logits are not numbers.
    """
    output: list[int] = []
    spelled = Speller(decode)
    text = ""
    shown = 0
    ended: Literal["eos", "stop", "length"] = "length"
    logits = next_logits(prompt_ids)
    while True:
        token = choose(logits, prompt_ids, output, sampling, rng)
        output.append(token)
        if token in eos_ids:
            ended = "eos"
            break
        # A stop text may have begun in what was held back, never in what was shown.
        text += spelled.add(token)
        if (stop := first_stop(text, shown, sampling.stop)) is not None:
            text, ended = text[:stop], "stop"
            break
        if len(output) == sampling.max_new_tokens:
            break
        if piece := text[shown : len(text) - held_back(text, shown, sampling.stop)]:
            yield piece
            shown += len(piece)
        logits = next_logits([token])
    if ended != "stop":
        text += spelled.rest()
        if (stop := first_stop(text, shown, sampling.stop)) is not None:
            text, ended = text[:stop], "stop"
    if piece := text[shown:]:
        yield piece
    return Written(text=text, token_ids=tuple(output), ended=ended)


def choose(
    logits: Float[Tensor, " V"],
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    sampling: TextSampling,
    rng: torch.Generator,
) -> int:
    """The next token: penalties, then the likeliest, or temperature, top-k, top-p and a draw, in this order.

    Raises:
        CheckpointError: the logits are not numbers.
    """
    scores = logits.detach().float().cpu()
    if scores.isnan().any() or scores.max().isinf():
        raise CheckpointError("The model's logits are not numbers. Its weights or its number type cannot be used.")
    scores = penalised(scores, prompt_ids, output_ids, sampling)
    if sampling.temperature == 0:
        return int(scores.argmax())
    # Relative to the best one, so that no temperature overflows.
    scores = (scores - scores.max()) / sampling.temperature
    if sampling.top_k is not None:
        scores = keep_top_k(scores, sampling.top_k)
    return int(torch.multinomial(keep_top_p(scores, sampling.top_p).softmax(-1), 1, generator=rng))


def penalised(
    logits: Float[Tensor, " V"], prompt_ids: Sequence[int], output_ids: Sequence[int], sampling: TextSampling
) -> Float[Tensor, " V"]:
    """Make tokens that were used less likely, each once however often it was used.

    Source: CTRL (arXiv:1909.05858), section 4.1, for the repetition penalty, with the sign taken into account.
    """
    scores = logits.clone()
    used = torch.tensor(sorted({*prompt_ids, *output_ids}), dtype=torch.long)
    factor = sampling.repetition_penalty
    scores[used] = torch.where(scores[used] < 0, scores[used] * factor, scores[used] / factor)
    scores[torch.tensor(sorted(set(output_ids)), dtype=torch.long)] -= sampling.presence_penalty
    return scores


def keep_top_k(scores: Float[Tensor, " V"], k: int) -> Float[Tensor, " V"]:
    """Minus infinity for all but the `k` highest; ties with the last of them stay."""
    lowest = scores.topk(min(k, len(scores))).values[-1]
    return scores.masked_fill(scores < lowest, float("-inf"))


def keep_top_p(scores: Float[Tensor, " V"], p: float) -> Float[Tensor, " V"]:
    """Minus infinity for all but the fewest highest whose softmax reaches `p` together; at least one stays.

    Source: nucleus sampling (arXiv:1904.09751).
    """
    if p == 1:
        return scores
    ordered, order = scores.sort(descending=True)
    probabilities = ordered.softmax(-1)
    beyond = probabilities.cumsum(-1) - probabilities >= p
    beyond[0] = False
    return scores.masked_fill(torch.zeros_like(beyond).scatter(0, order, beyond), float("-inf"))


class Speller:
    """Token by token text of which every piece is final: bytes wait until they make a character."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self.decode = decode
        self.before: list[int] = []
        """The tokens of the last piece: some decoders treat the very first token differently from later ones."""
        self.waiting: list[int] = []

    def add(self, token: int) -> str:
        """The text that `token` completes, often none."""
        self.waiting.append(token)
        piece = self.piece()
        if not piece or piece.endswith(INCOMPLETE):
            return ""
        self.before, self.waiting = self.waiting, []
        return piece

    def rest(self) -> str:
        """What still waits, incomplete characters included. Call it at the end."""
        return self.piece() if self.waiting else ""

    def piece(self) -> str:
        return self.decode(self.before + self.waiting)[len(self.decode(self.before)) :]


def first_stop(text: str, start: int, stops: Sequence[str]) -> int | None:
    """Where the first of `stops` begins in `text` from `start` on."""
    places = [place for stop in stops if (place := text.find(stop, start)) >= 0]
    return min(places, default=None)


def held_back(text: str, start: int, stops: Sequence[str]) -> int:
    """How many characters at the end of `text`, after `start`, could be the beginning of one of `stops`."""
    longest = min(max(map(len, stops), default=1) - 1, len(text) - start)
    for length in range(longest, 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
