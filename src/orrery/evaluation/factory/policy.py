"""The policy in the simulator: trials of a task in lockstep, many requests to the model at once.

Trials live in worker processes, which simulate and draw; the model sees what they send and answers with actions.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float32

from orrery.evaluation.factory.ask import Film, act, case_seed, run_all
from orrery.evaluation.factory.figure import Baseline, Figure, Outcome, Suite, share
from orrery.evaluation.factory.inverse import percent
from orrery.evaluation.factory.scenes import CAMERAS, Case, cases, gather, job_of
from orrery.runtime.model import Model
from orrery.worlds.factory.behaviours import BEHAVIOURS, LADDER
from orrery.worlds.factory.behaviours import policy as known_policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.goals import FINAL, failure
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import roll, see
from orrery.worlds.factory.tasks import TASKS

NOISE_EXPERT, PLAY = "noise_0.5", "play"
assert NOISE_EXPERT in LADDER
FILMED_EVERY = 2
"""Control steps between the frames of a film."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What a policy is shown."""

    frames: dict[str, npt.NDArray[np.uint8]]
    state: Float32[np.ndarray, "5"]
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a trial came out."""

    success: bool
    failure: str
    steps: int


class Trial:
    """One attempt of a task under a policy, in the process that simulates it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.job, self.instruction = job_of(case)
        self.cell = Cell(self.job.layout, self.job.parameters)
        self.renderer = Renderer(self.cell.model)
        self.left = TASKS[case.task].horizon if case.steps is None else case.steps
        self.steps = 0

    def look(self) -> Look:
        """What the cameras see and the gantry feels now."""
        frames = {name: see(self.cell, self.renderer, name, *size).colour for name, size in CAMERAS.items()}
        return Look(frames=frames, state=self.cell.proprioception(), instruction=self.instruction)

    def act(self, actions: Float[np.ndarray, "T 5"]) -> Look | Ended:
        """Execute actions until they are over, the task is done or lost, or time is up."""
        why = failure(self.cell, self.job.goals)
        for action in actions[: self.left - self.steps]:
            self.cell.step(np.asarray(action, dtype=np.float64))
            self.steps += 1
            why = failure(self.cell, self.job.goals)
            if not why or why in FINAL:
                break
        if not why or why in FINAL or self.steps >= self.left:
            return Ended(success=not why, failure=why, steps=self.steps)
        return self.look()


Told = Mapping[int, Float[np.ndarray, "T 5"]]
"""Actions for each trial, by its number."""


class Here:
    """Trials in this process."""

    def __init__(self, given: Sequence[tuple[int, Case]]) -> None:
        self.trials = {number: Trial(case) for number, case in given}

    def looks(self) -> dict[int, Look | Ended]:
        return {number: trial.look() for number, trial in self.trials.items()}

    def act(self, told: Told) -> dict[int, Look | Ended]:
        return {number: self.trials[number].act(actions) for number, actions in told.items()}


def serve(connection: Connection, given: Sequence[tuple[int, Case]]) -> None:
    """Hold trials in a process of their own: send what they see, then act on what comes until None does."""
    here = Here(given)
    connection.send(here.looks())
    while (told := connection.recv()) is not None:
        connection.send(here.act(told))


class Away:
    """Trials in other processes."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = connections

    def looks(self) -> dict[int, Look | Ended]:
        return {number: seen for connection in self.connections for number, seen in connection.recv().items()}

    def act(self, told: Told) -> dict[int, Look | Ended]:
        for place, connection in enumerate(self.connections):
            mine = {n: actions for n, actions in told.items() if n % len(self.connections) == place}
            connection.send(mine)
        return self.looks()


@contextmanager
def trials_of(given: Sequence[Case], workers: int) -> Iterator[Here | Away]:
    """Trials, numbered as given, in this process or in so many others."""
    numbered = list(enumerate(given))
    if workers <= 1:
        yield Here(numbered)
        return
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(numbered))
    connections, processes = [], []
    for place in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, numbered[place::count]), daemon=True)
        process.start()
        theirs.close()
        connections.append(ours)
        processes.append(process)
    try:
        yield Away(connections)
        for connection in connections:
            connection.send(None)
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.join()


def closed_loop(
    model: Model, given: Sequence[Case], suite: Suite, row: int, watch: Callable[[Told], None] = lambda _: None
) -> list[Ended]:
    """Run all trials to their end, every one asked again after `suite.execute` actions; `watch` is told these."""
    ended: dict[int, Ended] = {}
    asked = 0
    with trials_of(given, suite.workers) as trials:
        seen = trials.looks()
        while True:
            open_looks = {number: look for number, look in seen.items() if isinstance(look, Look)}
            ended |= {number: look for number, look in seen.items() if isinstance(look, Ended)}
            if not open_looks:
                break
            requests = [
                act(
                    suite.policy_task,
                    look.frames,
                    look.state,
                    look.instruction,
                    case_seed(suite, row, 1000 * asked + n),
                )
                for n, look in open_looks.items()
            ]
            results = run_all(model, requests, suite)
            told = {
                number: np.asarray(result.actions)[: suite.execute]
                for number, result in zip(open_looks, results, strict=True)
            }
            watch(told)
            seen = trials.act(told)
            asked += 1
    return [ended[number] for number in range(len(given))]


def filmed(attempt: tuple[Case, Float[np.ndarray, "T 5"]]) -> Film:
    """A trial once more, under the actions that it was given, seen every FILMED_EVERY steps and at its end."""
    case, actions = attempt
    trial = Trial(case)
    looks = [trial.look()]
    for start in range(0, len(actions), FILMED_EVERY):
        seen = trial.act(actions[start : start + FILMED_EVERY])
        looks.append(trial.look() if isinstance(seen, Ended) else seen)
    return {name: np.stack([look.frames[name] for look in looks]) for name in CAMERAS}


def trials_for(suite: Suite, *, unseen: bool) -> list[Case]:
    """All trials of the closed loop, `Size.trials` or `Size.unseen_trials` of each task."""
    each = suite.size.unseen_trials if unseen else suite.size.trials
    given = cases(
        each * len(TASKS), seed=suite.seed, behaviour="expert", offset=450_000, unseen=unseen, steps=suite.size.steps
    )
    return given


def policy(model: Model, suite: Suite, policy_only: Model | None = None) -> Outcome:
    """Success in the simulator, for each task and on the mean, beside experts with noise and play."""
    figures: list[Figure] = []
    failures: dict[str, int] = {}
    for unseen in (False, True):
        given = trials_for(suite, unseen=unseen)
        if not given:
            continue
        own = closed_loop(model, given, suite, 30 + unseen)
        rivals = {
            "noise expert": gather(done_by_noise, given, suite.workers),
            "play": gather(done_by_play, given, suite.workers),
        }
        if policy_only is not None:
            rivals["policy-only model"] = [end.success for end in closed_loop(policy_only, given, suite, 30 + unseen)]
        words = "held-out words and pairs" if unseen else "seen words and pairs"
        for end in own:
            failures[end.failure] = failures.get(end.failure, 0) + (not end.success)
        figures.append(
            share(
                f"Success over all tasks, {words}",
                [end.success for end in own],
                of="trials",
                baselines=[Baseline(name=name, value=percent(done)) for name, done in rivals.items()],
                floor=None if unseen else 70.0,
                goal=None if unseen else 95.0,
            )
        )
        for task in TASKS:
            chosen = [i for i, case in enumerate(given) if case.task == task]
            figures.append(
                share(
                    f"Success, {task}, {words}",
                    [own[i].success for i in chosen],
                    of="trials",
                    baselines=[
                        Baseline(name=name, value=percent([done[i] for i in chosen])) for name, done in rivals.items()
                    ],
                    floor=None if unseen else 40.0,
                    goal=None if unseen else 95.0,
                )
            )
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(failures.items(), key=lambda row: -row[1]) if count)
    return Outcome(
        figures=tuple(figures),
        note=f"{suite.execute} of 16 actions are executed at a time. Failures: {reasons or 'none'}.",
    )


def done_by_noise(case: Case) -> bool:
    """Whether an expert with noise does it."""
    return _done_by(case, NOISE_EXPERT)


def done_by_play(case: Case) -> bool:
    """Whether aimless wandering does it."""
    return _done_by(case, PLAY)


def _done_by(case: Case, behaviour: str) -> bool:
    job, _ = job_of(case)
    actor = known_policy(BEHAVIOURS[behaviour], job, np.random.default_rng([case.seed, 1]))
    return roll(Cell(job.layout, job.parameters), job, actor, steps=case.steps).success
