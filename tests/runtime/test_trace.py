"""Marks see a difference in any single value, and tell its size."""

import numpy as np
import pytest
import torch

from orrery.data.order import mix
from orrery.runtime.trace import BUCKETS, _mixed, apart, is_mark, mark, near

VALUES = np.random.default_rng(0).normal(size=(7, 300)).astype(np.float32)


def test_the_words_are_those_of_the_orders():
    assert _mixed(5, 4).tolist() == [mix(index) for index in range(5, 9)]


@pytest.mark.parametrize("place", [0, 1, 1000, VALUES.size - 1])
def test_a_difference_in_one_value_has_its_exact_size(place):
    other = VALUES.copy()
    other.flat[place] += 2
    one, two = mark("noise", [VALUES]), mark("noise", [other])
    assert one["sha256"] != two["sha256"]
    assert apart(one, two) == pytest.approx(2 / np.sqrt(VALUES.size) / max(one["rms"][0], two["rms"][0]), rel=1e-5)
    assert not near(one, two, 1e-3)


@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.3])
def test_the_distance_is_that_of_the_values_within_the_error_of_its_sums(size):
    shares = []
    for seed in range(100):
        noise = np.random.default_rng(seed + 1).normal(size=VALUES.shape) * size
        other = VALUES.astype(np.float64) + noise
        true = np.sqrt(np.square(noise).mean() / max(np.square(VALUES).mean(), np.square(other).mean()))
        shares.append(apart(mark("", [VALUES.astype(np.float64)]), mark("", [other])) / true)
    assert np.square(shares).mean() == pytest.approx(1, abs=0.1)
    assert min(shares) > 0.4
    assert max(shares) < 1.6


def test_arrays_are_cut_in_pieces_without_a_seam(monkeypatch):
    whole = mark("", [VALUES])
    monkeypatch.setattr("orrery.runtime.trace._PIECE", 64)
    pieces = mark("", [VALUES])
    assert pieces["sha256"] == whole["sha256"]
    assert apart(whole, pieces) < 1e-12


def test_tensors_of_any_format_and_layout_are_marked_as_their_numbers():
    tensor = torch.arange(12.0).reshape(3, 4)
    assert mark("", [tensor.T.bfloat16()]) == mark("", [tensor.numpy().T])
    assert mark("", [tensor])["sha256"] != mark("", [tensor.T])["sha256"]


def test_marks_of_other_arrays_are_infinitely_apart_and_silence_is_near():
    assert apart(mark("", [VALUES]), mark("", [VALUES, VALUES])) == float("inf")
    assert apart(mark("", [np.zeros(3)]), mark("", [np.zeros(3)])) == 0
    assert apart(mark("", [np.zeros(0)]), mark("", [np.zeros(0)])) == 0


def test_the_form_of_a_mark_is_known():
    good = mark("noise", [VALUES, VALUES])
    assert is_mark(good)
    short = [[0.0] * (BUCKETS - 1)] * 2
    for changes in ({"sketch": short}, {"sketch": good["sketch"][:1]}, {"rms": ["a", 1.0]}, {"sha256": None}):
        assert not is_mark({**good, **changes})
    assert not is_mark("noise")
