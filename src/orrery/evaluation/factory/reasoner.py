"""The reasoner: questions about test episodes, each family beside the commonest answer and a model of words alone."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from orrery.evaluation.factory.ask import case_seed, run_all
from orrery.evaluation.factory.figure import RESAMPLES, Baseline, Figure, Outcome, Suite, mean_of, share
from orrery.evaluation.factory.scenes import FRONT, Case, cases, gather, play, shoot
from orrery.evaluation.metrics import wilson_interval
from orrery.evaluation.question_only import Blind, blind_scores, is_right, overlap
from orrery.runtime.model import Model
from orrery.tasks.request import Request
from orrery.tokenizers.eyes import sample_frames
from orrery.worlds.factory.cell import CONTROL_HZ
from orrery.worlds.factory.questions.question import (
    FAMILIES,
    SIGHTS,
    SYMMETRIC,
    TIMED,
    Family,
    Question,
    Split,
    ask,
    balanced,
    worded,
)
from orrery.worlds.factory.questions.seen import box, point
from orrery.worlds.factory.questions.sights import Witness
from orrery.worlds.factory.render import Renderer

ACTORS = ("expert", "noise_0.5", "wrong_part", "goals", "expert", "noise_1", "late_gripper", "play")
"""Who acts in the episodes that are asked about, in turn; half of the attempts should fail."""
FIRST_BLIND_SEED = 42_000_000
"""Of the training questions of the question-only model."""
CLIPS = {"plausible": 0.5, "edit_kind": 0.25}
"""Families about clips that come with their sound, and their chance."""
GROUNDED = 3
"""Points and boxes of an episode."""
LONGEST = 24
"""Tokens of an answer."""
AT_ONCE = 16
"""Episodes whose pictures are in memory together."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question and its episode."""

    case: Case
    question: Question


@dataclass(frozen=True, kw_only=True, eq=False)
class Sought:
    """A point or a box that is asked for, its picture, and where the part truly is."""

    question: Question
    picture: UInt8[np.ndarray, "128 128 3"]
    mask: Bool[np.ndarray, "128 128"]


def question_cases(count: int, suite: Suite, *, offset: int, unseen: bool) -> list[Case]:
    """Episodes of all tasks and several actors."""
    every = cases(count, seed=suite.seed, behaviour="expert", offset=offset, unseen=unseen)
    # Seven tasks and eight actors: in turn, every pair of them comes.
    return [
        Case(seed=case.seed, task=case.task, behaviour=ACTORS[i % len(ACTORS)], unseen=unseen)
        for i, case in enumerate(every)
    ]


def questions_of(case: Case, *, sights: int = SIGHTS, families: Sequence[Family] = TIMED) -> list[Asked]:
    """All questions about one episode from the front camera, also those that a model without ears cannot be given.

    Args:
        sights: how many moments are looked at for questions about single pictures.
        families: of stretches of time, those that are asked; some take as long as the episode.
    """
    played = play(case)
    rng = np.random.default_rng([case.seed, 5])
    split: Split = "test" if case.unseen else "train"
    height, width = FRONT
    found = ask(
        played.cell, played.attempt, rng, split=split, height=height, width=width, cameras=("front",), sights=sights,
        families=families,
    )  # fmt: skip
    return [Asked(case=case, question=question) for question in found]


def can_be_given(question: Question) -> bool:
    """Whether pictures and words are all that a question needs."""
    return not question.sound and not question.action


def reasoner(model: Model, suite: Suite) -> Outcome:
    """Balanced accuracy of each family and over all of them, for seen words and pairs and for held-out ones."""
    figures: list[Figure] = []
    notes: list[str] = []
    size = suite.size
    learned = [
        Case(seed=FIRST_BLIND_SEED + case.seed % 500_000, task=case.task, behaviour=case.behaviour)
        for case in question_cases(size.blind_episodes, suite, offset=0, unseen=False)
    ]
    training = [row.question for rows in gather(questions_of, learned, suite.workers) for row in rows]
    known = {question.family for question in training}
    for unseen in (False, True):
        words = "held-out words and pairs" if unseen else "seen words and pairs"
        given = question_cases(size.question_episodes, suite, offset=600_000, unseen=unseen)
        every = [row for rows in gather(questions_of, given, suite.workers) for row in rows]
        chosen = chosen_of(every, suite)
        answers = answered(model, chosen, suite, 40 + unseen)
        right = [is_right(row.question, answer) for row, answer in zip(chosen, answers, strict=True)]
        blind = {
            row.family: row
            for row in blind_scores(
                [question for question in training if can_be_given(question)],
                [row.question for row in chosen if row.question.family in known],
                seed=suite.seed,
            )
        }
        families = sorted({row.question.family for row in chosen}, key=FAMILIES.index)
        rows = {
            family: [(row.question, ok) for row, ok in zip(chosen, right, strict=True) if row.question.family == family]
            for family in families
        }
        figures.append(
            _overall(f"Balanced accuracy, mean over families, {words}", rows, blind, suite, asked=not unseen)
        )
        ungiven = {
            family: float(np.mean([row.question.chance or 0.0 for row in every if row.question.family == family]))
            for family in FAMILIES
            if any(row.question.family == family and not can_be_given(row.question) for row in every)
        } | CLIPS
        values = [balanced_accuracy(pairs) for pairs in rows.values()]
        figures.append(
            Figure(
                name=f"The same, families that it cannot be given at chance, {words}",
                value=100 * float(np.mean([*values, *ungiven.values()])),
                unit="%",
                n=len(values) + len(ungiven),
                of="families",
                note=f"cannot be given (sound, or actions as numbers): {', '.join(ungiven)}",
            )
        )
        for family, pairs in rows.items():
            low, high = wilson_interval(sum(ok for _, ok in pairs), len(pairs))
            figures.append(
                Figure(
                    name=f"{family}, {words}",
                    value=100 * balanced_accuracy(pairs),
                    unit="%",
                    interval=(100 * low, 100 * high),
                    baselines=_blind_baselines(blind.get(family)),
                    n=len(pairs),
                    of="questions",
                )
            )
        wrong = next((i for i, ok in enumerate(right) if not ok), None)
        if wrong is not None:
            notes.append(
                f"For example: {chosen[wrong].question.prompt!r} was answered {answers[wrong]!r}, "
                f"right is {chosen[wrong].question.answer!r}."
            )
    return Outcome(figures=tuple(figures), note=" ".join(notes))


def answered_right(model: Model, suite: Suite) -> float:
    """Percent of right answers about seen words and pairs, without baselines."""
    given = question_cases(suite.size.question_episodes, suite, offset=600_000, unseen=False)
    chosen = chosen_of([row for rows in gather(questions_of, given, suite.workers) for row in rows], suite)
    answers = answered(model, chosen, suite, 40)
    right = [is_right(row.question, answer) for row, answer in zip(chosen, answers, strict=True)]
    return 100 * float(np.mean(right))


def chosen_of(every: Sequence[Asked], suite: Suite) -> list[Asked]:
    """A balanced selection of the questions that can be given."""
    owners = {id(row.question): row for row in every}
    able = [row.question for row in every if can_be_given(row.question)]
    picked = balanced(able, np.random.default_rng([suite.seed, 6]), suite.size.per_family)
    return sorted((owners[id(question)] for question in picked), key=lambda row: row.case.seed)


def balanced_accuracy(pairs: Sequence[tuple[Question, bool]]) -> float:
    """The mean over right answers of how often each is given; plain where answers are numbers or drawn evenly."""
    if pairs[0][0].kind != "choice" or pairs[0][0].family in SYMMETRIC:
        return float(np.mean([ok for _, ok in pairs]))
    by_answer: dict[str, list[bool]] = defaultdict(list)
    for question, ok in pairs:
        by_answer[question.answer].append(ok)
    return float(np.mean([np.mean(oks) for oks in by_answer.values()]))


def answered(model: Model, rows: Sequence[Asked], suite: Suite, number: int) -> list[str]:
    """What the model writes to each question, with the pictures of some episodes in memory at a time."""
    answers: list[str] = []
    for group in _groups(rows):
        jobs = [(case, tuple(frames_of(model, row.question) for row in mine)) for case, mine in group.items()]
        filmed = gather(filmed_of, jobs, suite.workers)
        requests = [
            request_of(row.question, pictures, case_seed(suite, number, len(answers)))
            for mine, films in zip(group.values(), filmed, strict=True)
            for row, pictures in zip(mine, films, strict=True)
        ]
        answers += [(result.text or "").strip() for result in run_all(model, requests, suite)]
    return answers


def _groups(rows: Sequence[Asked]) -> Iterator[dict[Case, list[Asked]]]:
    group: dict[Case, list[Asked]] = {}
    for row in rows:
        if row.case not in group and len(group) == AT_ONCE:
            yield group
            group = {}
        group.setdefault(row.case, []).append(row)
    if group:
        yield group


def frames_of(model: Model, question: Question) -> tuple[int, ...]:
    """Frames of the attempt that the model will look at."""
    total = question.stop_frame - question.start_frame
    if question.media == "frame":
        return (question.start_frame,)
    return tuple(question.start_frame + i for i in sample_frames(total, float(CONTROL_HZ), model.sight))


def filmed_of(job: tuple[Case, tuple[tuple[int, ...], ...]]) -> list[UInt8[np.ndarray, "_ 128 128 3"]]:
    """Frames of the front camera of one episode, for each of its questions."""
    case, wanted = job
    played = play(case)
    renderer = Renderer(played.cell.model)
    every = sorted({frame for frames in wanted for frame in frames})
    shot = shoot(played.cell, [played.attempt.moments[frame].state for frame in every], "front", renderer)
    place = {frame: index for index, frame in enumerate(every)}
    return [shot[[place[frame] for frame in frames]] for frames in wanted]


def request_of(question: Question, pictures: UInt8[np.ndarray, "K 128 128 3"], seed: int) -> Request:
    """The question with its picture, or with its span, in which frames that are not looked at repeat others."""
    if question.media == "frame":
        return Request(task="reason", prompt=question.prompt, vision=pictures[0], seed=seed, max_new_tokens=LONGEST)
    total = question.stop_frame - question.start_frame
    looked = np.linspace(0, total - 1, len(pictures)).round()
    nearest = np.abs(np.arange(total)[:, None] - looked).argmin(axis=1)
    return Request(
        task="reason",
        prompt=question.prompt,
        vision=pictures[nearest],
        fps=CONTROL_HZ,
        seed=seed,
        max_new_tokens=LONGEST,
    )


def grounding(model: Model, suite: Suite) -> Outcome:
    """Points within the mask of the part that is asked for, and how far boxes overlap."""
    figures: list[Figure] = []
    for unseen in (False, True):
        words = "held-out words and pairs" if unseen else "seen words and pairs"
        given = question_cases(suite.size.question_episodes, suite, offset=650_000, unseen=unseen)
        sought = [row for rows in gather(sought_of, given, suite.workers) for row in rows]
        requests = [
            request_of(row.question, row.picture[None], case_seed(suite, 44 + unseen, i))
            for i, row in enumerate(sought)
        ]
        answers = [result.text or "" for result in run_all(model, requests, suite)]
        points = [
            (row, _numbers(text, 2)) for row, text in zip(sought, answers, strict=True) if row.question.kind == "point"
        ]
        boxes = [
            (row, _numbers(text, 4)) for row, text in zip(sought, answers, strict=True) if row.question.kind == "box"
        ]
        middle = np.array([500.0, 500.0])
        figures.append(
            share(
                f"Points within the mask, {words}",
                [within(row.mask, answer) for row, answer in points],
                of="points",
                baselines=[
                    Baseline(name="middle of the picture", value=_percent([within(r.mask, middle) for r, _ in points]))
                ],
                floor=None if unseen else 75.0,
                goal=None if unseen else 95.0,
            )
        )
        true = [np.array([float(part) for part in row.question.answer.split(",")]) for row, _ in boxes]
        usual = np.mean([row[2:] - row[:2] for row in true], axis=0) if true else np.zeros(2)
        centred = np.array([*(middle - usual / 2), *(middle + usual / 2)])
        figures.append(
            mean_of(
                f"Overlap of boxes, {words}",
                [0.0 if answer is None else overlap(answer, box) for (_, answer), box in zip(boxes, true, strict=True)],
                unit="IoU",
                of="boxes",
                seed=suite.seed,
                baselines=[
                    Baseline(
                        name="a box of the usual size in the middle",
                        value=float(np.mean([overlap(centred, box) for box in true])) if true else None,
                    )
                ],
                floor=None if unseen else 0.5,
                goal=None if unseen else 0.8,
            )
        )
    return Outcome(figures=tuple(figures))


def sought_of(case: Case) -> list[Sought]:
    """Points and boxes of parts that their words pick out, in an episode."""
    played = play(case)
    rng = np.random.default_rng([case.seed, 7])
    renderer = Renderer(played.cell.model)
    witness = Witness(played.cell, played.attempt, *FRONT, renderer, ("front",))
    sights = witness.sights(rng, 2 * GROUNDED)
    found = []
    for family, some in ((point, sights[:GROUNDED]), (box, sights[GROUNDED:])):
        for draft in family(rng, some):
            sight = next(one for one in some if one.frame == draft.start_frame)
            index = next(i for i, part in enumerate(sight.parts) if draft.asked == f"the {part.words}")
            picture = shoot(played.cell, [played.attempt.moments[sight.frame].state], "front", renderer)[0]
            question = worded(draft, rng, "test" if case.unseen else "train")
            found.append(Sought(question=question, picture=picture, mask=sight.masks[index]))
    return found


def within(mask: Bool[np.ndarray, "H W"], point: np.ndarray | None) -> bool:
    """Whether a point in thousandths of the picture is on the mask."""
    if point is None:
        return False
    height, width = mask.shape
    column, row = int(point[0] * width / 1000), int(point[1] * height / 1000)
    return 0 <= row < height and 0 <= column < width and bool(mask[row, column])


def _numbers(text: str, count: int) -> np.ndarray | None:
    """So many numbers; None for another answer."""
    try:
        values = np.array([float(part) for part in text.strip().rstrip(".").split(",")])
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _percent(right: Sequence[bool]) -> float | None:
    return 100 * float(np.mean(right)) if right else None


def _blind_baselines(blind: Blind | None) -> tuple[Baseline, ...]:
    if blind is None:
        return ()
    return (
        Baseline(name="question only", value=100 * blind.accuracy),
        Baseline(name="the commonest answer", value=100 * blind.majority),
    )


def _overall(
    name: str,
    rows: dict[str, list[tuple[Question, bool]]],
    blind: dict[str, Blind],
    suite: Suite,
    *,
    asked: bool,
) -> Figure:
    """The mean over families; the interval resamples the questions of each."""
    rng = np.random.default_rng([suite.seed, 8])
    drawn = []
    for _ in range(RESAMPLES if len(rows) else 0):
        picks = [[pairs[i] for i in rng.integers(len(pairs), size=len(pairs))] for pairs in rows.values()]
        drawn.append(100 * float(np.mean([balanced_accuracy(pick) for pick in picks])))
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (0.0, 0.0)
    told = [row for row in blind.values() if row.family in rows]
    baselines = (
        Baseline(name="question only", value=100 * float(np.mean([row.accuracy for row in told]))),
        Baseline(name="the commonest answer", value=100 * float(np.mean([row.majority for row in told]))),
    )
    return Figure(
        name=name,
        value=100 * float(np.mean([balanced_accuracy(pairs) for pairs in rows.values()])) if rows else None,
        unit="%",
        interval=(float(low), float(high)) if drawn else None,
        baselines=baselines if told else (),
        n=sum(len(pairs) for pairs in rows.values()),
        of="questions",
        floor=80.0 if asked else None,
        goal=95.0 if asked else None,
        note=f"{len(rows)} families",
    )
