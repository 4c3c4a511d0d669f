from collections import Counter

import numpy as np
import pytest

from orrery.errors import SettingsError
from orrery.evaluation.baselines import copy_last_frame, derangement, mean_action, mean_future
from orrery.evaluation.metrics import r_squared


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_copying_the_last_frame_keeps_what_was_given():
    given = noise(2, 3, 4, 3)
    copied = copy_last_frame(given, 5)
    np.testing.assert_array_equal(copied[:2], given)
    np.testing.assert_array_equal(copied[2:], np.stack([given[1]] * 3))


@pytest.mark.parametrize(("given", "frames"), [(0, 3), (4, 3)])
def test_more_given_frames_than_frames_are_refused(given, frames):
    with pytest.raises(SettingsError):
        copy_last_frame(noise(given, 2, 2, 3), frames)


def test_the_mean_future_is_the_best_fixed_future():
    windows = noise(20, 3, 4, 4, 3)
    mean = mean_future(windows).astype(float)
    squared = np.square(windows - mean).sum()
    for step in (-2, 2):
        assert squared < np.square(windows - (mean + step)).sum()


def test_the_mean_action_scores_an_r_squared_of_zero_on_its_own_rows():
    actions = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    guess = np.broadcast_to(mean_action(actions), actions.shape)
    assert r_squared(guess, actions) == pytest.approx((0, 0, 0), abs=1e-9)


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_a_derangement_moves_everything_and_loses_nothing(count):
    for seed in range(20):
        order = derangement(count, seed)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()
    np.testing.assert_array_equal(derangement(count, 7), derangement(count, 7))


def test_all_nine_derangements_of_four_are_equally_likely():
    found = Counter(tuple(derangement(4, seed).tolist()) for seed in range(1800))
    assert len(found) == 9
    assert min(found.values()) > 140
    assert max(found.values()) < 265


def test_one_window_has_nothing_to_swap_with():
    with pytest.raises(SettingsError, match="at least 2"):
        derangement(1, 0)
