"""What stands where in one cell, and the properties in which a real cell may differ from its twin. Data only.

Metres: x to the right, y away from the front camera, z up from the top of the bench, the origin in its middle.
"""

from dataclasses import dataclass
from typing import Literal

from orrery.errors import SettingsError
from orrery.worlds.factory.parts import PEG_HALF_M, Part, Rgb

Point = tuple[float, float, float]
Button = Literal["start", "stop"]

BELT_Y_M = 0.17
BELT_TOP_M = 0.02
BELT_HALF_WIDTH_M = 0.058
BELT_HALF_LENGTH_M = 0.42
BIN_HALF_M = 0.072
BIN_WALL_M = 0.045
"""Height of its walls."""
SLOT_HALF_M = 0.052
SLOT_WALL_M = 0.014
FIXTURE_HALF_M = 0.048
FIXTURE_HEIGHT_M = 0.045
PLUNGER_TRAVEL_M = 0.008
PLUNGER_TOP_M = 0.048
"""Height of an untouched button above the bench."""
SHEET_M = 0.003
"""Thickness of trays."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A part and where its middle is at the beginning."""

    part: Part
    position_m: Point
    yaw_rad: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Bin:
    """An open box of sheet steel."""

    name: str
    x_m: float
    y_m: float
    rgb: Rgb


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A tray with three slots in a row along x."""

    x_m: float
    y_m: float
    rgb: Rgb

    def slot_m(self, index: int) -> tuple[float, float]:
        """The middle of a slot, from the left."""
        return self.x_m + (index - 1) * 2 * SLOT_HALF_M, self.y_m


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """A steel block with a square hole through it, wider than a peg by `CellParameters.clearance_m` on each side."""

    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Two buttons, start and stop, and the lamp that shows that the cell runs."""

    x_m: float
    y_m: float
    start_left: bool

    def button_m(self, button: Button) -> tuple[float, float]:
        side = -1 if (button == "start") == self.start_left else 1
        return self.x_m + side * 0.034, self.y_m


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One cell. Parts are numbered in their order; the body of number i is called `part_i`."""

    parts: tuple[Placed, ...]
    panel: Panel
    bins: tuple[Bin, ...] = ()
    kit: Kit | None = None
    fixture: Fixture | None = None
    running: bool = False
    """The belt moves and the lamp is lit from the beginning."""

    def bin(self, name: str) -> Bin:
        return next(row for row in self.bins if row.name == name)


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours of everything that is not a part."""

    bench: Rgb = (0.72, 0.64, 0.52)
    floor: Rgb = (0.36, 0.38, 0.42)
    belt: Rgb = (0.20, 0.21, 0.23)
    belt_stripe: Rgb = (0.40, 0.42, 0.45)
    machine: Rgb = (0.88, 0.50, 0.14)
    finger: Rgb = (0.13, 0.14, 0.16)
    fixture: Rgb = (0.46, 0.51, 0.57)


EVALUATION_PALETTE = Palette()
"""Never randomised: what is judged is judged under one look."""


@dataclass(frozen=True, kw_only=True)
class CellParameters:
    """The knobs of the twin. Factors are 1 in the nominal cell.

    Raises:
        SettingsError: a value outside the range in which the simulation was tried.
    """

    friction: float = 1.0
    """Multiplies every coefficient of friction."""
    mass: float = 1.0
    """Multiplies the mass of every part."""
    clearance_m: float = 0.001
    """Between peg and hole, on each side."""
    belt_speed_m_s: float = 0.08
    """Negative moves to the left."""
    camera_shift_m: Point = (0.0, 0.0, 0.0)
    """Moves the fixed cameras, which keep their direction."""
    light_m: Point = (-0.45, -0.55, 1.30)
    light: float = 1.0
    """Multiplies the brightness of the lamp above the cell."""
    actuator_gain: float = 1.0
    """Multiplies the stiffness of the gantry's drives."""
    actuator_delay_s: float = 0.0
    """From command to drive."""
    timestep_s: float = 0.001
    palette: Palette = EVALUATION_PALETTE

    def __post_init__(self) -> None:
        ranges = {
            "friction": (0.3, 3.0),
            "mass": (0.2, 5.0),
            "clearance_m": (0.0002, PEG_HALF_M),
            "belt_speed_m_s": (-0.25, 0.25),
            "light": (0.2, 2.0),
            "actuator_gain": (0.3, 3.0),
            "actuator_delay_s": (0.0, 0.2),
            "timestep_s": (0.00025, 0.002),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"CellParameters.{name} must be from {low} to {high}, got {value}.")
        if max(map(abs, self.camera_shift_m)) > 0.1:
            raise SettingsError(f"CellParameters.camera_shift_m must be within 0.1 m, got {self.camera_shift_m}.")
        if not 0.5 <= self.light_m[2] <= 3:
            raise SettingsError(f"CellParameters.light_m must be 0.5 to 3 m above the bench, got {self.light_m}.")
