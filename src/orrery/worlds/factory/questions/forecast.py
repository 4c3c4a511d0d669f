"""Questions about what will be, or would be. The answer is not computed but played: the cell is restored to the moment
and goes on without the robot, or with its fingers opened.
"""

from collections.abc import Iterator

import numpy as np

from orrery.worlds.factory.cell import ACTION_LIMITS, Action, Cell
from orrery.worlds.factory.experts import REST_M
from orrery.worlds.factory.goals import END_M, belt_span
from orrery.worlds.factory.questions.drafts import Draft, Rng, any_of, shuffled, span
from orrery.worlds.factory.questions.sights import Witness, alone, support

BEFORE_STEPS = 10
"""What is shown before the moment from which is asked."""
SECONDS = (3, 5)
SURE_S = 0.4
"""An arrival this near to the asked time is not asked about."""
SETTLE_STEPS = 24
LANDS = {"belt": "the belt", "bench": "the bench", "container": "a bin or tray"}
"""Where a part that is let go of may come to lie."""


def reach_end(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """Whether a part on the belt comes to its end in time, played on with the robot out of the way.

    For each answer a moment is looked for at which the belt's speed alone makes it likely.
    """
    attempt, cell = witness.attempt, witness.cell
    parts = [placed.part for placed in cell.layout.parts]
    speed = cell.parameters.belt_speed_m_s
    for wanted in shuffled(rng, ("yes", "no")):
        seconds = any_of(rng, SECONDS)
        found = []
        for frame, moment in enumerate(attempt.moments):
            memory = moment.state.memory
            for index in range(len(parts)):
                x, y = moment.parts[index, :2]
                if memory.held == index or not memory.running or not belt_span(float(y)) or not speed:
                    continue
                guess_s = (END_M - np.sign(speed) * x) / abs(speed)
                if guess_s > 0 and abs(guess_s - seconds) > SURE_S and (guess_s < seconds) == (wanted == "yes"):
                    found.append((frame, index))
        if not found:
            continue
        frame, index = any_of(rng, found)
        sight = witness.look(frame, "front")
        if sight.support[index] != "belt" or index not in sight.seen or not alone(parts, index, "finish"):
            continue
        at_s = play_on(cell, index, seconds + SURE_S)
        if abs(at_s - seconds) > SURE_S:
            blanks = {"colour": parts[index].finish, "seconds": str(seconds)}
            yield span(
                "reach_end",
                "yes" if at_s < seconds else "no",
                tuple(shuffled(rng, ("yes", "no"))),
                max(0, frame - BEFORE_STEPS + 1),
                frame + 1,
                blanks=blanks,
                asked=str(seconds),
            )


def arrived(cell: Cell, index: int) -> bool:
    """Whether a part on the belt is at the end towards which it goes."""
    return bool(np.sign(cell.parameters.belt_speed_m_s) * cell.part_m(index)[0] > END_M)


def out_of_the_way(cell: Cell) -> Action:
    """The action of a robot that opens, moves up and keeps out of everything."""
    z = float(np.clip(REST_M + 0.08 - cell.memory.setpoint[2], 0, ACTION_LIMITS[2]))
    return np.array([0.0, 0.0, z, 0.0, 1.0])


def play_on(cell: Cell, index: int, limit_s: float) -> float:
    """Seconds until a part is at the end of the belt, with the robot out of the way; infinite if not in time."""
    begin_s = cell.time_s
    while cell.time_s - begin_s < limit_s:
        cell.step(out_of_the_way(cell))
        if arrived(cell, index):
            return cell.time_s - begin_s
    return float("inf")


def if_released(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """Where the held part comes to lie if the gripper opens now: where it would seems to be looked for, then played."""
    cell, moments = witness.cell, witness.attempt.moments
    guesses: dict[str, list[int]] = {name: [] for name in LANDS}
    for frame, moment in enumerate(moments):
        held = moment.state.memory.held
        if held is not None:
            guesses[_below(cell, moment.parts[held, :2])].append(frame)
    for wanted in shuffled(rng, [name for name in LANDS if guesses[name]])[:2]:
        frame = any_of(rng, guesses[wanted])
        sight = witness.look(frame, "front")
        held = sight.held
        if held is None or held not in sight.seen or sight.support[held] != "held":
            continue
        witness.at(frame)
        lands = let_go(cell, held)
        if lands in LANDS:
            answer = LANDS[lands]
            yield span(
                "if_released",
                answer,
                tuple(shuffled(rng, tuple(LANDS.values()))),
                max(0, frame - BEFORE_STEPS + 1),
                frame + 1,
            )


def let_go(cell: Cell, held: int) -> str:
    """What a part lies on some time after the gripper opened, as `support`; the gripper rises once it is open."""
    for step in range(SETTLE_STEPS):
        cell.step(np.array([0.0, 0.0, 0.02 if step > 6 else 0.0, 0.0, 1.0]))
    return support(cell, held)


def _below(cell: Cell, place_m: np.ndarray) -> str:
    x, y = place_m
    if belt_span(float(y)):
        return "belt"
    for row in cell.layout.bins:
        if max(abs(x - row.x_m), abs(y - row.y_m)) < 0.06:
            return "container"
    kit = cell.layout.kit
    return "container" if kit is not None and abs(x - kit.x_m) < 0.14 and abs(y - kit.y_m) < 0.045 else "bench"
