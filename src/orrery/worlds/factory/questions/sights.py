"""What can be seen of an attempt: masks, which part a description picks out, and what each part lies on.

A thing is asked about only if it is clearly seen, and a description is used only if exactly one part fits it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int32

from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.goals import belt_span, containers, inside
from orrery.worlds.factory.layout import BELT_TOP_M, SLOT_HALF_M
from orrery.worlds.factory.parts import Part
from orrery.worlds.factory.questions.drafts import Rng, any_of, shuffled
from orrery.worlds.factory.render import Renderer, project
from orrery.worlds.factory.rollout import Attempt

SEEN_PX = 24
"""A thing of fewer pixels in a picture is not asked about, ..."""
SEEN_SHARE = 0.3
"""... nor a part of fewer than this share of what `outline_m2` would take up unhidden: about half of the part."""
LEVEL_M = 0.05
"""Of parts that differ more in height than this it is not asked which is nearer: one lifted high seems further back."""
LIFTED_M = 0.015
"""A part counts as held in the air from this height on."""
APART = 0.06
"""Of two parts one is to the left in a picture if their middles are this share of its width apart..."""
MARGIN_M = 0.03
"""... and this far across the camera's view; nearer, if this much nearer along it."""
CAMERA_SHARES = {"front": 3, "side": 2, "wrist": 1}
"""Drawn from for each sight: parts are rarely in view from the wrist."""
ANCHORS = ("leftmost", "rightmost", "nearest", "farthest", "held", "on_belt")
PLACES = {
    "bin_left": "the left bin",
    "bin_right": "the right bin",
    "bin_reject": "the reject bin",
    "kit_0": "the left slot",
    "kit_1": "the middle slot",
    "kit_2": "the right slot",
    "": "none of these",
}
"""Where a part can be inside, and the word for it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """One moment from one camera, with everything that questions about single pictures need to know."""

    frame: int
    camera: str
    segmentation: Int32[np.ndarray, "H W"]
    masks: tuple[Bool[np.ndarray, "H W"], ...]
    """Of each part."""
    view_m: Float64[np.ndarray, "P 3"]
    """Middles of parts: pixels to the right over the width, pixels down over the height, metres of depth."""
    across_m: Float64[np.ndarray, " P"]
    """Metres to the right of the camera's axis."""
    places_m: Float64[np.ndarray, "P 3"]
    needed_px: tuple[float, ...]
    """From how many pixels on each part is clearly seen, at its distance."""
    support: tuple[str, ...]
    """What each part lies on: belt, bench, part, container, held; "" where that is not clear."""
    place: tuple[str, ...]
    """A key of PLACES for each part."""
    parts: tuple[Part, ...]
    held: int | None
    aperture: float
    lamp: bool
    things_px: dict[str, int]
    """Pixels of lamp, fingers and the crack."""

    @cached_property
    def pixels(self) -> tuple[int, ...]:
        return tuple(int(mask.sum()) for mask in self.masks)

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Parts that are clearly seen."""
        return tuple(i for i, count in enumerate(self.pixels) if count >= self.needed_px[i])

    @property
    def clear(self) -> bool:
        """Every part is clearly seen or not in the picture at all."""
        return all(count == 0 or i in self.seen for i, count in enumerate(self.pixels))

    def middle(self, index: int) -> Float64[np.ndarray, "2"]:
        """Mean of a part's pixels, to the right and down, 0 to 1."""
        rows, columns = np.nonzero(self.masks[index])
        height, width = self.segmentation.shape
        return np.array([(columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height])

    def anchored(self, anchor: str) -> int | None:
        """The one part that an anchor picks out, if it is clear which."""
        if anchor == "held":
            return self.held if self.held in self.seen else None
        if anchor == "on_belt":
            there = [i for i in range(len(self.parts)) if self.support[i] == "belt"]
            return there[0] if len(there) == 1 and there[0] in self.seen else None
        if not self.clear or len(self.seen) < 2:
            return None
        if anchor in ("leftmost", "rightmost"):
            sign = 1 if anchor == "leftmost" else -1
            first, second = sorted(self.seen, key=lambda i: sign * self.middle(i)[0])[:2]
            apart = sign * (self.middle(second)[0] - self.middle(first)[0])
            return first if apart > APART and sign * (self.across_m[second] - self.across_m[first]) > MARGIN_M else None
        if np.ptp(self.places_m[list(self.seen), 2]) > LEVEL_M:
            return None
        sign = 1 if anchor == "nearest" else -1
        first, second = sorted(self.seen, key=lambda i: sign * self.view_m[i, 2])[:2]
        return first if sign * (self.view_m[second, 2] - self.view_m[first, 2]) > MARGIN_M else None


class Witness:
    """Looks at the moments of one attempt; the cell is moved from one to the next."""

    def __init__(
        self,
        cell: Cell,
        attempt: Attempt,
        height: int,
        width: int,
        renderer: Renderer | None = None,
        cameras: Sequence[str] = tuple(CAMERA_SHARES),
    ) -> None:
        self.cell, self.attempt, self.height, self.width, self.cameras = cell, attempt, height, width, cameras
        self.renderer = renderer or Renderer(cell.model)
        model = cell.model
        self._fingers = [i for i in range(model.ngeom) if model.body(model.geom_bodyid[i]).name.startswith("finger_")]
        self._lamp = int(model.geom("lamp").id)
        # The crack is the geoms of the cracked part that nothing can touch.
        self._crack = [
            i
            for i in range(model.ngeom)
            if model.body(model.geom_bodyid[i]).name.startswith("part_") and model.geom_contype[i] == 0
        ]

    def at(self, frame: int) -> None:
        """Go to a moment."""
        self.cell.restore(self.attempt.moments[frame].state)

    def sights(self, rng: Rng, count: int) -> list[Sight]:
        """Moments spread over the attempt, a few more near its end, each from some camera, in any order."""
        last = len(self.attempt.moments)
        spread, late = count - count // 4, rng.integers(max(0, last - 8), last, count // 4)
        shares = [camera for camera in self.cameras for _ in range(CAMERA_SHARES[camera])]
        frames = sorted({*(int(last * (k + rng.random()) / spread) for k in range(spread)), *map(int, late)})
        return shuffled(rng, [self.look(frame, any_of(rng, shares)) for frame in frames])

    def look(self, frame: int, camera: str) -> Sight:
        """One moment from one camera."""
        self.at(frame)
        cell = self.cell
        parts = tuple(placed.part for placed in cell.layout.parts)
        numbers, _ = self.renderer.segment(cell.data, camera, self.height, self.width)
        places = np.array([cell.part_m(i) for i in range(len(parts))]).reshape(-1, 3)
        view = project(cell.model, cell.data, camera, places, self.height, self.width)
        axis = cell.data.cam_xmat[cell.model.camera(camera).id].reshape(3, 3)[:, 0]
        eye = cell.data.cam_xpos[cell.model.camera(camera).id]
        focal_px = self.height / 2 / np.tan(np.radians(cell.model.camera(camera).fovy[0]) / 2)
        return Sight(
            needed_px=tuple(
                max(float(SEEN_PX), SEEN_SHARE * outline_m2(part) * float(focal_px / max(depth, 0.05)) ** 2)
                for part, depth in zip(parts, view[:, 2], strict=True)
            ),
            frame=frame,
            camera=camera,
            segmentation=numbers,
            parts=parts,
            places_m=places,
            masks=tuple(cell.part_mask(numbers, i) for i in range(len(parts))),
            view_m=view / (self.width, self.height, 1),
            across_m=(places - eye) @ axis,
            support=tuple(support(cell, i) for i in range(len(parts))),
            place=tuple(place(cell, i) for i in range(len(parts))),
            held=cell.memory.held,
            aperture=cell.aperture,
            lamp=cell.memory.running,
            things_px={
                name: int(np.isin(numbers, geoms).sum())
                for name, geoms in (("lamp", [self._lamp]), ("fingers", self._fingers), ("crack", self._crack))
            },
        )


def outline_m2(part: Part) -> float:
    """Roughly what a part and its upper side take up seen from a slant: never less than its true outline."""
    return 2 * part.radius_m * (2 * part.half_height_m + part.radius_m)


def support(cell: Cell, index: int) -> str:
    """What a part lies on: belt, bench, part, container, held; "" where that is not clear."""
    name = f"part_{index}"
    touched = {one if other == name else other for one, other in cell.memory.touching if name in (one, other)}
    bottom = cell.part_m(index)[2] - cell.layout.parts[index].part.half_height_m
    under = {"belt" if "belt" in touched else "", "bench" if "bench" in touched else ""} - {""}
    if touched.intersection(containers(cell)):
        under.add("container")
    for other in range(len(cell.layout.parts)):
        if f"part_{other}" in touched and bottom > cell.part_m(other)[2]:
            under.add("part")
    if cell.memory.held == index:
        ground_m = BELT_TOP_M if belt_span(float(cell.part_m(index)[1])) else 0.0
        return "held" if not under and bottom > ground_m + LIFTED_M else ""
    if touched & {"finger_left", "finger_right", "palm", "rails", "fixture", "panel", "lamp"} or len(under) != 1:
        return ""
    return under.pop()


def place(cell: Cell, index: int) -> str:
    """A key of PLACES: the bin or slot that a part is in; "" for none."""
    for name in containers(cell):
        if inside(cell, index, name):
            if name != "kit":
                return name
            kit = cell.layout.kit
            assert kit is not None
            return f"kit_{int(np.clip(np.floor((cell.part_m(index)[0] - kit.x_m) / (2 * SLOT_HALF_M) + 1.5), 0, 2))}"
    return ""


def alone(parts: Sequence[Part], index: int, by: str) -> bool:
    """Whether no other part of the cell has the same words, or the same finish."""
    words = [part.words if by == "words" else part.finish for part in parts]
    return words.count(words[index]) == 1
