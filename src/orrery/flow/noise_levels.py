"""The noise levels that training draws. What sampling visits is `flow.schedule`."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from orrery.errors import SettingsError
from orrery.flow.schedule import shift_sigma

Kind = Literal["uniform", "logitnormal", "waver", "ltx2"]

SHIFT_OF_TIER = {256: 3.0, 480: 5.0, 720: 10.0}
"""Shift by resolution tier in the released recipes."""

# Mode sampling with scale 1.29, arXiv:2403.03206 equation 20.
WAVER_SCALE = 1.29
# ltx2: the 0.5 % and 99.9 % points of a standard normal, the lowest level drawn, and the share drawn evenly instead.
LTX2_QUANTILES = (-2.5758, 3.0902)
LTX2_FLOOR = 1e-3
LTX2_UNIFORM_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """A distribution of sigma: a raw draw, then the shift of `schedule.shift_sigma`.

    `ltx2` centres its draw on log(shift) instead and is not shifted again. Released recipes use `waver` for video and
    `logitnormal` for images, actions and sound.
    """

    kind: Kind
    shift: float

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise SettingsError(
                f"Shift must be a positive finite number, got {self.shift}. 1 leaves the draw as it is."
            )

    def draw(self, n: int, rng: torch.Generator) -> Float[Tensor, "{n}"]:
        """Draw n noise levels in [0, 1], float32, on the generator's device.

        Drawn in float64 and rounded once: near 1 the shifted levels crowd, and float32 arithmetic would tie them.
        """
        if self.kind == "ltx2":
            return _ltx2(n, self.shift, rng).float()
        if self.kind == "uniform":
            raw = _uniform(n, rng)
        elif self.kind == "logitnormal":
            raw = torch.sigmoid(_normal(n, rng))
        else:
            u = _uniform(n, rng)
            raw = 1 - u - WAVER_SCALE * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
        return shift_sigma(raw, self.shift).float()


def _ltx2(n: int, shift: float, rng: torch.Generator) -> Tensor:
    centre = math.log(shift)
    low, high = (1 / (1 + math.exp(-(centre + quantile))) for quantile in LTX2_QUANTILES)
    levels = (torch.sigmoid(centre + _normal(n, rng)) - low) / (high - low)
    levels = torch.where(levels < LTX2_FLOOR, 2 * LTX2_FLOOR - levels, levels).clamp(0, 1)
    even = LTX2_FLOOR + (1 - LTX2_FLOOR) * _uniform(n, rng)
    return torch.where(_uniform(n, rng) < LTX2_UNIFORM_SHARE, even, levels)


def _uniform(n: int, rng: torch.Generator) -> Tensor:
    return torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64)


def _normal(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, generator=rng, device=rng.device, dtype=torch.float64)
