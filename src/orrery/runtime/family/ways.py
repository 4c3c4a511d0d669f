"""Ways of ours to do the same work: the model as it is, made fast, and with products or attention in 8 bits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from orrery.model import reader
from orrery.model.attention_kernels import Kernel, eight_bit, exact
from orrery.model.denoiser import Denoiser
from orrery.model.matrix import Linears
from orrery.model.mot import LaysOut, MoT
from orrery.packing.pack import pack_text
from orrery.packing.segment import Sample
from orrery.runtime import reason
from orrery.runtime.decode import TextSampling, choose


@runtime_checkable
class Writes(Protocol):
    """What is asked of a reasoner: to read a prompt, and to write on."""

    def read(self, token_ids: Tensor) -> tuple[Any, Tensor]:
        """What it keeps of a prompt, and the scores (V,) of the token that follows."""
        ...

    def write(self, state: tuple[Any, Tensor], prompt_ids: Sequence[int], count: int) -> list[int]:
        """The likeliest `count` tokens, one after the other, after what `read` gave; it can be asked again."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Plain:
    """`runtime.reason`, as `orrery run` asks it."""

    mot: MoT

    @torch.no_grad()
    def read(self, token_ids: Tensor) -> tuple[reason.Reader, Tensor]:
        """As `Writes`."""
        sample = Sample(token_ids=token_ids)
        question = reason.Question(sample=sample, looks=(), next_position=len(token_ids))
        read = reason.Reader(mot=self.mot, question=question, sights=None)
        return read, read([])

    def write(self, state: tuple[reason.Reader, Tensor], prompt_ids: Sequence[int], count: int) -> list[int]:
        """As `Writes`."""
        read, scores = state
        again = reason.Reader(mot=self.mot, question=read.question, sights=None, memory=read.memory)
        return _greedy(scores, lambda token, _: again([token]), prompt_ids, count)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fast:
    """`model.reader`."""

    reader: reader.Reader

    @torch.no_grad()
    def read(self, token_ids: Tensor) -> tuple[Any, Tensor]:
        """As `Writes`."""
        memory = self.reader.read(pack_text([Sample(token_ids=token_ids)]))
        return memory, self.reader.mot.logits(memory.hidden[-1:])[0]

    def write(self, state: tuple[Any, Tensor], prompt_ids: Sequence[int], count: int) -> list[int]:
        """As `Writes`."""
        memory, scores = state
        writer = self.reader.begin(memory, count)
        first = len(prompt_ids)
        return _greedy(scores, lambda token, place: writer.take_in(token, float(first + place)), prompt_ids, count)


def _greedy(scores: Tensor, take_in: Callable[[int, int], Tensor], prompt_ids: Sequence[int], count: int) -> list[int]:
    written: list[int] = []
    rng = torch.Generator()
    while True:
        written.append(choose(scores, prompt_ids, written, TextSampling(), rng))
        if len(written) == count:
            return written
        scores = take_in(written[-1], len(written) - 1)


def _denoiser(linears: Linears, kernel: Kernel, mot: MoT) -> LaysOut:
    on_gpu = mot.embed.weight.is_cuda
    return Denoiser(mot, linears=linears, kernel=kernel, compiled=on_gpu, recorded=on_gpu)


def _reader(linears: Linears, mot: MoT) -> Writes:
    on_gpu = mot.embed.weight.is_cuda
    return Fast(reader=reader.Reader(mot, linears=linears, compiled=on_gpu, recorded=on_gpu))


DENOISERS: dict[str, Callable[[MoT], LaysOut]] = {
    "plain": lambda mot: mot,
    "exact": partial(_denoiser, "exact", exact),
    "fp8": partial(_denoiser, "fp8", exact),
    "8bit": partial(_denoiser, "fp8", eight_bit),
}
"""Ways to sample."""
WRITERS: dict[str, Callable[[MoT], Writes]] = {
    "plain": lambda mot: Plain(mot=mot),
    "exact": partial(_reader, "exact"),
    "fp8": partial(_reader, "fp8"),
}
"""Ways to read and write; attention in 8 bits is of the generation tower alone."""
EIGHT_BIT_LINEARS = {"fp8", "8bit"}
EIGHT_BIT_ATTENTION = {"8bit"}
