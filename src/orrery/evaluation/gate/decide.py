"""Allow, allow with limits, or refuse: evidence held against a policy, with every reason, and the record of it.

Nothing is read or measured here. There is no way to "allow" around a missing piece: what could not be read is a reason.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from orrery.evaluation.gate.evidence import VERDICTS, Checkpoint, Control, Evidence, Report, Run, Rung, SignOff, Speed
from orrery.evaluation.gate.ledger import filled, ledger_reasons
from orrery.evaluation.gate.policy import CostBasis, Policy, RungRule
from orrery.evaluation.gate.sign import FORMAT, VERSION
from orrery.weights.documents import listed

Verdict = Literal["allow", "allow with limits", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An estimate: so many machines, each busy with policy calls of the median time, one after the other."""

    currency: str
    machine_per_hour: float
    calls_per_hour: float
    machines: int
    busy: float
    """Share of the machines' time that is spent in calls, from 0 to 1."""
    per_hour: float
    per_1000_calls: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided. `document` is the whole record."""

    verdict: Verdict
    reasons: tuple[str, ...]
    limits: tuple[str, ...]
    cost: Cost | None
    document: Mapping[str, Any]


def decide(policy: Policy, evidence: Evidence, now: datetime) -> Decision:
    """Hold the evidence against the policy; all reasons are collected, not only the first.

    Args:
        now: with a time zone; ages and the expiry are counted from it.
    """
    now = now.astimezone(UTC).replace(microsecond=0)
    reasons, limits = list(evidence.unreadable), []
    checkpoint, report, speed = evidence.checkpoint, evidence.report, evidence.speed
    if checkpoint is not None:
        reasons += _checkpoint_reasons(policy, checkpoint)
        reasons += [reason for run in evidence.runs for reason in _run_reasons(policy, checkpoint, run)]
    if evidence.ledger is not None:
        weights = {} if checkpoint is None else checkpoint.files
        reasons += ledger_reasons(evidence.ledger, evidence.packages, policy.licences, weights)
    if speed is not None:
        reasons += _speed_reasons(policy, checkpoint, speed)
    if report is not None:
        reasons += _report_reasons(policy, checkpoint, report, now)
        rules = {rule.name: rule for rule in policy.rungs}
        limits = [
            limit for rung in report.rungs if rung.verdict == "undecided" and rung.name in rules
            for limit in rules[rung.name].limits
        ]  # fmt: skip
    if evidence.sign_off is not None:
        reasons += _sign_off_reasons(evidence.sign_off, checkpoint, report, now)
    verdict: Verdict = "refuse" if reasons else "allow with limits" if limits else "allow"
    limits = limits if verdict == "allow with limits" else []
    cost = None if speed is None else estimate(policy.cost, speed.median)
    assert verdict == "refuse" or None not in (checkpoint, report, speed, evidence.ledger, evidence.sign_off)
    assert verdict == "refuse" or len(evidence.runs) == len(policy.runs)
    return Decision(
        verdict=verdict,
        reasons=tuple(reasons),
        limits=tuple(limits),
        cost=cost,
        document={
            "format": FORMAT,
            "version": VERSION,
            "decision": verdict,
            "reasons": reasons,
            "limits": limits,
            "decided_at": now.isoformat(),
            "expires_at": (now + timedelta(days=policy.decision_days)).replace(microsecond=0).isoformat(),
            "rollback": policy.rollback,
            "policy": {"name": policy.name, "sha256": policy.sha256},
            "checkpoint": None if checkpoint is None else {**asdict(checkpoint), "sha256": checkpoint.sha256},
            "speed": None if speed is None else {**asdict(speed), "allowed_seconds": policy.speed.seconds},
            "cost": None if cost is None else asdict(cost),
            "packages": [asdict(package) for package in evidence.packages],
            "evidence": {
                "assets": None if evidence.ledger is None else evidence.ledger.sha256,
                "bench": None if speed is None else speed.sha256,
                "report": None if report is None else report.sha256,
                "runs": [{"name": run.label, "sha256": run.sha256} for run in evidence.runs],
                "sign_off": None if evidence.sign_off is None else evidence.sign_off.sha256,
            },
        },
    )


def estimate(basis: CostBasis, seconds: float) -> Cost:
    """What a number of calls an hour costs where one takes so many seconds."""
    load = basis.calls_per_hour * seconds / 3600
    machines = max(1, math.ceil(load))
    return Cost(
        **asdict(basis),
        machines=machines,
        busy=load / machines,
        per_hour=machines * basis.machine_per_hour,
        per_1000_calls=1000 * machines * basis.machine_per_hour / basis.calls_per_hour,
    )


def _checkpoint_reasons(policy: Policy, checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.changed:
        yield f"The checkpoint is not what its own manifest says: {listed(checkpoint.changed)}. Fetch it again."
    yield from _training_reasons(policy, "The checkpoint", checkpoint.trained)
    known = ", ".join(f"{name} (sha256 {digest})" for name, digest in checkpoint.contracts.items()) or "none"
    if policy.embodiment is not None and policy.embodiment not in checkpoint.contracts:
        yield f"The contract expected is of {policy.embodiment!r}; the checkpoint has: {known}."
    expected = _expected(policy, checkpoint)
    if policy.contract_sha256 is not None and expected is None:
        yield f"The contract expected has sha256 {policy.contract_sha256}; the checkpoint has: {known}."
    if expected is None:
        return
    if (rate := checkpoint.rates_hz[expected]) != policy.speed.rate_hz:
        yield f"The control rate asked for is {policy.speed.rate_hz:g} Hz; the contract of {expected} is {rate:g} Hz."
    if (chunk := checkpoint.chunks[expected]) < policy.speed.executed:
        yield f"{policy.speed.executed} actions are to be executed per call; the contract of {expected} has {chunk}."


def _expected(policy: Policy, checkpoint: Checkpoint) -> str | None:
    """The embodiment whose contract is what the policy expects; None where there is none."""
    return next(
        (
            name
            for name, digest in checkpoint.contracts.items()
            if policy.embodiment in (None, name) and policy.contract_sha256 in (None, digest)
        ),
        None,
    )


def _training_reasons(policy: Policy, what: str, trained: bool | None) -> Iterator[str]:
    if trained is False:
        yield f"{what} is of random weights: nothing in them was learned. Deploy trained ones."
    elif trained is None and not policy.released_weights:
        yield (
            f"{what} does not say whether its weights were trained. If it is a released folder, set "
            "released_weights = true in the policy."
        )


def _run_reasons(policy: Policy, checkpoint: Checkpoint, run: Run) -> Iterator[str]:
    label = f"Run manifest {run.label}"
    if different := _different(run.files, checkpoint.files):
        yield f"{label} was made with other weights: {different}. Make the run again with this checkpoint."
    yield from _training_reasons(policy, label, run.trained)
    if run.contract is not None and checkpoint.contracts.get(run.contract[0]) != run.contract[1]:
        yield f"{label} was made under another contract ({run.contract[0]}, sha256 {run.contract[1]})."


def _speed_reasons(policy: Policy, checkpoint: Checkpoint | None, speed: Speed) -> Iterator[str]:
    rule = policy.speed
    if checkpoint is not None and (speed.parameters, speed.trained) != (checkpoint.parameters, checkpoint.trained):
        yield (
            f"The bench result is of another checkpoint: {speed.parameters:,} parameters, trained {speed.trained}; "
            f"this one has {checkpoint.parameters:,}, trained {checkpoint.trained}. Measure this one."
        )
    if not speed.most < rule.seconds:
        yield (
            f"A policy call took up to {speed.most:.4g} s of {speed.count} calls; at {rule.rate_hz:g} Hz with "
            f"{rule.executed} actions executed per call it must take less than {rule.seconds:.4g} s. Use a faster "
            "machine or execute more actions of a call."
        )
    if (mib := speed.peak_memory_bytes / 2**20) > rule.memory_mib:
        yield f"Peak memory was {mib:.1f} MiB; {rule.memory_mib:g} MiB are allowed. Use a machine with more memory."


def _report_reasons(policy: Policy, checkpoint: Checkpoint | None, report: Report, now: datetime) -> Iterator[str]:
    if checkpoint is not None and (different := _different(report.files, checkpoint.files)):
        yield f"The verification report is about other weights: {different}. Verify this checkpoint."
    yield from _training_reasons(policy, "The checkpoint of the verification report", report.trained)
    age = now - report.made_at
    if age > timedelta(days=policy.report_days):
        yield (
            f"The verification report is stale: {age / timedelta(days=1):.1f} days old, {policy.report_days:g} are "
            "allowed. Verify again."
        )
    if age < timedelta(0):
        yield f"The verification report is dated {report.made_at.isoformat()}, in the future. Set the clocks right."
    if policy.thresholds_sha256 not in (None, report.thresholds_sha256):
        yield (
            f"The verification report was judged by other thresholds (sha256 {report.thresholds_sha256}); the policy "
            f"names {policy.thresholds_sha256}. Verify with those."
        )
    rungs = {rung.name: rung for rung in report.rungs}
    if len(rungs) != len(report.rungs):
        yield "The verification report has a rung twice. Make it again."
    rules = {rule.name: rule for rule in policy.rungs}
    for name in rules:
        if name not in rungs:
            yield f"Rung {name} is required, and the verification report does not have it. Verify with it."
    for rung in report.rungs:
        yield from _rung_reasons(rung, rules.get(rung.name))
    # A control that was not caught leaves a report undecided whose rungs pass; that is a reason of its own.
    explained = report.verdict in {rung.verdict for rung in report.rungs} or not all(map(_caught, report.controls))
    if report.verdict != "pass" and not explained:
        yield f"The verification report as a whole says {report.verdict!r}, and none of its rungs does. Make it again."
    if not report.controls:
        yield "The verification report has no controls, so nothing shows that its rungs find faults. Verify with them."
    for control in report.controls:
        yield from _control_reasons(control)


def _rung_reasons(rung: Rung, rule: RungRule | None) -> Iterator[str]:
    why = f" ({' '.join(rung.reasons)})" if rung.reasons else ""
    if rung.verdict == "fail":
        yield f"Rung {rung.name} failed{why}."
    elif rung.verdict == "undecided" and (rule is None or rule.needs == "pass"):
        needs = "is not named in the policy" if rule is None else "must pass"
        yield f"Rung {rung.name} is undecided{why}, and {needs}. Measure more, or name limits in the policy."
    bearable = {"pass": ("pass",), "undecided": ("pass", "undecided"), "fail": VERDICTS}[rung.verdict]
    if worse := [figure for figure, verdict in rung.checks if verdict not in bearable]:
        yield f"Rung {rung.name} says {rung.verdict!r} against its own checks: {listed(worse)}. Verify again."
    if rung.verdict == "pass" and not rung.checks:
        yield f"Rung {rung.name} says 'pass' without a check. Verify again."


def _control_reasons(control: Control) -> Iterator[str]:
    if not _caught(control):
        why = f" ({control.reason})" if control.reason else ""
        yield (
            f"Control {control.name} was not caught by rung {control.rung}, which says {control.verdict!r} and not "
            f"{control.must!r}{why}: the rung does not find such faults. Mend the verification."
        )


def _caught(control: Control) -> bool:
    return control.caught and control.verdict == control.must != "pass"


def _sign_off_reasons(
    sign_off: SignOff, checkpoint: Checkpoint | None, report: Report | None, now: datetime
) -> Iterator[str]:
    for key, value in (("name", sign_off.name), ("role", sign_off.role), ("statement", sign_off.statement)):
        if not filled(value):
            yield f"Sign-off: {key} was not filled in. Whoever answers for the deployment fills it in."
    if report is not None and sign_off.report_sha256 != report.sha256:
        yield (
            f"The sign-off is for another verification report (sha256 {sign_off.report_sha256}; this one has "
            f"{report.sha256}). Have this one signed off."
        )
    if checkpoint is not None and sign_off.checkpoint_sha256 != checkpoint.sha256:
        yield (
            f"The sign-off is for other weights (sha256 {sign_off.checkpoint_sha256}; these have {checkpoint.sha256}). "
            "Have these signed off."
        )
    if sign_off.day > now.date() + timedelta(days=1):  # somewhere it is tomorrow already
        yield f"The sign-off is dated {sign_off.day}, in the future. Have it dated right."
    if report is not None and sign_off.day < report.made_at.date() - timedelta(days=1):
        yield f"The sign-off of {sign_off.day} is older than the verification report. Have it dated right."


def _different(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Names of the files in which two checkpoints differ, for a sentence; empty where they are the same."""
    names = {name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)}
    return f"{listed(names)} differ" if names else ""
