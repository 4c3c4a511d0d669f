"""What the cell handles: kinds and finishes of parts, their shapes, and the pairs that are kept for tests.

A part stands upright in its own frame, origin in the middle of its height, and is gripped across x.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cube", "disc", "peg", "bar", "cross"]
Finish = Literal["red", "green", "blue", "purple", "steel", "brass"]
Rgb = tuple[float, float, float]

FINISHES: dict[Finish, tuple[str, Rgb]] = {
    "red": ("plastic", (0.84, 0.16, 0.14)),
    "green": ("plastic", (0.16, 0.62, 0.26)),
    "blue": ("plastic", (0.15, 0.34, 0.86)),
    "purple": ("plastic", (0.56, 0.22, 0.68)),
    "steel": ("steel", (0.74, 0.77, 0.80)),
    "brass": ("brass", (0.87, 0.67, 0.22)),
}
"""Finish -> material and colour. A metal shows its own colour, so that material can be seen as well as heard."""

HELD_OUT: frozenset[tuple[Finish, Kind]] = frozenset(
    {("red", "cross"), ("green", "disc"), ("blue", "bar"), ("purple", "cube"), ("steel", "cross"), ("brass", "disc")}
)
"""Pairs that occur in the test split alone; every finish and every kind occurs in training with others."""

PEG_HALF_M = 0.015
PEG_HALF_HEIGHT_M = 0.045


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One primitive of a part: three half sizes of a box, or two numbers, radius and half height of a cylinder."""

    half_m: tuple[float, ...]
    yaw_rad: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PartKind:
    """Shapes at nominal size and what gripping and stacking have to know about them."""

    shapes: tuple[Shape, ...]
    half_height_m: float
    grip_half_m: float
    """Half the width across x, where the gripper closes."""
    radius_m: float
    """Of the upright cylinder around it."""
    symmetry_rad: float
    """Turned by this it looks and is gripped the same; 0 for a disc, which has no direction."""
    plural: str


_QUARTER, _HALF = 1.5707963267948966, 3.141592653589793
KINDS: dict[Kind, PartKind] = {
    "cube": PartKind(
        shapes=(Shape(half_m=(0.022, 0.022, 0.022)),),
        half_height_m=0.022,
        grip_half_m=0.022,
        radius_m=0.0312,
        symmetry_rad=_QUARTER,
        plural="cubes",
    ),
    "disc": PartKind(
        shapes=(Shape(half_m=(0.027, 0.013)),),
        half_height_m=0.013,
        grip_half_m=0.027,
        radius_m=0.027,
        symmetry_rad=0.0,
        plural="discs",
    ),
    "peg": PartKind(
        shapes=(Shape(half_m=(PEG_HALF_M, PEG_HALF_M, PEG_HALF_HEIGHT_M)),),
        half_height_m=PEG_HALF_HEIGHT_M,
        grip_half_m=PEG_HALF_M,
        radius_m=0.0213,
        symmetry_rad=_QUARTER,
        plural="pegs",
    ),
    "bar": PartKind(
        shapes=(Shape(half_m=(0.015, 0.040, 0.015)),),
        half_height_m=0.015,
        grip_half_m=0.015,
        radius_m=0.0428,
        symmetry_rad=_HALF,
        plural="bars",
    ),
    "cross": PartKind(
        shapes=(
            Shape(half_m=(0.030, 0.011, 0.014)),
            Shape(half_m=(0.030, 0.011, 0.014), yaw_rad=_QUARTER),
        ),
        half_height_m=0.014,
        grip_half_m=0.030,
        radius_m=0.032,
        symmetry_rad=_QUARTER,
        plural="crosses",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part. `scale` stretches all its sizes; `cracked` puts a dark crack across its top."""

    kind: Kind
    finish: Finish
    scale: float = 1.0
    cracked: bool = False

    @property
    def material(self) -> str:
        """A row of `materials.MATERIALS`."""
        return FINISHES[self.finish][0]

    @property
    def half_height_m(self) -> float:
        return KINDS[self.kind].half_height_m * self.scale

    @property
    def grip_half_m(self) -> float:
        return KINDS[self.kind].grip_half_m * self.scale

    @property
    def radius_m(self) -> float:
        return KINDS[self.kind].radius_m * self.scale

    @property
    def words(self) -> str:
        """How language calls it: "red cube"."""
        return f"{self.finish} {self.kind}"
