"""Classifier-free guidance: how two velocities become one, and at which noise levels. Knows no model and no prompt."""

from collections.abc import Sequence

from orrery.errors import SettingsError
from orrery.flow.samplers import Latents


def combine(conditional: Latents, unconditional: Latents, scales: Sequence[float]) -> Latents:
    """`unconditional + scale * (conditional - unconditional)`, one scale per segment.

    A scale of 1 gives the conditional velocity to the bit. The same rule serves control guidance, with the velocity
    under no control as the unconditional one.

    Args:
        conditional: velocity under the prompt, one (T, P, C) per segment.
        unconditional: velocity under the negative prompt, same shapes.
        scales: one per segment.

    Raises:
        ValueError: the three do not have one entry per segment.

    Source: arXiv:2207.12598, equation 6, with 1 + w written as the scale.
    """
    return [
        c if scale == 1 else u.float() + scale * (c.float() - u.float())
        for c, u, scale in zip(conditional, unconditional, scales, strict=True)
    ]


def applies(clock: float, interval: tuple[float, float] | None) -> bool:
    """Whether guidance acts at this level; outside the interval the conditional velocity stands alone.

    Args:
        clock: what the network is told, in [0, 1] (`samplers.Query.clock`).
        interval: open (lo, hi) on the scale 0 to 1000, both ends left out. None guides everywhere.

    Raises:
        SettingsError: the interval is empty.

    Source: arXiv:2404.07724.
    """
    if interval is None:
        return True
    low, high = interval
    if not low < high:
        raise SettingsError(f"A guidance interval needs lo < hi on the scale 0 to 1000, got ({low}, {high}).")
    # An end that equals the clock is left out: rounding makes whole thousandths whole again, which 1000 * 0.57 is not.
    return low < round(1000 * clock, 6) < high


def guided(scales: Sequence[float], clock: float, interval: tuple[float, float] | None) -> bool:
    """Whether the unconditional pass is needed at all: some scale is not 1 and the interval covers this level."""
    return any(scale != 1 for scale in scales) and applies(clock, interval)
