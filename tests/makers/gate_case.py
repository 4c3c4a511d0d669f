"""A deployment that a gate allows: a tiny checkpoint with all evidence beside it, to plant defects in."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from makers.pico_checkpoint import small_pico

from orrery.evaluation.gate.evidence import read_checkpoint
from orrery.runtime.save import save
from orrery.weights.documents import dump_json

POLICY = """
format = "orrery.gate"
version = 1
name = "a tiny policy on a gantry"
checkpoint = "checkpoint"
report = "verification.json"
runs = ["run/run.json"]
bench = "bench.json"
assets = "assets.toml"
sign_off = "sign_off.toml"
report_days = 7
decision_days = 30
licences = ["Apache-2.0", "MIT", "BSD-3-Clause"]

[contract]
embodiment = "factory_gantry"

[[rung]]
name = "action_following"
needs = "pass"

[[rung]]
name = "long_horizon"
needs = "undecided"
limits = ["At most 60 seconds without a person at the machine."]

[speed]
rate_hz = 20
executed = 8
memory_mib = 1024

[cost]
currency = "EUR"
machine_per_hour = 1.5
calls_per_hour = 9000
"""
SIGN_OFF = """
format = "orrery.sign_off"
version = 1
name = "A. Tester"
role = "test engineer"
date = {day}
statement = "I have read the report."
report_sha256 = "{report}"
checkpoint_sha256 = "{checkpoint}"
"""
DATASET = """
[[asset]]
name = "episodes"
kind = "dataset"
licence = "MIT"
origin = "recorded by the test"
obligations = ["keep the notice"]
approved_by = "A. Tester"
files = { "episodes.bin" = "%s" }
"""


@dataclass(kw_only=True)
class Case:
    """Documents that are written by `write`; change them before."""

    folder: Path
    now: datetime
    report: dict[str, Any]
    bench: dict[str, Any]
    run: dict[str, Any]
    assets: str
    policy: str = POLICY
    sign_off: str | None = SIGN_OFF
    checkpoint_sha256: str = ""

    def swap(self, document: str, old: str, new: str) -> None:
        """Change a text document in one place."""
        text = getattr(self, document)
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        setattr(self, document, text.replace(old, new))

    def write(self) -> Path:
        """Write everything; the sign-off is for the report as it is now.

        Returns:
            The path of GATE.toml.
        """
        report = dump_json(self.report)
        (self.folder / "run").mkdir(exist_ok=True)
        (self.folder / "verification.json").write_bytes(report)
        (self.folder / "bench.json").write_bytes(dump_json(self.bench))
        (self.folder / "run" / "run.json").write_bytes(dump_json(self.run))
        (self.folder / "assets.toml").write_text(self.assets)
        if self.sign_off is not None:
            words = {
                "day": self.now.date().isoformat(),
                "report": hashlib.sha256(report).hexdigest(),
                "checkpoint": self.checkpoint_sha256,
            }
            (self.folder / "sign_off.toml").write_text(self.sign_off.format(**words))
        (self.folder / "GATE.toml").write_text(self.policy)
        return self.folder / "GATE.toml"


def clean_case(folder: Path, now: datetime) -> Case:
    """Nothing is wrong with it: the report is an hour old, a call takes 0.1 s of the 0.4 s there are."""
    model = small_pico()
    save(model, folder / "checkpoint", trained=True, licence="Apache-2.0", notes={"made_by": "tests"})
    found = read_checkpoint(folder / "checkpoint")
    data = b"frames"
    (folder / "episodes.bin").write_bytes(data)
    weights = "".join(f'"checkpoint/{name}" = "{digest}"\n' for name, digest in found.files.items())
    assets = (
        'format = "orrery.assets"\nversion = 1\n[[asset]]\nname = "tiny"\nkind = "weights"\nlicence = "Apache-2.0"\n'
        'origin = "made by the test"\nobligations = []\napproved_by = "A. Tester"\n[asset.files]\n' + weights
    )
    contract = next(iter(model.contracts.values())).to_json()
    return Case(
        folder=folder,
        now=now,
        report={
            "format": "orrery.verification",
            "version": 1,
            "checkpoint": {"name": "checkpoint", "files": dict(found.files), "trained": True},
            "world": "factory",
            "size": "quick",
            "seed": 0,
            "command": "made by the test",
            "made_at": (now - timedelta(hours=1)).isoformat(),
            "thresholds": {"name": "factory", "version": 1, "sha256": "a" * 64},
            "verdict": "pass",
            "rungs": [_rung("action_following"), _rung("long_horizon")],
            "controls": [
                {
                    "control": "deaf",
                    "rung": "action_following",
                    "verdict": "fail",
                    "caught": True,
                    "reason": "It does not follow the actions.",
                }
            ],
        },
        bench={
            "format": "orrery.bench",
            "version": 1,
            "checkpoint": "checkpoint",
            "weights_trained": True,
            "parameters": found.parameters,
            "machine": {"processor": "made up", "cores": 2, "threads": 2, "device": "cpu"},
            "seconds": {"policy, 1 step": {"first": 0.3, "median": 0.08, "least": 0.07, "most": 0.1, "count": 5}},
            "left_out": {},
            "peak_memory_bytes": 512 * 2**20,
        },
        run={
            "format": "orrery.run",
            "version": 1,
            "checkpoint": {"name": "checkpoint", "layout": "orrery", "files": dict(found.files)},
            "contract": contract,
            "weights_trained": True,
        },
        assets=assets + DATASET % hashlib.sha256(data).hexdigest(),
        checkpoint_sha256=found.sha256,
    )


def _rung(name: str) -> dict[str, Any]:
    check = {
        "figure": "share that follows",
        "value": 0.9,
        "interval": [0.8, 0.95],
        "threshold": 0.7,
        "better": "higher",
        "verdict": "pass",
    }
    return {"rung": name, "title": name, "verdict": "pass", "reasons": [], "checks": [check]}
