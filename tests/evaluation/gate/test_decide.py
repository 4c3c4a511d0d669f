"""A clean deployment is allowed; each planted defect refuses, and says which."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from makers.gate_case import Case, clean_case
from makers.pico_checkpoint import small_pico

from orrery.errors import CheckpointError
from orrery.evaluation.gate.decide import Decision, decide, estimate
from orrery.evaluation.gate.evidence import contract_sha256, gather
from orrery.evaluation.gate.ledger import Package
from orrery.evaluation.gate.policy import CostBasis, read_policy
from orrery.runtime.save import save

NOW = datetime(2030, 5, 17, 12, tzinfo=UTC)
PACKAGES = (
    Package(name="orrery", version="0.1.0", licence="Apache-2.0"),
    Package(name="either", version="2.0", licence="MIT OR GPL-3.0-only"),
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return clean_case(tmp_path_factory.mktemp("gate"), NOW)


@pytest.fixture
def case(template, tmp_path, monkeypatch):
    monkeypatch.setattr("orrery.evaluation.gate.evidence.installed_packages", lambda: PACKAGES)
    shutil.copytree(template.folder, tmp_path / "case")
    documents = {name: json.loads(json.dumps(getattr(template, name))) for name in ("report", "bench", "run")}
    return Case(
        folder=tmp_path / "case",
        now=NOW,
        assets=template.assets,
        checkpoint_sha256=template.checkpoint_sha256,
        **documents,
    )


def decided(case: Case) -> Decision:
    policy = read_policy(case.write())
    return decide(policy, gather(policy), NOW)


def test_a_clean_case_is_allowed_and_its_record_names_all_evidence(case):
    decision = decided(case)
    assert (decision.verdict, decision.reasons, decision.limits) == ("allow", (), ())
    document = decision.document
    assert set(document["evidence"]) == {"assets", "bench", "report", "runs", "sign_off"}
    assert all(document["evidence"].values())
    assert document["expires_at"] == (NOW + timedelta(days=30)).isoformat()
    assert document["checkpoint"]["sha256"] == case.checkpoint_sha256
    assert document["speed"]["allowed_seconds"] == 0.4


def test_the_same_evidence_gives_the_same_record(case):
    assert decided(case).document == decided(case).document


def undecided(case: Case, index: int) -> None:
    case.report["rungs"][index]["verdict"] = case.report["verdict"] = "undecided"
    case.report["rungs"][index]["checks"][0]["verdict"] = "undecided"
    case.report["rungs"][index]["reasons"] = ["Too few trials."]


def test_an_undecided_rung_gives_the_limits_of_the_policy(case):
    undecided(case, 1)
    decision = decided(case)
    assert (decision.verdict, decision.reasons) == ("allow with limits", ())
    assert decision.limits == ("At most 60 seconds without a person at the machine.",)
    assert decision.document["limits"] == list(decision.limits)


def test_a_control_that_must_be_undecided_is_caught_by_being_so(case):
    few = case.report["controls"][0] | {"control": "few trials", "must": "undecided", "verdict": "undecided"}
    case.report["controls"].append(few)
    assert decided(case).verdict == "allow"
    few["verdict"] = "pass"
    assert "few trials was not caught" in decided(case).reasons[0]


def test_a_package_without_a_licence_refuses_unless_the_ledger_lists_it(case, monkeypatch):
    odd = (*PACKAGES, Package(name="odd-one", version="1.0", licence=None))
    monkeypatch.setattr("orrery.evaluation.gate.evidence.installed_packages", lambda: odd)
    assert "odd-one 1.0 states no licence" in decided(case).reasons[0]
    case.assets += (
        '[[asset]]\nname = "Odd_One"\nkind = "dependency"\nlicence = "MIT"\norigin = "its repository"\n'
        'obligations = []\napproved_by = "A. Tester"\n'
    )
    assert decided(case).verdict == "allow"


def test_a_released_folder_may_be_silent_about_training_only_where_the_policy_says_so(case):
    case.report["checkpoint"]["trained"] = None
    assert "does not say whether its weights were trained" in decided(case).reasons[0]
    case.swap("policy", "report_days = 7", "report_days = 7\nreleased_weights = true")
    assert decided(case).verdict == "allow"


# Each of these does one thing wrong, and names the one reason that has to come of it.
DEFECTS = {}


def defect(reason: str):
    def note(plant):
        DEFECTS[plant.__name__] = (plant, reason)
        return plant

    return note


@defect(r"Asset 'episodes' has no licence")
def unlicensed_asset(case):
    case.swap("assets", 'licence = "MIT"\n', "")


@defect(r"Asset 'episodes': licence CC-BY-NC-4.0 is not allowed")
def licence_not_allowed(case):
    case.swap("assets", 'licence = "MIT"', 'licence = "CC-BY-NC-4.0"')


@defect(r"Asset 'episodes' was approved by nobody")
def not_approved(case):
    case.swap("assets", '["keep the notice"]\napproved_by = "A. Tester"', "[]")


@defect(r"Asset 'episodes' has no origin")
def no_origin(case):
    case.swap("assets", "recorded by the test", "[to be filled in by the recorder]")


@defect(r"Asset 'episodes' does not say what its licence obliges to")
def no_obligations(case):
    case.swap("assets", 'obligations = ["keep the notice"]\n', "")


@defect(r"Asset 'episodes': episodes.bin has sha256 [0-9a-f]{64}, the ledger says")
def other_file(case):
    (case.folder / "episodes.bin").write_bytes(b"other frames")


@defect(r"Asset 'episodes': there is no file episodes.bin")
def missing_file(case):
    (case.folder / "episodes.bin").unlink()


@defect(r"eyes.safetensors of the checkpoint is not in the asset ledger")
def weights_not_listed(case):
    lines = case.assets.splitlines(keepends=True)
    case.assets = "".join(line for line in lines if "eyes.safetensors" not in line)


@defect(r"Asset ledger: assets.toml cannot be read")
def no_ledger(case):
    case.swap("policy", "assets.toml", "other/assets.toml")


@defect(r"Asset ledger: assets.toml lists episodes more than once")
def asset_twice(case):
    case.assets += case.assets[case.assets.rindex("[[asset]]") :]


@defect(r"report is stale: 7\.5 days old, 7 are allowed")
def stale_report(case):
    case.report["made_at"] = (NOW - timedelta(days=7.5)).isoformat()


@defect(r"report is dated .* in the future")
def report_of_tomorrow(case):
    case.report["made_at"] = (NOW + timedelta(hours=1)).isoformat()


@defect(r"made_at .* does not say that it is UTC")
def report_without_time_zone(case):
    case.report["made_at"] = "2030-05-17T11:00:00"


@defect(r"judged by other thresholds \(sha256 a{64}\)")
def other_thresholds(case):
    case.swap("policy", "report_days = 7", f'report_days = 7\nthresholds_sha256 = "{"b" * 64}"')


@defect(r"Sign-off: there is none")
def no_sign_off(case):
    case.swap("policy", 'sign_off = "sign_off.toml"\n', "")


@defect(r"Sign-off: sign_off.toml cannot be read")
def sign_off_not_there(case):
    case.sign_off = None


@defect(r"Sign-off: statement was not filled in")
def blank_sign_off(case):
    case.swap("sign_off", "I have read the report.", "[to be filled in by the test engineer]")


@defect(r"sign-off is for another verification report \(sha256 c{64}")
def sign_off_of_another_report(case):
    case.swap("sign_off", "{report}", "c" * 64)


@defect(r"sign-off is for other weights \(sha256 d{64}")
def sign_off_of_other_weights(case):
    case.swap("sign_off", "{checkpoint}", "d" * 64)


@defect(r"The sign-off is dated 2030-06-01, in the future")
def sign_off_of_next_month(case):
    case.swap("sign_off", "{day}", "2030-06-01")


@defect(r"The sign-off of 2030-04-30 is older than the verification report")
def sign_off_before_the_report(case):
    case.swap("sign_off", "{day}", "2030-04-30")


@defect(r"The verification report is about other weights: model.safetensors differ")
def other_weights_than_verified(case):
    case.report["checkpoint"]["files"]["model.safetensors"] = "e" * 64


@defect(r"Run manifest run/run.json was made with other weights: model.safetensors differ")
def run_with_other_weights(case):
    case.run["checkpoint"]["files"]["model.safetensors"] = "e" * 64


@defect(r"Run manifest run/run.json is of random weights")
def run_with_random_weights(case):
    case.run["weights_trained"] = False


@defect(r"Run manifest run/run.json was made under another contract")
def run_under_another_contract(case):
    case.run["contract"]["control_rate_hz"] = 10


@defect(r"Run manifest: run.json is not a readable JSON document")
def run_not_json(case):
    case.swap("policy", "run/run.json", "broken/run.json")
    (case.folder / "broken").mkdir()
    (case.folder / "broken" / "run.json").write_text("{")


@defect(r"A policy call took up to 0\.4 s of 5 calls; at 20 Hz with 8 actions .* less than 0\.4 s")
def too_slow(case):
    case.bench["seconds"]["policy, 1 step"]["most"] = 0.4


@defect(r"Peak memory was 512\.0 MiB; 500 MiB are allowed")
def too_much_memory(case):
    case.swap("policy", "memory_mib = 1024", "memory_mib = 500")


@defect(r"did not measure 'policy, 1 step': no contract names cameras")
def policy_not_measured(case):
    case.bench["left_out"] = {"policy, 1 step": "no contract names cameras"}


@defect(r"The bench result is of another checkpoint: 7 parameters")
def bench_of_another_checkpoint(case):
    case.bench["parameters"] = 7


@defect(r"Rung action_following failed \(It stands still\.\)")
def failed_rung(case):
    case.report["rungs"][0] |= {"verdict": "fail", "reasons": ["It stands still."]}
    case.report["verdict"] = "fail"


@defect(r"Rung sound failed")
def failed_rung_that_the_policy_does_not_name(case):
    case.report["rungs"].append(case.report["rungs"][0] | {"rung": "sound", "verdict": "fail"})
    case.report["verdict"] = "fail"


@defect(r"Rung action_following is undecided \(Too few trials\.\), and must pass")
def undecided_rung_that_must_pass(case):
    undecided(case, 0)


@defect(r"Rung long_horizon is required, and the verification report does not have it")
def missing_rung(case):
    del case.report["rungs"][1]


@defect(r"Rung action_following says 'pass' against its own checks: share that follows")
def rung_against_its_checks(case):
    case.report["rungs"][0]["checks"][0]["verdict"] = "fail"


@defect(r"Rung action_following says 'pass' without a check")
def rung_without_checks(case):
    case.report["rungs"][0]["checks"] = []


@defect(r"report as a whole says 'fail', and none of its rungs does")
def report_against_its_rungs(case):
    case.report["verdict"] = "fail"


@defect(r"Control deaf was not caught by rung action_following, which says 'pass' and not 'fail'")
def control_not_caught(case):
    case.report["controls"][0] |= {"caught": False, "verdict": "pass"}
    case.report["verdict"] = "undecided"


@defect(r"Control deaf was not caught by rung action_following, which says 'pass' and not 'fail'")
def control_said_to_be_caught_that_passed(case):
    case.report["controls"][0]["verdict"] = "pass"


@defect(r"has no controls")
def no_controls(case):
    case.report["controls"] = []


@defect(r"contract expected is of 'droid_lerobot'; the checkpoint has: factory_gantry \(sha256 [0-9a-f]{64}\)")
def other_embodiment(case):
    case.swap("policy", "factory_gantry", "droid_lerobot")


@defect(r"The contract expected has sha256 f{64}; the checkpoint has")
def other_contract(case):
    case.swap("policy", 'embodiment = "factory_gantry"', f'sha256 = "{"f" * 64}"')


@defect(r"control rate asked for is 10 Hz; the contract of factory_gantry is 20 Hz")
def other_rate(case):
    case.swap("policy", "rate_hz = 20", "rate_hz = 10")


@defect(r"60 actions are to be executed per call; the contract of factory_gantry has \d+")
def more_executed_than_made(case):
    case.swap("policy", "executed = 8", "executed = 60")


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_refuses_with_its_own_reason(case, name):
    plant, reason = DEFECTS[name]
    plant(case)
    decision = decided(case)
    assert decision.verdict == "refuse"
    assert decision.limits == ()
    assert len(decision.reasons) == 1, decision.reasons
    assert re.search(reason, decision.reasons[0])


def test_a_changed_weight_file_is_other_than_manifest_and_report_say(case):
    path = case.folder / "checkpoint" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    reasons = decided(case).reasons
    assert [reason.split(":")[0] for reason in reasons if "model.safetensors" in reason] == [
        "The checkpoint is not what its own manifest says",
        "Run manifest run/run.json was made with other weights",
        "Asset 'tiny'",
        "model.safetensors of the checkpoint is not in the asset ledger (sha256 "
        + decided(case).document["checkpoint"]["files"]["model.safetensors"]
        + "). List it with its licence and origin.",
        "The verification report is about other weights",
    ]
    assert any(reason.startswith("The sign-off is for other weights") for reason in reasons)


def test_random_weights_refuse_wherever_that_is_said(case):
    shutil.rmtree(case.folder / "checkpoint")
    save(small_pico(), case.folder / "checkpoint", trained=False, licence="Apache-2.0")
    reasons = decided(case).reasons
    assert any(reason.startswith("The checkpoint is of random weights") for reason in reasons)


def test_a_file_that_does_not_belong_in_the_checkpoint_refuses_and_other_reasons_are_still_given(case):
    (case.folder / "checkpoint" / "stray.txt").write_text("?")
    case.bench["seconds"]["policy, 1 step"]["most"] = 9.0
    reasons = decided(case).reasons
    assert "stray.txt" in reasons[0]
    assert any("A policy call took up to 9 s" in reason for reason in reasons)


def test_all_reasons_are_collected(case):
    for plant in (unlicensed_asset, stale_report, too_slow, too_much_memory, control_not_caught, failed_rung):
        plant(case)
    decision = decided(case)
    assert decision.verdict == "refuse"
    assert len(decision.reasons) == 6
    assert decision.document["reasons"] == list(decision.reasons)


def test_a_checkpoint_that_is_not_there_is_the_callers_mistake(case):
    case.swap("policy", 'checkpoint = "checkpoint"', 'checkpoint = "no/where/at/all"')
    with pytest.raises(CheckpointError, match="no folder"):
        decided(case)


def test_the_contract_hash_of_the_policy_is_that_of_the_contract(case):
    digest = contract_sha256(case.run["contract"])
    case.swap("policy", 'embodiment = "factory_gantry"', f'sha256 = "{digest}"')
    assert decided(case).verdict == "allow"


def test_the_gate_measures_where_the_policy_says_so(case):
    case.swap("policy", 'bench = "bench.json"', 'bench = "measure"')
    case.bench["seconds"]["policy, 1 step"]["most"] = 9.0  # would refuse, but is not looked at
    policy = read_policy(case.write())
    speed = gather(policy).speed
    assert 0 < speed.median <= speed.most
    assert speed.peak_memory_bytes > 2**20
    assert (speed.count, speed.trained, speed.machine["device"]) == (20, True, "cpu")


@pytest.mark.parametrize(
    ("seconds", "calls", "machines", "per_hour"), [(0.1, 9000.0, 1, 1.5), (0.4, 9000.0, 1, 1.5), (0.41, 9000.0, 2, 3.0)]
)
def test_the_estimate_counts_machines_that_are_busy_for_the_calls(seconds, calls, machines, per_hour):
    cost = estimate(CostBasis(currency="EUR", machine_per_hour=1.5, calls_per_hour=calls), seconds)
    assert (cost.machines, cost.per_hour) == (machines, per_hour)
    assert cost.busy * machines * 3600 == pytest.approx(calls * seconds)
    assert cost.per_1000_calls * calls / 1000 == pytest.approx(per_hour)
