"""Questions about one attempt with answers from its true state: `ask` makes a handful, `balanced` picks from many.

Answers are computed here and in the family modules beside this one, never
judged by a model. Which families a model can answer from the words alone is measured by `evaluation.question_only`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.questions import action, forecast, heard, seen, timed
from orrery.worlds.factory.questions.drafts import AnswerKind, Draft, Media, Rng, shuffled
from orrery.worlds.factory.questions.edits import Clip
from orrery.worlds.factory.questions.phrasings import WORDS
from orrery.worlds.factory.questions.sights import CAMERA_SHARES, Sight, Witness
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import Attempt

Split = Literal["train", "test"]
FAMILIES = tuple(WORDS)
SIGHTS = 14
"""Moments of an attempt that are looked at for questions about single pictures."""

STILL: tuple[tuple[Callable[[Rng, list[Sight]], Iterator[Draft]], int], ...] = (
    (seen.count, 3),
    (seen.colour, 3),
    (seen.kind, 3),
    (seen.left_right, 3),
    (seen.front_behind, 3),
    (seen.on, 4),
    (seen.inside, 4),
    (seen.held, 3),
    (seen.gripper, 3),
    (seen.lamp, 2),
    (seen.cracked, 4),
    (seen.point, 2),
    (seen.box, 2),
)
"""A family of single pictures, and how many of it an attempt has at most."""
Family = tuple[Callable[[Rng, Witness], Iterator[Draft]], int]
WATCHED: tuple[Family, ...] = (
    (timed.belt, 3),
    (timed.next_action, 4),
    (timed.when, 6),
    (timed.outcome, 1),
    (timed.why, 1),
)
"""Families of stretches of time that are answered from pictures, ..."""
FORESEEN: tuple[Family, ...] = ((forecast.reach_end, 2), (forecast.if_released, 2))
"""... those whose answers are played, which takes as long as the attempt itself, ..."""
TIMED: tuple[Family, ...] = (
    *WATCHED,
    *FORESEEN,
    (action.action_to_words, 2),
    (action.words_to_action, 1),
    (heard.heard, 12),
)
"""... and all."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question. JSON-able by `as_dict`.

    Frames count over the attempt, at CONTROL_HZ. `media` says what is shown: "frame" a single picture at `start_frame`;
    "episode" the recorded span start_frame to stop_frame (without it); "clip" the separately written `edits.Clip`.
    """

    family: str
    template: int
    """A row of the family's phrasings, those of the test split last."""
    text: str
    answer: str
    choices: tuple[str, ...]
    """In the order in which they are offered; empty for times, points and boxes."""
    kind: AnswerKind
    camera: str
    media: Media
    start_frame: int
    stop_frame: int
    sound: bool
    """The sound of the span belongs to the question."""
    action: bool
    """The executed actions of the span are given instead of pictures."""
    tolerance: float
    """Times, in seconds, and points, in thousandths of the picture, are right within this; boxes from this overlap
    (intersection over union) on."""
    asked: str
    """What in the text could tell the answer, and within which answers are balanced; not to be shown."""
    chance: float | None
    """Of a blind guess; None where it is not defined."""

    @property
    def prompt(self) -> str:
        """The text, and what may be chosen."""
        return f"{self.text} Choose one: {'; '.join(self.choices)}." if self.choices else self.text

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Question":
        return cls(**{**row, "choices": tuple(row["choices"])})


def ask(
    cell: Cell,
    attempt: Attempt,
    rng: Rng,
    *,
    split: Split,
    height: int,
    width: int,
    cameras: Sequence[str] = tuple(CAMERA_SHARES),
    clip: Clip | None = None,
    renderer: Renderer | None = None,
    sights: int = SIGHTS,
    families: Sequence[Family] = TIMED,
) -> list[Question]:
    """A varied handful about one attempt, the same for the same generator.

    Args:
        cell: of the attempt's layout and parameters, at any moment; it is left at another.
        split: whose phrasings are used; those of "test" never occur in "train".
        height, width: of the pictures that go with the questions: what is too small in them is not asked about.
        cameras: those that may be asked about; the front camera is one of them.
        clip: what `edits.make_clip` made of the attempt, to ask about it too.
        renderer: of the cell's model, where the caller has one.
        sights: how many moments are looked at for questions about single pictures.
        families: of stretches of time, those that are asked.
    """
    if not attempt.moments:
        return []
    witness = Witness(cell, attempt, height, width, renderer, cameras)
    looks = witness.sights(rng, sights)
    drafts: list[Draft] = []
    for of_pictures, most in STILL:
        drafts += islice(of_pictures(rng, shuffled(rng, looks)), most)
    for over_time, most in families:
        drafts += islice(over_time(rng, witness), most)
    if clip is not None:
        drafts += heard.edited(rng, clip)
    return [worded(draft, rng, split) for draft in drafts]


def worded(draft: Draft, rng: Rng, split: Split) -> Question:
    """A draft in one of the split's phrasings."""
    rows = WORDS[draft.family]
    held_out = split == "test"
    index = int(rng.integers(len(rows.test if held_out else rows.train)))
    text = (rows.test if held_out else rows.train)[index].format(**draft.blanks)
    text = text[0].upper() + text[1:]
    return Question(
        family=draft.family,
        template=index + len(rows.train) * held_out,
        text=text,
        answer=draft.answer,
        choices=draft.choices,
        kind=draft.kind,
        camera=draft.camera,
        media=draft.media,
        start_frame=draft.start_frame,
        stop_frame=draft.stop_frame,
        sound=draft.sound,
        action=draft.action,
        tolerance=draft.tolerance,
        asked=draft.asked,
        chance=1 / len(draft.choices) if draft.choices else None,
    )


def balanced(questions: Iterable[Question], rng: Rng, per_family: int) -> list[Question]:
    """A selection in which, within a family and what is asked, every answer that is offered is right equally often.

    What is asked about something for which one of the answers never occurs is left out altogether. Questions with open
    answers are only thinned out. `shortfalls` says which families have fewer than `per_family`.
    """
    families: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        families[question.family].append(question)
    chosen: list[Question] = []
    for rows in families.values():
        kept = shuffled(rng, _even(rows, rng, per_family))
        chosen += kept
    return shuffled(rng, chosen)


def shortfalls(questions: Iterable[Question], per_family: int) -> dict[str, int]:
    """Family -> how many questions it has, for those with fewer than `per_family`."""
    counts = Counter(question.family for question in questions)
    return {family: counts[family] for family in FAMILIES if counts[family] < per_family}


def _even(rows: Sequence[Question], rng: Rng, per_family: int) -> list[Question]:
    if not rows[0].choices or rows[0].family in SYMMETRIC:
        return shuffled(rng, rows)[:per_family]
    groups: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    offered: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        groups[row.asked][row.answer].append(row)
        offered[row.asked] |= set(row.choices)
    able = {asked: min(len(group.get(answer, ())) for answer in offered[asked]) for asked, group in groups.items()}
    total = sum(count * len(offered[asked]) for asked, count in able.items())
    share = min(1.0, per_family / total) if total else 0.0
    chosen = []
    for asked, count in able.items():
        # Rounded at random, so that small groups are not all lost.
        each = int(count * share + rng.random()) if share < 1 else count
        for answer in sorted(offered[asked]):
            chosen += shuffled(rng, groups[asked][answer])[: min(each, count)]
    return chosen


SYMMETRIC = frozenset({"on", "inside", "next_action", "edit_kind", "action_to_words", "words_to_action"})
"""Which of the choices is right was drawn after the choices were: nothing is left to balance."""
