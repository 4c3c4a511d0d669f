"""The policy of a gate, GATE.toml: what evidence is looked at, and what it must say. Read strictly, decides nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from orrery.errors import SettingsError
from orrery.evaluation.entries import Table, read_toml

FORMAT, VERSION = "orrery.gate", 1
MEASURE = "measure"
MOST_DAYS = 3660.0
"""Ten years: no report and no decision is good for longer."""
Needs = Literal["pass", "undecided"]


@dataclass(frozen=True, kw_only=True)
class RungRule:
    """What a rung of the verification report must have reached."""

    name: str
    needs: Needs
    """ "undecided": a rung that could not be decided is allowed, with `limits`; one that failed never is."""
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SpeedRule:
    """What the machine must manage: one call of the policy in less than `executed / rate_hz` seconds."""

    rate_hz: float
    executed: int
    """Actions of a call that are carried out before the next call."""
    memory_mib: float
    """Of the whole process at its largest."""
    device: str = "cpu"
    """Of a measurement made by the gate; a bench result was made where it says."""
    dtype: str = "float32"

    @property
    def seconds(self) -> float:
        """The time that a call must stay below."""
        return self.executed / self.rate_hz


@dataclass(frozen=True, kw_only=True)
class CostBasis:
    """Numbers that an estimate of the cost rests on; the gate does not know prices."""

    currency: str
    machine_per_hour: float
    calls_per_hour: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """GATE.toml as read. Paths are complete."""

    name: str
    sha256: str
    checkpoint: str | Path
    report: Path
    runs: tuple[Path, ...]
    bench: Path | None
    """None: measured by the gate."""
    assets: Path
    sign_off: Path | None
    """None: there is none yet, and nothing can be allowed."""
    embodiment: str | None
    contract_sha256: str | None
    report_days: float
    decision_days: float
    thresholds_sha256: str | None
    released_weights: bool
    """Whether a checkpoint may be silent about its training, as released folders are."""
    rungs: tuple[RungRule, ...]
    speed: SpeedRule
    cost: CostBasis
    licences: tuple[str, ...]
    rollback: str | None


def read_policy(path: Path) -> Policy:
    """Read GATE.toml; paths in it are relative to it.

    Raises:
        SettingsError: not such a file, or a missing, unknown or impossible entry.
    """
    table = read_toml(path)
    table.form(FORMAT, VERSION)
    table.only(
        *("format", "version", "name", "checkpoint", "report", "runs", "bench", "assets", "sign_off", "contract"),
        *("report_days", "decision_days", "thresholds_sha256", "released_weights", "rung", "speed", "cost"),
        *("licences", "rollback"),
    )
    contract = table.table("contract")
    contract.only("embodiment", "sha256")
    embodiment = contract.text("embodiment") if "embodiment" in contract.content else None
    contract_sha256 = contract.maybe_hash("sha256")
    if embodiment is None and contract_sha256 is None:
        raise SettingsError(f"{contract.where} names nothing to expect. Give embodiment, sha256 or both.")
    folder = path.parent
    checkpoint, bench = table.text("checkpoint"), table.text("bench")
    return Policy(
        name=table.text("name"),
        sha256=table.sha256,
        checkpoint=folder / checkpoint if (folder / checkpoint).exists() else checkpoint,
        report=folder / table.text("report"),
        runs=tuple(folder / run for run in table.texts("runs", least=1)),
        bench=None if bench == MEASURE else folder / bench,
        assets=folder / table.text("assets"),
        sign_off=folder / table.text("sign_off") if "sign_off" in table.content else None,
        embodiment=embodiment,
        contract_sha256=contract_sha256,
        report_days=table.number("report_days", most=MOST_DAYS),
        decision_days=table.number("decision_days", most=MOST_DAYS),
        thresholds_sha256=table.maybe_hash("thresholds_sha256"),
        released_weights=table.truth("released_weights") if "released_weights" in table.content else False,
        rungs=_rungs(table),
        speed=_speed(table.table("speed")),
        cost=_cost(table.table("cost")),
        licences=table.texts("licences", least=1),
        rollback=table.maybe_hash("rollback"),
    )


def _rungs(table: Table) -> tuple[RungRule, ...]:
    rules = []
    for entry in table.tables("rung"):
        entry.only("name", "needs", "limits")
        needs = cast(Needs, entry.choice("needs", ("pass", "undecided")))
        if needs == "pass" and "limits" in entry.content:
            raise SettingsError(f"{entry.where} needs a pass, so its limits never apply. Leave them out.")
        limits = entry.texts("limits", least=1) if needs == "undecided" else ()
        rules.append(RungRule(name=entry.text("name"), needs=needs, limits=limits))
    if not rules or len({rule.name for rule in rules}) != len(rules):
        raise SettingsError(f"{table.where}: give at least one [[rung]], each of another name.")
    return tuple(rules)


def _speed(entry: Table) -> SpeedRule:
    entry.only("rate_hz", "executed", "memory_mib", "device", "dtype")
    return SpeedRule(
        rate_hz=entry.number("rate_hz"),
        executed=entry.whole("executed"),
        memory_mib=entry.number("memory_mib"),
        device=entry.maybe_text("device") or "cpu",
        dtype=entry.maybe_text("dtype") or "float32",
    )


def _cost(entry: Table) -> CostBasis:
    entry.only("currency", "machine_per_hour", "calls_per_hour")
    return CostBasis(
        currency=entry.text("currency"),
        machine_per_hour=entry.number("machine_per_hour"),
        calls_per_hour=entry.number("calls_per_hour"),
    )
