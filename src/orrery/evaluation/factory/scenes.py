"""Test episodes and windows of them: simulated, filmed by the reference renderer, and the same for the same seed.

Seeds lie in the test range of the shipped plan (3,000,000 to 3,999,999), its upper half for words and colour x kind
pairs that training shows too, its lower half for those that are held out. Functions here run in any process.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Float64, UInt8

from orrery.worlds.factory.behaviours import BEHAVIOURS, BRANCHES, chunk, policy
from orrery.worlds.factory.cell import Cell, CellState
from orrery.worlds.factory.contacts import Impact
from orrery.worlds.factory.hearing import history
from orrery.worlds.factory.parts import Part
from orrery.worlds.factory.render import Renderer, project
from orrery.worlds.factory.rollout import Attempt, film, roll
from orrery.worlds.factory.sound import Sounding
from orrery.worlds.factory.tasks import TASKS, Job, draw_job

CHUNK = 16
CHUNKS = (1, 4, 8)
"""After how many chunks an imagined state is read."""
FRONT, WRIST = (128, 128), (64, 64)
CAMERAS = {"front": FRONT, "wrist": WRIST}
FIRST_UNSEEN, FIRST_SEEN = 3_000_000, 3_500_000
SEEDS = 500_000
Source = Literal["expert", "noise", "play", "branch"]
SOURCES: tuple[Source, ...] = ("expert", "noise", "play", "branch")
ACTORS = {"expert": "expert", "noise": "noise_0.5", "play": "play", "branch": "expert"}

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Which episode; everything in it follows from these values."""

    seed: int
    task: str
    behaviour: str = "expert"
    unseen: bool = False
    """Held-out pairs and phrasings."""
    steps: int | None = None
    """Control steps, acted to the end whatever happens; None ends with the task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """An episode in motion, in the process that plays it."""

    case: Case
    cell: Cell
    job: Job
    attempt: Attempt
    instruction: str
    heard: Sequence[Sounding]


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A stretch of an episode, filmed, with the truth about every frame of it. Frame t is followed by action t."""

    case: Case
    source: str
    front: UInt8[np.ndarray, "T 128 128 3"]
    wrist: UInt8[np.ndarray, "T 64 64 3"]
    action: Float32[np.ndarray, "A 5"]
    """A = T - 1."""
    state: Float32[np.ndarray, "T 5"]
    parts_m: Float64[np.ndarray, "T P 3"]
    seen: Bool[np.ndarray, "T P"]
    """Whether a part's middle is within the front picture and above the floor."""
    parts: tuple[Part, ...]
    instruction: str
    masks: dict[str, npt.NDArray[np.bool]] | None = None
    """Camera -> pixels of parts and gripper."""

    @property
    def given(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The first frame of each camera."""
        return {"front": self.front[0], "wrist": self.wrist[0]}

    @property
    def film(self) -> dict[str, npt.NDArray[np.uint8]]:
        return {"front": self.front, "wrist": self.wrist}

    @property
    def alone(self) -> tuple[int, ...]:
        """Parts that no other part of the cell looks like."""
        words = [part.words for part in self.parts]
        return tuple(i for i, name in enumerate(words) if words.count(name) == 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fork:
    """One saved state and the ways on from it, one window each, in the order of `BRANCHES`."""

    ways: tuple[Window, ...]


def seed_of(index: int, *, seed: int, unseen: bool = False) -> int:
    """The seed of a test episode. Runs of another seed take other episodes."""
    return (FIRST_UNSEEN if unseen else FIRST_SEEN) + (seed * 9973 + index) % SEEDS


def cases(
    count: int, *, seed: int, behaviour: str, offset: int = 0, unseen: bool = False, steps: int | None = None
) -> list[Case]:
    """`count` episodes that take turns in the tasks. `offset` sets rows of the table apart."""
    names = tuple(TASKS)
    return [
        Case(
            seed=seed_of(offset + index, seed=seed, unseen=unseen),
            task=names[index % len(names)],
            behaviour=behaviour,
            unseen=unseen,
            steps=steps,
        )
        for index in range(count)
    ]


def gather(function: Callable[[In], Out], jobs: Sequence[In], workers: int) -> list[Out]:
    """`function` of each job in order, by so many processes."""
    if workers <= 1 or len(jobs) <= 1:
        return [function(job) for job in jobs]
    # Not fork: threads of torch may be running.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, jobs))


def job_of(case: Case) -> tuple[Job, str]:
    """What is to be done, and how it is said."""
    rng = np.random.default_rng([case.seed, 0])
    job = draw_job(case.task, rng, pairs="held_out" if case.unseen else "train", random_look=False)
    row = TASKS[case.task]
    spoken = row.held_out_phrasings if case.unseen else row.phrasings
    offset = len(row.phrasings) if case.unseen else 0
    return job, job.instruction(offset + int(np.random.default_rng([case.seed, 2]).integers(len(spoken))))


def play(case: Case) -> Played:
    """Simulate an episode."""
    job, instruction = job_of(case)
    cell = Cell(job.layout, job.parameters)
    start = cell.snapshot()
    actor = policy(BEHAVIOURS[case.behaviour], job, np.random.default_rng([case.seed, 1]))
    attempt = roll(cell, job, actor, steps=case.steps, to_the_end=case.steps is not None)
    cell.restore(start)
    heard = history(cell, attempt.reports)
    return Played(case=case, cell=cell, job=job, attempt=attempt, instruction=instruction, heard=heard)


def shoot(cell: Cell, states: Sequence[CellState], camera: str, renderer: Renderer) -> UInt8[np.ndarray, "T H W 3"]:
    """The film of some states."""
    return np.stack(list(film(cell, states, camera, *CAMERAS[camera], renderer)))


def window_of(
    played: Played,
    attempt: Attempt,
    start: int,
    steps: int,
    source: str,
    renderer: Renderer,
    *,
    masks: bool = False,
) -> Window:
    """Frames start to start + steps of an attempt, both included."""
    cell = played.cell
    moments = attempt.moments[start : start + steps + 1]
    assert len(moments) == steps + 1, (len(attempt.moments), start, steps)
    states = [moment.state for moment in moments]
    parts_m = np.stack([moment.parts[:, :3] for moment in moments])
    return Window(
        case=played.case,
        source=source,
        front=shoot(cell, states, "front", renderer),
        wrist=shoot(cell, states, "wrist", renderer),
        action=np.stack([moment.action for moment in moments[:-1]]),
        state=np.stack([moment.proprioception for moment in moments]),
        parts_m=parts_m,
        seen=in_front(cell, parts_m),
        parts=tuple(placed.part for placed in played.job.layout.parts),
        instruction=played.instruction,
        masks={name: thing_masks(cell, states, name, renderer) for name in CAMERAS} if masks else None,
    )


def in_front(cell: Cell, points_m: Float64[np.ndarray, "T P 3"]) -> Bool[np.ndarray, "T P"]:
    """Whether points lie within the front picture and above the floor."""
    height, width = FRONT
    flat = points_m.reshape(-1, 3)
    view = project(cell.model, cell.data, "front", flat, height, width)
    inside = (view[:, 0] > 1) & (view[:, 0] < width - 1) & (view[:, 1] > 1) & (view[:, 1] < height - 1)
    seen: Bool[np.ndarray, "T P"] = (inside & (flat[:, 2] > -0.05)).reshape(points_m.shape[:2])
    return seen


def thing_masks(cell: Cell, states: Iterable[CellState], camera: str, renderer: Renderer) -> Bool[np.ndarray, "T H W"]:
    """Pixels of parts and of the gripper."""
    model = cell.model
    names = [model.body(model.geom_bodyid[i]).name for i in range(model.ngeom)]
    wanted = np.array([name.startswith(("part_", "finger_", "palm")) for name in names] + [False])
    found = []
    for state in states:
        cell.restore(state)
        numbers, _ = renderer.segment(cell.data, camera, *CAMERAS[camera])
        found.append(wanted[numbers])
    return np.stack(found)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which window of which episode."""

    case: Case
    source: Source
    steps: int = CHUNK
    masks: bool = False


def cut(job: Cut) -> Window:
    """One window somewhere in its episode; of a branch, the first after the fork."""
    played = play(job.case)
    rng = np.random.default_rng([job.case.seed, 3])
    renderer = Renderer(played.cell.model)
    moments = played.attempt.moments
    if job.source == "branch":
        fork = _fork_step(rng, len(moments))
        kind = str(rng.choice([name for name in BRANCHES if name != "expert"]))
        return window_of(
            played, _branch(played, fork, kind, job.steps), 0, job.steps, "branch", renderer, masks=job.masks
        )
    start = int(rng.integers(max(1, len(moments) - job.steps)))
    attempt = played.attempt
    if len(moments) <= job.steps:
        # Done sooner than the window is long: the same actor, going on.
        longer = play(Case(**{**vars(job.case), "steps": job.steps + 1}))
        played, attempt, start = longer, longer.attempt, 0
    return window_of(played, attempt, start, job.steps, job.source, renderer, masks=job.masks)


def cuts(per_source: int, *, seed: int, offset: int, steps: int = CHUNK, masks: bool = False) -> list[Cut]:
    """Windows of every source of actions."""
    whole = None if steps == CHUNK else steps + 1
    return [
        Cut(case=case, source=source, steps=steps, masks=masks)
        for number, source in enumerate(SOURCES)
        for case in cases(
            per_source, seed=seed, behaviour=ACTORS[source], offset=offset + 10_000 * number,
            steps=None if source == "branch" else whole,
        )
    ]  # fmt: skip


def fork(case: Case) -> Fork:
    """Four ways on from one state of an expert's episode."""
    played = play(case)
    rng = np.random.default_rng([case.seed, 3])
    step, renderer = _fork_step(rng, len(played.attempt.moments)), Renderer(played.cell.model)
    return Fork(
        ways=tuple(window_of(played, _branch(played, step, kind, CHUNK), 0, CHUNK, kind, renderer) for kind in BRANCHES)
    )


def _fork_step(rng: np.random.Generator, length: int) -> int:
    """Not at the very beginning, where there is little to do, nor where nothing is left."""
    return int(rng.integers(length // 5, max(4 * length // 5, length // 5 + 1)))


def _branch(played: Played, step: int, kind: str, steps: int) -> Attempt:
    played.cell.restore(played.attempt.moments[step].state)
    rng = np.random.default_rng([played.case.seed, 4 + BRANCHES.index(kind)])
    actor = chunk(kind, played.cell, played.job.goals, steps, rng)
    return roll(played.cell, played.job, actor, steps=steps + 1, to_the_end=True)


def impacts_of(attempt: Attempt, start_s: float, stop_s: float) -> list[Impact]:
    """What struck within a span of the cell's clock."""
    return [impact for impact in attempt.impacts if start_s <= impact.time_s < stop_s]
