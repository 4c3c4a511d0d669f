"""Attention over packed samples: none sees another, and no padding is computed."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


def rotary(
    positions: Float[Tensor, "3 L"], head_width: int, theta: float, axes: tuple[int, int, int], dtype: torch.dtype
) -> tuple[Float[Tensor, "L 1 E"], Float[Tensor, "L 1 E"]]:
    """Cosines and sines of the interleaved three-axis rotary embedding.

    Frequency i turns with time, but 1, 4, 7, ... with rows and 2, 5, 8, ... with columns, to three times their share.
    Angles are float32 products, never a matrix product: at position 15,000 a bfloat16 or TF32 angle loses its order.
    """
    frequencies, axis = _frequencies(head_width, theta, axes, positions.device)
    angles = positions[axis].T * frequencies  # (L, E / 2)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


# Kept: training records its calls on the device, where nothing may be copied from the CPU meanwhile.
@cache
def _frequencies(
    head_width: int, theta: float, axes: tuple[int, int, int], device: torch.device
) -> tuple[Float[Tensor, " half"], Int[Tensor, " half"]]:
    """Frequencies, and the axis that each turns with."""
    # On the CPU first: the frequencies must be the same bits on every device.
    frequencies = 1.0 / (theta ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width))
    axis = torch.zeros(head_width // 2, dtype=torch.long)
    axis[1 : 3 * axes[1] : 3] = 1
    axis[2 : 3 * axes[2] : 3] = 2
    return frequencies.to(device), axis.to(device)


def rotate(
    x: Float[Tensor, "L N E"], rope: tuple[Float[Tensor, "L 1 E"], Float[Tensor, "L 1 E"]]
) -> Float[Tensor, "L N E"]:
    """Turn each half-split pair (i, i + E / 2) of every head by its angle."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def attend(
    queries: Float[Tensor, "Lq N E"],
    keys: Float[Tensor, "Lk K E"],
    values: Float[Tensor, "Lk K E"],
    lengths: Sequence[int],
    key_lengths: Sequence[int],
    *,
    causal: bool,
) -> Float[Tensor, "Lq N*E"]:
    """Softmax attention within each sample, at scale 1 / sqrt(E); query head n reads key head n // (N / K).

    Args:
        queries: samples end to end, `lengths` tokens each.
        keys, values: samples end to end, `key_lengths` tokens each.
        causal: a sample's last query sees all its keys, the one before it one fewer, and so on.
    """
    if len(set(lengths)) == len(set(key_lengths)) == 1:
        # Samples of one shape need no cutting: one batched call.
        q, k, v = (rearrange(x, "(b l) n e -> b n l e", b=len(lengths)) for x in (queries, keys, values))
        return rearrange(_attend_batch(q, k, v, causal), "b n l e -> (b l) (n e)")
    out = []
    for q, k, v in zip(
        queries.split(list(lengths)), keys.split(list(key_lengths)), values.split(list(key_lengths)), strict=True
    ):
        q, k, v = (rearrange(x, "l n e -> 1 n l e") for x in (q, k, v))
        out.append(rearrange(_attend_batch(q, k, v, causal), "1 n l e -> l (n e)"))
    return torch.cat(out)


def _attend_batch(
    q: Float[Tensor, "B N Lq E"], k: Float[Tensor, "B K Lk E"], v: Float[Tensor, "B K Lk E"], causal: bool
) -> Float[Tensor, "B N Lq E"]:
    mask = None
    if causal and 1 < q.shape[2] < k.shape[2]:
        # `is_causal` aligns the first query with the first key; a continued sequence aligns the last ones.
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    square = causal and q.shape[2] == k.shape[2] > 1
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=square, enable_gqa=q.shape[1] != k.shape[1]
    )
