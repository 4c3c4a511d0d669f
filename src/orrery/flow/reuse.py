"""Turns at which the network is not asked: the velocity is extrapolated from the last two that it gave.

As long as the velocity hardly changes from turn to turn, a straight line through the last two, in the noise level, is
near the next one. How much it changed between those two, carried on to the level in question, is taken for the error,
and as soon as that exceeds a threshold the network is asked again. What comes of it is approximate, and its price is
measured only by sampling both ways (`benchmarks/price.py`).

Source: the accumulated relative change as the sign for skipping is that of TeaCache, arXiv:2411.19108, which reads it
off the network's input.
"""

from dataclasses import dataclass, field
from math import inf, isfinite

import torch

from orrery.errors import SettingsError
from orrery.flow.samplers import Latents

ALWAYS = 2
"""So many turns at the beginning of a run and at its end are always computed: there the velocity bends most."""


@dataclass(kw_only=True, eq=False)
class Reuse:
    """One run's velocities so far, and whether the next one is computed."""

    threshold: float
    """Relative change since the last computed velocity up to which none is computed."""
    turns: int
    """Velocities that the sampler asks for in all."""
    _past: list[tuple[float, Latents]] = field(default_factory=list)
    """Noise levels and velocities, the last two that were computed under the same circumstances."""
    _change: float = inf
    """Relative change between the two, per unit of the noise level."""
    _under: object = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    def guess(self, turn: int, sigma: float, *, under: object = None) -> Latents | None:
        """The velocity at a turn, or None: ask the network.

        Args:
            turn: 0 at first.
            sigma: exact noise level of the latents.
            under: all else that decides what the velocity is, such as whether guidance acts. Nothing is extrapolated
                from what was computed under other circumstances.
        """
        inside = ALWAYS <= turn < self.turns - ALWAYS
        if not inside or len(self._past) < 2 or under != self._under:
            return None
        (before, v), (last, w) = self._past
        if sigma == last or self._change * abs(sigma - last) > self.threshold:
            return None
        share = (sigma - last) / (last - before)
        return [b + share * (b - a) for a, b in zip(v, w, strict=True)]

    def learn(self, sigma: float, velocity: Latents, *, under: object = None) -> None:
        """Keep what the network said at a noise level."""
        if under != self._under or (self._past and self._past[-1][0] == sigma):
            self._past.clear()
        self._past, self._under = [*self._past[-1:], (sigma, velocity)], under
        if len(self._past) == 2:
            (before, v), (last, w) = self._past
            # Of the segment that changes most: many quiet pixels must not hide a few restless actions.
            changes = torch.stack([(b - a).norm() / b.norm() for a, b in zip(v, w, strict=True)])
            # Segments that are given have no velocity: 0 / 0.
            self._change = float(changes.nan_to_num(0.0, posinf=inf).max()) / abs(last - before)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that means nothing.

    Raises:
        SettingsError: not above 0, or not finite.
    """
    if not (threshold > 0 and isfinite(threshold)):
        raise SettingsError(f"reuse must be above 0 and finite, got {threshold}. Leave it out to compute every turn.")
