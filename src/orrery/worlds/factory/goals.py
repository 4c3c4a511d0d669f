"""What can be wanted of a cell, each with a test on its state; and in fixed words why it is not reached."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.layout import (
    BELT_HALF_LENGTH_M,
    BELT_HALF_WIDTH_M,
    BELT_TOP_M,
    BELT_Y_M,
    BIN_HALF_M,
    BIN_WALL_M,
    FIXTURE_HEIGHT_M,
    SLOT_HALF_M,
    Button,
)

LIFTED_M = 0.10
SEATED_M, SEATED_XY_M = 0.006, 0.004
STILL_M_S = 0.03
END_M = BELT_HALF_LENGTH_M - 0.06
"""A part on the belt beyond this is out of reach."""

FAILURES = (
    "fell_off",
    "reached_end",
    "wrong_part",
    "wrong_button",
    "knocked_over",
    "jammed",
    "wrong_place",
    "dropped",
    "missed",
    "not_finished",
)
"""Why a task is not done, the first that applies. The first two cannot be mended and end an episode."""
FINAL = frozenset({"fell_off", "reached_end"})


@dataclass(frozen=True, kw_only=True)
class Lift:
    """Hold a part LIFTED_M above the belt."""

    part: int


@dataclass(frozen=True, kw_only=True)
class Put:
    """Leave a part in a bin, or in any slot of the kit."""

    part: int
    into: str


@dataclass(frozen=True, kw_only=True)
class Insert:
    """Push a peg through the hole of the fixture until it stands on the bench."""

    part: int


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Leave a part standing on another."""

    part: int
    base: int


@dataclass(frozen=True, kw_only=True)
class Press:
    """Press a button: start lights the lamp and moves the belt, stop ends both."""

    button: Button


Goal = Lift | Put | Insert | Stack | Press


def met(cell: Cell, goal: Goal) -> bool:
    """Whether it is reached now."""
    memory = cell.memory
    if isinstance(goal, Press):
        running = goal.button == "start"
        moving = abs(memory.belt_m_s) > 0.9 * abs(cell.parameters.belt_speed_m_s)
        return goal.button in memory.pressed and memory.running == running and moving == running
    part, place = cell.layout.parts[goal.part].part, cell.part_m(goal.part)
    if isinstance(goal, Lift):
        return memory.held == goal.part and bool(place[2] > BELT_TOP_M + part.half_height_m + LIFTED_M)
    free = not any(cell.touches(finger, f"part_{goal.part}") for finger in ("finger_left", "finger_right", "palm"))
    if isinstance(goal, Put):
        return free and inside(cell, goal.part, goal.into) and cell.part_speed_m_s(goal.part) < STILL_M_S
    if isinstance(goal, Insert):
        return hole_error_m(cell, goal.part) < SEATED_XY_M and bool(place[2] < part.half_height_m + SEATED_M)
    base = cell.layout.parts[goal.base].part
    offset = place - cell.part_m(goal.base)
    return (
        free
        and cell.touches(f"part_{goal.part}", f"part_{goal.base}")
        and bool(abs(offset[2] - part.half_height_m - base.half_height_m) < SEATED_M)
        and bool(np.hypot(*offset[:2]) < base.radius_m)
        and cell.part_speed_m_s(goal.part) < STILL_M_S
    )


def inside(cell: Cell, index: int, container: str) -> bool:
    """Whether a part's middle is within the walls of a bin, or of "kit"."""
    x, y, z = cell.part_m(index)
    if container == "kit":
        kit = cell.layout.kit
        assert kit is not None
        return bool(abs(x - kit.x_m) < 3 * SLOT_HALF_M and abs(y - kit.y_m) < SLOT_HALF_M and 0 < z < 0.06)
    row = cell.layout.bin(container)
    return bool(abs(x - row.x_m) < BIN_HALF_M and abs(y - row.y_m) < BIN_HALF_M and 0 < z < BIN_WALL_M + 0.01)


def hole_error_m(cell: Cell, index: int) -> float:
    """Horizontal distance of a part's middle from the axis of the hole."""
    fixture = cell.layout.fixture
    assert fixture is not None
    x, y, _ = cell.part_m(index)
    return float(np.hypot(x - fixture.x_m, y - fixture.y_m))


def on_belt(cell: Cell, index: int) -> bool:
    """Whether a part lies on the belt, also at its far end."""
    return cell.touches(f"part_{index}", "belt")


def containers(cell: Cell) -> tuple[str, ...]:
    """Bins, and the kit where there is one."""
    return (*(row.name for row in cell.layout.bins), *(("kit",) if cell.layout.kit else ()))


def failure(cell: Cell, goals: Sequence[Goal]) -> str:
    """Why `goals` are not all reached, a word of FAILURES; "" when they are and nothing forbidden happened."""
    open_goals = [goal for goal in goals if not met(cell, goal)]
    wanted = {goal.part: goal for goal in goals if not isinstance(goal, Press)}
    astray = [i for i in range(len(cell.layout.parts)) if i not in wanted]
    bases = {goal.base for goal in goals if isinstance(goal, Stack)}
    targets = {goal.into for goal in goals if isinstance(goal, Put)}
    wrong = cell.memory.was_held.intersection(astray) - bases or any(
        inside(cell, i, name) for i in astray for name in targets
    )
    if not open_goals and not wrong:
        return ""
    heading = np.sign(cell.parameters.belt_speed_m_s)
    for index in wanted:
        x, _, z = cell.part_m(index)
        if z < -0.05:
            return "fell_off"
        if cell.memory.held != index and on_belt(cell, index) and heading * x > END_M:
            return "reached_end"
    if wrong or cell.memory.was_held & bases:
        return "wrong_part"
    return next(word for goal in open_goals if (word := _reason(cell, goal)))


def _reason(cell: Cell, goal: Goal) -> str:
    if isinstance(goal, Press):
        other = "stop" if goal.button == "start" else "start"
        return (
            "wrong_button"
            if other in cell.memory.pressed and goal.button not in cell.memory.pressed
            else "not_finished"
        )
    if isinstance(goal, Insert):
        bottom = float(cell.part_m(goal.part)[2]) - cell.layout.parts[goal.part].part.half_height_m
        if cell.part_tilt_rad(goal.part) > 0.5:
            return "knocked_over"
        if hole_error_m(cell, goal.part) < 0.02 and cell.touches(f"part_{goal.part}", "fixture") and bottom > SEATED_M:
            return "jammed" if bottom < FIXTURE_HEIGHT_M + 0.01 else "not_finished"
    if cell.memory.held == goal.part:
        return "not_finished"
    aside = [name for name in containers(cell) if not (isinstance(goal, Put) and goal.into == name)]
    if any(inside(cell, goal.part, name) for name in aside):
        return "wrong_place"
    if goal.part in cell.memory.was_held:
        return "dropped"
    return "missed" if cell.memory.closed_empty else "not_finished"


def belt_span(y_m: float) -> bool:
    """Whether a point is above the belt."""
    return abs(y_m - BELT_Y_M) < BELT_HALF_WIDTH_M
