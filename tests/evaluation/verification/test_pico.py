"""The ladder on the shipped Pico at its smallest size: every rung is filled, and every control is caught."""

import json

import pytest

from orrery.cli.verify import Verify
from orrery.evaluation.verification.verify import RUNGS


@pytest.mark.timeout(600)
def test_the_shipped_model_climbs_and_what_is_broken_is_caught(tmp_path, capsys):
    Verify(checkpoint="pico", out=tmp_path, size="quick")()
    assert "Wrote" in capsys.readouterr().out
    report = json.loads((tmp_path / "verification.json").read_text())
    assert [row["rung"] for row in report["rungs"]] == list(RUNGS)
    for row in report["rungs"]:
        assert row["checks"]
        assert all(check["value"] is not None for check in row["checks"]), row["reasons"]
    missed = [control for control in report["controls"] if not control["caught"]]
    assert not missed, missed
    assert len(report["controls"]) == 6
    verdicts = {row["rung"]: {check["key"]: check["verdict"] for check in row["checks"]} for row in report["rungs"]}
    # What Pico can do shows even on few cases, and what it cannot.
    assert verdicts["action_following"]["gain_db"] == "pass"
    assert verdicts["fidelity"]["gain_db"] == "pass"
    assert verdicts["twin_gap"]["found"] != "fail"
    assert report["verdict"] == "fail"
    assert (tmp_path / "verification.html").stat().st_size > 10_000
