"""The whole ladder over one model and one world, with its controls, and the report as JSON and as a page."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orrery.evaluation.page import Page, Section, Table, write_page
from orrery.evaluation.verification.calibration import calibration
from orrery.evaluation.verification.exploit import exploitability
from orrery.evaluation.verification.following import following, truths_of
from orrery.evaluation.verification.horizon import fidelity
from orrery.evaluation.verification.imaginers import BROKEN, ShuffledActions, broken
from orrery.evaluation.verification.interfaces import Actor, Imaginer, World
from orrery.evaluation.verification.ladder import FORMAT, VERSION, Control, Rung, Setting, together
from orrery.evaluation.verification.ranking import Foreseen, few_trials, foreseen, policy_evaluation, tried
from orrery.evaluation.verification.twin import twin_gap
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.weights.atomic import write_atomic
from orrery.weights.documents import dump_json

RUNGS = ("action_following", "fidelity", "policy_evaluation", "exploitability", "calibration", "twin_gap")
OFFSETS = {"action_following": 0, "fidelity": 3000, "exploitability": 6000, "calibration": 9000}
"""Sets the episodes of the rungs apart."""
CALIBRATED_CHUNKS = 2
MIN_CONTROL_CLIPS = 6
"""What is broken is seen on few clips, but not on fewer."""


def verify(
    imaginer: Imaginer,
    world: World,
    setting: Setting,
    *,
    actors: Sequence[Actor] = (),
    rungs: tuple[str, ...] = RUNGS,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[list[Rung], list[Control]]:
    """Climb the rungs, and let what is broken on purpose climb those that must fail it.

    Args:
        actors: policies that look, for the third rung, beside those of the world.
    """
    climb, seed = setting.climb, setting.seed
    found: list[Rung] = []
    controls: list[Control] = []

    def climbed(name: str, work: Callable[[], Rung]) -> None:
        if name not in rungs:
            return
        tell(name.replace("_", " "))
        began = time.monotonic()
        rung = replace(work(), seconds=time.monotonic() - began)
        found.append(rung)
        for check in rung.checks:
            tell(f"  {check.reason}")

    def caught(control: str, rung: Rung, key: str) -> None:
        # By the figure that it breaks: a model that fails anyway would hide whether the break was seen.
        check = next(check for check in rung.checks if check.key == key)
        controls.append(
            Control(control=control, rung=rung.rung, must="fail", verdict=check.verdict, reason=check.reason)
        )
        tell(f"  control {control}: {check.reason}")

    if "action_following" in rungs:
        clips = world.clips(climb.clips, chunks=1, seed=seed, offset=OFFSETS["action_following"])
        truths = truths_of(world, clips, seed)
        climbed("action_following", lambda: following(imaginer, world, setting, clips, truths))
        few = max(MIN_CONTROL_CLIPS, len(clips) // 2)
        # What tells them is under true and shuffled actions.
        some = truths_of(world, clips[:few], seed, ("true", "shuffled"))
        for name, key in BROKEN.items():
            caught(name, following(broken(name, imaginer, world.gripper), world, setting, clips[:few], some), key)
    if "fidelity" in rungs:
        rollouts = world.clips(climb.rollouts, chunks=climb.chunks, seed=seed, offset=OFFSETS["fidelity"])
        blows = world.blows(climb.blows, seed=seed) if imaginer.sounds else []
        climbed("fidelity", lambda: fidelity(imaginer, world, setting, rollouts, blows))
    if "policy_evaluation" in rungs:
        trials = tried(world, setting, actors)
        made: list[Foreseen] = []

        def evaluated() -> Rung:
            made.append(foreseen(imaginer, world, setting, trials))
            return policy_evaluation(world, setting, trials, made[0])

        climbed("policy_evaluation", evaluated)
        half = [trial for trial in trials if trial.start < max(2, climb.starts // 2)]
        shuffled = foreseen(ShuffledActions(of=imaginer), world, setting, half)
        caught("shuffled actions", policy_evaluation(world, setting, half, shuffled), "spearman")
        always = policy_evaluation(world, setting, trials, made[0], judge=lambda _trial, _reading: True)
        caught("a judge that always says success", always, "false_success")
        controls.append(few_trials(trials))
        tell(f"  control {controls[-1].control}: {controls[-1].verdict}. {controls[-1].reason}")
    if "exploitability" in rungs:
        starts = world.clips(climb.plans, chunks=1, seed=seed, offset=OFFSETS["exploitability"])
        climbed("exploitability", lambda: exploitability(imaginer, world, setting, starts))
    if "calibration" in rungs:
        futures = world.clips(climb.clips, chunks=CALIBRATED_CHUNKS, seed=seed, offset=OFFSETS["calibration"])
        climbed("calibration", lambda: calibration(imaginer, world, setting, futures))
    climbed("twin_gap", lambda: twin_gap(imaginer, world, setting, climb.clips))
    return found, controls


def document(
    rungs: list[Rung],
    controls: list[Control],
    setting: Setting,
    world: World,
    checkpoint: Mapping[str, Any],
    *,
    command: str,
    machine: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The report as plain values.

    Args:
        checkpoint: its "name", the hashes of its "files", and whether it was "trained".
    """
    verdict = together([rung.verdict for rung in rungs])
    if not all(control.caught for control in controls):
        # A ladder that lets a broken model pass says nothing about a whole one.
        verdict = "fail" if verdict == "fail" else "undecided"
    return {
        "format": FORMAT,
        "version": VERSION,
        "checkpoint": dict(checkpoint),
        "world": world.name,
        "size": setting.climb.name,
        "seed": setting.seed,
        "command": command,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "thresholds": {
            "name": setting.thresholds.name,
            "version": setting.thresholds.version,
            "sha256": setting.thresholds.sha256,
        },
        "judge": world.note,
        "verdict": verdict,
        "rungs": [rung.to_json() for rung in rungs],
        "controls": [control.to_json() for control in controls],
        "machine": dict(machine),
        "seconds": round(seconds, 1),
    }


def write_report(out: Path, report: dict[str, Any], rungs: list[Rung]) -> None:
    """verification.json and verification.html."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "verification.json", dump_json(report))
    write_page(out / "verification.html", page_of(report, rungs))


def page_of(report: Mapping[str, Any], rungs: list[Rung]) -> Page:
    """The report for readers: verdicts first, then why."""
    count = {word: sum(row["verdict"] == word for row in report["rungs"]) for word in ("pass", "fail", "undecided")}
    overview = Section(
        title="Verdicts",
        text="A rung passes when the whole interval of each of its figures is beyond what is asked, fails when one "
        "interval is wholly short of it, and is undecided else: then more cases are needed, not more hope.",
        tables=(
            Table(
                head=("rung", "verdict", "what decided"),
                rows=tuple((row["title"], row["verdict"], _deciding(row)) for row in report["rungs"]),
            ),
            Table(
                head=("control: broken on purpose", "on rung", "must be", "is", "why"),
                rows=tuple(
                    (
                        row["control"],
                        row["rung"].replace("_", " "),
                        row["must"],
                        f"{row['verdict']}{'' if row['caught'] else ': NOT CAUGHT'}",
                        row["reason"],
                    )
                    for row in report["controls"]
                ),
            ),
        ),
        command=report["command"],
    )
    sections = [overview]
    for rung, row in zip(rungs, report["rungs"], strict=True):
        figures = [check.figure for check in rung.checks]
        sections.append(
            Section(
                title=f"{rung.title}: {rung.verdict}",
                text=f"{rung.text} Took {row['seconds']:g} s.",
                measures=tuple(m for figure in (*figures, *rung.further) for m in figure.measures()),
                tables=(
                    Table(
                        head=("what is asked", "verdict"),
                        rows=tuple((check.reason, check.verdict) for check in rung.checks),
                    ),
                    *rung.tables,
                ),
                strips=rung.strips,
                charts=rung.charts,
                command=f"{report['command']} --rungs {rung.rung}",
            )
        )
    warnings = [
        "Checked against a simulator, not against a real cell. A pass here is no evidence of safety.",
        *(f"Control not caught: {row['control']}. This report is worth nothing until it is."
          for row in report["controls"] if not row["caught"]),
    ]  # fmt: skip
    if report["checkpoint"].get("trained") is False:
        warnings.insert(0, RANDOM_WEIGHTS)
    facts = (
        ("checkpoint", str(report["checkpoint"]["name"])),
        ("world", report["world"]),
        ("judge", report["judge"]),
        ("thresholds", f"{report['thresholds']['name']} version {report['thresholds']['version']}"),
        ("size and seed", f"{report['size']}, {report['seed']}"),
        ("made at", report["made_at"]),
        ("took", f"{report['seconds']:g} s"),
        ("command", report["command"]),
    )
    return Page(
        title=f"Verification of {report['checkpoint']['name']}: {report['verdict']}",
        summary=f"Of {len(rungs)} rungs, {count['pass']} pass, {count['fail']} fail and {count['undecided']} are "
        f"undecided. Of {len(report['controls'])} controls, {sum(row['caught'] for row in report['controls'])} were "
        "caught.",
        warnings=tuple(warnings),
        facts=facts,
        sections=tuple(sections),
    )


def _deciding(row: Mapping[str, Any]) -> str:
    """The reasons that made the verdict."""
    worst = [check["verdict"] == row["verdict"] for check in row["checks"]]
    return " ".join(reason for reason, it in zip(row["reasons"], worst, strict=True) if it)
