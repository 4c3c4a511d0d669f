"""Simulate one episode of a seed: draw its job, let someone act, and for a branch go on from the middle in another way.

Each use of chance has a stream of its own, made from the episode's seed, so that one of them may change alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orrery.worlds.factory.behaviours import BRANCHES, behaviour, chunk, policy
from orrery.worlds.factory.cell import STEP_S, Cell, CellState, Report
from orrery.worlds.factory.plan import SIBLINGS, EpisodeSpec
from orrery.worlds.factory.rollout import Attempt, roll
from orrery.worlds.factory.tasks import Pairs, draw_job

BRANCH_STEPS = 32
"""Steps of a branch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """What was played. The cell is at its end."""

    cell: Cell
    start: CellState
    """The beginning of the cell, which for a branch is before its first moment."""
    attempt: Attempt
    before: tuple[Report, ...]
    """What happened before the first moment of a branch."""
    fork_step: int | None
    """Control steps from the beginning of the cell to the first moment of a branch."""

    @property
    def begin_s(self) -> float:
        """Time of the cell at the first moment."""
        return (self.fork_step or 0) * STEP_S


def chance_of(seed: int, purpose: int) -> np.random.Generator:
    """The stream of an episode for one purpose: 0 the job, 1 the behaviour, 2 the instruction, 3 where it forks, 4 on
    each of SIBLINGS; later ones are for those who describe it."""
    return np.random.default_rng([seed, purpose])


def perform(
    spec: EpisodeSpec,
    *,
    pairs: Pairs,
    clearances_m: Sequence[float],
    random_look: bool,
    after_steps: int | None = None,
    keeps: bool = False,
    listens: bool = True,
) -> Episode:
    """Simulate one episode.

    Args:
        spec: what to play; a branch forks off the attempt of its behaviour, and goes on for BRANCH_STEPS.
        clearances_m: of pegs in their hole, of which one is drawn.
        after_steps, keeps, listens: as `roll`, `advise` and `Cell` have them.
    """
    rng = chance_of(spec.seed, 0)
    clearance_m = float(rng.choice(clearances_m))
    job = draw_job(spec.task, rng, pairs=pairs, clearance_m=clearance_m, random_look=random_look)
    cell = Cell(job.layout, job.parameters, listens=listens)
    start = cell.snapshot()
    actor = policy(behaviour(spec.behaviour), job, chance_of(spec.seed, 1))
    if spec.branch is None:
        attempt = roll(cell, job, actor, after_steps=after_steps, keeps=keeps)
        return Episode(cell=cell, start=start, attempt=attempt, before=(), fork_step=None)
    # Without `after_steps`: where it forks must not depend on them.
    whole = roll(cell, job, actor)
    # Not at the very beginning, where there is little to do, nor where nothing is left.
    steps = len(whole.moments)
    fork_step = int(chance_of(spec.seed, 3).integers(steps // 5, max(4 * steps // 5, 1)))
    cell.restore(whole.moments[fork_step].state)
    # The expert needs no chance of its own.
    luck = chance_of(spec.seed, 4 + (SIBLINGS.index(spec.branch) if spec.branch in SIBLINGS else len(BRANCHES)))
    actor = chunk(spec.branch, cell, job.goals, BRANCH_STEPS, luck, keeps=keeps)
    attempt = roll(cell, job, actor, steps=BRANCH_STEPS, to_the_end=True, keeps=keeps)
    return Episode(cell=cell, start=start, attempt=attempt, before=whole.reports[:fork_step], fork_step=fork_step)
