"""Checks against thresholds, rungs, controls and the report that they make: values with a JSON form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orrery.errors import SettingsError
from orrery.evaluation.chart import Chart
from orrery.evaluation.entries import read_toml
from orrery.evaluation.factory.figure import Baseline, Figure
from orrery.evaluation.page import Strip, Table, shown
from orrery.evaluation.statistics import Verdict, verdict

THRESHOLDS = Path(__file__).parent / "thresholds.toml"
FORMAT, VERSION = "orrery.verification", 1


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """A versioned file of what is asked for."""

    name: str
    version: int
    sha256: str
    values: Mapping[str, Mapping[str, float]]

    def of(self, rung: str, key: str) -> float:
        """What a rung asks of one figure.

        Raises:
            SettingsError: the file does not say.
        """
        if key not in self.values.get(rung, {}):
            raise SettingsError(f"The thresholds have no {key!r} in [{rung}]. Add a number, or use the shipped file.")
        return self.values[rung][key]


def read_thresholds(path: Path = THRESHOLDS) -> Thresholds:
    """Thresholds from a TOML file.

    Raises:
        SettingsError: no such file, no name or version, or a value that is no number above 0.
    """
    table = read_toml(path)
    values = {}
    for rung in table.content.keys() - {"name", "version"}:
        rows = table.table(rung)
        values[rung] = {key: rows.number(key) for key in rows.content}
    return Thresholds(name=table.text("name"), version=table.whole("version"), sha256=table.sha256, values=values)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A figure and what is asked of it."""

    key: str
    figure: Figure
    threshold: float

    @property
    def verdict(self) -> Verdict:
        """Undecided where there is no interval, or the threshold lies in it."""
        return verdict(self.figure.interval, self.threshold, self.figure.better)

    @property
    def reason(self) -> str:
        """In words."""
        figure = self.figure
        asked = f"{'at least' if figure.better == 'higher' else 'at most'} {shown(self.threshold, figure.unit)}"
        if figure.value is None:
            return f"{figure.name}: not measured{f' ({figure.note})' if figure.note else ''}; asked is {asked}."
        between = ""
        if figure.interval is not None:
            between = f" ({shown(figure.interval[0], '')} to {shown(figure.interval[1], '')})"
        return f"{figure.name}: {shown(figure.value, figure.unit)}{between}, asked is {asked}: {self.verdict}."

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        told = self.figure.to_json()
        return {
            "key": self.key,
            "figure": self.figure.name,
            **{name: told[name] for name in ("value", "unit", "interval", "better", "n", "of", "baselines", "note")},
            "threshold": self.threshold,
            "verdict": self.verdict,
        }


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of them: a chain is as strong as its weakest link; undecided without any."""
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts and all(one == "pass" for one in verdicts) else "undecided"


@dataclass(frozen=True, kw_only=True, eq=False)
class Rung:
    """What one rung came to."""

    rung: str
    title: str
    text: str
    checks: tuple[Check, ...]
    further: tuple[Figure, ...] = ()
    """Figures that nothing is asked of."""
    strips: tuple[Strip, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        return together([check.verdict for check in self.checks])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rung": self.rung,
            "title": self.title,
            "verdict": self.verdict,
            "reasons": [check.reason for check in self.checks],
            "checks": [check.to_json() for check in self.checks],
            "further": [figure.to_json() for figure in self.further],
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, kw_only=True)
class Control:
    """Something broken on purpose, and whether the ladder noticed."""

    control: str
    rung: str
    must: Verdict
    verdict: Verdict
    reason: str

    @property
    def caught(self) -> bool:
        return self.verdict == self.must

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "control": self.control,
            "rung": self.rung,
            "must": self.must,
            "verdict": self.verdict,
            "caught": self.caught,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Climb:
    """How many cases the rungs take."""

    name: str
    clips: int
    """Of one chunk, for action following, calibration and each difference of a twin."""
    rollouts: int
    chunks: int
    """Of a rollout."""
    policies: int
    """Taken from the first of the world's on."""
    starts: int
    """Trials of each policy."""
    actors: int
    """Policies that look, of each checkpoint: its own, and so many less one of those hindered."""
    trial_chunks: int
    plans: int
    """Clips that are planned from, and proposals for each."""
    proposals: int
    samples: int
    """Of one future, for their spread."""
    blows: int
    """Clips in which something strikes."""
    steps: int | None = None
    """Of sampling, where the model is asked for that many; its own where None."""


QUICK = Climb(
    name="quick", clips=6, rollouts=2, chunks=2, policies=5, starts=2, trial_chunks=3, actors=1, plans=2,
    proposals=3, samples=2, blows=0, steps=1,
)  # fmt: skip
STANDARD = Climb(
    name="standard", clips=12, rollouts=6, chunks=8, policies=18, starts=4, trial_chunks=5, actors=4,
    plans=8, proposals=6, samples=3, blows=12, steps=2,
)  # fmt: skip
FULL = Climb(
    name="full", clips=80, rollouts=32, chunks=8, policies=18, starts=28, trial_chunks=6, actors=4, plans=40,
    proposals=16, samples=8, blows=80,
)  # fmt: skip
CLIMBS = {climb.name: climb for climb in (QUICK, STANDARD, FULL)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all rungs share."""

    climb: Climb
    seed: int
    thresholds: Thresholds

    def check(self, rung: str, key: str, figure: Figure) -> Check:
        """A figure under its threshold."""
        return Check(key=key, figure=figure, threshold=self.thresholds.of(rung, key))


def as_share(figure: Figure) -> Figure:
    """A figure in percent as one of 1, as thresholds are."""
    scaled = [None if row.value is None else Baseline(name=row.name, value=row.value / 100) for row in figure.baselines]
    return replace(
        figure,
        unit="",
        value=None if figure.value is None else figure.value / 100,
        interval=None if figure.interval is None else (figure.interval[0] / 100, figure.interval[1] / 100),
        baselines=tuple(row for row in scaled if row is not None),
    )
