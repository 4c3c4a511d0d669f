"""Kernels that attention can run on, and which of them is the fastest for a shape on a device.

All of them compute softmax(q k / sqrt(E)) v without a mask, to bfloat16 rounding, except `eight_bit`, which is priced.
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

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (B, Lq, N, E), keys and values (B, Lk, K, E) -> (B, Lq, N, E); query head n reads key head n // (N / K)."""

FLASH_FROM = 8192
"""Queries from which FlashAttention 4 is faster than cuDNN on a Hopper card: docs/performance.md."""


def exact(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """The fastest kernel that is exact."""
    if q.device.type != "cuda" or q.dtype == torch.float32:
        return torch_choice(q, k, v)
    if q.shape[1] >= FLASH_FROM and has_flash4(q.device):
        return flash4(q, k, v)
    return cudnn(q, k, v)


def torch_choice(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """Whatever PyTorch takes for the device and the type."""
    q, k, v = (rearrange(x, "b l n e -> b n l e") for x in (q, k, v))
    found = F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
    return rearrange(found, "b n l e -> b l n e")


def cudnn(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """cuDNN's, by way of PyTorch."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return torch_choice(q, k, v)


def flash4(q: Float[Tensor, "B Lq N E"], k: Float[Tensor, "B Lk K E"], v: Float[Tensor, "B Lk K E"]) -> Tensor:
    """FlashAttention 4 of the package flash-attn-4; its first call for a shape compiles for some 10 s."""
    from flash_attn.cute import flash_attn_func

    found = flash_attn_func(q, k, v)
    return found[0] if isinstance(found, tuple) else found


@cache
def has_flash4(device: torch.device) -> bool:
    """Whether `flash4` can run here."""
    if torch.cuda.get_device_capability(device)[0] < 9:
        return False
    try:
        return importlib.util.find_spec("flash_attn.cute") is not None
    except ModuleNotFoundError:
        return False
