"""What the bench of a family found: rows of work, each done in several ways, as JSON and as a table for people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from orrery.errors import SettingsError
from orrery.model.operations import Operations
from orrery.runtime.bench import Timing
from orrery.runtime.family.ceilings import Ceilings
from orrery.runtime.result import RANDOM_WEIGHTS

Family = Literal["tiny", "edge", "nano", "super"]
Variant = Literal["plain", "exact", "fp8", "8bit"]
Peer = Literal["diffusers", "transformers"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how often."""

    family: Family
    device: str
    dtype: str
    """float32 or bfloat16."""
    variants: tuple[Variant, ...] = ("plain", "exact")
    against: tuple[Peer, ...] = ()
    rows: tuple[str, ...] = ()
    """Names or groups of rows; none are all."""
    repeats: int = 5
    warm_up: int = 3
    enough_s: float = 30.0
    """No further repeats of a row are begun after so many seconds."""
    whole: bool = False
    """Sample 480p and 720p to their end; otherwise the time of it is worked out from one pass."""
    text_tokens: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise SettingsError(f"dtype must be float32 or bfloat16, got {self.dtype!r}. bfloat16 is for GPUs.")
        for name, value in (("repeats", self.repeats), ("warm_up", self.warm_up), ("text_tokens", self.text_tokens)):
            if not 1 <= value <= 100_000:
                raise SettingsError(f"{name} must be from 1 to 100000, got {value}. 5 repeats give a median.")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way to do the work of a row."""

    seconds: Timing
    tflops: float | None
    """Operations of the row's shape a second, in 10^12."""
    of_floor: float | None
    """Times the floor that this way could reach at best."""
    faster: float | None
    """Times as fast as the peer of the row."""
    peak_bytes: int | None
    """Of the device's memory, all that is loaded included."""
    own_bytes: int | None
    """Without what lay there before the row."""
    differences: Mapping[str, float] = field(default_factory=dict)
    """Other way -> ||a - b|| / ||b|| of what came out, a of this way and b of that."""
    psnr_db: Mapping[str, float | None] = field(default_factory=dict)
    """Other way and modality -> peak signal to noise of the latents, the peak being the range of the other's; None
    where they are equal."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What follows for a user, by names that end in their unit."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of work."""

    name: str
    tokens: int = 0
    """That are made."""
    text_tokens: int = 0
    operations: Operations | None = None
    estimate: str = ""
    """How the figures were worked out, where they were not measured."""
    measured: Mapping[str, Measured] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Way -> why it was not measured."""

    def to_text(self) -> str:
        """A table for people."""
        size = f"{self.tokens:,} tokens, {self.text_tokens:,} of text"
        if self.operations is not None:
            size += f", {self.operations.total / 1e12:,.3g} x 10^12 operations"
        columns = ["median ms", "min", "max", "n", "first s", "TFLOP/s", "x floor", "faster", "GiB", "own GiB"]
        size += f" (estimated: {self.estimate})" if self.estimate else ""
        lines = [f"{self.name}: {size}", f"  {'':14}" + "".join(f"{column:>11}" for column in columns)]
        for name, found in self.measured.items():
            t = found.seconds
            cells = [f"{1000 * t.median:.2f}", f"{1000 * t.least:.2f}", f"{1000 * t.most:.2f}", f"{t.count}"]
            cells += [f"{t.first:.1f}", _cell(found.tflops, ".4g"), _cell(found.of_floor, ".2f")]
            cells += [_cell(found.faster, ".2f"), _gib(found.peak_bytes), _gib(found.own_bytes)]
            lines.append(f"  {name:14}" + "".join(f"{cell:>11}" for cell in cells))
            notes = [f"{value:.4g} {label.replace('_', ' ')}" for label, value in found.figures.items()]
            notes += [f"{value:.1e} off {other}" for other, value in found.differences.items()]
            notes += [
                f"{'equal' if value is None else f'{value:.1f} dB'} to {other}"
                for other, value in found.psnr_db.items()
            ]
            lines += [f"  {'':14}{', '.join(notes):>12}"] if notes else []
        lines += [f"  {name:14} not measured: {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class FamilyBench:
    """What was measured so far, and on what."""

    settings: Settings
    parameters: int
    machine: Mapping[str, Any]
    ceilings: Ceilings
    memory_bytes: Mapping[str, int]
    """What each way takes of the device's memory before any work, in the order of building."""
    rows: tuple[Row, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        head = {"format": "orrery.bench_family", "version": 1}
        return {**head, "weights_trained": False, "weights": RANDOM_WEIGHTS, **asdict(self)}

    def newest(self) -> str:
        """For people: the last row, or before the first one on what it is measured."""
        if self.rows:
            return self.rows[-1].to_text()
        facts, settings = self.machine, self.settings
        return "\n".join(
            [
                f"{settings.family}: {self.parameters:,} parameters, {settings.dtype}, on {facts['device']}",
                f"{facts['system']}, Python {facts['python']}, torch {facts['torch']}",
                RANDOM_WEIGHTS,
                self.ceilings.to_text(),
            ]
        )

    def to_text(self) -> str:
        """A table for people."""
        return "\n\n".join([replace(self, rows=()).newest(), *(row.to_text() for row in self.rows)])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**30:.2f}"
