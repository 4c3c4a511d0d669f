"""Matrices in 8 bits: each row as whole numbers from -127 to 127 and one float32 scale beside them.

A row is all that the last axis holds, of tables of matrices as of matrices.

A quarter of the bytes of float32, and an error of at most half a step, max|row| / 254. What is written is a tensor
`NAME` of int8 and its scales `NAME.rows`; `reader.load_into` undoes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int8
from torch import Tensor

ROWS = ".rows"
LEAST_VALUES = 4096
"""Matrices of fewer values stay as they are: together they weigh little."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EightBit:
    """A table of tensors as it is stored."""

    tensors: Mapping[str, Tensor]
    worst: tuple[str, float]
    """The matrix that rounding changes most, and by how much: the norm of the change over that of the matrix."""


def to_eight_bit(tensors: Mapping[str, Tensor]) -> EightBit:
    """Store every large matrix of floats, or table of them, in 8 bits; all other tensors stay as they are."""
    stored: dict[str, Tensor] = {}
    worst = ("none", 0.0)
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or not tensor.is_floating_point() or tensor.numel() < LEAST_VALUES:
            stored[name] = tensor
            continue
        matrix = tensor.detach().float()
        stored[name], stored[name + ROWS] = rounded(matrix)
        change = (restored(stored[name], stored[name + ROWS]) - matrix).norm() / matrix.norm().clamp(min=1e-30)
        worst = max(worst, (name, float(change)), key=lambda pair: pair[1])
    return EightBit(tensors=stored, worst=worst)


def as_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is read again of tensors that were stored by `to_eight_bit`."""
    stored = to_eight_bit(tensors).tensors
    return {
        name: restored(stored[name], stored[name + ROWS]) if name + ROWS in stored else stored[name] for name in tensors
    }


def rounded(matrix: Float32[Tensor, "*R C"]) -> tuple[Int8[Tensor, "*R C"], Float32[Tensor, "*R"]]:
    """The nearest whole multiples of each row's step, and the steps: max|row| / 127, of zeros the smallest there is."""
    steps = (matrix.abs().amax(dim=-1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (matrix / steps[..., None]).round().clamp(-127, 127).to(torch.int8), steps


def restored(whole: Int8[Tensor, "*R C"], steps: Float32[Tensor, "*R"]) -> Float32[Tensor, "*R C"]:
    """The matrix that `rounded` stored, up to half a step of each row."""
    return whole.float() * steps[..., None]
