"""Kernels that attention can run on, and which of them is the fastest for a shape on a device.

All of them compute softmax(q k / sqrt(E)) v without a mask; `exact` to bfloat16 rounding, `eight_bit` at a price.
"""

import importlib.util
from collections.abc import Callable
from functools import cache

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
EIGHT_BIT_FROM = 8192
"""Queries from which 8 bits are faster, rounding included: docs/performance.md."""
FLASH_WIDTHS = (64, 128)
"""Of heads: those of the released families and of Pico, among what the package is built for, in bfloat16 alone."""
FLASH = "fa3_fwd_interface"
"""Module of the package fa3-fwd: the forward kernels of FlashAttention 3 (arXiv:2407.08608)."""


Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (B, Lq, N, E), keys and values (B, Lk, K, E) -> (B, Lq, N, E); query head n reads key head n // (N / K)."""


def exact(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """The fastest kernel that is exact."""
    if q.device.type != "cuda" or q.dtype == torch.float32:
        return torch_choice(q, k, v)
    if q.shape[1] >= FLASH_FROM and _fits_flash(q):
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


def eight_bit(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """FlashAttention 3 on e4m3 for long sequences, where it pays; the result is in bfloat16. Shorter ones are exact.

    Raises:
        SettingsError: the package fa3-fwd is missing, or the device is no Hopper card.
    """
    if not has_flash(q.device):
        raise SettingsError(
            f"Attention in 8 bits needs a Hopper card and the package fa3-fwd; the device is {q.device}. "
            "Install orrery[hopper], or use exact attention."
        )
    if q.shape[1] < EIGHT_BIT_FROM or not _fits_flash(q):
        return exact(q, k, v)
    from fa3_fwd_interface import flash_attn_func

    *rounded, of_q, of_k, of_v = in_eight_bits(q, k, v)
    return _only(flash_attn_func(*rounded, q_descale=of_q, k_descale=of_k, v_descale=of_v))


def emulated_eight_bit(
    q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]
) -> Tensor:
    """Exact attention over the rounded values, of any length and on any device: what rounding costs."""
    *rounded, of_q, of_k, of_v = in_eight_bits(q, k, v)
    factors = (of_q, of_k, of_v)
    back = [x.float() * factor[:, None, :1, None] for x, factor in zip(rounded, factors, strict=True)]
    return torch_choice(*back).to(q.dtype)


def in_eight_bits(
    q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]
) -> tuple[Tensor, ...]:
    """Queries, keys and values in e4m3, then the factor of each for every sample and key head, a power of two.

    One factor serves a whole tensor: e4m3 keeps its relative precision over 14 octaves, so that smaller heads lose
    nothing. Keys are first taken from their mean over a sample's tokens: that moves all scores of a query alike, which
    softmax does not see, and leaves less to round (arXiv:2411.10958, section 3.1).
    """
    # Sums over all tokens as PyTorch makes them, which is faster than what its compiler makes of them.
    mean = k.mean(dim=1, keepdim=True)
    factors = [_factor(x) for x in (q, k - mean, v)]
    rounding = _compiled_rounding() if q.is_cuda else _rounded
    return (
        rounding(q, None, factors[0]),
        rounding(k, mean, factors[1]),
        rounding(v, None, factors[2]),
        *(factor.expand(q.shape[0], k.shape[2]).contiguous() for factor in factors),
    )


def _factor(x: Tensor) -> Float[Tensor, ""]:
    largest = torch.linalg.vector_norm(x, float("inf")).float()
    return torch.exp2(torch.ceil(torch.log2(largest.clamp(min=TINIEST) / LARGEST)))


def _rounded(x: Tensor, less: Tensor | None, factor: Tensor) -> Tensor:
    x = x.float() if less is None else (x - less).float()
    return (x / factor).to(torch.float8_e4m3fn)


@cache
def _compiled_rounding() -> Callable[[Tensor, Tensor | None, Tensor], Tensor]:
    return torch.compile(_rounded, dynamic=True)


def _only(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    return found[0] if isinstance(found, tuple) else found


def _fits_flash(q: Float[Tensor, "B Lq N E"]) -> bool:
    return q.dtype == torch.bfloat16 and q.shape[3] in FLASH_WIDTHS and has_flash(q.device)


@cache
def has_flash(device: torch.device) -> bool:
    """Whether FlashAttention 3 is there, and the device a card that it is made for."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != 9:
        return False
    return importlib.util.find_spec(FLASH) is not None
