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
LARGEST = 448.0
"""Of e4m3."""
TINIEST = 1e-12
"""Instead of the scale of a row of zeros."""


class Matrix(NamedTuple):
    """A weight (out, in)."""

    weight: Tensor
    scales: Tensor | None
    """(1, out) float32 where the weight is in 8 bits."""


def matrix(weight: Float[Tensor, "O I"], linears: Linears) -> Matrix:
    """A weight in the asked arithmetic; the exact one is the weight itself, not a copy."""
    if linears == "exact":
        return Matrix(weight=Parameter(weight, requires_grad=False), scales=None)
    eight, scales = eight_bits(weight)
    return Matrix(weight=Parameter(eight, requires_grad=False), scales=Parameter(scales.T, requires_grad=False))


def eight_bits(x: Float[Tensor, "L I"]) -> tuple[Float8e4m3fn[Tensor, "L I"], Float[Tensor, "L 1"]]:
    """Rows in e4m3, and the float32 that each row is to be multiplied by."""
    scales = (x.float().abs().amax(dim=-1, keepdim=True) / LARGEST).clamp(min=TINIEST)
    return (x.float() / scales).to(torch.float8_e4m3fn), scales


def multiply(x: Float[Tensor, "L I"], by: Matrix) -> Float[Tensor, "L O"]:
    """x times the transposed weight, in the type of x."""
    if by.scales is None:
        return F.linear(x, by.weight)
    eight, scales = eight_bits(x)
    if x.is_cuda:
        return torch._scaled_mm(
            eight, by.weight.T, scale_a=scales, scale_b=by.scales, out_dtype=torch.bfloat16, use_fast_accum=True
        ).to(x.dtype)
    # The same numbers but for the order of the sums, where no such product exists.
    return ((eight.float() @ by.weight.float().T) * scales * by.scales).to(x.dtype)
