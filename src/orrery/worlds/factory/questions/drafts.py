"""A question before it has words: what is asked, what is true, and what may be chosen from.

Family modules (`seen`, `timed`, `heard`) yield drafts; `phrasings` gives them words and
`questions` makes them into questions. An answer is drawn first and a subject that makes it true is looked for, so that
words alone tell nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

AnswerKind = Literal["choice", "number", "time", "point", "box", "text"]
Media = Literal["frame", "clip", "episode"]
Rng = np.random.Generator
T = TypeVar("T")

MOST_CHOICES = 4


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What `Question` has, but for its words."""

    family: str
    answer: str
    choices: tuple[str, ...] = ()
    kind: AnswerKind = "choice"
    blanks: dict[str, str] = field(default_factory=dict)
    """What fills the blanks of a phrasing."""
    asked: str = ""
    """Those of the blanks that might tell the answer: within one value of it answers are balanced."""
    camera: str = "front"
    media: Media = "frame"
    start_frame: int
    stop_frame: int
    sound: bool = False
    action: bool = False
    """The executed actions of the span are given instead of pictures."""
    tolerance: float = 0.0
    """A time, point or number counts as right within this; a box from this intersection over union on."""


def shuffled(rng: Rng, items: Sequence[T]) -> list[T]:
    """The same in any order."""
    return [items[int(index)] for index in rng.permutation(len(items))]


def any_of(rng: Rng, items: Sequence[T]) -> T:
    """One of them, each as likely."""
    return items[int(rng.integers(len(items)))]


def choices_with(rng: Rng, answer: str, pool: Sequence[str], count: int = MOST_CHOICES) -> tuple[str, ...]:
    """The answer and others of the pool, `count` in all, in any order; each other one as likely."""
    assert answer in pool, (answer, pool)
    others = [item for item in pool if item != answer]
    return tuple(shuffled(rng, [answer, *shuffled(rng, others)[: count - 1]]))


def contrast(rng: Rng, found: Sequence[tuple[str, T]]) -> tuple[str, T, tuple[str, ...]] | None:
    """One of several things with different answers, and those answers as choices; None if all have the same.

    Which is asked about is drawn after the choices are, so each choice is right equally often, however rare it is.
    """
    answers = sorted({answer for answer, _ in found})
    if len(answers) < 2:
        return None
    choices = tuple(shuffled(rng, answers)[:MOST_CHOICES])
    answer = any_of(rng, choices)
    return answer, any_of(rng, [thing for name, thing in found if name == answer]), choices


def span(
    family: str,
    answer: str,
    choices: tuple[str, ...],
    start: int,
    stop: int,
    *,
    blanks: dict[str, str] | None = None,
    asked: str = "",
    camera: str = "front",
    kind: AnswerKind = "choice",
    sound: bool = False,
    action: bool = False,
    tolerance: float = 0.0,
) -> Draft:
    """About a stretch of the recorded episode, which ends before `stop`."""
    return Draft(
        family=family,
        answer=answer,
        choices=choices,
        kind=kind,
        blanks=blanks or {},
        asked=asked,
        camera=camera,
        media="episode",
        start_frame=start,
        stop_frame=stop,
        sound=sound,
        action=action,
        tolerance=tolerance,
    )
