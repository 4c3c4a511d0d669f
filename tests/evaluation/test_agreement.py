"""Agreement of two scores over policies."""

import numpy as np
import pytest

from orrery.errors import SettingsError
from orrery.evaluation.agreement import agreement, compare_policies, false_success_rate, rank_violation, success_found
from orrery.evaluation.statistics import unpaired_p


def test_the_same_order_agrees_and_the_opposite_does_not():
    true = [0.1, 0.3, 0.5, 0.7, 0.9, 0.95]
    same = agreement([x**2 for x in true], true)
    assert same.spearman.value == pytest.approx(1.0)
    assert same.kendall.value == pytest.approx(1.0)
    assert same.mmrv.value == 0.0
    assert 0.9 < same.pearson.value < 1
    other = agreement(true[::-1], true)
    assert other.spearman.value == pytest.approx(-1.0)
    assert other.mmrv.value > 0.5
    assert other.spearman.interval[1] < 0


def test_rank_violation_by_hand():
    # Only the last two are swapped: each is violated by 0.2, the first by nothing.
    assert rank_violation([0.1, 0.9, 0.8], [0.1, 0.6, 0.8]) == pytest.approx(0.4 / 3)


def test_noise_has_an_interval_around_nothing_and_more_policies_narrow_it():
    rng = np.random.default_rng(0)
    few = agreement(rng.random(8), rng.random(8))
    many = agreement(rng.random(64), rng.random(64))
    assert few.spearman.interval[0] < 0 < few.spearman.interval[1]
    assert np.ptp(many.spearman.interval) < np.ptp(few.spearman.interval)


def test_what_does_not_exist_has_a_reason_instead_of_a_number():
    constant = agreement([1.0] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert constant.spearman.value is None
    assert constant.spearman.interval is None
    assert "surrogate" in constant.spearman.reason
    assert constant.mmrv.value is None  # by a formula for orders it would depend on how ties are broken
    assert "true" in agreement([0.1, 0.2, 0.3, 0.4], [0.3, 0.1 * 3, 0.3, 0.3]).pearson.reason
    assert false_success_rate([True], [True]).value is None
    with pytest.raises(SettingsError, match="4 policies or more"):
        agreement([1.0, 2.0], [1.0, 2.0])


def test_false_successes_are_counted_among_failures_alone():
    found = false_success_rate([True, True, False, False, True], [True, False, False, False, True])
    assert found.value == pytest.approx(1 / 3)
    assert found.interval[0] < 1 / 3 < found.interval[1]
    # Who calls nothing done has no false success, and finds none that is true.
    assert false_success_rate([False] * 4, [True, True, False, False]).value == 0
    assert success_found([False] * 4, [True, True, False, False]).value == 0
    assert success_found([True, False, True, True], [True, True, False, True]).value == pytest.approx(2 / 3)
    assert success_found([True], [False]).value is None
    assert false_success_rate([True] * 50, [False] * 50).interval[0] > 0.9


def test_three_trials_decide_nothing_and_many_do():
    few = compare_policies({"good": [True] * 3, "bad": [False] * 3, "so so": [True, False, True]})
    assert [pair.verdict for pair in few] == ["undecided"] * 3
    many = compare_policies({"good": [True] * 38 + [False] * 2, "bad": [False] * 40})
    assert many[0].verdict == "pass"
    assert compare_policies({"bad": [False] * 40, "good": [True] * 40})[0].verdict == "fail"
    with pytest.raises(SettingsError, match="no trials"):
        compare_policies({"none": [], "some": [True]})
    with pytest.raises(SettingsError, match="both arms"):
        compare_policies({"few": [True], "more": [True, False]})


def test_common_seeds_tell_policies_apart_that_shares_alone_do_not():
    hard = [False] * 30 + [True] * 20
    better = [True] * 10 + [False] * 20 + [True] * 20
    assert compare_policies({"better": better, "worse": hard})[0].verdict == "pass"
    assert unpaired_p(sum(better), 50, sum(hard), 50) > 0.05
