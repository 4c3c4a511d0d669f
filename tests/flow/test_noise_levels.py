"""Training noise levels against quantiles of an independent count of 4 million draws."""

import pytest
import torch

from orrery.errors import SettingsError
from orrery.flow.noise_levels import SHIFT_OF_TIER, NoiseLevels

# kind, shift: mean, then the quantiles .05 .25 .50 .75 .95, then the share above 0.9.
GOLDEN = {
    ("logitnormal", 1.0): (0.500, 0.162, 0.338, 0.500, 0.662, 0.838, 0.014),
    ("logitnormal", 3.0): (0.714, 0.367, 0.605, 0.750, 0.855, 0.940, 0.136),
    ("logitnormal", 5.0): (0.794, 0.491, 0.718, 0.833, 0.907, 0.963, 0.278),
    ("logitnormal", 10.0): (0.877, 0.659, 0.836, 0.909, 0.952, 0.981, 0.542),
    ("waver", 1.0): (0.500, 0.107, 0.384, 0.500, 0.617, 0.893, 0.047),
    ("waver", 3.0): (0.710, 0.264, 0.651, 0.750, 0.828, 0.962, 0.134),
    ("waver", 5.0): (0.787, 0.374, 0.757, 0.833, 0.889, 0.977, 0.221),
    ("waver", 10.0): (0.866, 0.544, 0.862, 0.909, 0.941, 0.988, 0.591),
    ("ltx2", 3.0): (0.645, 0.181, 0.497, 0.693, 0.833, 0.944, 0.121),
    ("ltx2", 5.0): (0.703, 0.224, 0.583, 0.765, 0.878, 0.960, 0.194),
    ("ltx2", 10.0): (0.761, 0.276, 0.676, 0.832, 0.917, 0.974, 0.309),
    ("uniform", 1.0): (0.500, 0.050, 0.250, 0.500, 0.750, 0.950, 0.100),
}


@pytest.mark.parametrize(("kind", "shift"), GOLDEN)
def test_draws_have_the_published_quantiles(kind, shift):
    sigma = NoiseLevels(kind=kind, shift=shift).draw(200_000, torch.Generator().manual_seed(0))
    points = torch.quantile(sigma, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    got = (sigma.mean().item(), *points.tolist(), (sigma > 0.9).float().mean().item())
    assert got == pytest.approx(GOLDEN[kind, shift], abs=0.006)
    assert sigma.min() >= 0
    assert sigma.max() <= 1


@pytest.mark.parametrize("kind", ["logitnormal", "waver"])
@pytest.mark.parametrize("shift", SHIFT_OF_TIER.values())
def test_the_median_of_a_symmetric_draw_is_the_shift_of_a_half(kind, shift):
    sigma = NoiseLevels(kind=kind, shift=shift).draw(200_000, torch.Generator().manual_seed(1))
    assert sigma.median().item() == pytest.approx(shift / (1 + shift), abs=0.003)


def test_the_same_generator_state_draws_the_same_levels():
    levels = NoiseLevels(kind="ltx2", shift=5.0)
    first, second = (levels.draw(16, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32


def test_a_shift_out_of_range_is_refused():
    with pytest.raises(SettingsError, match="got 0"):
        NoiseLevels(kind="waver", shift=0.0)
