"""The factory suite: test episodes, baselines that must come out right, and a whole table of a random model."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from makers.pico_checkpoint import SMALL, SMALL_VISION, random_pico, small_pico

from orrery.errors import ContractError, SettingsError
from orrery.evaluation.factory.ask import check_model
from orrery.evaluation.factory.dynamics import gain, others_mean
from orrery.evaluation.factory.figure import QUICK, Figure, Suite, share
from orrery.evaluation.factory.inverse import joined, starts_of, succeeds, whole
from orrery.evaluation.factory.losses import flow_losses
from orrery.evaluation.factory.policy import FILMED_EVERY, Ended, Look, Trial, closed_loop, filmed
from orrery.evaluation.factory.probe import Sights
from orrery.evaluation.factory.reasoner import (
    balanced_accuracy,
    can_be_given,
    frames_of,
    questions_of,
    request_of,
    sought_of,
    within,
)
from orrery.evaluation.factory.regression import regression
from orrery.evaluation.factory.scenes import CHUNK, Case, Cut, cases, cut, fork, play
from orrery.evaluation.factory.sound import f1, flux, matched, merged, onsets_in
from orrery.evaluation.factory.table import Tools, chosen_rows, evaluate, write_table
from orrery.evaluation.factory.text_to_media import happened, video_of
from orrery.evaluation.metrics import PixelError
from orrery.runtime.model import Model
from orrery.tasks.contract import Camera
from orrery.tokenizers.pixel_patch import PatchSoundCodec, PixelPatchCodec
from orrery.training.probe import PAIRS, PLACES, pair_number
from orrery.worlds.factory.experts import advise
from orrery.worlds.factory.parts import HELD_OUT
from orrery.worlds.factory.tasks import TASKS

STACK = Case(seed=3_500_004, task="stack")


@cache
def model() -> Model:
    """Random, narrow, with the cameras of the real one."""
    return random_pico(
        SMALL,
        SMALL_VISION,
        vision=PixelPatchCodec(spatial=8),
        sound=PatchSoundCodec(rate=16000, hop=800),
        cameras=(Camera(name="front", height=128, width=128), Camera(name="wrist", height=64, width=64)),
    )


@cache
def windows():
    return [cut(Cut(case=replace(STACK, seed=STACK.seed + i), source="expert")) for i in range(2)]


def test_a_window_is_the_same_whenever_it_is_cut():
    again = cut(Cut(case=STACK, source="expert"))
    window = windows()[0]
    assert (again.front == window.front).all()
    assert (again.action == window.action).all()
    assert window.front.shape == (CHUNK + 1, 128, 128, 3)
    assert window.wrist.shape == (CHUNK + 1, 64, 64, 3)
    assert window.action.shape == (CHUNK, 5)


def test_cases_take_turns_in_tasks_and_stay_in_the_test_range():
    seen, unseen = (cases(14, seed=1, behaviour="expert", unseen=flag) for flag in (False, True))
    assert [case.task for case in seen] == [*TASKS, *TASKS]
    assert all(3_500_000 <= case.seed < 4_000_000 for case in seen)
    assert all(3_000_000 <= case.seed < 3_500_000 for case in unseen)
    other = cases(14, seed=2, behaviour="expert")
    assert not {case.seed for case in seen} & {case.seed for case in other}


def test_only_unseen_cases_show_held_out_pairs_and_words():
    played = {flag: play(replace(STACK, unseen=flag)) for flag in (False, True)}
    pairs = {
        flag: {(p.part.finish, p.part.kind) for p in one.job.layout.parts} for flag, one in played.items()
    }  # (finish, kind)
    assert not pairs[False] & HELD_OUT
    assert pairs[True] & HELD_OUT
    row = TASKS["stack"]
    for flag, phrasings in ((False, row.phrasings), (True, row.held_out_phrasings)):
        assert played[flag].instruction in [text.format(**played[flag].job.slots) for text in phrasings]


def test_the_ways_of_a_fork_begin_alike_and_part():
    ways = fork(STACK).ways
    assert len(ways) == 4
    assert all((way.front[0] == ways[0].front[0]).all() for way in ways)
    assert all((way.front[-1] != ways[0].front[-1]).any() for way in ways[1:])


def test_the_true_actions_of_a_finished_episode_finish_it_again_and_their_mean_does_not():
    found = whole(STACK)
    assert found is not None
    assert succeeds((STACK, found.action))
    assert not succeeds((STACK, np.broadcast_to(found.action.mean(axis=0), found.action.shape)))


@pytest.mark.parametrize("steps", [16, 17, 31, 32, 50])
def test_chunks_cut_from_a_row_of_actions_join_to_the_same(steps):
    actions = np.random.default_rng(0).normal(size=(steps, 5)).astype(np.float32)
    starts = starts_of(steps)
    assert (joined([actions[start : start + CHUNK] for start in starts], starts, steps) == actions).all()


def test_a_trial_under_the_experts_actions_succeeds():
    trial = Trial(STACK)
    seen = trial.look()
    while isinstance(seen, Look):
        seen = trial.act(advise(trial.cell, trial.job.goals).action[None])
    assert isinstance(seen, Ended)
    assert seen.success


def test_a_closed_loop_is_the_same_for_any_number_of_processes():
    given = [replace(case, steps=4) for case in cases(2, seed=0, behaviour="expert")]
    suite = Suite(size=QUICK, execute=2)
    assert closed_loop(model(), given, suite, 0) == closed_loop(model(), given, replace(suite, workers=2), 0)


def test_the_film_of_a_trial_shows_what_it_saw_under_the_actions_that_it_was_told():
    case = replace(STACK, steps=6)
    told = []
    closed_loop(model(), [case], Suite(size=QUICK, execute=4), 0, watch=lambda rows: told.append(rows[0]))
    film = filmed((case, np.concatenate(told)[:6]))
    assert film["front"].shape == (1 + 6 // FILMED_EVERY, 128, 128, 3)
    trial = Trial(case)
    assert (film["wrist"][0] == trial.look().frames["wrist"]).all()
    seen = trial.act(told[0])
    assert isinstance(seen, Look)
    assert (film["wrist"][4 // FILMED_EVERY] == seen.frames["wrist"]).all()


def test_the_mean_of_the_others_leaves_a_clip_itself_out():
    clips = [np.full((2, 1, 1, 3), value, np.uint8) for value in (0, 30, 60)]
    assert [int(mean[0, 0, 0, 0]) for mean in others_mean(clips)] == [45, 30, 15]


def test_gain_is_the_difference_of_pooled_psnr():
    near, far = [PixelError(squared=1.0, values=10)] * 3, [PixelError(squared=10.0, values=10)] * 3
    figure = gain("gain", near, far, 0, floor=6.0, goal=9.0)
    assert figure.value == pytest.approx(10)
    assert figure.reached == "goal"


def test_figures_say_whether_a_floor_or_a_goal_is_reached():
    figure = Figure(name="away", value=12.0, unit="mm", better="lower", n=1, of="rollouts", floor=15.0, goal=5.0)
    assert [replace(figure, value=value).reached for value in (3.0, 12.0, 16.0, None)] == [
        "goal", "floor", "missed", None,
    ]  # fmt: skip
    assert share("none", [], of="trials").value is None


def test_the_loss_depends_on_noise_and_actions_alone():
    suite, pair = Suite(size=QUICK), windows()
    actions = [window.action for window in pair]
    one = flow_losses(model(), pair, actions, 0.7, suite)
    other = flow_losses(model(), pair, actions[::-1], 0.7, replace(suite, batch=1))
    again = flow_losses(model(), pair, actions, 0.7, replace(suite, batch=1))
    assert one == {name: pytest.approx(values, rel=1e-4) for name, values in again.items()}
    assert one != other


def test_a_checkpoint_with_other_cameras_is_refused():
    with pytest.raises(ContractError, match="32, 32"):
        check_model(small_pico())


def test_a_row_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="forward"):
        chosen_rows(["forwad"])


def test_a_table_is_written_as_json_and_as_a_page(tmp_path):
    size = replace(QUICK, windows=1)
    result = evaluate(model(), Suite(size=size), Tools(reader=None), ["codec", "state"])
    write_table(tmp_path, result)
    document = json.loads((tmp_path / "results.json").read_text())
    rows = {row["row"]: row for row in document["rows"]}
    assert "probes" in rows["state"]["skipped"]
    codec = {figure["name"]: figure for figure in rows["codec"]["figures"]}
    # The patch codec of the random model loses nothing.
    assert codec["PSNR of all pixels, front"]["value"] == "infinite"
    assert "The weights are random" in (tmp_path / "results.html").read_text()


def test_a_point_counts_where_the_mask_is():
    mask = np.zeros((128, 128), bool)
    mask[32, 64] = True
    assert within(mask, np.array([503.0, 253.0]))
    assert not within(mask, np.array([253.0, 503.0]))
    assert not within(mask, np.array([5000.0, -3.0]))
    assert not within(mask, None)


def test_sought_points_and_boxes_are_where_their_answers_say():
    found = sought_of(replace(STACK, behaviour="play"))
    assert {row.question.kind for row in found} == {"point", "box"}
    for row in found:
        values = [float(part) for part in row.question.answer.split(",")]
        if row.question.kind == "point":
            assert within(row.mask, np.array(values))
        else:
            rows, columns = np.nonzero(row.mask)
            edges = [columns.min() / 0.128, rows.min() / 0.128, (columns.max() + 1) / 0.128, (rows.max() + 1) / 0.128]
            assert values == pytest.approx(edges, abs=1)


def test_the_pictures_of_a_span_are_those_that_will_be_looked_at():
    span = next(row for row in questions_of(STACK) if row.question.media == "episode" and can_be_given(row.question))
    frames = frames_of(model(), span.question)
    assert frames[0] == span.question.start_frame
    assert frames[-1] == span.question.stop_frame - 1
    pictures = np.stack([np.full((128, 128, 3), i, np.uint8) for i in range(len(frames))])
    shown = request_of(span.question, pictures, 0).vision
    assert [int(shown[frame - frames[0], 0, 0, 0]) for frame in frames] == list(range(len(frames)))


def test_balanced_accuracy_is_the_mean_over_answers():
    question = next(row.question for row in questions_of(STACK) if row.question.kind == "choice")
    one, other = (replace(question, family="count", answer=answer) for answer in ("1", "2"))
    assert balanced_accuracy([(one, True), (one, True), (one, True), (other, False)]) == 0.5


def test_onsets_match_within_the_tolerance_and_once():
    assert matched([0.10, 0.12, 0.50], [0.11, 0.52, 0.80]) == 2
    assert merged([0.3, 0.31, 0.5]) == [0.3, 0.5]
    assert f1([(1, 1, 1), (0, 1, 1)]) == pytest.approx(0.5)


def test_a_click_in_noise_is_found_where_it_is_and_silence_has_none():
    rng = np.random.default_rng(0)
    sound = 0.003 * rng.normal(size=13_600)
    sound[8000:8200] += 0.2 * np.sin(np.arange(200)) * np.exp(-np.arange(200) / 40)
    assert onsets_in(flux(sound), 1.6) == [pytest.approx(0.5, abs=0.02)]
    assert onsets_in(flux(np.zeros(13_600)), 0.3) == []


def test_goals_are_seen_in_true_pictures():
    wanted = video_of(STACK)
    goal, part = wanted.outcome
    numbers = np.zeros((1, len(PAIRS)))
    sights = Sights(
        present=numbers.copy(), position_m=np.zeros((1, len(PAIRS), 3)), place=numbers.astype(int),
        gripper_m=np.zeros((1, 3)), aperture=np.zeros(1), held=np.zeros(1), lamp=np.zeros(1),
    )  # fmt: skip
    assert not happened(goal, part, sights, 0)
    sights.present[0, pair_number(part)] = 1.0
    assert not happened(goal, part, sights, 0)
    sights.place[0, pair_number(part)] = PLACES.index("part")
    assert happened(goal, part, sights, 0)


def test_the_frozen_slice_is_the_same_twice(monkeypatch):
    monkeypatch.setattr("orrery.evaluation.factory.regression.can", lambda _, task: task == "inverse_dynamics")
    one, other = regression(model()), regression(model())
    assert one == other
    assert {"R2 of dx_m", "PSNR of all pixels, front"} <= one.keys()
