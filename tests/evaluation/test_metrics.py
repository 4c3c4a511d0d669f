import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import SettingsError
from orrery.evaluation.metrics import (
    MOVING_THRESHOLD,
    PixelError,
    bootstrap_interval,
    mean_absolute_error,
    moving_pixels,
    pixel_error,
    pooled,
    r_squared,
    wilson_interval,
)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def flat(*shape, value):
    return np.full(shape, value, dtype=np.uint8)


@pytest.mark.parametrize("difference", [1, 10, 255])
def test_psnr_of_a_constant_difference_is_20_log10_of_255_over_it(difference):
    error = pixel_error(flat(3, 4, 5, 3, value=difference), flat(3, 4, 5, 3, value=0))
    assert error.values == 3 * 4 * 5 * 3
    assert error.psnr_db == pytest.approx(20 * math.log10(255 / difference))


def test_an_exact_prediction_is_infinitely_good():
    frames = noise(2, 3, 4, 3)
    assert pixel_error(frames, frames).psnr_db == math.inf


def test_without_moving_pixels_the_result_says_so_and_is_not_nan():
    still = flat(5, 4, 4, 3, value=90)
    error = pixel_error(noise(5, 4, 4, 3), still, moving_pixels(still))
    assert (error.values, error.mean_squared, error.psnr_db) == (0, None, None)


def test_a_pixel_moves_when_one_colour_passes_the_threshold_against_the_first_frame():
    frames = flat(3, 1, 3, 3, value=100)
    frames[1, 0, 0, 2] += MOVING_THRESHOLD
    frames[1, 0, 1, 2] += MOVING_THRESHOLD + 1
    frames[2, 0, 2, 0] -= MOVING_THRESHOLD + 1
    expected = np.zeros((3, 1, 3), dtype=bool)
    expected[1, 0, 1] = expected[2, 0, 2] = True
    np.testing.assert_array_equal(moving_pixels(frames), expected)


def test_the_whole_picture_is_the_moving_and_the_still_pixels_together():
    true, predicted = noise(4, 6, 5, 3), noise(4, 6, 5, 3, seed=1)
    mask = moving_pixels(true)
    both = pooled([pixel_error(predicted, true, mask), pixel_error(predicted, true, ~mask)])
    assert both == pixel_error(predicted, true)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(1, 10**6)), min_size=1, max_size=8))
def test_the_pooled_mean_lies_between_the_best_and_the_worst_window(windows):
    errors = [PixelError(squared=squared, values=values) for squared, values in windows]
    means = [error.mean_squared for error in errors]
    assert min(means) * (1 - 1e-9) <= pooled(errors).mean_squared <= max(means) * (1 + 1e-9)


def test_action_error_is_counted_for_each_column_alone():
    true = np.array([[0.0, 1.0], [0.0, 3.0]])
    predicted = np.array([[0.5, 1.0], [-0.5, 1.0]])
    np.testing.assert_allclose(mean_absolute_error(predicted, true), [0.5, 1.0])


def test_r_squared_is_one_for_the_truth_and_zero_for_its_mean():
    true = np.random.default_rng(0).normal(size=(50, 3))
    assert r_squared(true, true) == (1.0, 1.0, 1.0)
    assert r_squared(np.broadcast_to(true.mean(axis=0), true.shape), true) == pytest.approx((0, 0, 0), abs=1e-12)


def test_r_squared_of_a_column_that_never_changes_is_none():
    true = np.column_stack([np.full(9, 0.1), np.arange(9.0)]).astype(np.float32)
    assert r_squared(true + np.float32(0.5), true)[0] is None
    assert r_squared(true, true) == (None, 1.0)


def test_the_bootstrap_interval_holds_the_mean_and_shrinks_as_one_over_root_n():
    rng = np.random.default_rng(0)

    def width(count):
        windows = rng.normal(3, 1, count).tolist()
        low, high = bootstrap_interval(windows, lambda drawn: float(np.mean(drawn)), seed=1)
        assert low < 3 < high
        return high - low

    assert width(50) / width(800) == pytest.approx(4, rel=0.25)


def test_the_bootstrap_is_repeated_by_its_seed_and_is_a_point_without_spread():
    windows = [1.0, 2.0, 4.0]
    assert bootstrap_interval(windows, max, seed=3) == bootstrap_interval(windows, max, seed=3)
    assert bootstrap_interval([2.0] * 5, max, seed=0) == (2.0, 2.0)


@pytest.mark.parametrize("change", [{"windows": []}, {"resamples": 1}, {"level": 1.0}])
def test_a_bootstrap_of_nothing_is_refused(change):
    settings = {"windows": [1.0], "resamples": 10, "level": 0.9} | change
    with pytest.raises(SettingsError):
        bootstrap_interval(settings.pop("windows"), max, seed=0, **settings)


def test_wilsons_interval_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(6)
    low_high = np.array([wilson_interval(int(right), 80) for right in rng.binomial(80, 0.3, 2000)])
    assert ((low_high[:, 0] < 0.3) & (low_high[:, 1] > 0.3)).mean() == pytest.approx(0.95, abs=0.02)
    # Brown, Cai, DasGupta 2001: 0 of 10 has an upper end of about 0.278.
    assert wilson_interval(0, 10)[1] == pytest.approx(0.2775, abs=1e-3)
