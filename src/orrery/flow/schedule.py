"""Noise-level grids: the falling sigmas that a sampler visits, float32, ending in 0.

What a sampler does between two levels is `flow.samplers`; what training draws is `flow.noise_levels`. Grids are worked
out in float64 and rounded once, as the released schedulers do, so the last bits agree with them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from orrery.errors import SettingsError

Schedule = Literal["native", "flow", "karras"]

# Of the 1000 training steps. The native base grid starts one below pure noise, the stock grid heads for one above 0.
TRAINING_STEP = 1e-3
# Released Nano and Super scheduler configuration: EDM noise-to-signal ratios, arXiv:2206.00364 equation 5.
KARRAS_RATIO_MAX = 200.0
KARRAS_RATIO_MIN = 0.147
KARRAS_RHO = 7.0


def shift_sigma(sigma: Float[Tensor, "*shape"], shift: float) -> Float[Tensor, "*shape"]:
    """Move noise levels towards noise: `shift * sigma / (1 + (shift - 1) * sigma)`; 0 and 1 stay where they are.

    Args:
        sigma: levels in [0, 1].
        shift: 1 changes nothing; 3 to 10 spend more levels near noise, which larger pictures need.

    Raises:
        SettingsError: `shift` is not a positive finite number.

    Source: arXiv:2403.03206, equation 23, with `shift` for the square root of the pixel ratio.
    """
    _check_shift(shift)
    return shift * sigma / (1 + (shift - 1) * sigma)


def native(steps: int, shift: float) -> Float[Tensor, " S"]:
    """The grid the released models were tuned on: evenly spaced from 0.999, shifted, then 0. S is `steps + 1`.

    Raises:
        SettingsError: `steps` or `shift` out of range.
    """
    _check_steps(steps)
    base = torch.linspace(1 - TRAINING_STEP, 0, steps + 1, dtype=torch.float64)
    return _finish(shift_sigma(base[:-1], shift))


def flow(steps: int, shift: float) -> Float[Tensor, " S"]:
    """The stock flow grid of other pipelines: evenly spaced from 1 towards 0.001, shifted, then 0. S is `steps + 1`.

    The first level is lowered by 1e-6, because log(1 - sigma) of a solver has no value at 1. Differs from `native` by
    up to 6e-3 at the low end.

    Raises:
        SettingsError: `steps` or `shift` out of range.
    """
    _check_steps(steps)
    base = torch.linspace(1, TRAINING_STEP, steps + 1, dtype=torch.float64)
    sigmas = shift_sigma(base[:-1], shift)
    sigmas[0] -= 1e-6
    return _finish(sigmas)


def karras(steps: int) -> Float[Tensor, " S"]:
    """The grid of the released Nano and Super scheduler configuration. S is `steps + 1`.

    Noise-to-signal ratios r from 200 to 0.147 with rho 7, as sigma = r / (1 + r), then 0. It has no shift.

    Raises:
        SettingsError: `steps` out of range.
    """
    _check_steps(steps)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = KARRAS_RATIO_MAX ** (1 / KARRAS_RHO), KARRAS_RATIO_MIN ** (1 / KARRAS_RHO)
    ratio = (high + ramp * (low - high)) ** KARRAS_RHO
    return _finish(ratio / (1 + ratio))


def distilled(levels: Sequence[float]) -> Float[Tensor, " S"]:
    """The fixed levels of a few-step model, then 0. S is `len(levels) + 1`.

    Raises:
        SettingsError: the levels do not fall strictly from at most 1 to above 0.
    """
    falling = all(a > b for a, b in pairwise(levels))
    if not levels or not falling or not 0 < levels[-1] <= levels[0] <= 1:
        raise SettingsError(f"Distilled levels must fall strictly within (0, 1], got {list(levels)}.")
    return _finish(torch.tensor(levels, dtype=torch.float64))


def grid(kind: Schedule, steps: int, shift: float | None) -> Float[Tensor, " S"]:
    """The grid named by a request.

    The rule for shift: `native` and `flow` need one; `karras` has none, so asking for both is refused. (Other pipelines
    drop the shift in silence there.)

    Raises:
        SettingsError: a shift with `karras`, none with another grid, or a number out of range.
    """
    if kind == "karras":
        if shift is not None:
            raise SettingsError(
                f"The karras grid has no shift, got shift {shift}. Leave shift out, or ask for schedule 'native'."
            )
        return karras(steps)
    if shift is None:
        raise SettingsError(f"The {kind} grid needs a shift, got none. 3, 5 and 10 suit tiers 256, 480 and 720.")
    return native(steps, shift) if kind == "native" else flow(steps, shift)


def _finish(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= 1000:
        raise SettingsError(f"Steps must be 1 to 1000, got {steps}. 30 to 50 suit models that are not distilled.")


def _check_shift(shift: float) -> None:
    if not 0 < shift < float("inf"):
        raise SettingsError(f"Shift must be a positive finite number, got {shift}. 1 leaves the grid as it is.")
