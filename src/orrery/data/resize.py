"""Change the sizes of given pictures: cover and crop for generation tasks, the padded canvas for action tasks.

Which size to aim at is arithmetic in `tasks.canvas`; this applies it to pixels. The filters are the antialiased
bilinear and bicubic ones that released models were trained with; they agree with those of PyTorch and Pillow.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from orrery.tasks.canvas import ActionCanvas, cover_crop

Filter = Literal["bilinear", "bicubic"]


def cover(frames: UInt8[np.ndarray, "T h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "T H W 3"]:
    """Scale to cover `size` (H, W), bilinear, then cut out the middle. For generation tasks (tokenizers.md 1.3)."""
    plan = cover_crop(frames.shape[1:3], size)
    scaled = resize(frames, (plan.resized_height, plan.resized_width), "bilinear")
    return np.ascontiguousarray(scaled[:, plan.top : plan.top + plan.height, plan.left : plan.left + plan.width])


def onto_canvas(frames: UInt8[np.ndarray, "T h w 3"], canvas: ActionCanvas) -> UInt8[np.ndarray, "T H W 3"]:
    """Scale down to the content, bicubic, never up, then pad right and bottom. For action tasks (actions.md 6)."""
    scaled = resize(frames, (canvas.content_height, canvas.content_width), "bicubic")
    below, beside = canvas.height - canvas.content_height, canvas.width - canvas.content_width
    mode: Literal["edge", "reflect"] = "edge" if canvas.pad == "edge" else "reflect"
    return np.pad(scaled, ((0, 0), (0, below), (0, beside), (0, 0)), mode=mode)


def resize(frames: UInt8[np.ndarray, "T h w 3"], size: tuple[int, int], kind: Filter) -> UInt8[np.ndarray, "T H W 3"]:
    """Resize to `size` (H, W) and round to whole shades; the frames themselves where nothing changes."""
    if frames.shape[1:3] == size:
        return frames
    out = np.empty((len(frames), *size, 3), np.uint8)
    for frame, place in zip(frames, out, strict=True):
        # Bicubic overshoots at edges; 0 and 255 are where shades end. Halves go to even, as round() does elsewhere.
        place[:] = np.clip(np.rint(resize_exact(frame, size, kind)), 0, 255).astype(np.uint8)
    return out


def resize_exact(
    frame: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], kind: Filter
) -> Float32[np.ndarray, "H W 3"]:
    """One resized frame before rounding, in shades: width first, then height."""
    (height, width, _), (H, W) = frame.shape, size
    across, down = weights(width, W, kind), weights(height, H, kind)
    narrow = across @ frame.astype(np.float32)  # (h, W, 3)
    return (down @ narrow.reshape(height, W * 3)).reshape(H, W, 3)


def weights(given: int, wanted: int, kind: Filter) -> Float32[np.ndarray, "wanted given"]:
    """How much of each of `given` samples goes into each of `wanted`; rows sum to 1.

    The filter is widened by the factor of the reduction, so that nothing is skipped, and is cut off at the border.
    Bicubic is Keys' kernel with a = -1/2. Source: R. Keys, "Cubic convolution interpolation for digital image
    processing", 1981; the widening is that of Pillow's resampling.
    """
    scale = given / wanted
    stretch = max(scale, 1.0)
    support = (1.0 if kind == "bilinear" else 2.0) * stretch
    rows = np.zeros((wanted, given))
    for i in range(wanted):
        centre = (i + 0.5) * scale
        first, last = max(0, math.floor(centre - support + 0.5)), min(given, math.floor(centre + support + 0.5))
        rows[i, first:last] = kernel((np.arange(first, last) + 0.5 - centre) / stretch, kind)
    return (rows / rows.sum(1, keepdims=True)).astype(np.float32)


def kernel(distance: np.ndarray, kind: Filter) -> np.ndarray:
    d = np.abs(distance)
    if kind == "bilinear":
        return np.maximum(1 - d, 0)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0))
