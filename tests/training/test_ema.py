"""The power mean against its published constants and its own definition."""

import json
import math

import pytest
import torch

from orrery.errors import CheckpointError, SettingsError
from orrery.training.ema import PowerEma, power_decay, power_gamma


def weights(seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 4, generator=rng), "b": torch.randn(5, generator=rng)}


def test_gamma_and_decays_are_the_published_ones():
    gamma = power_gamma(0.1)
    assert gamma == pytest.approx(6.9372, abs=1e-4)
    published = {1: 0.0, 10: 0.433, 100: 0.923, 1000: 0.9921, 10_000: 0.99921}
    assert {i: power_decay(i, gamma) for i in published} == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_mean_is_as_wide_as_asked(width):
    gamma, updates = power_gamma(width), 4000
    share = torch.zeros(updates, dtype=torch.float64)  # of each past step in the mean
    for i in range(1, updates + 1):
        decay = power_decay(i, gamma)
        share *= decay
        share[i - 1] = 1 - decay
    at = torch.arange(1, updates + 1) / updates
    mean = (share * at).sum()
    assert share.sum().item() == pytest.approx(1)
    assert math.sqrt((share * (at - mean) ** 2).sum().item()) == pytest.approx(width, rel=0.01)


def test_updates_follow_the_definition_and_the_first_takes_the_weights_whole():
    ema = PowerEma(weights(0).items(), 0.1)
    assert torch.equal(ema.tensors()["a"], weights(0)["a"])
    ema.update(weights(1).items())
    assert torch.equal(ema.tensors()["a"], weights(1)["a"])
    ema.update(weights(2).items())
    kept = 0.5 ** (power_gamma(0.1) + 1)
    torch.testing.assert_close(ema.tensors()["a"], kept * weights(1)["a"] + (1 - kept) * weights(2)["a"])


def test_the_mean_is_float32_and_apart_from_the_weights():
    live = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(3)}
    ema = PowerEma(live.items(), 0.1)
    live["b"].zero_()
    assert all(mean.dtype == torch.float32 and mean.eq(1).all() for mean in ema.tensors().values())


def test_a_saved_mean_goes_on_to_the_bit():
    through = PowerEma(weights(0).items(), 0.1)
    for seed in range(6):
        through.update(weights(seed).items())
        if seed == 2:
            tensors = {name: mean.clone() for name, mean in through.tensors().items()}
            document = json.loads(json.dumps(through.document()))
    resumed = PowerEma(weights(9).items(), 0.1)
    resumed.load(tensors, document)
    for seed in range(3, 6):
        resumed.update(weights(seed).items())
    assert resumed.updates == 6
    assert all(torch.equal(resumed.tensors()[name], mean) for name, mean in through.tensors().items())


@pytest.mark.parametrize(
    ("tensors", "document", "message"),
    [
        ({"a": torch.zeros(3, 4)}, {}, "missing or unknown tensors: b"),
        ({"a": torch.zeros(3, 4), "b": torch.zeros(6)}, {}, r"b must have shape \(5,\), got \(6,\)"),
        (weights(0), {"width": 0.2}, r"width 0\.2"),
        (weights(0), {"version": 2}, "version 2"),
    ],
)
def test_a_mean_that_does_not_fit_is_refused(tensors, document, message):
    ema = PowerEma(weights(0).items(), 0.1)
    with pytest.raises(CheckpointError, match=message):
        ema.load(tensors, ema.document() | document)


def test_other_parameters_than_the_means_own_are_refused():
    with pytest.raises(ValueError, match="unmatched: b"):
        PowerEma(weights(0).items(), 0.1).update({"a": torch.zeros(3, 4)}.items())


@pytest.mark.parametrize("width", [0.0, 0.5, -0.1])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(SettingsError, match="relative width"):
        power_gamma(width)
