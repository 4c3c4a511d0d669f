"""Extrapolated velocities: exact where the velocity is a line in the noise level, and asked for nowhere else."""

from itertools import pairwise
from math import pi

import pytest
import torch

from orrery.errors import SettingsError
from orrery.flow.reuse import ALWAYS, Reuse
from orrery.flow.samplers import euler

SIGMAS = torch.linspace(1, 0, 21, dtype=torch.float64)
NOISE = [torch.ones(2, 1, 3, dtype=torch.float64), torch.ones(4, 1, 1, dtype=torch.float64)]


def solved(velocity, reuse: Reuse | None) -> tuple[list[torch.Tensor], list[int]]:
    """Data latents under `velocity`, and the turns at which it was asked."""
    sampler, asked = euler(NOISE, SIGMAS), []
    query, turn = next(sampler), 0
    while True:
        sigma = float(query.sigma)
        found = None if reuse is None else reuse.guess(turn, sigma)
        if found is None:
            found = velocity(query.latents, sigma)
            asked.append(turn)
            if reuse is not None:
                reuse.learn(sigma, found)
        try:
            query, turn = sampler.send(found), turn + 1
        except StopIteration as end:
            return end.value, asked


def line(latents, sigma):
    return [(index + 1.0 + 0.3 * sigma) * torch.ones_like(x) for index, x in enumerate(latents)]


def bent(latents, sigma):
    return [torch.sin(4 * pi * torch.tensor(sigma)) + 0.5 * x for x in latents]


def test_a_line_in_the_noise_level_is_followed_exactly_with_few_calls():
    exact, every = solved(line, None)
    found, asked = solved(line, Reuse(threshold=10.0, turns=20))
    assert every == list(range(20))
    assert asked == [0, 1, 18, 19]
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_a_large_threshold_changes_the_result_where_the_velocity_bends_and_a_small_one_computes_every_turn():
    exact, _ = solved(bent, None)
    found, asked = solved(bent, Reuse(threshold=100.0, turns=20))
    assert len(asked) == 4
    assert (found[0] - exact[0]).abs().max() > 0.1
    found, asked = solved(bent, Reuse(threshold=1e-9, turns=20))
    assert len(asked) == 20
    assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))


def test_the_lower_the_threshold_the_more_is_computed_and_the_smaller_the_error():
    exact, _ = solved(bent, None)
    calls, errors = [], []
    for threshold in (100.0, 0.5, 0.1, 0.01):
        found, asked = solved(bent, Reuse(threshold=threshold, turns=20))
        calls.append(len(asked))
        errors.append(float((found[0] - exact[0]).abs().max()))
    assert all(fewer <= more for fewer, more in pairwise(calls))
    assert errors[0] > errors[-1]


def test_the_first_and_the_last_turns_are_always_computed():
    for turns in range(1, 8):
        reuse = Reuse(threshold=100.0, turns=turns)
        for turn in range(turns):
            sigma = 1 - turn / turns
            if reuse.guess(turn, sigma) is None:
                reuse.learn(sigma, line(NOISE, sigma))
            else:
                assert ALWAYS <= turn < turns - ALWAYS


def test_the_segment_that_changes_most_decides():
    reuse = Reuse(threshold=0.1, turns=20)
    still, given = torch.ones(100, 1, 1), torch.zeros(3, 1, 1)
    for sigma, restless in ((1.0, 1.0), (0.9, 2.0)):
        reuse.learn(sigma, [still, torch.full((1, 1, 1), restless), given])
    assert reuse.guess(5, 0.8) is None
    assert reuse.guess(5, 0.89) is not None  # half of the change of a tenth, 1 / 2 x 0.1, is within 0.1


def test_nothing_is_extrapolated_across_a_switch_or_between_equal_levels():
    reuse = Reuse(threshold=100.0, turns=20)
    for sigma in (1.0, 0.9):
        reuse.learn(sigma, line(NOISE, sigma), under=True)
    assert reuse.guess(5, 0.8, under=True) is not None
    assert reuse.guess(5, 0.8, under=False) is None
    assert reuse.guess(5, 0.9, under=True) is None
    reuse.learn(0.8, line(NOISE, 0.8), under=False)
    assert reuse.guess(6, 0.7, under=False) is None
    reuse.learn(0.8, line(NOISE, 0.8), under=False)
    assert reuse.guess(6, 0.7, under=False) is None


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_thresholds_that_mean_nothing_are_refused(threshold):
    with pytest.raises(SettingsError, match="reuse must be above 0"):
        Reuse(threshold=threshold, turns=20)
