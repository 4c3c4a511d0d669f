"""Inverse dynamics: recovered actions against the executed ones, and replayed in the simulator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Float32

from orrery.evaluation.factory.ask import Film, recovered
from orrery.evaluation.factory.figure import RESAMPLES, Baseline, Figure, Outcome, Suite, share
from orrery.evaluation.factory.scenes import CHUNK, Case, cases, cut, cuts, gather, job_of, play, window_of
from orrery.evaluation.metrics import bootstrap_interval, r_squared
from orrery.runtime.model import Model
from orrery.worlds.factory.cell import ACTION_COLUMNS, Cell
from orrery.worlds.factory.goals import FINAL, failure
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.tasks import TASKS

SETTLE_STEPS = 10
"""Steps without motion after the last action, in which what was let go comes to rest."""

Chunks = tuple[Float[np.ndarray, "16 5"], Float[np.ndarray, "16 5"]]


def inverse_dynamics(model: Model, suite: Suite) -> Outcome:
    """R2 of each column over windows of all sources; the share of tasks done by the recovered actions."""
    windows = gather(cut, cuts(suite.size.inverse_windows, seed=suite.seed, offset=300_000), suite.workers)
    found = recovered(model, [window.film for window in windows], suite, 20)
    pairs: list[Chunks] = [(one, window.action) for one, window in zip(found, windows, strict=True)]
    figures = [*columns(pairs, suite), *replayed(model, suite)]
    return Outcome(figures=tuple(figures))


def columns(pairs: Sequence[Chunks], suite: Suite) -> list[Figure]:
    """The mean R2 first, then each column."""

    def scores(drawn: Sequence[Chunks]) -> tuple[float | None, ...]:
        return r_squared(np.concatenate([pair[0] for pair in drawn]), np.concatenate([pair[1] for pair in drawn]))

    def least(drawn: Sequence[Chunks]) -> float:
        return min(score for score in (*scores(drawn), 1.0) if score is not None)

    def column(index: int, drawn: Sequence[Chunks]) -> float:
        score = scores(drawn)[index]
        return 0.0 if score is None else score

    guess = (Baseline(name="mean action", value=0.0),)
    figures = [
        Figure(
            name="R2 of the worst column",
            value=least(pairs),
            interval=_interval(pairs, least, suite),
            baselines=guess,
            n=len(pairs),
            of="windows",
            floor=0.95,
            goal=0.99,
        )
    ]
    for index, name in enumerate(ACTION_COLUMNS):
        figures.append(
            Figure(
                name=f"R2 of {name}",
                value=scores(pairs)[index],
                interval=_interval(pairs, partial(column, index), suite),
                baselines=guess,
                n=len(pairs),
                of="windows",
            )
        )
    return figures


def _interval(
    pairs: Sequence[Chunks], score: Callable[[Sequence[Chunks]], float], suite: Suite
) -> tuple[float, float] | None:
    return bootstrap_interval(pairs, score, seed=suite.seed, resamples=RESAMPLES) if len(pairs) > 1 else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Whole:
    """An episode that an expert finished, from the first frame to the last."""

    case: Case
    film: Film
    action: Float32[np.ndarray, "A 5"]


def whole(case: Case) -> Whole | None:
    """None where the expert failed, or was done before a chunk was over."""
    played = play(case)
    steps = len(played.attempt.moments) - 1
    if not played.attempt.success or steps < CHUNK:
        return None
    window = window_of(played, played.attempt, 0, steps, "expert", Renderer(played.cell.model))
    return Whole(case=case, film=window.film, action=window.action)


def starts_of(steps: int) -> list[int]:
    """Where the chunks of a film of `steps` actions begin; the last ends with the film and may overlap."""
    return sorted({*range(0, steps - CHUNK + 1, CHUNK), steps - CHUNK})


def joined(chunks: Sequence[np.ndarray], starts: Sequence[int], steps: int) -> Float[np.ndarray, "A 5"]:
    """One row a step; where chunks overlap the later one counts."""
    actions = np.zeros((steps, len(ACTION_COLUMNS)), dtype=np.float32)
    for start, chunk in zip(starts, chunks, strict=True):
        actions[start : start + CHUNK] = chunk
    return actions


def replayed(model: Model, suite: Suite) -> list[Figure]:
    """Recover the actions of whole episodes and act on them from the true start, without looking."""
    count = len(TASKS) * suite.size.replays
    if not count:
        return []
    episodes = [
        found
        for found in gather(whole, cases(count, seed=suite.seed, behaviour="expert", offset=400_000), suite.workers)
        if found is not None
    ]
    places = [(i, start) for i, one in enumerate(episodes) for start in starts_of(len(one.action))]
    cut_out = [
        {name: film[start : start + CHUNK + 1] for name, film in episodes[i].film.items()} for i, start in places
    ]
    chunks = recovered(model, cut_out, suite, 21)
    tries: list[tuple[Case, np.ndarray]] = []
    for i, one in enumerate(episodes):
        mine = [k for k, place in enumerate(places) if place[0] == i]
        actions = joined([chunks[k] for k in mine], [places[k][1] for k in mine], len(one.action))
        mean = np.broadcast_to(one.action.mean(axis=0), one.action.shape)
        tries += [(one.case, actions), (one.case, one.action), (one.case, mean)]
    done = gather(succeeds, tries, suite.workers)
    own, ceiling, constant = done[0::3], done[1::3], done[2::3]
    figures = [
        share(
            "Success of the recovered actions, replayed",
            own,
            of="episodes",
            baselines=(
                Baseline(name="mean action", value=percent(constant)),
                Baseline(name="the true actions", value=percent(ceiling)),
            ),
            floor=60.0,
            goal=95.0,
        )
    ]
    for task in TASKS:
        chosen = [i for i, one in enumerate(episodes) if one.case.task == task]
        figures.append(
            share(
                f"Success of the recovered actions, {task}",
                [own[i] for i in chosen],
                of="episodes",
                baselines=(Baseline(name="the true actions", value=percent([ceiling[i] for i in chosen])),),
            )
        )
    return figures


def succeeds(attempt: tuple[Case, Float[np.ndarray, "A 5"]]) -> bool:
    """Whether actions, one after the other from the beginning of an episode, do its task."""
    case, actions = attempt
    job, _ = job_of(case)
    cell = Cell(job.layout, job.parameters)
    rest = np.zeros((SETTLE_STEPS, actions.shape[1]))
    rest[:, 4] = actions[-1, 4]
    for action in np.concatenate([actions, rest]):
        cell.step(action.astype(np.float64))
        why = failure(cell, job.goals)
        if not why or why in FINAL:
            return not why
    return False


def percent(right: Sequence[bool]) -> float | None:
    """A share without its interval; None of nothing."""
    return 100 * sum(right) / len(right) if right else None
