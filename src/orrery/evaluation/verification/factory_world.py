"""FactoryCell as a world to be verified against. Episodes are of the test range, under the look of the evaluation, and
pictures are judged by the frozen probes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from orrery.evaluation.factory.probe import Reader, Sights
from orrery.evaluation.factory.scenes import ACTORS, CAMERAS, CHUNK, SOURCES, Case, in_front, job_of, seed_of
from orrery.evaluation.factory.sound import ACTORS as ACTORS_HEARD
from orrery.evaluation.factory.sound import Heard, counts_of, flux, heard_of, tuned_threshold
from orrery.evaluation.factory.text_to_media import happened
from orrery.evaluation.verification.interfaces import (
    GRIPPER,
    Actions,
    Actor,
    Blows,
    Clip,
    Film,
    Reading,
    Trial,
    trial_seed,
)
from orrery.training.probe import PAIRS
from orrery.worlds.factory.behaviours import BEHAVIOURS, BRANCHES, Behaviour, chunk, policy
from orrery.worlds.factory.cell import ACTION_LIMITS, CONTROL_HZ, Cell, CellState
from orrery.worlds.factory.goals import Press, failure
from orrery.worlds.factory.layout import CellParameters
from orrery.worlds.factory.parts import Part
from orrery.worlds.factory.pcm import PCM_HZ
from orrery.worlds.factory.questions.phrasings import WORDS
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import see
from orrery.worlds.factory.scene import AXES, WORKSPACE
from orrery.worlds.factory.tasks import TASKS, Job

PARTS = tuple(Part(finish=finish, kind=kind) for finish, kind in PAIRS)
FURTHER = (
    Behaviour(name="noise_0.75", noise=0.75),
    Behaviour(name="noise_1.5", noise=1.5),
    Behaviour(name="biased_2mm", slip_m=0.002),
    Behaviour(name="biased_10mm", slip_m=0.010),
    Behaviour(name="late_gripper_3", late_steps=3),
    Behaviour(name="late_gripper_10", late_steps=10),
)
"""Policies beside those that training has seen: the ladder asks about policies that are new."""
POLICIES = {row.name: row for row in (*BEHAVIOURS.values(), *FURTHER)}
UNCHANGED = ": none"
"""Behind a change: the clips that it would have, of the twin."""
SILENT = 12
"""Episodes that are looked through for each clip with a blow, at most; about a third have one."""
LEAD_STEPS = 12
"""Steps of the clip's actor before a clip begins, at most a third of the task's horizon."""


def _changed(parameters: CellParameters, change: str) -> CellParameters:
    """The "real" cell: the twin but for one parameter."""
    if not change or change.endswith(UNCHANGED):
        return parameters
    values: dict[str, object] = {
        "belt backwards": {"belt_speed_m_s": -parameters.belt_speed_m_s},
        "drives late": {"actuator_delay_s": 0.15},
        "front camera moved": {"camera_shift_m": (0.03, 0.0, 0.0)},
        "lamp dim": {"light": 0.5},
    }[change]  # type: ignore[assignment]
    return replace(parameters, **values)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Start:
    cell: Cell
    state: CellState
    job: Job
    renderer: Renderer


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sight:
    """One picture among those that a probe read together."""

    sights: Sights
    index: int


@dataclass(frozen=True, kw_only=True, eq=False)
class FactoryWorld:
    """The cell, the gantry and the probes."""

    reader: Reader
    name: str = "factory"
    chunk: int = CHUNK
    rate_hz: float = float(CONTROL_HZ)
    limits: tuple[float, ...] = ACTION_LIMITS
    gripper: int = 4
    policies: tuple[str, ...] = tuple(POLICIES)
    changes: Mapping[str, str] = field(
        default_factory=lambda: {
            "belt backwards": "parts",
            "drives late": GRIPPER,
            "front camera moved": "front",
            "lamp dim": "front",
        }
    )

    @property
    def note(self) -> str:
        return self.reader.note

    def clips(self, count: int, *, chunks: int, seed: int, offset: int, change: str = "") -> list[Clip]:
        return [self._clip(index, chunks * CHUNK, seed, offset, change) for index in range(count)]

    def _clip(self, index: int, steps: int, seed: int, offset: int, change: str) -> Clip:
        names = tuple(TASKS)
        source = SOURCES[index % len(SOURCES)]
        # Cases with the belt running where a changed belt is asked for, else all tasks in turn.
        task = "belt_pick" if change.startswith("belt backwards") else names[index % len(names)]
        case = Case(seed=seed_of(700_000 + offset + index, seed=seed), task=task, behaviour=ACTORS[source])
        job, prompt = job_of(case)
        cell = Cell(job.layout, _changed(job.parameters, change))
        renderer = Renderer(cell.model)
        actor = policy(BEHAVIOURS[case.behaviour], job, np.random.default_rng([case.seed, 1]))
        rng = np.random.default_rng([case.seed, 3])
        for _ in range(int(rng.integers(LEAD_STEPS + 1))):
            cell.step(actor(cell))
        if source == "branch":
            kind = str(rng.choice([name for name in BRANCHES if name != "expert"]))
            actor = chunk(kind, cell, job.goals, steps, rng)
        start = _Start(cell=cell, state=cell.snapshot(), job=job, renderer=renderer)
        return _acted(start, lambda _: actor(cell), steps, source, prompt)

    def execute(self, clip: Clip, actions: Actions) -> Clip:
        start = clip.start
        assert isinstance(start, _Start)
        start.cell.restore(start.state)
        return _acted(start, lambda step: actions[step], len(actions), clip.source, clip.prompt)

    def read(self, pictures: npt.NDArray[np.uint8]) -> list[Reading]:
        sights = self.reader.read(pictures)
        return [
            Reading(
                points_m={GRIPPER: sights.gripper_m[i], **{part.words: sights.part_m(i, part) for part in PARTS}},
                present=frozenset(part.words for part in PARTS if sights.has(i, part)),
                held=bool(sights.held[i] > 0.5),
                own=_Sight(sights=sights, index=i),
            )
            for i in range(len(pictures))
        ]

    def trials(self, policy: str, count: int, *, chunks: int, seed: int) -> list[Trial]:
        return [self._trial(policy, index, chunks * CHUNK, seed) for index in range(count)]

    def _trial(self, name: str, index: int, most: int, seed: int) -> Trial:
        start, order = _begun(index, seed)
        cell, job, given = start.cell, start.job, _seen(start)
        actor = policy(POLICIES[name], job, np.random.default_rng([_trial_case(index, seed).seed, 1]))
        actions: list[np.ndarray] = []
        while len(actions) < most and (failure(cell, job.goals) or len(actions) % CHUNK):
            # Once it is done it rests, to the end of the chunk.
            rest = np.array([0.0, 0.0, 0.0, 0.0, actions[-1][4] if actions else 1.0])
            actions.append(cell.step(actor(cell) if failure(cell, job.goals) else rest).executed)
        return _tried(name, index, given, actions, start, order)

    def attempts(self, actor: Actor, count: int, *, chunks: int, seed: int) -> list[Trial]:
        starts = [_begun(index, seed) for index in range(count)]
        looks = [_seen(start) for start, _ in starts]
        states = [start.cell.proprioception() for start, _ in starts]
        actions: list[list[np.ndarray]] = [[] for _ in starts]
        for number in range(chunks):
            open_ones = [i for i, (start, _) in enumerate(starts) if failure(start.cell, start.job.goals)]
            if not open_ones:
                break
            told = actor.act(
                [_seen(starts[i][0]) for i in open_ones],
                [starts[i][0].cell.proprioception() for i in open_ones],
                [starts[i][1] for i in open_ones],
                [trial_seed(seed, number, i) for i in open_ones],
            )
            for i, commands in zip(open_ones, told, strict=True):
                actions[i] += [starts[i][0].cell.step(command).executed for command in commands]
        return [
            replace(
                _tried(actor.name, i, looks[i], actions[i], start, order), actor=actor, order=order, state=states[i]
            )
            for i, (start, order) in enumerate(starts)
        ]

    def limited(self, state: npt.NDArray[np.float32], commands: Actions) -> Actions:
        low, high = np.array([WORKSPACE[axis] for axis in AXES]).T
        place, executed = np.asarray(state[:4], dtype=np.float64), []
        for command in commands:
            goal = np.clip(place + np.clip(command[:4], -np.array(ACTION_LIMITS), ACTION_LIMITS), low, high)
            executed.append([*(goal - place), np.clip(command[4], 0.0, 1.0)])
            place = goal
        return np.array(executed)

    def felt(self, state: npt.NDArray[np.float32], actions: Actions, reading: Reading) -> npt.NDArray[np.float32]:
        assert isinstance(reading.own, _Sight)
        # Fingers that close on a part stop at it.
        opening = reading.own.sights.aperture[reading.own.index] if reading.held else actions[-1][4]
        return np.array([*(state[:4] + actions[:, :4].sum(axis=0)), opening], dtype=np.float32)

    @property
    def sound_rate_hz(self) -> int:
        return PCM_HZ

    def blows(self, count: int, *, seed: int) -> list[Blows]:
        names, found = tuple(TASKS), []
        for index in range(SILENT * count):
            case = Case(
                seed=seed_of(900_000 + index, seed=seed),
                task=names[index % len(names)],
                behaviour=ACTORS_HEARD[index % len(ACTORS_HEARD)],
            )
            row = heard_of(case)
            if row is not None and row.window is not None:
                found.append(Blows(given=row.window.given, actions=row.window.action, sound=row.sound, own=row))
            if len(found) == count:
                break
        return found

    def heard(self, sounds: Sequence[npt.NDArray[np.float64]], blows: Sequence[Blows]) -> list[tuple[int, int, int]]:
        rows = [row.own for row in blows if isinstance(row.own, Heard)]
        return counts_of([flux(sound) for sound in sounds], rows, self.threshold)

    @functools.cached_property
    def threshold(self) -> float:
        """Of the detector of onsets, tuned on other seeds."""
        return tuned_threshold(workers=1)

    def done(self, trial: Trial, reading: Reading) -> bool:
        assert isinstance(trial.goal, Job)
        assert isinstance(reading.own, _Sight)
        parts = [placed.part for placed in trial.goal.layout.parts]
        return all(
            happened(goal, None if isinstance(goal, Press) else parts[goal.part], reading.own.sights, reading.own.index)
            for goal in trial.goal.goals
        )

    def distance_m(self, clip: Clip, reading: Reading) -> float:
        place = self._wanted_m(clip)
        return float(np.linalg.norm(reading.points_m[GRIPPER] - place))

    def true_distance_m(self, clip: Clip) -> float:
        return float(np.linalg.norm(clip.points_m[GRIPPER][-1] - self._wanted_m(clip)))

    def _wanted_m(self, clip: Clip) -> np.ndarray:
        """Where the first thing that is wanted lies when the clip begins; known to whoever plans, from the order."""
        start = clip.start
        assert isinstance(start, _Start)
        start.cell.restore(start.state)
        goal = start.job.goals[0]
        if isinstance(goal, Press):
            return np.array([*start.job.layout.panel.button_m(goal.button), 0.04])
        return np.array(start.cell.part_m(goal.part))

    def proposals(self, clip: Clip, count: int, seed: int) -> list[Actions]:
        start = clip.start
        assert isinstance(start, _Start)
        found = []
        for number in range(count):
            start.cell.restore(start.state)
            rng = np.random.default_rng([seed, number])
            actor = chunk(("straight", "play")[number % 2], start.cell, start.job.goals, CHUNK, rng)
            found.append(np.stack([start.cell.step(actor(start.cell)).executed for _ in range(CHUNK)]))
        return found


def _trial_case(index: int, seed: int) -> Case:
    tasks = tuple(TASKS)
    return Case(seed=seed_of(800_000 + index, seed=seed), task=tasks[index % len(tasks)])


def _begun(index: int, seed: int) -> tuple[_Start, str]:
    """The start of the trials of this number, and the order."""
    job, order = job_of(_trial_case(index, seed))
    cell = Cell(job.layout, job.parameters)
    return _Start(cell=cell, state=cell.snapshot(), job=job, renderer=Renderer(cell.model)), order


def _seen(start: _Start) -> dict[str, npt.NDArray[np.uint8]]:
    """What the cameras see now."""
    return {camera: see(start.cell, start.renderer, camera, *size).colour for camera, size in CAMERAS.items()}


def _tried(policy: str, index: int, given: Film, actions: Sequence[np.ndarray], start: _Start, order: str) -> Trial:
    """A trial that is over, with the cell where it stands."""
    return Trial(
        policy=policy,
        start=index,
        given=given,
        actions=np.stack(actions),
        success=not failure(start.cell, start.job.goals),
        end=_seen(start)["front"],
        question=f"{WORDS['outcome'].train[0].format(order=order)} Choose one: yes; no.",
        goal=start.job,
    )


def _acted(start: _Start, act: Callable[[int], np.ndarray], steps: int, source: str, prompt: str) -> Clip:
    """Act from where the cell stands, filmed."""
    cell, job, renderer = start.cell, start.job, start.renderer
    names = [placed.part.words for placed in job.layout.parts]
    films: dict[str, list[np.ndarray]] = {camera: [] for camera in CAMERAS}
    felt, parts, actions = [], [], []
    for step in range(steps + 1):
        for camera, size in CAMERAS.items():
            films[camera].append(see(cell, renderer, camera, *size).colour)
        felt.append(cell.proprioception())
        parts.append([cell.part_m(i) for i in range(len(names))])
        if step < steps:
            actions.append(cell.step(act(step)).executed)
    parts_m = np.array(parts, dtype=np.float64).reshape(steps + 1, len(names), 3)
    visible = in_front(cell, parts_m)
    alone = {name: i for i, name in enumerate(names) if names.count(name) == 1}
    states = np.stack(felt)
    return Clip(
        source=source,
        film={camera: np.stack(frames) for camera, frames in films.items()},
        actions=np.stack(actions),
        points_m={GRIPPER: states[:, :3].astype(np.float64), **{name: parts_m[:, i] for name, i in alone.items()}},
        seen={GRIPPER: np.ones(steps + 1, dtype=bool), **{name: visible[:, i] for name, i in alone.items()}},
        prompt=prompt,
        start=start,
    )
