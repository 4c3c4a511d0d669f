"""Laws of the solvers, then parity of unipc with an independent implementation."""

import itertools
import math

import numpy as np
import pytest
import torch

from orrery.errors import SettingsError
from orrery.flow.samplers import euler, held, heun, solve, stochastic, unipc
from orrery.flow.schedule import distilled, flow, grid, karras, native


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def curved(latents: torch.Tensor, clock: float) -> torch.Tensor:
    """A velocity that is linear in neither the latents nor the level."""
    return torch.sin(2 * latents) * (0.5 + clock) + latents.roll(1, -1) * clock**2 - 0.3


def run(sampler, velocity):
    """Drive a sampler by the clock, as a network is driven, and list the clocks."""
    query, told = next(sampler), []
    while True:
        told.append(query.clock)
        try:
            query = sampler.send([velocity(x, query.clock) for x in query.latents])
        except StopIteration as end:
            return end.value, told


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (unipc, 2)])
def test_error_shrinks_at_the_samplers_order(sampler, order):
    def error(steps: int) -> float:  # dx/dsigma = x and x(0.9) = exp(0.9), so x(0) = 1
        sigmas = torch.linspace(0.9, 0, steps + 1, dtype=torch.float64)
        (x,) = solve(
            sampler([torch.full((1, 1, 1), math.exp(0.9), dtype=torch.float64)], sigmas), lambda latents, _: latents
        )
        return abs(x.item() - 1)

    assert math.log2(error(128) / error(256)) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("sampler", "queries"), [(euler, 5), (heun, 9), (unipc, 5)])
def test_a_straight_path_is_followed_exactly(sampler, queries):
    noise, data = normal(2, 3, 4, seed=1), normal(2, 3, 4, seed=2)
    sigmas = flow(5, 3.0)
    start = (1 - sigmas[0]) * data + sigmas[0] * noise
    result, told = run(sampler([start], sigmas), lambda latents, clock: noise - data)
    torch.testing.assert_close(result[0], data, atol=2e-6, rtol=0)
    assert len(told) == queries


def test_unipc_tells_the_network_whole_thousandths_and_the_others_the_exact_level():
    sigmas = native(4, 5.0)
    noise = [normal(1, 1, 2)]
    assert run(unipc(noise, sigmas), curved)[1] == [0.999, 0.937, 0.833, 0.624]
    assert run(euler(noise, sigmas), curved)[1] == sigmas[:-1].tolist()
    levels = distilled([1.0, 0.9375, 0.8333333333333334, 0.625])
    assert run(stochastic(noise, levels, torch.Generator()), curved)[1] == levels[:-1].tolist()


@pytest.mark.parametrize("sampler", [euler, heun, unipc])
def test_entries_of_zero_velocity_stay_put(sampler):
    start = normal(3, 2, 4)
    given = torch.zeros(3, 2, 4, dtype=torch.bool)
    given[0] = True
    result, _ = run(sampler([start], native(35, 10.0)), lambda x, clock: curved(x, clock).masked_fill(given, 0))
    torch.testing.assert_close(result[0][given], start[given], atol=0 if sampler is not unipc else 1e-5, rtol=0)
    assert not torch.isclose(result[0][~given], start[~given]).any()


@pytest.mark.parametrize("name", ["euler", "heun", "unipc", "stochastic"])
def test_held_entries_come_back_to_the_bit_and_are_shown_in_every_query(name):
    noise, data = normal(3, 2, 4, seed=1), normal(3, 2, 4, seed=2)
    fixed = torch.zeros(3, 2, 4, dtype=torch.bool)
    fixed[0] = True
    fixed[:, :, 3] = True
    sigmas = native(6, 5.0)
    rng = torch.Generator().manual_seed(0)
    inner = {
        "euler": lambda: euler([noise], sigmas),
        "heun": lambda: heun([noise], sigmas),
        "unipc": lambda: unipc([noise], sigmas),
        "stochastic": lambda: stochastic([noise], sigmas, rng),
    }[name]()

    def velocity(x, clock):
        assert torch.equal(x[fixed], data[fixed])
        return curved(x, clock)

    result, _ = run(held(inner, [data], [fixed]), velocity)
    assert torch.equal(result[0][fixed], data[fixed])
    assert not torch.isclose(result[0][~fixed], data[~fixed]).any()


def test_stochastic_follows_its_formula_and_its_generator():
    levels = distilled([1.0, 0.9375, 0.8333333333333334, 0.625])
    noise = [normal(2, 3, 4, seed=1), normal(5, 1, 2, seed=2)]
    result, _ = run(stochastic(noise, levels, torch.Generator().manual_seed(7)), curved)

    rng = torch.Generator().manual_seed(7)
    expected = noise
    for sigma, after in itertools.pairwise(levels.tolist()):
        data = [x - sigma * curved(x, sigma) for x in expected]
        expected = data
        if after:
            expected = [(1 - after) * x + after * torch.randn(x.shape, generator=rng) for x in data]
    for got, want in zip(result, expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)


def test_segments_do_not_touch_each_other():
    first, second = normal(2, 3, 4, seed=1), normal(5, 1, 2, seed=2)
    together, _ = run(unipc([first, second], native(8, 5.0)), curved)
    for alone, joint in zip((first, second), together, strict=True):
        assert torch.equal(run(unipc([alone], native(8, 5.0)), curved)[0][0], joint)


def test_a_velocity_in_bfloat16_does_not_lower_the_latents():
    def coarse(x, clock):
        return curved(x, clock).bfloat16()

    result, _ = run(unipc([normal(2, 3, 4)], native(8, 5.0)), coarse)
    exact, _ = run(unipc([normal(2, 3, 4)], native(8, 5.0)), lambda x, clock: coarse(x, clock).float())
    assert result[0].dtype == torch.float32
    assert torch.equal(result[0], exact[0])


@pytest.mark.parametrize("sampler", [euler, heun, unipc])
@pytest.mark.parametrize("sigmas", [[0.5, 0.5, 0.0], [0.5, 0.2], [0.0], [0.2, 0.5, 0.0], [1.5, 0.0]])
def test_levels_that_do_not_fall_to_zero_are_refused_at_once(sampler, sigmas):
    with pytest.raises(SettingsError, match="fall strictly"):
        sampler([normal(1, 1, 2)], torch.tensor(sigmas))


def test_unipc_refuses_to_start_at_pure_noise():
    with pytest.raises(SettingsError, match=r"below 1, got 1\.0"):
        unipc([normal(1, 1, 2)], distilled([1.0, 0.5]))


def test_latents_below_float32_are_refused():
    with pytest.raises(SettingsError, match=r"got torch\.bfloat16"):
        euler([normal(1, 1, 2).bfloat16()], native(4, 5.0))


def test_a_velocity_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shapes \[\(2, 3, 4\)\], got \[\(2, 3, 1\)\]"):
        run(euler([normal(2, 3, 4)], native(4, 5.0)), lambda x, clock: x[..., :1])


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised inside diffusers by numpy 2
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 16, 35, 50])
@pytest.mark.parametrize(("kind", "shift"), [("native", 10.0), ("native", 3.0), ("flow", 5.0), ("karras", None)])
def test_unipc_matches_diffusers(kind, shift, steps):
    """A nonlinear velocity driven by the clock. Measured worst difference 5e-7 (float32)."""
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift or 10.0,
        use_karras_sigmas=kind == "karras",
        sigma_max=200.0,
        sigma_min=0.147,
    )
    if kind == "native":
        scheduler.set_timesteps(steps, sigmas=np.linspace(0.999, 0, steps + 1)[:-1])
    else:
        scheduler.set_timesteps(steps)
    x = expected = normal(3, 5, 8)
    for t in scheduler.timesteps.tolist():
        (expected,) = scheduler.step(curved(expected, t / 1000), t, expected, return_dict=False)

    result, told = run(unipc([x], grid(kind, steps, shift)), curved)
    assert [round(1000 * clock) for clock in told] == scheduler.timesteps.tolist()
    torch.testing.assert_close(result[0], expected, atol=1e-6, rtol=0)


def test_karras_runs_through_repeated_thousandths():
    result, told = run(unipc([normal(2, 3, 4)], karras(50)), curved)
    assert len(told) == 50
    assert len(set(told)) < 50
    assert result[0].isfinite().all()
