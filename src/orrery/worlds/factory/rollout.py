"""Play one attempt and keep everything that data, sound, pictures and questions are made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from orrery.worlds.factory.behaviours import Policy
from orrery.worlds.factory.cell import Cell, CellState, Event, Motion, Report
from orrery.worlds.factory.contacts import Impact, Rubbing
from orrery.worlds.factory.experts import advise
from orrery.worlds.factory.goals import FINAL, failure
from orrery.worlds.factory.render import Renderer, View
from orrery.worlds.factory.tasks import TASKS, Job

AFTER_STEPS = 5
"""Steps that are played on after success, so that the outcome is seen and heard."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The state before one action, and that action."""

    state: CellState
    proprioception: Float32[np.ndarray, "5"]
    parts: Float64[np.ndarray, "P 7"]
    """Middles and quaternions (w, x, y, z)."""
    action: Float32[np.ndarray, "5"]
    """What was executed from here."""
    expert: Float32[np.ndarray, "5"]
    """What the expert would have done."""
    phase: str
    """The expert's word for that."""
    subject: str
    failure: str
    """Why the task is not done here; "" where it is."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One episode. `moments[t]` is the state at t / CONTROL_HZ seconds, counted from the beginning of the cell."""

    job: Job
    moments: tuple[Moment, ...]
    reports: tuple[Report, ...]
    """What the action of each moment led to."""
    success: bool
    failure: str

    @property
    def impacts(self) -> tuple[Impact, ...]:
        return tuple(impact for report in self.reports for impact in report.impacts)

    @property
    def rubbings(self) -> tuple[Rubbing, ...]:
        return tuple(rubbing for report in self.reports for rubbing in report.rubbings)

    @property
    def motions(self) -> tuple[Motion, ...]:
        return tuple(report.motion for report in self.reports)

    @property
    def events(self) -> tuple[Event, ...]:
        return tuple(event for report in self.reports for event in report.events)


def roll(
    cell: Cell,
    job: Job,
    policy: Policy,
    *,
    steps: int | None = None,
    to_the_end: bool = False,
    after_steps: int | None = None,
    keeps: bool = False,
) -> Attempt:
    """Act from the present state of `cell` until the task is done or lost, and a little longer, or until time is up.

    Args:
        cell: of the job's layout, anywhere in an episode; it is changed.
        steps: the longest attempt; the task's horizon when None.
        to_the_end: go on for all steps whatever happens, the policy acting throughout.
        after_steps: exactly so many more after success or loss, be it beyond the time; AFTER_STEPS within it when None.
        keeps: as `advise` has it.
    """
    moments: list[Moment] = []
    reports: list[Report] = []
    left = TASKS[job.task].horizon if steps is None else steps
    success, over, why = False, False, failure(cell, job.goals)
    while left > 0:
        advice = advise(cell, job.goals, keeps=keeps)
        action = advice.action if success and not to_the_end else policy(cell)
        state, felt = cell.snapshot(), cell.proprioception()
        parts = np.array([[*cell.part_m(i), *cell.part_quaternion(i)] for i in range(len(job.layout.parts))]).reshape(
            -1, 7
        )
        report = cell.step(action)
        moments.append(
            Moment(
                state=state,
                proprioception=felt,
                parts=parts,
                action=report.executed,
                expert=advice.action,
                phase=advice.phase,
                subject=advice.subject,
                failure=why,
            )
        )
        reports.append(report)
        why, left = failure(cell, job.goals), left - 1
        if (not why or why in FINAL) and not success:
            success = not why
            if not (over or to_the_end):
                left = min(left, AFTER_STEPS) if after_steps is None else after_steps
            over = True
    return Attempt(
        job=job, moments=tuple(moments), reports=tuple(reports), success=success, failure="" if success else why
    )


def see(cell: Cell, renderer: Renderer, camera: str, height: int, width: int) -> View:
    """What a camera sees now: the lamp as it is, the belt where it has got to."""
    shift = {cell.belt_geom: (cell.memory.belt_travel_m, 0.0)}
    return renderer.render(cell.data, camera, height, width, geom_rgba=cell.colours(), pattern_shift_m=shift)


def film(
    cell: Cell, states: Sequence[CellState], camera: str, height: int, width: int, renderer: Renderer | None = None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """What a camera sees at each of some states. `cell` is left in the last."""
    renderer = renderer or Renderer(cell.model)
    for state in states:
        cell.restore(state)
        yield see(cell, renderer, camera, height, width).colour
