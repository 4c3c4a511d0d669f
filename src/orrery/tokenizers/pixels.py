"""What every vision codec asks of pixel frames, and the map between bytes and [-1, 1]."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from orrery.errors import MediaError


def latent_frames(frames: int, temporal: int) -> int:
    """How many latent frames a clip has: the first frame alone fills one, then each `temporal` frames fill one.

    Raises:
        MediaError: the count is not 1 + temporal * k; both neighbours that are, are named.
    """
    over = (frames - 1) % temporal
    if frames < 1 or over:
        below, above = frames - over, frames - over + temporal
        nearest = f"{below} or {above}" if below >= 1 else "1"
        raise MediaError(f"A clip needs 1 + {temporal} k frames, got {frames}. The nearest such count is {nearest}.")
    return 1 + (frames - 1) // temporal


def check_size(height: int, width: int, spatial: int) -> None:
    """Refuse a picture whose sides are not multiples of `spatial`.

    Raises:
        MediaError: names the side, its length and the nearest lengths that fit.
    """
    for side, length in (("height", height), ("width", width)):
        if length < 1 or length % spatial:
            below = length // spatial * spatial
            nearest = f"{below} or {below + spatial}" if below >= 1 else f"{spatial}"
            raise MediaError(f"The {side} must be a multiple of {spatial}, got {length}. The nearest are {nearest}.")


def signed_from_pixels(pixels: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "3 T H W"]:
    """Bytes to float32 in [-1, 1] as x / 127.5 - 1."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(pixels)), "t h w c -> c t h w").float() / 127.5 - 1


def pixels_from_signed(signed: Float[Tensor, "3 T H W"]) -> UInt8[np.ndarray, "T H W 3"]:
    """The nearest bytes; what lies outside [-1, 1] is cut off, as generated values may. Undoes `signed_from_pixels`."""
    levels = ((signed.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array: UInt8[np.ndarray, "T H W 3"] = rearrange(levels, "c t h w -> t h w c").contiguous().cpu().numpy()
    return array
