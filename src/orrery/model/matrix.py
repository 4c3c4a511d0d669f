"""Weight matrices as the fast path multiplies by them: as they are, or in 8 bits (e4m3) with a scale for each row.

The 8-bit product is opt-in: each row of the input gets the scale that takes its largest value to the largest number of
the format, found anew at every call, and so does each row of the weight, once.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float8e4m3fn
from torch import Tensor
from torch.nn import Parameter

Linears = Literal["exact", "fp8"]
FP8_FROM = (8, 9)
"""The first compute capability with products in e4m3."""
LARGEST = 448.0
"""Of e4m3."""
SCALES_INSIDE_FROM = 1024
"""Rows from which the product multiplies by the scales itself. Below, cuBLAS is faster without, by a quarter at 300
rows (docs/log.md), and what follows multiplies by them when it reads the product."""
TINIEST = 1e-12
"""Instead of the scale of a row of zeros."""


class Eight(NamedTuple):
    """Scales of a weight in 8 bits."""

    rows: Tensor
    """(out,) float32."""
    one: Tensor
    """() float32, which the product without scales wants all the same."""


class Matrix(NamedTuple):
    """A weight (out, in)."""

    weight: Tensor
    eight: Eight | None
    """None where the weight is as it was."""


def matrix(weight: Float[Tensor, "O I"], linears: Linears) -> Matrix:
    """A weight in the asked arithmetic; the exact one is the weight itself, not a copy."""
    if linears == "exact":
        return Matrix(_fixed(weight), None)
    eight, scales = eight_bits(weight)
    return Matrix(_fixed(eight), Eight(_fixed(scales[:, 0]), _fixed(torch.ones((), device=weight.device))))


def _fixed(x: Tensor) -> Parameter:
    # Parameters have sizes that never change for the compiler, which otherwise makes kernels for any size.
    return Parameter(x, requires_grad=False)


def eight_bits(x: Float[Tensor, "L I"]) -> tuple[Float8e4m3fn[Tensor, "L I"], Float[Tensor, "L 1"]]:
    """Rows in e4m3, and the float32 that each row is to be multiplied by."""
    scales = (x.float().abs().amax(dim=-1, keepdim=True) / LARGEST).clamp(min=TINIEST)
    return (x.float() / scales).to(torch.float8_e4m3fn), scales


def multiply(x: Float[Tensor, "L I"], by: Matrix) -> Float[Tensor, "L O"]:
    """x times the transposed weight, in the type of x."""
    if by.eight is None:
        return F.linear(x, by.weight)
    eight, scales = eight_bits(x)
    if x.is_cuda and x.dtype == torch.bfloat16 and len(x) >= SCALES_INSIDE_FROM:
        return torch._scaled_mm(
            eight,
            by.weight.T,
            scale_a=scales,
            scale_b=by.eight.rows[None],
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
    if x.is_cuda:
        one = by.eight.one
        found = torch._scaled_mm(
            eight, by.weight.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    else:  # the same numbers but for the order of the sums, where no such product exists
        found = (eight.float() @ by.weight.float().T).bfloat16()
    return (found.float() * scales * by.eight.rows).to(x.dtype)
