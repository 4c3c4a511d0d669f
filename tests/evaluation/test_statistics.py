"""Statistics of trials against published figures, laws, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orrery.errors import SettingsError
from orrery.evaluation.metrics import wilson_interval
from orrery.evaluation.statistics import (
    Sequential,
    comparisons_warning,
    detectable,
    exact_interval,
    holm,
    newcombe_interval,
    paired,
    paired_trials_needed,
    trials_needed,
    unpaired_p,
    verdict,
)


def test_ninety_from_ninety_five_takes_more_than_four_hundred_trials_an_arm():
    assert trials_needed(0.90, 0.95) == 435
    assert trials_needed(0.95, 0.90) == 435
    assert trials_needed(0.5, 0.9) < 30


def test_trials_needed_have_the_power_that_was_asked_for():
    rng, n = np.random.default_rng(0), trials_needed(0.6, 0.8)
    found = [unpaired_p(int(rng.binomial(n, 0.6)), n, int(rng.binomial(n, 0.8)), n) < 0.05 for _ in range(400)]
    assert 0.7 < np.mean(found) < 0.88  # Fisher's test is a little more careful than the formula


def test_common_seeds_save_trials_when_the_arms_mostly_agree():
    apart = paired_trials_needed(0.90, 0.95, discordant=0.05)
    assert apart < trials_needed(0.90, 0.95) / 2
    assert paired_trials_needed(0.90, 0.95, discordant=0.15) > apart
    with pytest.raises(SettingsError, match="discordant"):
        paired_trials_needed(0.90, 0.95, discordant=0.01)


def test_no_fewer_trials_than_an_exact_test_can_decide_by():
    n = trials_needed(0.01, 0.99)
    assert unpaired_p(n, n, 0, n) <= 0.05 < unpaired_p(n - 1, n - 1, 0, n - 1)
    seeds = paired_trials_needed(0.001, 0.999)
    assert paired([True] * seeds, [False] * seeds).p <= 0.05 < paired([True] * (seeds - 1), [False] * (seeds - 1)).p


@given(st.integers(1, 19), st.integers(1, 19))
def test_the_ends_of_the_discordant_range_are_allowed_as_they_are_typed(a, b):
    assume(a != b)
    p, q = round(0.05 * a, 2), round(0.05 * b, 2)
    at_best, at_worst = (
        paired_trials_needed(p, q, discordant=round(end, 2)) for end in (abs(p - q), min(p + q, 2 - p - q))
    )
    assert at_best <= paired_trials_needed(p, q) <= at_worst


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_exact_interval_holds_the_share_and_is_no_narrower_than_its_name_says(counts):
    right, of = counts
    low, high = exact_interval(right, of)
    assert 0 <= low <= right / of <= high <= 1
    mirrored = exact_interval(of - right, of)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-9)


def test_exact_interval_as_published():
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I: 15 of 148 and 0 of 20.
    assert exact_interval(15, 148) == pytest.approx((0.0578, 0.1617), abs=1e-4)
    assert exact_interval(0, 20) == pytest.approx((0.0, 0.1684), abs=1e-4)


def test_newcombe_as_published():
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10: 56/70 - 48/80 and 9/10 - 3/10.
    assert newcombe_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert newcombe_interval(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=1e-4)


def test_pairs_count_only_what_differs():
    first, second = [True] * 12 + [False] * 8, [True] * 4 + [False] * 16
    found = paired(first, second)
    assert (found.first_only, found.second_only, found.difference) == (8, 0, pytest.approx(0.4))
    assert found.p == pytest.approx(2 * 0.5**8)
    assert found.interval[0] > 0
    same = paired(first, first)
    assert same.p == 1.0
    assert same.interval[0] <= 0 <= same.interval[1]
    with pytest.raises(SettingsError, match="each seed"):
        paired([True], [])


def test_the_paired_interval_as_published():
    # Cavo et al. 2012 (59 both, 6 and 16 one alone, 80 neither), as the R package contingencytables has it.
    first = [True] * 65 + [False] * 96
    second = [True] * 59 + [False] * 6 + [True] * 16 + [False] * 80
    found = paired(first, second)
    assert (found.first_only, found.second_only) == (6, 16)
    assert found.interval == pytest.approx((-0.1186, -0.0046), abs=1e-4)
    ways = sum(math.comb(22, k) for k in range(7))
    assert found.p == pytest.approx(2 * ways / 2**22)


def test_pairs_are_told_apart_by_fewer_trials_than_strangers():
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    first, second = [bool(x < 0.8) for x in hard], [bool(x < 0.7) for x in hard]
    together = paired(first, second).interval
    apart = newcombe_interval(sum(first), 200, sum(second), 200)
    assert together[1] - together[0] < apart[1] - apart[0]


@pytest.mark.parametrize(("share", "wrong", "most"), [(0.5, "pass", 0.08), (0.7, "fail", 0.24)])
def test_a_sequential_test_keeps_its_error_rates_and_stops_early(share, wrong, most):
    rng, test = np.random.default_rng(2), Sequential(p=0.5, q=0.7)
    runs = [test.decide([bool(x) for x in rng.random(400) < share]) for _ in range(400)]
    assert np.mean([said == wrong for said, _ in runs]) < most
    taken = float(np.mean([count for _, count in runs]))
    assert taken < trials_needed(0.5, 0.7)
    assert taken == pytest.approx(test.expected(share), rel=0.3)
    assert test.decide([]) == ("undecided", 0)


def test_detectable_is_the_inverse_of_trials_needed():
    below, above = detectable(435, 0.90)
    assert above == pytest.approx(0.95, abs=2e-4)
    assert trials_needed(0.90, below) == 435
    assert trials_needed(0.90, below + 1e-3) > 435
    assert detectable(3, 0.95) == (None, None)
    assert detectable(50, 0.90)[1] is None  # not even 1 is far enough, but a fall is found
    assert detectable(50, 0.90)[0] == pytest.approx(0.67, abs=0.02)


def test_holm_as_published_and_its_warning():
    # Holm's own scheme by hand: 4 x .01, 3 x .02, then never less than before.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([]) == []
    assert "14 comparisons" in comparisons_warning(14)
    assert "51%" in comparisons_warning(14)
    assert comparisons_warning(1) == ""


@given(st.floats(-5, 5), st.floats(0, 3), st.floats(-5, 5))
def test_a_verdict_is_only_given_by_a_whole_interval(low, width, threshold):
    interval = (low, low + width)
    said = verdict(interval, threshold, "higher")
    assert (said == "pass") == (low >= threshold)
    assert (said == "fail") == (low + width < threshold)
    assert verdict((-interval[1], -interval[0]), -threshold, "lower") == said
    assert verdict(None, threshold, "higher") == "undecided"


@pytest.mark.parametrize("call", [
    lambda: trials_needed(0.9, 0.9), lambda: trials_needed(0.0, 0.5), lambda: exact_interval(3, 2),
    lambda: Sequential(p=0.7, q=0.5), lambda: detectable(0, 0.5), lambda: newcombe_interval(1, 2, 1, 0),
    lambda: exact_interval(3, 10, level=95.0), lambda: holm([float("nan"), 0.01]), lambda: holm([2.0]),
    lambda: Sequential(p=0.5, q=0.7, alpha=0.5, beta=0.5), lambda: Sequential(p=0.5, q=0.7).expected(0.6),
])  # fmt: skip
def test_nonsense_is_refused(call):
    with pytest.raises(SettingsError):
        call()


def test_wilson_stays_the_usual_interval():
    low, high = wilson_interval(9, 10)
    assert math.isclose(low, 0.596, abs_tol=1e-3)
    assert math.isclose(high, 0.982, abs_tol=1e-3)
