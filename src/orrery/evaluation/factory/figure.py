"""One number of the table with what it has to beat, and the settings of a whole run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from orrery.errors import SettingsError
from orrery.evaluation.metrics import bootstrap_interval, wilson_interval
from orrery.evaluation.page import Measure, Strip, shown
from orrery.tasks.checks import Number

Better = Literal["higher", "lower"]
RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What knows nothing, or everything, on the same cases."""

    name: str
    value: Number | None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number. None is a number that does not exist, as when nothing moved."""

    name: str
    value: Number | None
    unit: str = ""
    better: Better = "higher"
    interval: tuple[Number, Number] | None = None
    """Of `value`, at 95 %."""
    baselines: tuple[Baseline, ...] = ()
    n: int
    """Independent cases behind it."""
    of: str
    """What they are: windows, questions, trials."""
    floor: Number | None = None
    goal: Number | None = None
    note: str = ""

    @property
    def reached(self) -> Literal["goal", "floor", "missed"] | None:
        """Of what is asked of it; None where nothing is asked, or the number does not exist."""
        if self.value is None or self.floor is None or self.goal is None:
            return None
        sign = 1 if self.better == "higher" else -1
        if sign * self.value >= sign * self.goal:
            return "goal"
        return "floor" if sign * self.value >= sign * self.floor else "missed"

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON has no infinity, so one becomes the text "infinite"."""

        def plain(value: Number | None) -> Number | str | None:
            if value is None or math.isfinite(value):
                return value
            return "infinite" if value > 0 else "minus infinite"

        return {
            **asdict(self),
            "value": plain(self.value),
            "interval": None if self.interval is None else [plain(end) for end in self.interval],
            "baselines": [{"name": row.name, "value": plain(row.value)} for row in self.baselines],
            "reached": self.reached,
        }

    def measures(self) -> list[Measure]:
        """For a page: a line for each baseline, or one line without any."""
        asked = "" if self.floor is None else f"; asked: {shown(self.floor, self.unit)}, goal {shown(self.goal, '')}"
        note = f"{self.n} {self.of}{asked}{'; ' if self.note else ''}{self.note}"
        rows = self.baselines or (Baseline(name="", value=None),)
        return [
            Measure(
                name=self.name,
                value=self.value,
                unit=self.unit,
                baseline_name=row.name,
                baseline=row.value,
                better=self.better,
                interval=self.interval,
                note=note if index == 0 else "",
            )
            for index, row in enumerate(rows)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a row of the table came to."""

    figures: tuple[Figure, ...]
    strips: tuple[Strip, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many cases each row takes."""

    name: str
    windows: int
    """Of each source of actions, for forward dynamics."""
    rollouts: int
    """Of eight chunks, for the state after 1, 4 and 8 of them."""
    forks: int
    """Saved states with four ways on each."""
    inverse_windows: int
    """Of each source of actions."""
    replays: int
    """Successful expert episodes of each task whose recovered actions are replayed."""
    trials: int
    """Of each task, closed loop."""
    unseen_trials: int
    """Of each task with held-out words and pairs."""
    steps: int | None
    """Control steps of a trial at most; None is the horizon of the task."""
    question_episodes: int
    blind_episodes: int
    """Training episodes of the question-only model."""
    per_family: int
    """Questions of a family at most."""
    captions: int
    """Prompts for pictures and videos from text."""
    sounds: int
    """Windows with an impact whose sound is made."""


QUICK = Size(
    name="quick", windows=1, rollouts=1, forks=1, inverse_windows=1, replays=0, trials=1, unseen_trials=0, steps=16,
    question_episodes=2, blind_episodes=4, per_family=2, captions=2, sounds=2,
)  # fmt: skip
STANDARD = Size(
    name="standard", windows=10, rollouts=6, forks=8, inverse_windows=6, replays=2, trials=10, unseen_trials=4,
    steps=None, question_episodes=40, blind_episodes=120, per_family=16, captions=16, sounds=24,
)  # fmt: skip
FULL = Size(
    name="full", windows=64, rollouts=48, forks=100, inverse_windows=64, replays=15, trials=100, unseen_trials=40,
    steps=None, question_episodes=420, blind_episodes=800, per_family=120, captions=200, sounds=200,
)  # fmt: skip
SIZES = {size.name: size for size in (QUICK, STANDARD, FULL)}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The settings that every row shares."""

    size: Size = STANDARD
    seed: int = 0
    """Moves all test episodes; also of every generation."""
    workers: int = 1
    """Processes that simulate and draw."""
    batch: int = 8
    """Requests in one pack."""
    policy_task: str = "policy_no_video"
    execute: int = 8
    """Actions of a chunk that are executed before the policy is asked again."""
    policy_only: str | None = None
    """Another checkpoint for the policy row."""
    tell: Callable[[str], None] = field(default=lambda _: None, compare=False)

    def __post_init__(self) -> None:
        if self.seed < 0 or self.workers < 1 or self.batch < 1 or not 1 <= self.execute <= 16:
            raise SettingsError(
                f"seed is 0 or more, workers and batch 1 or more, execute 1 to 16; got {self.seed}, {self.workers}, "
                f"{self.batch}, {self.execute}."
            )


def share(
    name: str,
    right: Sequence[bool],
    *,
    of: str,
    baselines: Sequence[Baseline] = (),
    floor: float | None = None,
    goal: float | None = None,
    note: str = "",
) -> Figure:
    """A share in percent with Wilson's interval."""
    low, high = wilson_interval(sum(right), len(right)) if right else (0.0, 0.0)
    return Figure(
        name=name,
        value=100 * sum(right) / len(right) if right else None,
        unit="%",
        interval=(100 * low, 100 * high) if right else None,
        baselines=tuple(baselines),
        n=len(right),
        of=of,
        floor=floor,
        goal=goal,
        note=note,
    )


def mean_of(
    name: str,
    values: Sequence[float],
    *,
    unit: str,
    of: str,
    seed: int,
    better: Better = "higher",
    baselines: Sequence[Baseline] = (),
    floor: float | None = None,
    goal: float | None = None,
    note: str = "",
) -> Figure:
    """A mean over independent cases; the interval resamples them."""
    interval = None
    if len(values) > 1:
        interval = bootstrap_interval(list(values), lambda drawn: float(np.mean(drawn)), seed=seed, resamples=RESAMPLES)
    return Figure(
        name=name,
        value=float(np.mean(values)) if len(values) else None,
        unit=unit,
        better=better,
        interval=interval,
        baselines=tuple(baselines),
        n=len(values),
        of=of,
        floor=floor,
        goal=goal,
        note=note,
    )
