"""Scripted experts that see the true state. An expert is a function of the state alone: it gives good advice from
wherever another behaviour has led, so its action can be recorded beside any other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from orrery.worlds.factory.cell import ACTION_LIMITS, STEP_S, Cell
from orrery.worlds.factory.goals import Goal, Insert, Lift, Press, Put, Stack, inside, met, on_belt
from orrery.worlds.factory.layout import FIXTURE_HEIGHT_M, PLUNGER_TOP_M, SHEET_M, SLOT_HALF_M
from orrery.worlds.factory.parts import KINDS
from orrery.worlds.factory.scene import DRIVE_RAD_S, FINGER_STROKE_M, PAD_HALF_M

PHASES = (
    "approach",
    "descend",
    "grasp",
    "lift",
    "carry",
    "align",
    "insert",
    "lower",
    "release",
    "press",
    "retreat",
    "wait",
)
"""What the expert is about to do, the word that questions use."""

REST_M = 0.20
"""Where the gripper waits above the bench."""
OPEN_MARGIN_M = 0.010
"""Fingers open this much wider than the part, so that they fit between neighbours."""
LEAD_S = STEP_S + 2 / DRIVE_RAD_S
"""A command takes effect at the end of a step, and the drives follow a ramp this much later still."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do now, and the words for it."""

    action: Float32[np.ndarray, "5"]
    phase: str
    subject: str
    """Body that the phase is about."""


def advise(
    cell: Cell, goals: Sequence[Goal], *, slip_m: tuple[float, float] = (0.0, 0.0), keeps: bool = False
) -> Advice:
    """The expert's action in the present state.

    Args:
        slip_m: an error in where it believes the hole of the fixture to be; 0 for an expert.
        keeps: what it holds and has brought where it was wanted it goes on holding, or lets go in the hole; otherwise
            it puts that down on the bench, a peg too.
    """
    held = cell.memory.held
    goal = _current(cell, goals, held)
    if keeps and goal is None:
        for reached in goals:
            if isinstance(reached, Lift) and reached.part == held:
                return _advice(cell, cell.memory.setpoint[:3], cell.memory.setpoint[3], 0.0, "wait", held)
            if isinstance(reached, Insert) and reached.part == held:
                return _retreat(cell, "retreat", f"part_{held}")
    if held is not None and (goal is None or isinstance(goal, Press) or goal.part != held):
        return _put_down(cell, held)
    if goal is None:
        return _retreat(cell, "wait", "palm")
    if isinstance(goal, Press):
        return _press(cell, goal)
    if held is None:
        if _at_target(cell, goal):
            return _retreat(cell, "retreat", f"part_{goal.part}")
        return _pick(cell, goal.part)
    if isinstance(goal, Lift):
        z = cell.memory.setpoint[2] + ACTION_LIMITS[2]
        return _advice(cell, (*cell.memory.setpoint[:2], z), cell.memory.setpoint[3], 0.0, "lift", held)
    if isinstance(goal, Insert):
        return _insert(cell, held, slip_m)
    return _place(cell, held, goal)


def _current(cell: Cell, goals: Sequence[Goal], held: int | None) -> Goal | None:
    """What to work on: what is in hand; else, of what is open, what the belt carries away first, then the first."""
    open_goals = [goal for goal in goals if not met(cell, goal)]
    for goal in open_goals:
        if not isinstance(goal, Press) and goal.part == held:
            return goal
    if held is not None and isinstance(next(iter(goals), None), Insert):
        return None
    unsettled = [goal for goal in open_goals if not isinstance(goal, Press) and _at_target(cell, goal)]
    if unsettled:
        return unsettled[0]
    heading = np.sign(cell.parameters.belt_speed_m_s)
    carried = [goal for goal in open_goals if not isinstance(goal, Press) and on_belt(cell, goal.part)]
    if carried and cell.memory.running:
        return max(carried, key=lambda goal: heading * cell.part_m(goal.part)[0])
    return next(iter(open_goals), None)


def _at_target(cell: Cell, goal: Goal) -> bool:
    """Whether a part is where it belongs, let go of or not."""
    if isinstance(goal, Put):
        return inside(cell, goal.part, goal.into)
    if isinstance(goal, Stack):
        offset = cell.part_m(goal.part) - cell.part_m(goal.base)
        stacked = cell.layout.parts[goal.part].part.half_height_m + cell.layout.parts[goal.base].part.half_height_m
        return bool(np.hypot(*offset[:2]) < 0.02 and abs(offset[2] - stacked) < 0.006)
    return False


def _pick(cell: Cell, index: int) -> Advice:
    part, place = cell.layout.parts[index].part, cell.part_m(index)
    bottom, top = place[2] - part.half_height_m, place[2] + part.half_height_m
    speed = cell.memory.belt_m_s if on_belt(cell, index) else 0.0
    aim = np.array([place[0] + speed * LEAD_S, place[1]])
    here = cell.gripper_m
    away = float(np.hypot(*(place[:2] - here[:2])))
    yaw = _aligned(cell.memory.setpoint[3], cell.part_yaw_rad(index), KINDS[part.kind].symmetry_rad)
    turn = abs(yaw - cell.yaw_rad)
    grip_m = max(bottom + PAD_HALF_M[2] + 0.003, top - 0.016)
    opening = min(1.0, (part.grip_half_m + OPEN_MARGIN_M) / FINGER_STROKE_M)
    clear_m = max(_clear_m(cell, index), top + 0.03)
    if away > 0.03 and here[2] < clear_m - 0.02:
        return _advice(cell, (here[0], here[1], clear_m), yaw, opening, "retreat", index)
    if away > 0.03:
        return _advice(cell, (*aim, clear_m), yaw, opening, "approach", index)
    ready = away < 0.007 and turn < 0.06 and cell.aperture > opening - 0.08
    if here[2] - grip_m < 0.004 and away < 0.009:
        return _advice(cell, (*aim, grip_m), yaw, 0.0, "grasp", index)
    if ready or here[2] < top + PAD_HALF_M[2]:
        return _advice(cell, (*aim, grip_m), yaw, opening, "descend", index)
    return _advice(cell, (*aim, top + PAD_HALF_M[2] + 0.012), yaw, opening, "approach", index)


def _place(cell: Cell, index: int, goal: Put | Stack) -> Advice:
    part, place, here = cell.layout.parts[index].part, cell.part_m(index), cell.gripper_m
    twist, below = 0.0, [f"part_{i}" for i in range(len(cell.layout.parts)) if i != index]
    if isinstance(goal, Stack):
        base = cell.part_m(goal.base)
        spot, floor_m = base[:2], base[2] + cell.layout.parts[goal.base].part.half_height_m
        below, clearance_m = [f"part_{goal.base}"], 0.0015
    else:
        spot, floor_m = _spot(cell, index, goal.into), SHEET_M
        # Turned square, so that it fits between walls.
        twist = _aligned(0.0, -cell.part_yaw_rad(index), KINDS[part.kind].symmetry_rad)
        below, clearance_m = [goal.into, *below], 0.003
    return _bring(cell, index, spot, floor_m + clearance_m, twist, below, place, here)


def _bring(
    cell: Cell,
    index: int,
    spot: Float[np.ndarray, "2"],
    bottom_m: float,
    twist: float,
    below: Sequence[str],
    place: Float[np.ndarray, "3"],
    here: Float[np.ndarray, "3"],
) -> Advice:
    """Carry a held part over a spot, lower it until its bottom is at `bottom_m` or it touches what is below, let go."""
    part = cell.layout.parts[index].part
    hangs = here[2] - place[2] + part.half_height_m
    error = spot - place[:2]
    away = float(np.hypot(*error))
    aim = np.array(cell.memory.setpoint[:2]) + 0.5 * error if away < 0.02 else spot + here[:2] - place[:2]
    yaw = cell.memory.setpoint[3] + 0.6 * twist
    carry_m = _clear_m(cell, index) + hangs
    if away > 0.02 and here[2] < carry_m - 0.02:
        return _advice(cell, (*cell.memory.setpoint[:2], carry_m), cell.memory.setpoint[3], 0.0, "lift", index)
    if away > 0.006 or abs(twist) > 0.06:
        return _advice(cell, (*aim, max(here[2], carry_m) if away > 0.02 else here[2]), yaw, 0.0, "carry", index)
    supported = any(cell.touches(f"part_{index}", name) for name in below)
    if place[2] - part.half_height_m < bottom_m + 0.002 or supported:
        opening = min(1.0, (part.grip_half_m + 0.8 * OPEN_MARGIN_M) / FINGER_STROKE_M)
        return _advice(cell, cell.memory.setpoint[:3], yaw, opening, "release", index)
    # Slow near the end: what is dropped bounces.
    down = max(bottom_m + hangs, here[2] - (0.03 if place[2] - part.half_height_m > bottom_m + 0.03 else 0.012))
    return _advice(cell, (*aim, down), yaw, 0.0, "lower", index)


def _insert(cell: Cell, index: int, slip_m: tuple[float, float]) -> Advice:
    fixture, part = cell.layout.fixture, cell.layout.parts[index].part
    assert fixture is not None
    place, here = cell.part_m(index), cell.gripper_m
    hole = np.array([fixture.x_m + slip_m[0], fixture.y_m + slip_m[1]])
    error = hole - place[:2]
    away, bottom = float(np.hypot(*error)), float(place[2]) - part.half_height_m
    twist = _aligned(0.0, fixture.yaw_rad - cell.part_yaw_rad(index), KINDS[part.kind].symmetry_rad)
    yaw = cell.memory.setpoint[3] + 0.7 * twist
    hangs = here[2] - bottom
    if away > 0.02:
        carry_m = max(_clear_m(cell, index), FIXTURE_HEIGHT_M + 0.02) + hangs
        if here[2] < carry_m - 0.02:
            return _advice(cell, (*cell.memory.setpoint[:2], carry_m), cell.memory.setpoint[3], 0.0, "lift", index)
        return _advice(cell, (*(hole + here[:2] - place[:2]), carry_m), yaw, 0.0, "carry", index)
    aim = np.array(cell.memory.setpoint[:2]) + 0.6 * error
    inside_hole = bottom < FIXTURE_HEIGHT_M - 0.001
    fine = away < max(0.25 * cell.parameters.clearance_m, 0.00012) and abs(twist) < 0.006
    if inside_hole or (fine and bottom < FIXTURE_HEIGHT_M + 0.008):
        if bottom < 0.003:
            return _advice(cell, cell.memory.setpoint[:3], cell.memory.setpoint[3], 1.0, "release", index)
        return _advice(cell, (*aim, here[2] - (0.018 if inside_hole else 0.010)), yaw, 0.0, "insert", index)
    over = FIXTURE_HEIGHT_M + 0.004 + hangs
    return _advice(cell, (*aim, max(over, here[2] - 0.02)), yaw, 0.0, "align", index)


def _press(cell: Cell, goal: Press) -> Advice:
    if goal.button in cell.memory.pressed and goal.button not in cell.memory.down:
        return _retreat(cell, "wait", f"button_{goal.button}", gripper=0.0)
    spot, here = np.array(cell.layout.panel.button_m(goal.button)), cell.gripper_m
    away, name = float(np.hypot(*(spot - here[:2]))), f"button_{goal.button}"
    touch_m = PLUNGER_TOP_M + PAD_HALF_M[2]
    if away > 0.03 and here[2] < touch_m + 0.02:
        return _advice(cell, (here[0], here[1], touch_m + 0.05), 0.0, 0.0, "retreat", name)
    if away > 0.004 or cell.aperture > 0.1 or abs(cell.yaw_rad) > 0.1:
        return _advice(cell, (*spot, touch_m + 0.02), 0.0, 0.0, "approach", name)
    if goal.button in cell.memory.down:
        return _retreat(cell, "retreat", name, gripper=0.0)
    return _advice(cell, (*spot, touch_m - 0.010), 0.0, 0.0, "press", name)


def _put_down(cell: Cell, held: int) -> Advice:
    """Leave a part that is not wanted at a free place of the bench."""
    place, here = cell.part_m(held), cell.gripper_m
    part = cell.layout.parts[held].part
    spot = np.clip(place[:2], (-0.2, -0.06), (0.2, 0.06))
    neighbours = [cell.part_m(i)[:2] for i in range(len(cell.layout.parts)) if i != held]
    for turn in range(24):
        tried = spot + 0.02 * turn * np.array([np.cos(2.4 * turn), 0.4 * np.sin(2.4 * turn)])
        if all(np.hypot(*(tried - other)) > 0.09 for other in neighbours) and abs(tried[0]) < 0.22:
            spot = tried
            break
    return _bring(cell, held, spot, 0.003, 0.0, ("bench",), place, here) if part else _retreat(cell, "wait", "palm")


def _retreat(cell: Cell, phase: str, subject: str, gripper: float = 1.0) -> Advice:
    """Straight up, with the fingers no wider than they must until clear of what stands around."""
    here = cell.gripper_m
    index = int(subject.removeprefix("part_")) if subject.startswith("part_") else None
    if index is not None and here[2] < cell.part_m(index)[2] + cell.layout.parts[index].part.half_height_m + 0.02:
        part = cell.layout.parts[index].part
        gripper = min(gripper, (part.grip_half_m + 0.8 * OPEN_MARGIN_M) / FINGER_STROKE_M)
        if cell.touches("finger_left", subject) or cell.touches("finger_right", subject):
            return _advice(cell, cell.memory.setpoint[:3], cell.memory.setpoint[3], gripper, "release", subject)
    z = max(cell.memory.setpoint[2], REST_M)
    return _advice(cell, (*cell.memory.setpoint[:2], z), cell.memory.setpoint[3], gripper, phase, subject)


def _spot(cell: Cell, index: int, into: str) -> Float[np.ndarray, "2"]:
    """A free place in a bin, or the nearest free slot of the kit."""
    place = cell.part_m(index)[:2]
    others = [cell.part_m(i) for i in range(len(cell.layout.parts)) if i != index and inside(cell, i, into)]
    if into == "kit":
        kit = cell.layout.kit
        assert kit is not None
        slots = [np.array(kit.slot_m(i)) for i in range(3)]
        free = [slot for slot in slots if all(np.abs(other[:2] - slot).max() > SLOT_HALF_M for other in others)]
        return min(free or slots, key=lambda slot: float(np.hypot(*(slot - place))))
    row = cell.layout.bin(into)
    if cell.layout.parts[index].part.kind == "bar":
        return np.array([row.x_m, row.y_m])
    # One behind the other: across x the fingers need the room.
    nearer = not others or others[0][1] > row.y_m
    return np.array([row.x_m, row.y_m + (-0.034 if nearer else 0.034)])


def _clear_m(cell: Cell, index: int) -> float:
    """Height above everything that stands around, save one part."""
    tops = [
        cell.part_m(i)[2] + cell.layout.parts[i].part.half_height_m for i in range(len(cell.layout.parts)) if i != index
    ]
    return max([*tops, PLUNGER_TOP_M]) + 0.025


def _aligned(now: float, wanted: float, symmetry_rad: float) -> float:
    """The angle nearest to `now` that equals `wanted` up to whole turns of the symmetry."""
    if not symmetry_rad:
        return now
    return float(wanted + symmetry_rad * np.round((now - wanted) / symmetry_rad))


def _advice(
    cell: Cell, to_m: Sequence[float], yaw_rad: float, gripper: float, phase: str, subject: int | str
) -> Advice:
    """The step towards a setpoint, at full speed where it is far."""
    wanted = np.array([*to_m, yaw_rad]) - cell.memory.setpoint
    scale = max(1.0, float(np.max(np.abs(wanted[:3]) / ACTION_LIMITS[:3])))
    moved = wanted / scale
    moved[3] = np.clip(wanted[3], -ACTION_LIMITS[3], ACTION_LIMITS[3])
    name = f"part_{subject}" if isinstance(subject, int) else subject
    return Advice(action=np.array([*moved, gripper], dtype=np.float32), phase=phase, subject=name)
