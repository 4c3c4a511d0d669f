"""Who acts: the expert, a ladder of degraded experts, and play. Rows, each turned into a policy on the true state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from orrery.errors import TaskError
from orrery.tasks.checks import nearest, shown
from orrery.worlds.factory.cell import ACTION_LIMITS, Action, Cell
from orrery.worlds.factory.experts import REST_M, advise
from orrery.worlds.factory.goals import Goal, Lift, Press, Put, Stack, containers, met
from orrery.worlds.factory.scene import WORKSPACE
from orrery.worlds.factory.tasks import Job

CLOSING_STEPS = 2
BURST_STEPS, CALM_STEPS = (2, 6), (12, 40)
"""Shortest and longest burst of noise, and stretch of the expert between two of them."""
FLIPS = 0.25
"""Share of the bursts in which the gripper does the opposite."""
Policy = Callable[[Cell], Action]
"""The action in the present state. A policy has memory of its own: use one for one episode."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One row. Everything but `plan` degrades an expert."""

    name: str
    plan: Literal["expert", "play", "goals"] = "expert"
    noise: float = 0.0
    """Standard deviation of noise added to each motion, in units of ACTION_LIMITS."""
    slip_m: float = 0.0
    """How far beside the hole it inserts, in a random direction."""
    late_steps: int = 0
    """The gripper does what it was told so many steps ago, while the gantry already leaves."""
    burst_noise: float = 0.0
    """As `noise`, but in short bursts; between them it acts exactly as the expert."""
    wrong_part: bool = False
    """Pursues the goals with another part, or the other button."""


BEHAVIOURS = {
    row.name: row
    for row in (
        Behaviour(name="expert"),
        Behaviour(name="noise_0.1", noise=0.1),
        Behaviour(name="noise_0.25", noise=0.25),
        Behaviour(name="noise_0.5", noise=0.5),
        Behaviour(name="noise_1", noise=1.0),
        Behaviour(name="noise_2", noise=2.0),
        Behaviour(name="bursts", burst_noise=0.7),
        Behaviour(name="biased", slip_m=0.004),
        Behaviour(name="late_gripper", late_steps=5),
        Behaviour(name="wrong_part", wrong_part=True),
        Behaviour(name="play", plan="play"),
        Behaviour(name="goals", plan="goals"),
    )
}
LADDER = ("expert", "noise_0.1", "noise_0.25", "noise_0.5", "noise_1", "noise_2")
"""Ever noisier; success falls along it (`benchmarks/experts.py`)."""


def behaviour(name: str) -> Behaviour:
    """The row called `name`; TaskError with the nearest name otherwise."""
    if name not in BEHAVIOURS:
        raise TaskError(f"There is no behaviour {shown(name)}. {nearest(name, BEHAVIOURS)}")
    return BEHAVIOURS[name]


def policy(row: Behaviour, job: Job, rng: np.random.Generator) -> Policy:
    """Someone who acts as the row says. Depends on the job and the generator alone."""
    if row.plan == "play":
        return _play(rng)
    if row.plan == "goals":
        return _random_goals(job, rng)
    if row.burst_noise:
        return _bursts(row.burst_noise, job.goals, rng)
    goals = _astray(job, rng) if row.wrong_part else job.goals
    turn = rng.uniform(0, 2 * np.pi)
    slip_m = (row.slip_m * float(np.cos(turn)), row.slip_m * float(np.sin(turn)))
    told, before, since = 1.0, 1.0, row.late_steps

    def act(cell: Cell) -> Action:
        nonlocal told, before, since
        action = advise(cell, goals, slip_m=slip_m).action.astype(np.float64)
        if row.noise:
            action[:4] += rng.normal(0, row.noise, 4) * ACTION_LIMITS
            action[:4] = np.clip(action[:4], np.negative(ACTION_LIMITS), ACTION_LIMITS)
        if (action[4] < 0.5) != (told < 0.5):
            before, since = told, 0
        told = float(action[4])
        if since < row.late_steps:
            # As long as closing takes it waits, then it goes, whatever the gripper has done.
            action[:4] = 0.0 if since < CLOSING_STEPS else (0.0, 0.0, ACTION_LIMITS[2], 0.0)
            action[4], since = before, since + 1
        return action

    return act


def _bursts(noise: float, goals: Sequence[Goal], rng: np.random.Generator) -> Policy:
    """An expert who is thrown off its path again and again, and finds back undisturbed."""
    left, wild, flips = int(rng.integers(CALM_STEPS[0] + 1)), False, False

    def act(cell: Cell) -> Action:
        nonlocal left, wild, flips
        if not left:
            wild = not wild
            low, high = BURST_STEPS if wild else CALM_STEPS
            left, flips = int(rng.integers(low, high + 1)), wild and bool(rng.random() < FLIPS)
        left -= 1
        action = advise(cell, goals).action.astype(np.float64)
        if wild:
            action[:4] += rng.normal(0, noise, 4) * ACTION_LIMITS
            action[:4] = np.clip(action[:4], np.negative(ACTION_LIMITS), ACTION_LIMITS)
            action[4] = 1.0 - action[4] if flips else action[4]
        return action

    return act


def _play(rng: np.random.Generator) -> Policy:
    """Smooth wandering that comes back from the edges, low over the bench half of the time; the gripper at whim."""
    speed, gripper = np.zeros(4), 1.0
    middle = np.array([0.0, 0.0, rng.choice([0.05, 0.12]), 0.0])
    reach = np.array([WORKSPACE["x"][1], WORKSPACE["y"][1], 0.12, 1.5])

    def act(cell: Cell) -> Action:
        nonlocal speed, gripper
        away = (middle - cell.memory.setpoint) / reach
        speed = 0.85 * speed + rng.normal(0, 0.3, 4) + 0.12 * away
        if rng.random() < 0.08:
            gripper = 1.0 - gripper
        return np.array([*(np.clip(speed, -1, 1) * ACTION_LIMITS), gripper])

    return act


def _random_goals(job: Job, rng: np.random.Generator) -> Policy:
    """An expert who pursues one thing after another that nobody asked for."""
    wanted: list[Goal] = []
    since = idle = 0

    def act(cell: Cell) -> Action:
        nonlocal since, idle
        since += 1
        if not wanted or met(cell, wanted[0]) or since > 60 or idle > 3:
            wanted[:] = [_any_goal(cell, rng)]
            since = idle = 0
        advice = advise(cell, wanted)
        idle = idle + 1 if advice.phase == "wait" else 0
        return advice.action.astype(np.float64)

    return act


def _any_goal(cell: Cell, rng: np.random.Generator) -> Goal:
    parts = len(cell.layout.parts)
    one, other = (int(index) for index in rng.permutation(parts)[:2]) if parts > 1 else (0, 0)
    choices: list[Goal] = [Lift(part=one), Press(button="start"), Press(button="stop")]
    choices += [Put(part=one, into=name) for name in containers(cell)]
    if parts > 1:
        choices += [Stack(part=one, base=other)]
    return choices[int(rng.integers(len(choices)))]


def _astray(job: Job, rng: np.random.Generator) -> tuple[Goal, ...]:
    """The job's goals with other parts in the place of those that are wanted, where there are others."""
    wanted = {goal.part for goal in job.goals if not isinstance(goal, Press)}
    bases = {goal.base for goal in job.goals if isinstance(goal, Stack)}
    others = [index for index in range(len(job.layout.parts)) if index not in wanted | bases]
    changed: list[Goal] = []
    for goal in job.goals:
        if isinstance(goal, Press):
            changed.append(Press(button="stop" if goal.button == "start" else "start"))
        elif isinstance(goal, Put) and job.task == "belt_sort":
            changed.append(replace(goal, into="bin_left" if goal.into == "bin_right" else "bin_right"))
        elif others:
            changed.append(replace(goal, part=others[int(rng.integers(len(others)))]))
        else:
            changed.append(goal)
    return tuple(changed)


def chunk(
    kind: str, cell: Cell, goals: Sequence[Goal], steps: int, rng: np.random.Generator, *, keeps: bool = False
) -> Policy:
    """A way to go on from a saved state, for branches: as the expert; a straight line; open and back up; or play.

    Args:
        keeps: as `advise` has it.

    Raises:
        TaskError: no such way.
    """
    if kind == "expert":
        return lambda now: advise(now, goals, keeps=keeps).action.astype(np.float64)
    if kind == "play":
        return _play(rng)
    if kind == "straight":
        motion = np.array([*rng.uniform(-0.8, 0.8, 3), 0.0]) * ACTION_LIMITS
        gripper = float(rng.random() < 0.5)
        return lambda now: np.array([*motion, gripper])
    if kind == "let_go":

        def act(now: Cell) -> Action:
            up: Float[np.ndarray, 5] = np.array([0.0, 0.0, 0.015 if now.memory.setpoint[2] < REST_M else 0.0, 0.0, 1.0])
            return up

        return act
    raise TaskError(f"There is no branch {shown(kind)}. {nearest(kind, BRANCHES)}")


BRANCHES = ("expert", "play", "straight", "let_go")
