"""From pictures to what a vision encoder takes, and to the room and the positions they have in a reasoning prompt.

The steps in order: `look_at_image` or `look_at_video` cuts pixels into patches; `expand` gives each placeholder of a
rendered prompt one pad token per feature; `visual_spans` finds those runs among the token ids; `reason_positions`
numbers all tokens. Reading files is left to `data.media`, encoding the patches to `model.vision`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from orrery.errors import MediaError, RequestError

VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"

STEEPEST_ASPECT = 200
"""Longer strips than this are refused, as in Qwen-VL: resized, they would be one patch thin."""


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """How one family cuts pictures into patches. Areas are in pixels, those of a video over all frames together."""

    temporal_patch: int
    value_order: Literal["c t y x", "y x c t"]
    """Order of the values within a patch, the last one fastest."""
    enlarges_small_stills: bool
    """Bring stills to one merged patch a side before their area is weighed; videos always are."""
    patch: int = 16
    merge: int = 2
    image_area: tuple[int, int] = (256 * 256, 4096 * 4096)
    video_area: tuple[int, int] = (64 * 64, 24 * 1024 * 1024)
    video_frames: tuple[int, int] = (4, 768)
    """Fewest and most frames that are looked at. Where both are one number, shorter videos show frames twice."""
    mean: float = 0.5
    std: float = 0.5


QWEN_EYES = Eyes(temporal_patch=2, value_order="c t y x", enlarges_small_stills=False)
EDGE_EYES = Eyes(temporal_patch=1, value_order="y x c t", enlarges_small_stills=True)

PICO_EYES = Eyes(
    temporal_patch=2,
    value_order="c t y x",
    enlarges_small_stills=False,
    patch=8,
    image_area=(128 * 128, 128 * 128),
    video_area=(8 * 128 * 128, 8 * 128 * 128),
    video_frames=(8, 8),
)
"""Pictures of one area and videos of one length: 64 features a still and 4 x 64 a video, if they are square."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """One still or video, cut up."""

    kind: Literal["image", "video"]
    patches: Float[Tensor, "N V"]
    """In merge order: the patches of one feature are neighbours."""
    grid: tuple[int, int, int]
    """Temporal patches, rows and columns of patches; their product is N."""
    merge: int
    seconds: tuple[float, ...]
    """Mean time of the frames in each temporal patch of a video; empty for a still."""

    @property
    def features(self) -> tuple[int, int]:
        """Rows and columns of features in one temporal patch."""
        return self.grid[1] // self.merge, self.grid[2] // self.merge


@dataclass(frozen=True, kw_only=True)
class Span:
    """A run of rows x cols pad tokens, in the order of reading, that stand for one frame."""

    start: int
    rows: int
    cols: int


def look_at_image(picture: UInt8[np.ndarray, "H W 3"], eyes: Eyes) -> Look:
    """Cut a still. It is repeated to fill a temporal patch.

    Raises:
        MediaError: the picture is empty or far too narrow.
    """
    height, width = still_size(picture.shape[0], picture.shape[1], eyes)
    frames = np.repeat(resize(picture, height, width)[None], eyes.temporal_patch, axis=0)
    patches, grid = patchify(frames, eyes)
    return Look(kind="image", patches=patches, grid=grid, merge=eyes.merge, seconds=())


def look_at_video(frames: UInt8[np.ndarray, "T H W 3"], seconds: Sequence[float], eyes: Eyes) -> Look:
    """Cut frames that were already sampled; the last one is repeated where a temporal patch would stay unfilled.

    Args:
        frames: what `sample_frames` chose.
        seconds: time of each frame in the recording.

    Raises:
        MediaError: there are no frames, they are empty or far too narrow, or times are missing.
    """
    if not len(frames) or len(frames) != len(seconds):
        raise MediaError(f"A video needs frames with a time each, got {len(frames)} frames and {len(seconds)} times.")
    height, width = video_size(len(frames), frames.shape[1], frames.shape[2], eyes)
    missing = -len(frames) % eyes.temporal_patch
    resized = np.stack([resize(frame, height, width) for frame in frames])
    patches, grid = patchify(np.concatenate([resized, resized[-1:].repeat(missing, axis=0)]), eyes)
    times = [*seconds, *[seconds[-1]] * missing]
    groups = [times[start : start + eyes.temporal_patch] for start in range(0, len(times), eyes.temporal_patch)]
    # The first and the last frame only: what the released weights were shown, equal to the mean for even sampling.
    means = tuple((group[0] + group[-1]) / 2 for group in groups)
    return Look(kind="video", patches=patches, grid=grid, merge=eyes.merge, seconds=means)


def sample_frames(total: int, source_fps: float, eyes: Eyes, fps: float = 2.0) -> list[int]:
    """Indices of the frames of a recording to look at: evenly spread from the first to the last, about `fps` a second.

    Their number fills whole temporal patches, unless the recording is shorter than one. Eyes for one number of frames
    are given that many, some of them twice where the recording has fewer.

    Raises:
        MediaError: no frames, or frame rates that are not positive.
    """
    if total < 1 or not 0 < source_fps < math.inf or not 0 < fps < math.inf:
        raise MediaError(
            f"Cannot sample {total} frames of {source_fps} fps at {fps} fps: all must be positive and finite."
        )
    least, most = eyes.video_frames
    count = min(max(int(total / source_fps * fps), least), most, total)
    count = max(count // eyes.temporal_patch * eyes.temporal_patch, 1) if least < most else most
    return [int(index) for index in np.linspace(0, total - 1, count).round()]


def still_size(height: int, width: int, eyes: Eyes) -> tuple[int, int]:
    """Height and width to which a still is resized: whole merged patches, an area within the limits."""
    if eyes.enlarges_small_stills:
        height, width = enlarged(height, width, eyes.patch * eyes.merge)
    return whole_patches(1, 1, height, width, eyes.patch * eyes.merge, eyes.image_area)


def video_size(frames: int, height: int, width: int, eyes: Eyes) -> tuple[int, int]:
    """As `still_size`, for all frames of a video; the area of all of them counts."""
    height, width = enlarged(height, width, eyes.patch * eyes.merge)
    frames = max(frames, eyes.temporal_patch)
    rounded = round(frames / eyes.temporal_patch) * eyes.temporal_patch
    return whole_patches(frames, rounded, height, width, eyes.patch * eyes.merge, eyes.video_area)


def enlarged(height: int, width: int, side: int) -> tuple[int, int]:
    """The same aspect with no side under `side`."""
    if min(height, width) < 1:
        raise MediaError(f"A picture of {height} x {width} pixels has nothing to see.")
    scale = max(side / height, side / width, 1.0)
    return (height, width) if scale == 1 else (int(height * scale), int(width * scale))


def whole_patches(
    frames: int, rounded_frames: int, height: int, width: int, side: int, area: tuple[int, int]
) -> tuple[int, int]:
    """Multiples of `side` nearest to `height` and `width`, shrunk or grown at the same aspect into the area's limits.

    Source: the resizing rule of Qwen2-VL (arXiv:2409.12191), with `frames` as in Qwen3-VL's videos: whether to change
    the size is decided with whole temporal patches, by how much with the true number of frames.
    """
    if min(height, width) < 1 or max(height, width) > STEEPEST_ASPECT * min(height, width):
        raise MediaError(
            f"A picture of {height} x {width} pixels cannot be seen: sides may differ {STEEPEST_ASPECT} times at most."
        )
    least, most = area
    rows, cols = round(height / side), round(width / side)
    pixels = rounded_frames * rows * cols * side**2
    if pixels > most:
        shrink = math.sqrt(frames * height * width / most)
        rows, cols = (max(1, math.floor(extent / shrink / side)) for extent in (height, width))
    elif pixels < least:
        grow = math.sqrt(least / (frames * height * width))
        rows, cols = (math.ceil(extent * grow / side) for extent in (height, width))
    return rows * side, cols * side


def resize(picture: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Bicubic with antialiasing, in 8 bits, as the released weights were trained."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def patchify(frames: UInt8[np.ndarray, "T H W 3"], eyes: Eyes) -> tuple[Float[Tensor, "N V"], tuple[int, int, int]]:
    """Normalise frames whose sides are whole merged patches, and list them patch by patch in merge order.

    Returns:
        The patches, and how many there are in time, over rows and over columns.
    """
    length, height, width, _ = frames.shape
    grid = (length // eyes.temporal_patch, height // eyes.patch, width // eyes.patch)
    return patches_of(torch.from_numpy(frames)[None], eyes), grid


def patches_of(frames: UInt8[Tensor, "N T H W 3"], eyes: Eyes) -> Float[Tensor, "P V"]:
    """Patches of N pictures or videos alike, one after the other; on the frames' device."""
    return rearrange(
        (frames.float() / 255 - eyes.mean) / eyes.std,
        f"n (T t) (Y a y) (X b x) c -> (n T Y X a b) ({eyes.value_order})",
        t=eyes.temporal_patch,
        a=eyes.merge,
        b=eyes.merge,
        y=eyes.patch,
        x=eyes.patch,
    )


def expand(prompt: str, looks: Sequence[Look]) -> str:
    """Give each placeholder of a rendered prompt one pad for every feature; videos are split by time.

    Args:
        prompt: the chat template's output, with one image or video pad for each look, in order.
        looks: what is seen at these places.

    Raises:
        RequestError: the placeholders are not those of `looks`, for instance because the text itself contains one.
    """
    wrapped = re.escape(VISION_START + VIDEO_PAD + VISION_END)
    # A video's wrapper goes with its pad: each of its frames brings one of its own.
    pattern = re.compile(f"(?P<video>{wrapped}|{re.escape(VIDEO_PAD)})|(?P<image>{re.escape(IMAGE_PAD)})")
    found = [match.lastgroup for match in pattern.finditer(prompt)]
    wanted = [look.kind for look in looks]
    if found != wanted:
        raise RequestError(
            f"The prompt has places for {found or 'no pictures'} but the request gives {wanted or 'none'}. "
            f"Leave {IMAGE_PAD} and {VIDEO_PAD} out of the text, and use a chat template that knows pictures."
        )
    pieces = iter(room(look) for look in looks)
    return pattern.sub(lambda _: next(pieces), prompt)


def room(look: Look) -> str:
    """The pads of one look; those of a video with the time and a wrapper for each temporal patch."""
    rows, cols = look.features
    if look.kind == "image":
        return IMAGE_PAD * (rows * cols)
    frame = f"{VISION_START}{VIDEO_PAD * (rows * cols)}{VISION_END}"
    return "".join(f"<{seconds:.1f} seconds>{frame}" for seconds in look.seconds)


def visual_spans(token_ids: Sequence[int], looks: Sequence[Look], *, image_id: int, video_id: int) -> list[Span]:
    """Where the features of `looks` go in a prompt: one span for each temporal patch, in order.

    Raises:
        RequestError: the pads in `token_ids` are not exactly those of `looks`.
    """
    spans = []
    position = 0
    pads = (image_id, video_id)
    for look in looks:
        rows, cols = look.features
        pad = image_id if look.kind == "image" else video_id
        for _ in range(look.grid[0]):
            while position < len(token_ids) and token_ids[position] not in pads:
                position += 1
            run = list(token_ids[position : position + rows * cols])
            if run != [pad] * (rows * cols):
                raise RequestError(f"No run of {rows * cols} pads for a frame of {look.kind} from token {position} on.")
            spans.append(Span(start=position, rows=rows, cols=cols))
            position += rows * cols
    if left := sum(token in pads for token in token_ids[position:]):
        raise RequestError(f"The prompt has {left} more visual pads than the {len(looks)} pictures fill.")
    return spans


def reason_positions(tokens: int, spans: Sequence[Span]) -> tuple[Float[Tensor, "3 tokens"], int]:
    """Positions of a reasoning prompt on the time, row and column axis, and the position of the first token after it.

    Text advances all axes by one. A frame that starts at p stays at p in time and lies at p + row and p + column; what
    follows it goes on at p + max(rows, cols). The k-th generated token stands at the returned number + k on all axes.

    Args:
        tokens: length of the prompt.
        spans: rising and disjoint, see `visual_spans`.

    Source: multimodal rotary positions of Qwen2-VL (arXiv:2409.12191), videos frame by frame as in Qwen3-VL.
    """
    parts: list[Tensor] = []
    place = 0
    reached = 0
    for span in [*spans, Span(start=tokens, rows=0, cols=0)]:
        text = span.start - reached
        assert text >= 0, f"spans must rise and not overlap, got {spans}"
        parts.append((torch.arange(text) + place).expand(3, text))
        place += text
        rows, cols = torch.arange(span.rows), torch.arange(span.cols)
        grid = torch.stack(torch.meshgrid(torch.zeros(1, dtype=torch.long), rows, cols, indexing="ij"))
        parts.append(rearrange(grid + place, "three t y x -> three (t y x)"))
        place += max(span.rows, span.cols)
        reached = span.start + span.rows * span.cols
    return torch.cat(parts, dim=1).float(), place
