"""Kernels that attention can run on, and which of them is the fastest for a shape on a device.

All of them compute softmax(q k / sqrt(E)) v without a mask; `exact` to bfloat16 rounding, `eight_bit` at a price.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from orrery.errors import SettingsError
from orrery.model.matrix import LARGEST, TINIEST

FLASH_FROM = 1024
"""Queries from which FlashAttention 3 is faster than cuDNN on a Hopper card: docs/performance.md."""
FLASH = "fa3_fwd_interface"
"""Module of the package fa3-fwd: the forward kernels of FlashAttention 3 (arXiv:2407.08608)."""


class Kernel(NamedTuple):
    """Attention in two halves: what looks at each value alone may be compiled with what made the values."""

    prepare: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
    run: Callable[..., Tensor]

    def __call__(
        self, q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]
    ) -> Float[Tensor, "B Lq N E"]:
        """Attend; query head n reads key head n // (N / K)."""
        return self.run(*self.prepare(q, k, v))


def as_they_are(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values."""
    return q, k, v


def fastest(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """The fastest kernel that is exact."""
    if q.device.type != "cuda" or q.dtype == torch.float32:
        return torch_choice(q, k, v)
    if q.shape[1] >= FLASH_FROM and has_flash(q.device):
        return flash(q, k, v)
    return cudnn(q, k, v)


def torch_choice(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """Whatever PyTorch takes for the device and the type."""
    q, k, v = (rearrange(x, "b l n e -> b n l e") for x in (q, k, v))
    found = F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
    return rearrange(found, "b n l e -> b l n e")


def cudnn(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """cuDNN's, by way of PyTorch; whatever PyTorch takes where cuDNN has none."""
    with sdpa_kernel(
        [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
        set_priority=True,
    ):
        return torch_choice(q, k, v)


def flash(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """FlashAttention 3."""
    from fa3_fwd_interface import flash_attn_func

    return _only(flash_attn_func(q, k, v))


def in_eight_bits(
    q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]
) -> tuple[Tensor, ...]:
    """Queries, keys and values in e4m3, then the factor of each for every sample and key head, a power of two.

    One factor serves a whole tensor: e4m3 keeps its relative precision over 14 octaves, so that smaller heads lose
    nothing. Keys are first taken from their mean over a sample's tokens: that moves all scores of a query alike, which
    softmax does not see, and leaves less to round (arXiv:2411.10958, section 3.1).
    """
    k = k - k.mean(dim=1, keepdim=True)
    rounded, factors = [], []
    for x in (q, k, v):
        factor = torch.exp2(torch.ceil(torch.log2(x.abs().amax().float().clamp(min=TINIEST) / LARGEST)))
        rounded.append((x.float() / factor).to(torch.float8_e4m3fn))
        factors.append(factor.expand(x.shape[0], k.shape[2]).contiguous())
    return (*rounded, *factors)


def flash_in_eight_bits(q: Tensor, k: Tensor, v: Tensor, of_q: Tensor, of_k: Tensor, of_v: Tensor) -> Tensor:
    """FlashAttention 3 on e4m3; the result is in bfloat16.

    Raises:
        SettingsError: the package fa3-fwd is missing, or the device is no Hopper card.
    """
    if not has_flash(q.device):
        raise SettingsError(
            f"Attention in 8 bits needs a Hopper card and the package fa3-fwd; the device is {q.device}. "
            "Install it, or use exact attention."
        )
    from fa3_fwd_interface import flash_attn_func

    return _only(flash_attn_func(q, k, v, q_descale=of_q, k_descale=of_k, v_descale=of_v))


def emulated_in_eight_bits(q: Tensor, k: Tensor, v: Tensor, of_q: Tensor, of_k: Tensor, of_v: Tensor) -> Tensor:
    """The same with exact products of the rounded values and float32 weights: what rounding costs, on any device."""
    back = [x.float() * factor[:, None, :1, None] for x, factor in ((q, of_q), (k, of_k), (v, of_v))]
    return torch_choice(*back)


exact = Kernel(as_they_are, fastest)
eight_bit = Kernel(in_eight_bits, flash_in_eight_bits)
emulated_eight_bit = Kernel(in_eight_bits, emulated_in_eight_bits)


def _only(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    return found[0] if isinstance(found, tuple) else found


@cache
def has_flash(device: torch.device) -> bool:
    """Whether FlashAttention 3 is there, and the device a card that it is made for."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != 9:
        return False
    return importlib.util.find_spec(FLASH) is not None
