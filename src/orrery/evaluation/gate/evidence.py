"""The evidence that a policy names, as read from its files. What cannot be read is a reason to refuse, never a gap.

Nothing is judged here; that is `decide`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from orrery.errors import OrreryError, SettingsError
from orrery.evaluation.entries import Table, read_json, read_toml
from orrery.evaluation.gate.ledger import Ledger, Package, installed_packages, read_ledger
from orrery.evaluation.gate.policy import Policy, SpeedRule
from orrery.runtime.bench import bench
from orrery.runtime.load import empty_mot, weight_files
from orrery.runtime.outline import outline
from orrery.weights.documents import dump_json
from orrery.weights.folder import sha256_of_file
from orrery.weights.hub import resolve

VERDICTS = ("pass", "fail", "undecided")
POLICY_CALL = "policy, 1 step"
"""The row of a bench result whose time is held against the control rate."""
REPEATS = 20
"""Calls after the first where the gate measures: the slowest of them counts."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The checkpoint as it lies there now."""

    name: str
    layout: str
    files: Mapping[str, str]
    """File -> sha256 of its bytes; of a released folder, its weight files."""
    changed: tuple[str, ...]
    """Files that are other than the checkpoint's own manifest says."""
    trained: bool | None
    licence: str
    contracts: Mapping[str, str]
    """Embodiment -> sha256 of the contract."""
    rates_hz: Mapping[str, float]
    chunks: Mapping[str, int]
    parameters: int

    @property
    def sha256(self) -> str:
        """One hash for all files: of their names and hashes as JSON."""
        return hashlib.sha256(dump_json(dict(self.files))).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One rung of the verification report."""

    name: str
    verdict: str
    reasons: tuple[str, ...]
    checks: tuple[tuple[str, str], ...]
    """Figure and verdict."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """Something broken on purpose, to see whether the rung finds it."""

    name: str
    rung: str
    must: str
    """The verdict that finds it; "fail" where the report does not say."""
    verdict: str
    caught: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """verification.json as read."""

    files: Mapping[str, str]
    trained: bool | None
    made_at: datetime
    thresholds_sha256: str
    verdict: str
    rungs: tuple[Rung, ...]
    controls: tuple[Control, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run manifest, run.json, as read."""

    label: str
    files: Mapping[str, str]
    trained: bool | None
    contract: tuple[str, str] | None
    """Embodiment and sha256; None for a task without actions."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Time of a policy call and memory, from a bench result."""

    median: float
    """Seconds."""
    most: float
    count: int
    peak_memory_bytes: int
    parameters: int
    trained: bool | None
    machine: Mapping[str, Any]
    sha256: str
    """Of the file, or of the measurement as JSON."""


@dataclass(frozen=True, kw_only=True)
class SignOff:
    """What somebody who answers for it has signed, as supplied."""

    name: str
    role: str
    day: date
    statement: str
    report_sha256: str
    checkpoint_sha256: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that was read. What is None has its reason in `unreadable`."""

    checkpoint: Checkpoint | None
    report: Report | None
    runs: tuple[Run, ...]
    speed: Speed | None
    ledger: Ledger | None
    packages: tuple[Package, ...]
    sign_off: SignOff | None
    unreadable: tuple[str, ...]


def gather(policy: Policy) -> Evidence:
    """Read all that a policy names, and measure where it says so.

    Raises:
        CheckpointError: there is no such checkpoint at all.
    """
    folder = resolve(policy.checkpoint)
    unreadable: list[str] = []

    def attempt(what: str, read: Callable[P, T], *args: P.args, **names: P.kwargs) -> T | None:
        try:
            return read(*args, **names)
        except OrreryError as error:
            unreadable.append(f"{what}: {error}")
            return None

    runs = [attempt("Run manifest", read_run, path) for path in policy.runs]
    return Evidence(
        checkpoint=attempt("Checkpoint", read_checkpoint, folder),
        report=attempt("Verification report", read_report, policy.report),
        runs=tuple(run for run in runs if run is not None),
        speed=attempt("Bench result", read_speed, policy.bench, folder, policy.speed),
        ledger=attempt("Asset ledger", read_ledger, policy.assets),
        packages=installed_packages(),
        sign_off=attempt("Sign-off", read_sign_off, policy.sign_off),
        unreadable=tuple(unreadable),
    )


def read_checkpoint(folder: Path) -> Checkpoint:
    """Hash every file that vouches for the weights, and read what the folder says of itself.

    Raises:
        OrreryError: damaged, incomplete, or with files that do not belong.
    """
    plan = outline(folder, verify=False)
    stated = plan.hashes or {}
    names = stated or [file.relative_to(plan.path).as_posix() for file in weight_files(plan)]
    files = {name: sha256_of_file(plan.path / name) for name in names}
    return Checkpoint(
        name=plan.path.name,
        layout=plan.layout,
        files=files,
        changed=tuple(name for name, digest in stated.items() if files[name] != digest),
        trained=plan.trained,
        licence=plan.licence,
        contracts={contract.embodiment: contract_sha256(contract.to_json()) for contract in plan.contracts},
        rates_hz={contract.embodiment: float(contract.control_rate_hz) for contract in plan.contracts},
        chunks={contract.embodiment: contract.chunk for contract in plan.contracts},
        parameters=sum(parameter.numel() for parameter in empty_mot(plan.mot).parameters()),
    )


def contract_sha256(document: Mapping[str, object]) -> str:
    """The name of a contract in records: of its `to_json` form as canonical JSON."""
    return hashlib.sha256(dump_json(dict(document))).hexdigest()


def read_report(path: Path) -> Report:
    """Read verification.json.

    Raises:
        OrreryError: no such file, not JSON, or not of the form that is read.
    """
    table = read_json(path)
    table.form("orrery.verification", 1)
    checkpoint = table.table("checkpoint")
    written = table.text("made_at")
    try:
        made_at = datetime.fromisoformat(written)
    except ValueError as error:
        raise SettingsError(f"{table.where}: made_at is no ISO 8601 time ({error}). Make the report again.") from None
    if made_at.utcoffset() is None:
        raise SettingsError(f"{table.where}: made_at {made_at} does not say that it is UTC. Make the report again.")
    return Report(
        files=checkpoint.hashes("files"),
        trained=checkpoint.maybe_truth("trained"),
        made_at=made_at.astimezone(UTC),
        thresholds_sha256=table.table("thresholds").hash("sha256"),
        verdict=table.choice("verdict", VERDICTS),
        rungs=tuple(_rung(entry) for entry in table.tables("rungs")),
        controls=tuple(
            Control(
                name=entry.text("control"),
                rung=entry.text("rung"),
                must=entry.choice("must", VERDICTS) if "must" in entry.content else "fail",
                verdict=entry.choice("verdict", VERDICTS),
                caught=entry.truth("caught"),
                reason=entry.maybe_text("reason"),
            )
            for entry in table.tables("controls")
        ),
        sha256=table.sha256,
    )


def _rung(entry: Table) -> Rung:
    checks = entry.tables("checks")
    return Rung(
        name=entry.text("rung"),
        verdict=entry.choice("verdict", VERDICTS),
        reasons=entry.texts("reasons"),
        checks=tuple((check.text("figure"), check.choice("verdict", VERDICTS)) for check in checks),
    )


def read_run(path: Path) -> Run:
    """Read a run manifest.

    Raises:
        OrreryError: no such file, not JSON, or not of the form that is read.
    """
    table = read_json(path)
    table.form("orrery.run", 1)
    contract = None if table.content.get("contract") is None else table.table("contract")
    return Run(
        label=f"{path.parent.name}/{path.name}",
        files=table.table("checkpoint").hashes("files"),
        trained=table.maybe_truth("weights_trained"),
        contract=None if contract is None else (contract.text("embodiment"), contract_sha256(contract.content)),
        sha256=table.sha256,
    )


def read_speed(path: Path | None, checkpoint: Path, rule: SpeedRule) -> Speed:
    """Read a bench result, or measure on this machine where there is none.

    Args:
        path: None to measure.

    Raises:
        OrreryError: no such file, not of the form that is read, or one that did not measure a policy's call.
    """
    if path is None:
        measured = bench(checkpoint, device=rule.device, dtype=rule.dtype, repeats=REPEATS, only=POLICY_CALL)
        found = measured.to_json()
        table = Table(where="the measurement", content=found, sha256=hashlib.sha256(dump_json(found)).hexdigest())
    else:
        table = read_json(path)
    table.form("orrery.bench", 1)
    left_out = table.table("left_out").content
    if POLICY_CALL in left_out:
        raise SettingsError(f"{table.where} did not measure {POLICY_CALL!r}: {left_out[POLICY_CALL]}. Measure again.")
    timing = table.table("seconds").table(POLICY_CALL)
    return Speed(
        median=timing.number("median"),
        most=timing.number("most"),
        count=timing.whole("count"),
        peak_memory_bytes=table.whole("peak_memory_bytes"),
        parameters=table.whole("parameters"),
        trained=table.maybe_truth("weights_trained"),
        machine=table.table("machine").content,
        sha256=table.sha256,
    )


def read_sign_off(path: Path | None) -> SignOff:
    """Read a sign-off.

    Raises:
        OrreryError: there is none, or it is not of the form that is read.
    """
    if path is None:
        raise SettingsError("there is none. Whoever answers for the deployment writes one; the policy names its file.")
    table = read_toml(path)
    table.form("orrery.sign_off", 1)
    table.only("format", "version", "name", "role", "date", "statement", "report_sha256", "checkpoint_sha256")
    return SignOff(
        name=table.text("name"),
        role=table.text("role"),
        day=table.day("date"),
        statement=table.text("statement"),
        report_sha256=table.hash("report_sha256"),
        checkpoint_sha256=table.hash("checkpoint_sha256"),
        sha256=table.sha256,
    )
