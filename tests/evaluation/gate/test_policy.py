"""GATE.toml is read strictly, and the example is of the form that is read."""

from pathlib import Path

import pytest
from makers.gate_case import POLICY

from orrery.errors import SettingsError
from orrery.evaluation.gate.ledger import ledger_reasons, read_ledger
from orrery.evaluation.gate.policy import read_policy
from orrery.weights.folder import open_folder
from orrery.weights.hub import shipped

EXAMPLE = Path(__file__).parents[3] / "examples" / "gate"


def test_paths_are_relative_to_the_policy_and_a_name_stays_a_name(tmp_path):
    (tmp_path / "GATE.toml").write_text(POLICY.replace('bench = "bench.json"', 'bench = "measure"'))
    policy = read_policy(tmp_path / "GATE.toml")
    assert (policy.report, policy.runs) == (tmp_path / "verification.json", (tmp_path / "run" / "run.json",))
    assert policy.bench is None
    assert policy.checkpoint == "checkpoint"
    (tmp_path / "checkpoint").mkdir()
    assert read_policy(tmp_path / "GATE.toml").checkpoint == tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version = 1", "version = 2", "'orrery.gate' version 1 is read"),
        ("report_days = 7", "report_days = 7\nreprot = 1", "unknown entry 'reprot'. Did you mean 'report'"),
        ("report_days = 7\n", "", "lacks 'report_days'"),
        ("report_days = 7", "report_days = 0", "report_days must be a number above 0"),
        ("report_days = 7", "report_days = nan", "report_days must be a number above 0"),
        ("decision_days = 30", "decision_days = 1e9", "up to 3660, got 1000000000.0"),
        ('runs = ["run/run.json"]', "runs = []", "runs must be a list of at least 1 texts"),
        ('embodiment = "factory_gantry"', "", "names nothing to expect"),
        ('embodiment = "factory_gantry"', 'sha256 = "ABC"', "64 hexadecimal digits"),
        ('needs = "pass"', 'needs = "fail"', "needs must be one of pass, undecided"),
        ('needs = "pass"', 'needs = "pass"\nlimits = ["x"]', "its limits never apply"),
        ('limits = ["At most 60 seconds without a person at the machine."]', "", "lacks 'limits'"),
        ('name = "long_horizon"', 'name = "action_following"', "each of another name"),
        ("executed = 8", "executed = 0", "executed must be a whole number from 1 on"),
        ("executed = 8", "executed = true", "executed must be a whole number from 1 on"),
        ("rate_hz = 20", "rate_hz = inf", "rate_hz must be a number above 0"),
        ('licences = ["Apache-2.0", "MIT", "BSD-3-Clause"]', "licences = []", "at least 1 texts"),
        ('currency = "EUR"', "", "lacks 'currency'"),
        ("[cost]", "[cost", "is not valid TOML"),
    ],
)
def test_a_wrong_policy_says_what_is_wrong(tmp_path, old, new, words):
    assert POLICY.count(old) == 1
    (tmp_path / "GATE.toml").write_text(POLICY.replace(old, new))
    with pytest.raises(SettingsError) as raised:
        read_policy(tmp_path / "GATE.toml")
    assert words in str(raised.value)


def test_the_example_lists_every_file_of_the_checkpoint_and_lacks_approval():
    policy, folder = read_policy(EXAMPLE / "GATE.toml"), shipped("pico")
    assert policy.checkpoint == "pico"
    assert policy.sign_off is None
    assert folder is not None
    files = {name: record.sha256 for name, record in open_folder(folder, verify=False).files.items()}
    ledger = read_ledger(policy.assets)
    reasons = ledger_reasons(ledger, (), policy.licences, files)
    assert all(not asset.approved_by for asset in ledger.assets)
    unapproved = [f"Asset {asset.name!r} was approved by nobody" for asset in ledger.assets]
    # The GPL libraries in the wheels of PyAV are for whoever deploys to allow.
    others = [reason for reason in reasons if reason.split(".")[0] not in unapproved]
    assert len(reasons) == len(unapproved) + len(others)
    assert [reason.split(" is not")[0] for reason in others] == ["Asset 'av': licence GPL-2.0-or-later"]
