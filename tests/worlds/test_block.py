import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.data.lerobot import open_dataset
from orrery.data.media import read_sound
from orrery.errors import SettingsError
from orrery.tasks.contract import ActionContract
from orrery.worlds.block import (
    BLOCK_M,
    COLOURS,
    FIST_M,
    HALF_TABLE_M,
    MAX_STEP_M,
    RATE_HZ,
    SOUND_RATE_HZ,
    State,
    begin,
    contract,
    draw,
    record_episode,
    roll,
    sounds,
    step,
)

OPEN, SHUT = 1.0, 0.0
MOVES = st.lists(
    st.tuples(st.floats(-MAX_STEP_M, MAX_STEP_M), st.floats(-MAX_STEP_M, MAX_STEP_M), st.sampled_from([OPEN, SHUT])),
    max_size=60,
)


def world(cursor=(0.0, 0.0), block=(0.15, 0.0), aperture=1.0, holding=False):
    return State(cursor_m=cursor, block_m=block, aperture=aperture, holding=holding, touching=holding, colour="red")


def after(state, *moves):
    for move in moves:
        state = step(state, np.array(move))
    return state


def test_an_open_gripper_passes_over_the_block():
    passed = after(world(), *[(0.03, 0, OPEN)] * 10)
    assert passed.cursor_m == pytest.approx((0.3, 0))
    assert passed.block_m == (0.15, 0.0)
    assert not passed.touching


def test_closing_around_the_block_holds_it_and_it_moves_by_exactly_the_same_way():
    held = after(world(block=(0.02, -0.01)), (0, 0, SHUT), (0, 0, SHUT))
    assert held.holding
    assert held.touching
    carried = after(held, (0.03, 0.02, SHUT), (-0.01, 0.03, SHUT))
    assert np.subtract(carried.block_m, held.block_m) == pytest.approx((0.02, 0.05))
    let_go = after(carried, (0, 0, OPEN), (0.03, 0, OPEN), (0.03, 0, OPEN))
    assert not let_go.holding
    assert let_go.block_m == pytest.approx(carried.block_m)


def test_a_fist_pushes_the_block_ahead_and_never_overlaps_it():
    pushed = after(world(aperture=0.0), *[(0.03, 0, SHUT)] * 6)
    assert pushed.touching
    assert not pushed.holding
    assert pushed.block_m == pytest.approx((0.18 + BLOCK_M + FIST_M, 0))


def test_the_gripper_takes_two_steps_to_close():
    assert [after(world(), *[(0, 0, SHUT)] * count).aperture for count in range(4)] == [1, 0.5, 0, 0]


@settings(deadline=None, max_examples=40)
@given(MOVES)
def test_nothing_leaves_the_table_whatever_is_done(moves):
    state = after(world(block=(0.05, 0.05)), *moves)
    assert np.abs(state.cursor_m).max() <= HALF_TABLE_M
    assert np.abs(state.block_m).max() <= HALF_TABLE_M - BLOCK_M + 1e-12
    assert 0 <= state.aperture <= 1
    assert state.touching or not state.holding


@settings(deadline=None, max_examples=20)
@given(MOVES)
def test_the_world_has_no_memory_beside_its_state(moves):
    halfway = after(world(), *moves[: len(moves) // 2])
    assert after(replace(halfway), *moves[len(moves) // 2 :]) == after(world(), *moves)


@pytest.mark.parametrize("action", [(MAX_STEP_M * 1.01, 0, 1), (0, -1, 1), (0, 0, 1.1), (float("nan"), 0, 0)])
def test_an_action_out_of_range_is_refused_and_not_cut(action):
    with pytest.raises(SettingsError, match="action"):
        step(world(), np.array(action, dtype=float))


def test_a_seed_means_the_same_episode_and_another_seed_another():
    states, actions = roll(3, 50)
    again, same = roll(3, 50)
    assert states == again
    np.testing.assert_array_equal(actions, same)
    assert roll(4, 50)[0] != states


def test_play_carries_and_pushes_and_its_actions_replay_to_the_same_states():
    states, actions = roll(0, 300)
    replayed = [states[0]]
    for action in actions:
        replayed.append(step(replayed[-1], action))
    assert replayed == states
    assert 0.1 < np.mean([state.holding for state in states]) < 0.9
    assert any(state.touching and not state.holding for state in states)
    assert np.ptp([state.block_m for state in states], axis=0).min() > 0.2


def test_the_picture_shows_the_block_where_it_is_and_in_its_colour():
    for colour, rgb in COLOURS.items():
        picture = draw(replace(world(cursor=(-0.2, -0.2), block=(0.16, 0.08)), colour=colour), 64)
        assert picture.shape == (64, 64, 3)
        # (0.16, 0.08) m is 48 pixels from the left and 24 from the top.
        assert tuple(picture[24, 48]) == rgb
        assert tuple(picture[40, 16]) != rgb


def test_moving_by_a_whole_pixel_moves_the_drawn_block_by_a_pixel():
    pixel = 2 * HALF_TABLE_M / 64
    first = draw(world(cursor=(-0.2, -0.2), block=(0.1, 0.1)))
    second = draw(world(cursor=(-0.2, -0.2), block=(0.1 + pixel, 0.1 - pixel)))
    # From the middle of the block outwards, where nothing of the table is seen.
    row, column = 22, 42
    np.testing.assert_array_equal(
        second[row - 2 : row + 4, column - 2 : column + 4], first[row - 3 : row + 3, column - 3 : column + 3]
    )


def test_a_click_is_heard_only_when_touching_begins_and_from_that_side():
    quiet, loud = world(), replace(world(block=(0.3, 0.0)), touching=True)
    heard = sounds([quiet, quiet, loud, loud, quiet], seed=0)
    each = SOUND_RATE_HZ // RATE_HZ
    assert heard.rate == SOUND_RATE_HZ
    assert heard.samples.shape == (5 * each, 2)
    energy = np.square(heard.samples.reshape(5, each, 2)).sum(axis=1)
    assert energy[[0, 1, 3, 4]].sum() == 0
    assert energy[2, 1] > 10 * energy[2, 0] > 0
    assert np.abs(heard.samples).max() < 1


def test_a_recorded_episode_reads_back_and_replays(tmp_path):
    record_episode(tmp_path / "block", seed=5, frames=40, size=32, sound=True)
    dataset = open_dataset(tmp_path / "block")
    episode = dataset.episode(0)
    assert not dataset.problems
    states, actions = roll(5, 40)
    assert (episode.length, episode.fps, episode.task) == (
        40, RATE_HZ, f"Carry and push the {states[0].colour} block around the table.",
    )  # fmt: skip
    np.testing.assert_array_equal(episode.columns["action"].astype(np.float32), actions)
    np.testing.assert_array_equal(
        episode.columns["observation.state"].astype(np.float32), [state.values() for state in states[:-1]]
    )
    (camera,) = episode.cameras
    shown = episode.frames(camera).astype(int)
    assert np.abs(shown - [draw(state, 32) for state in states[:-1]]).mean() < 6
    assert read_sound(tmp_path / "block" / "sound.wav").samples.shape == (40 * SOUND_RATE_HZ // RATE_HZ, 2)


@pytest.mark.parametrize("change", [{"frames": 1}, {"size": 33}, {"size": 8}])
def test_an_episode_that_cannot_be_recorded_is_refused(tmp_path, change):
    with pytest.raises(SettingsError):
        record_episode(tmp_path / "block", seed=0, **change)
    assert not (tmp_path / "block").exists()


def test_the_contract_is_stored_and_maps_the_largest_step_to_one():
    agreed = contract(64, 16)
    assert ActionContract.from_json(json.loads(json.dumps(agreed.to_json()))) == agreed
    np.testing.assert_allclose(agreed.encode(np.array([[MAX_STEP_M, -MAX_STEP_M, 0.5]])), [[1, -1, 0]], atol=1e-6)


def test_begin_uses_every_colour():
    assert {begin(seed).colour for seed in range(40)} == set(COLOURS)
