"""Sizes of pictures: the tiers of the released models, and how given pictures are fitted. Arithmetic, no pixels."""

import math
from dataclasses import dataclass

from orrery.errors import TaskError
from orrery.tasks.checks import nearest

TIERS: dict[str, dict[str, tuple[int, int]]] = {
    "256": {"1,1": (256, 256), "4,3": (256, 320), "3,4": (320, 256), "16,9": (192, 320), "9,16": (320, 192)},
    "480": {"1,1": (640, 640), "4,3": (544, 736), "3,4": (736, 544), "16,9": (480, 832), "9,16": (832, 480)},
    "704": {"1,1": (960, 960), "4,3": (832, 1088), "3,4": (1088, 832), "16,9": (704, 1280), "9,16": (1280, 704)},
    "720": {"1,1": (960, 960), "4,3": (832, 1104), "3,4": (1104, 832), "16,9": (720, 1280), "9,16": (1280, 720)},
    "768": {"1,1": (1024, 1024), "4,3": (880, 1184), "3,4": (1184, 880), "16,9": (768, 1360), "9,16": (1360, 768)},
}
"""Tier to aspect (width,height) to (height, width) in pixels. Tier names are labels, not heights."""

# Action pictures of tier 480 also know this one; it comes last, so it loses ties.
ACTION_EXTRA = {"480": {"2,3": (768, 512)}}


@dataclass(frozen=True, kw_only=True)
class CoverCrop:
    """Resize to (resized_height, resized_width), then cut (height, width) out at (top, left)."""

    resized_height: int
    resized_width: int
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class ActionCanvas:
    """Resize to the content, pad right and bottom to (height, width), encode, keep the latents of the content.

    `pad` is "reflect", or "edge" where the padding is as large as the content. `aspect` is the label of the canvas.
    """

    content_height: int
    content_width: int
    height: int
    width: int
    pad: str
    aspect: str

    def latent_crop(self, patch: int) -> tuple[int, int]:
        """(rows, columns) of latents that belong to the content, for a codec of `patch` pixels per latent."""
        return self.content_height // patch, self.content_width // patch


def tier(name: str) -> dict[str, tuple[int, int]]:
    """Aspect label to (height, width); TaskError with the nearest tier otherwise."""
    if name not in TIERS:
        raise TaskError(f"There is no size tier {name!r}. {nearest(name, TIERS)}")
    return TIERS[name]


def aspect_label(height: int, width: int) -> str:
    """Label of the tier entry with this size, first match, else width,height reduced by their common divisor."""
    for sizes in (*TIERS.values(), *ACTION_EXTRA.values()):
        for label, known in sizes.items():
            if known == (height, width):
                return label
    divisor = math.gcd(height, width)
    return f"{width // divisor},{height // divisor}"


def cover_crop(source: tuple[int, int], target: tuple[int, int]) -> CoverCrop:
    """How a (height, width) source fills a (height, width) target: scaled to cover it, rounded up, cut at the centre.

    For generation tasks. Fractions are compared as whole numbers, so an exact fit is never a pixel too large.
    """
    (h, w), (H, W) = source, target
    assert min(h, w, H, W) > 0
    if H * w >= W * h:
        resized = H, -(-w * H // h)
    else:
        resized = -(-h * W // w), W
    return CoverCrop(
        resized_height=resized[0],
        resized_width=resized[1],
        top=(resized[0] - H) // 2,
        left=(resized[1] - W) // 2,
        height=H,
        width=W,
    )


def action_canvas(source: tuple[int, int], tier_name: str) -> ActionCanvas:
    """Where a (height, width) observation goes for action tasks: never enlarged, padded on the right and at the bottom.

    The entry of the tier whose height/width is nearest to that of the source is taken, the first one on a tie.
    """
    h, w = source
    assert min(h, w) > 0
    sizes = tier(tier_name) | ACTION_EXTRA.get(tier_name, {})
    label = min(sizes, key=lambda name: abs(sizes[name][0] / sizes[name][1] - h / w))
    H, W = sizes[label]
    scale = min(W / w, H / h, 1.0)
    content = math.floor(scale * h + 0.5), math.floor(scale * w + 0.5)
    pads = H - content[0], W - content[1]
    return ActionCanvas(
        content_height=content[0],
        content_width=content[1],
        height=H,
        width=W,
        pad="edge" if pads[0] >= content[0] or pads[1] >= content[1] else "reflect",
        aspect=aspect_label(H, W),
    )
