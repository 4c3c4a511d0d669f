"""The ladder on a world whose truth is known: a right model passes, and every wrong one fails where it should."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from makers.toy_world import ToyActor, ToyModel, ToyWorld

from orrery.errors import SettingsError
from orrery.evaluation.factory.figure import Figure
from orrery.evaluation.verification.actors import Hindered, actors_of
from orrery.evaluation.verification.horizon import _grasp, fidelity
from orrery.evaluation.verification.imaginers import BROKEN, FrozenVideo, ShuffledActions, broken
from orrery.evaluation.verification.interfaces import chain
from orrery.evaluation.verification.ladder import QUICK, Check, Setting, read_thresholds, together
from orrery.evaluation.verification.ranking import dream
from orrery.evaluation.verification.verify import RUNGS, document, verify, write_report

WORLD = ToyWorld()
SETTING = Setting(
    climb=replace(
        QUICK, clips=16, rollouts=14, chunks=5, policies=8, starts=24, plans=6, proposals=6, samples=4, blows=8
    ),
    seed=0,
    thresholds=read_thresholds(),
)


@pytest.fixture(scope="module")
def climbed():
    return verify(ToyModel(), WORLD, SETTING, actors=actors_of(ToyActor(), WORLD.limits))


def test_a_right_model_passes_what_can_be_known(climbed):
    rungs, controls = climbed
    assert [rung.rung for rung in rungs] == list(RUNGS)
    verdicts = {rung.rung: rung.verdict for rung in rungs}
    reasons = {rung.rung: [check.reason for check in rung.checks] for rung in rungs}
    for name in ("action_following", "policy_evaluation", "exploitability", "twin_gap"):
        assert verdicts[name] == "pass", reasons[name]
    # A cube that nobody moves is foreseen best by who says that nothing moves, so the horizon's interval is wide.
    ahead = {check.key: check for check in next(rung for rung in rungs if rung.rung == "fidelity").checks}
    assert ahead["horizon_chunks"].figure.value == 5
    assert all(check.verdict == "pass" for key, check in ahead.items() if key != "horizon_chunks"), reasons["fidelity"]
    assert all(control.caught for control in controls), [control.reason for control in controls if not control.caught]
    assert [control.control for control in controls] == [
        *BROKEN,
        "shuffled actions",
        "a judge that always says success",
        "policies compared by three trials each",
    ]


@pytest.mark.parametrize(("name", "key"), [*BROKEN.items(), ("shuffled actions", "direction")][1:])
def test_what_is_broken_fails_the_first_rung(name, key):
    imaginer = broken(name, ToyModel(), WORLD.gripper)
    (rung,), _ = verify(imaginer, WORLD, SETTING, rungs=("action_following",))
    assert rung.verdict == "fail"
    failed = {check.key for check in rung.checks if check.verdict == "fail"}
    assert key in failed


def test_shuffled_actions_fail_policy_evaluation_and_a_frozen_video_has_no_horizon():
    (rung,), _ = verify(ShuffledActions(of=ToyModel()), WORLD, SETTING, rungs=("policy_evaluation",))
    assert rung.verdict == "fail"
    (rung,), _ = verify(FrozenVideo(), WORLD, SETTING, rungs=("fidelity",))
    horizon = next(check for check in rung.checks if check.key == "horizon_chunks")
    assert horizon.figure.value == 0
    assert horizon.verdict == "fail"


def test_who_looks_acts_in_imagination_on_what_is_imagined(climbed):
    rung = next(rung for rung in climbed[0] if rung.rung == "policy_evaluation")
    rows = {row[0]: [float(value) for value in row[1:]] for row in rung.tables[0].rows}
    assert rows["looker"][:2] == [1.0, 1.0]
    # Who is shown black goes on past the corner: as often in imagination.
    true, imagined = rows["looker, blind"][:2]
    assert true == pytest.approx(imagined, abs=0.1)
    assert true < 0.8
    # Half as far would never get there if it went by the actions that it was given in the simulator.
    actor = ToyActor()
    (trial, *_) = WORLD.attempts(actor, 2, chunks=2, seed=0)
    mirror = replace(trial, given={"top": trial.given["top"][:, ::-1]})
    (films,) = dream(ToyModel(noise_m=0.0), WORLD, [mirror], 2, 0)
    begin, end = (WORLD.read(film["top"][row : row + 1])[0] for film, row in ((films[0], 0), (films[-1], WORLD.chunk)))
    target = np.array([*actor.aim, 0.0])
    away = [np.linalg.norm(one.points_m["gripper"] - target) for one in (begin, end)]
    assert away[1] < away[0] - 0.2
    assert len(films) == 2


def test_hindered_policies_are_told_apart_from_the_whole_one():
    states, seeds = [np.array([0.3, 0.3], dtype=np.float32)], [5]
    given = [WORLD.trials("noise 0", 1, chunks=1, seed=0)[0].given]

    def told(**hindrance):
        actor = Hindered(of=ToyActor(), name="x", limits=WORLD.limits, **hindrance)
        return actor.act(given, states, ["Go to the corner."], seeds)[0]

    whole = told()
    assert np.allclose(told(reach=0.5)[:, :2], whole[:, :2] / 2)
    assert np.array_equal(told(reach=0.5)[:, 2], whole[:, 2])
    assert not np.allclose(told(shake=0.5)[:, :2], whole[:, :2])
    assert np.array_equal(told(shake=0.5), told(shake=0.5))
    assert not np.allclose(told(blind=True), whole)


def test_a_silent_model_and_one_that_strikes_at_the_wrong_time_fail_the_sound():
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Late(ToyModel):
        late: int = 1

        def listen(self, given, actions, seeds, rate_hz):
            return [np.roll(sound, self.late) for sound in super().listen(given, actions, seeds, rate_hz)]

    blows = WORLD.blows(12, seed=0)
    rollouts = WORLD.clips(2, chunks=1, seed=0, offset=0)
    found = {}
    for name, model in (("right", ToyModel()), ("late", Late()), ("silent", ToyModel(sounds=False))):
        checks = {check.key: check for check in fidelity(model, WORLD, SETTING, rollouts, blows).checks}
        found[name] = checks["sound_f1"].verdict if "sound_f1" in checks else None
    assert found == {"right": "pass", "late": "fail", "silent": None}


@pytest.mark.parametrize(
    ("true", "imagined", "found"),
    [
        ("00111", "00111", (True, 0.0)),
        ("00111", "01111", (True, 0.1)),
        ("00000", "00000", (True, None)),
        ("00100", "00000", (True, None)),  # one frame is a slip of the judge
        ("00111", "00000", (False, None)),
        ("11100", "11000", (True, 0.1)),
    ],
)
def test_a_grasp_is_found_and_timed(true, imagined, found):
    rows = [[digit == "1" for digit in text] for text in (true, imagined)]
    same, seconds = _grasp(*rows, 10.0)
    assert (same, seconds) == (found[0], found[1] if found[1] is None else pytest.approx(found[1]))


def test_who_plans_with_a_noisy_model_is_far_from_the_best_plan():
    many = replace(SETTING, climb=replace(SETTING.climb, plans=40))
    (rung,), _ = verify(ToyModel(noise_m=0.8), WORLD, many, rungs=("exploitability",))
    regret = next(check for check in rung.checks if check.key == "regret_mm")
    assert regret.verdict == "fail", regret.reason


def test_no_gap_is_found_where_there_is_none():
    same = ToyWorld(changes={"nothing": "gripper"})
    (rung,), _ = verify(ToyModel(), same, SETTING, rungs=("twin_gap",))
    assert all(check.verdict != "pass" for check in rung.checks), [check.reason for check in rung.checks]


def test_the_report_is_whole_and_says_what_decided(climbed, tmp_path):
    rungs, controls = climbed
    report = document(
        rungs, controls, SETTING, WORLD, {"name": "toy", "files": {}, "trained": False},
        command="orrery verify toy", machine={}, seconds=1.0,
    )  # fmt: skip
    write_report(tmp_path, report, rungs)
    told = json.loads((tmp_path / "verification.json").read_text())
    assert told["format"] == "orrery.verification"
    assert told["verdict"] == together([rung.verdict for rung in rungs])
    assert [row["rung"] for row in told["rungs"]] == list(RUNGS)
    assert all(row["reasons"] and row["checks"] for row in told["rungs"])
    page = (tmp_path / "verification.html").read_text()
    for words in (
        "random",
        "no evidence of safety",
        "Spearman",
        "shuffled actions",
        "orrery verify toy --rungs twin_gap",
    ):
        assert words in page
    # One control that is not caught takes the verdict away.
    missed = [replace(controls[0], verdict="pass"), *controls[1:]]
    passed = [rung for rung in rungs if rung.verdict == "pass"]
    report = document(
        passed, missed, SETTING, WORLD, {"name": "toy", "files": {}, "trained": True},
        command="", machine={}, seconds=0.0,
    )  # fmt: skip
    assert report["verdict"] == "undecided"


def test_verdicts_need_whole_intervals():
    def check(interval, better="higher"):
        return Check(
            key="x",
            threshold=1.0,
            figure=Figure(name="x", value=1.0, interval=interval, better=better, n=3, of="cases"),
        )

    assert check((1.0, 2.0)).verdict == "pass"
    assert check((0.5, 2.0)).verdict == "undecided"
    assert check((0.1, 0.9)).verdict == "fail"
    assert check((0.1, 0.9), "lower").verdict == "pass"
    assert check(None).verdict == "undecided"
    assert together(["pass", "undecided"]) == "undecided"
    assert together(["undecided", "fail"]) == "fail"
    assert together([]) == "undecided"


def test_thresholds_say_what_is_wrong_with_them(tmp_path):
    for text, words in (
        ("name = 3\nversion = 1", "name"),
        ("name = 'x'\nversion = 1\n[fidelity]\ngain_db = 'much'", "number"),
        ("= 1", "TOML"),
    ):
        path = tmp_path / "thresholds.toml"
        path.write_text(text)
        with pytest.raises(SettingsError, match=words):
            read_thresholds(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_thresholds(tmp_path / "none.toml")
    path.write_text("name = 'x'\nversion = 1")
    with pytest.raises(SettingsError, match="gain_db"):
        read_thresholds(path).of("fidelity", "gain_db")


def test_a_chain_goes_on_from_its_own_frames_and_rows_may_differ_in_length():
    clip, other = WORLD.clips(2, chunks=3, seed=1, offset=0)
    films = chain(ToyModel(noise_m=0.0), [clip.given, other.given], [clip.actions, other.actions[:4]], chunk=4, seed=0)
    assert [len(rows) for rows in films] == [3, 1]
    for before, after in zip(films[0], films[0][1:], strict=False):
        moved = np.abs(before["top"][-1].astype(int) - after["top"][0]).max()
        assert moved < 40  # it reads its own picture and draws it again
    end = WORLD.read(films[0][-1]["top"][-1:])[0].points_m["gripper"]
    assert np.linalg.norm(end - clip.points_m["gripper"][-1]) < 0.03
