"""Rung 3: do policies come out in imagination as they do in the simulator?

Most policies see the true state of the simulator, which imagination does not have. So they act in the simulator, and
the same actions are imagined from the same first frames: the question is whether the model foresees what they lead to.
Policies that look act twice, in the simulator and in imagination on what the model shows them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orrery.evaluation.agreement import Score, agreement, compare_policies, false_success_rate, success_found
from orrery.evaluation.factory.figure import Baseline, Figure
from orrery.evaluation.page import Strip, Table
from orrery.evaluation.verification.interfaces import (
    Actions,
    Actor,
    Film,
    Imaginer,
    Reading,
    Trial,
    World,
    chain,
    trial_seed,
)
from orrery.evaluation.verification.ladder import Control, Rung, Setting

NAME = "policy_evaluation"
FEW = 3
"""Trials that are too few to compare policies."""
ASKED_FRAMES = 60
"""Frames at the end of a film that the model's own reasoner is shown."""
Judge = Callable[[Trial, Reading], bool]


def tried(world: World, setting: Setting, actors: Sequence[Actor] = ()) -> list[Trial]:
    """What every policy did in the simulator, from starts that all share; those that look come last."""
    climb = setting.climb
    return [
        trial
        for policy in world.policies[: climb.policies]
        for trial in world.trials(policy, climb.starts, chunks=climb.trial_chunks, seed=setting.seed)
    ] + [
        trial
        for actor in actors
        for trial in world.attempts(actor, climb.starts, chunks=climb.trial_chunks, seed=setting.seed)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreseen:
    """What a model imagined of trials, one after the other."""

    ends: Sequence[npt.NDArray[np.uint8]]
    """Last pictures of the first camera of each chunk, (chunks, H, W, 3)."""
    said: Sequence[str]
    """Its own answers to whether they were done; none where it answers nothing."""


def foreseen(imaginer: Imaginer, world: World, setting: Setting, trials: Sequence[Trial]) -> Foreseen:
    """Imagine every trial, and ask."""
    camera = next(iter(trials[0].given))
    known = [i for i, trial in enumerate(trials) if trial.actor is None]
    films: list[list[Film]] = [[] for _ in trials]
    chained = chain(
        imaginer, [trials[i].given for i in known], [trials[i].actions for i in known], chunk=world.chunk,
        seed=setting.seed,
    )  # fmt: skip
    looking = [i for i, trial in enumerate(trials) if trial.actor is not None]
    dreamed = looking and dream(imaginer, world, [trials[i] for i in looking], setting.climb.trial_chunks, setting.seed)
    for i, rows in zip([*known, *looking], [*chained, *dreamed], strict=True):
        films[i] = rows
    said: list[str] = []
    if imaginer.tells:
        shown = [
            np.concatenate([rows[0][camera][:1], *(film[camera][1:] for film in rows)])[-ASKED_FRAMES:]
            for rows in films
        ]
        said = imaginer.tell(shown, [trial.question for trial in trials], world.rate_hz)
    return Foreseen(ends=[np.stack([film[camera][-1] for film in rows]) for rows in films], said=said)


def dream(imaginer: Imaginer, world: World, trials: Sequence[Trial], chunks: int, seed: int) -> list[list[Film]]:
    """Let who looks act on what is imagined, for so many chunks: in imagination nobody knows when it is done."""
    now, made = [trial.given for trial in trials], [[] for _ in trials]  # type: list[Film], list[list[Film]]
    states = [trial.state for trial in trials if trial.state is not None]
    camera = next(iter(now[0]))
    actors = {id(trial.actor): trial.actor for trial in trials if trial.actor is not None}
    for number in range(chunks):
        actions: list[Actions] = [np.empty(0)] * len(trials)
        for key, actor in actors.items():
            mine = [i for i, trial in enumerate(trials) if id(trial.actor) == key]
            told = actor.act(
                [now[i] for i in mine],
                [states[i] for i in mine],
                [trials[i].order for i in mine],
                [trial_seed(seed, number, trials[i].start) for i in mine],
            )
            for i, commands in zip(mine, told, strict=True):
                actions[i] = world.limited(states[i], commands)
        seeds = [trial_seed(seed, number, i) for i in range(len(trials))]
        films = imaginer.imagine(now, actions, seeds)
        readings = world.read(np.stack([film[camera][-1] for film in films]))
        states = [world.felt(*row) for row in zip(states, actions, readings, strict=True)]
        for i, film in enumerate(films):
            made[i].append(film)
            now[i] = {name: frames[-1] for name, frames in film.items()}
    return made


def policy_evaluation(
    world: World, setting: Setting, trials: Sequence[Trial], made: Foreseen, *, judge: Judge | None = None
) -> Rung:
    """Climb the rung.

    Args:
        judge: says from what is read from the last imagined picture whether a trial was done; the world's own rule
            when None. Who looks goes on after it is done, so there the end of any chunk counts.
    """
    judge = judge or world.done
    # Who looks would have stopped in the simulator as soon as it was done.
    counted = [rows if trial.actor is not None else rows[-1:] for trial, rows in zip(trials, made.ends, strict=True)]
    read = iter(world.read(np.concatenate(counted)))
    ends = [[next(read) for _ in rows] for rows in counted]
    true_ends = world.read(np.stack([trial.end for trial in trials]))
    truth = [trial.success for trial in trials]
    judged = {
        "imagined": [any(judge(trial, end) for end in rows) for trial, rows in zip(trials, ends, strict=True)],
        "the judge on true last pictures": [judge(*pair) for pair in zip(trials, true_ends, strict=True)],
    }
    if made.said:
        judged["imagined, by the model's own answers"] = [answer.lower().startswith("yes") for answer in made.said]
    names = list(dict.fromkeys(trial.policy for trial in trials))
    looking = len({trial.policy for trial in trials if trial.actor is not None})

    def scores(outcomes: Sequence[bool]) -> list[float]:
        return [
            float(np.mean([ok for ok, trial in zip(outcomes, trials, strict=True) if trial.policy == name]))
            for name in names
        ]

    true_scores = scores(truth)

    def ranked(score: Score, outcomes: Sequence[bool]) -> Score:
        # Who cannot tell policies apart that differ in truth does not rank them at all.
        if score.value is None and len(set(true_scores)) > 1 and len(set(scores(outcomes))) == 1:
            return Score(value=0.0, interval=(0.0, 0.0), reason="every policy gets the same score: no ranking")
        return score

    found = {name: agreement(scores(outcomes), true_scores, seed=setting.seed) for name, outcomes in judged.items()}
    false = {name: false_success_rate(outcomes, truth) for name, outcomes in judged.items()}
    # Who calls nothing done has no false success, and is of no use.
    right = {name: success_found(outcomes, truth) for name, outcomes in judged.items()}
    upper = "the judge on true last pictures"
    own = ranked(found["imagined"].spearman, judged["imagined"])
    checks = (
        setting.check(
            NAME,
            "spearman",
            Figure(
                name=f"Spearman over {len(names)} policies",
                value=own.value,
                interval=own.interval,
                baselines=(Baseline(name=upper, value=found[upper].spearman.value),),
                n=len(names),
                of="policies",
                note=own.reason,
            ),
        ),
        setting.check(
            NAME,
            "success_found",
            Figure(
                name="Trials that were done which are called done",
                value=right["imagined"].value,
                interval=right["imagined"].interval,
                baselines=(Baseline(name=upper, value=right[upper].value),),
                n=truth.count(True),
                of="trials that were done",
                note=right["imagined"].reason,
            ),
        ),
        setting.check(
            NAME,
            "false_success",
            Figure(
                name="Failed trials that are called done",
                value=false["imagined"].value,
                interval=false["imagined"].interval,
                better="lower",
                baselines=(Baseline(name=upper, value=false[upper].value),),
                n=truth.count(False),
                of="failed trials",
                note=false["imagined"].reason,
            ),
        ),
    )
    further = tuple(
        Figure(
            name=f"{word}, {name}",
            value=getattr(rows, key).value,
            interval=getattr(rows, key).interval,
            better="lower" if key == "mmrv" else "higher",
            baselines=(Baseline(name="no relation", value=0.0),),
            n=len(names),
            of="policies",
            note=getattr(rows, key).reason,
        )
        for name, rows in found.items()
        for key, word in (
            ("pearson", "Pearson"), ("spearman", "Spearman"), ("kendall", "Kendall's tau-b"),
            ("mmrv", "Mean maximum rank violation"),
        )
        if (key, name) != ("spearman", "imagined")
    ) + tuple(
        Figure(
            name=f"Failed trials that are called done, {name}", value=rows.value, interval=rows.interval,
            better="lower",
            n=truth.count(False), of="failed trials", note=rows.reason,
        )
        for name, rows in false.items()
        if name != "imagined"
    ) + tuple(
        Figure(
            name=f"Trials that were done which are called done, {name}", value=rows.value, interval=rows.interval,
            n=truth.count(True), of="trials that were done", note=rows.reason,
        )
        for name, rows in right.items()
        if name != "imagined"
    )  # fmt: skip
    columns = {"simulator": true_scores, **{name: scores(outcomes) for name, outcomes in judged.items()}}
    table = Table(
        head=("policy", *(f"success, {name}" for name in columns)),
        rows=tuple((name, *(f"{column[i]:.2f}" for column in columns.values())) for i, name in enumerate(names)),
    )
    strips = tuple(
        Strip(
            caption=f"{trials[i].policy}: {trials[i].question} In truth {'done' if truth[i] else 'not done'}, imagined "
            f"{'done' if judged['imagined'][i] else 'not done'}.",
            clips=(
                ("true end", np.repeat(trials[i].end[None], len(made.ends[i]), axis=0)),
                ("imagined, the end of each chunk", made.ends[i]),
            ),
            fps=2,
        )
        for i in (0, *(i for i, trial in enumerate(trials) if trial.actor is not None))[:2]
    )
    return Rung(
        rung=NAME,
        title="3. Policy evaluation",
        text=f"{len(names)} policies from {len(trials) // len(names)} starts that all share. The actions that a policy "
        "took in the simulator are imagined from the same first frames; of those that look at pictures "
        f"({looking}), each acts in imagination on what is imagined. The frozen probe judges the "
        "last picture by the simulator's rule as far as a picture shows it (of who looks, the last one of each chunk), "
        "and the model is asked as well.",
        checks=checks,
        further=further,
        tables=(table,),
        strips=strips,
    )


def few_trials(trials: Sequence[Trial]) -> Control:
    """A comparison of policies by a few trials each, which must not come to a verdict."""
    names = list(dict.fromkeys(trial.policy for trial in trials))
    outcomes = {name: [trial.success for trial in trials if trial.policy == name][:FEW] for name in names}
    pairs = compare_policies(outcomes)
    decided = [pair for pair in pairs if pair.verdict != "undecided"]
    reason = (
        f"{decided[0].first} against {decided[0].second} was called decided by {FEW} trials each."
        if decided
        else f"None of {len(pairs)} pairs of policies can be told apart by {FEW} trials each, after correction for "
        "as many comparisons."
    )
    return Control(
        control="policies compared by three trials each",
        rung=NAME,
        must="undecided",
        verdict="pass" if decided else "undecided",
        reason=reason,
    )
