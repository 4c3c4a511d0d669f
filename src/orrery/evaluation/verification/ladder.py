"""Checks against thresholds, rungs, controls and the report that they make: values with a JSON form."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from orrery.errors import SettingsError
from orrery.evaluation.chart import Chart
from orrery.evaluation.factory.figure import Figure
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
        SettingsError: no such file, no name or version, or a value that is no number.
    """
    if not path.is_file():
        raise SettingsError(f"There is no file of thresholds {path}. Leave it out for those that are shipped.")
    content = path.read_bytes()
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}. Mend it.") from None
    name, version = document.pop("name", None), document.pop("version", None)
    if not isinstance(name, str) or not isinstance(version, int):
        raise SettingsError(f"{path} needs a name and a whole version, got {name!r} and {version!r}.")
    for rung, rows in document.items():
        if not isinstance(rows, dict) or not all(isinstance(v, int | float) for v in rows.values()):
            raise SettingsError(f"{path}: [{rung}] must hold numbers, got {rows!r}.")
    return Thresholds(name=name, version=version, sha256=sha256(content).hexdigest(), values=document)


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
    trial_chunks: int
    plans: int
    """Clips that are planned from, and proposals for each."""
    proposals: int
    samples: int
    """Of one future, for their spread."""
    steps: int | None = None
    """Of sampling, where the model is asked for that many; its own where None."""


QUICK = Climb(
    name="quick", clips=6, rollouts=2, chunks=2, policies=5, starts=2, trial_chunks=3, plans=2, proposals=3, samples=2,
    steps=1,
)  # fmt: skip
STANDARD = Climb(
    name="standard", clips=12, rollouts=6, chunks=8, policies=18, starts=4, trial_chunks=5, plans=8, proposals=6,
    samples=3, steps=2,
)  # fmt: skip
FULL = Climb(
    name="full", clips=80, rollouts=32, chunks=8, policies=18, starts=28, trial_chunks=6, plans=40, proposals=16,
    samples=8,
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
