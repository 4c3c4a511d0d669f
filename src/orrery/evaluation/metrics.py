"""How far a prediction is from what was recorded, in pixels and in actions, and how sure that is.

A figure that does not exist (no pixel moved, a column never changed) is None, never NaN. What a figure has to beat is
in `baselines`; how it is shown is in `page`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, UInt8

from orrery.errors import SettingsError

MOVING_THRESHOLD = 24
"""A pixel moves when one of its colours, 0 to 255, differs from the first frame by more than this. Compression noise of
the recordings here stays below it."""

Z_95 = 1.959964
"""Of the normal distribution, for intervals of 95 %."""

Window = TypeVar("Window")


@dataclass(frozen=True, kw_only=True)
class PixelError:
    """A sum of squared differences over colour values of 0 to 255, so that windows can be pooled exactly."""

    squared: float
    values: int

    @property
    def mean_squared(self) -> float | None:
        """squared / values; None where there are no values."""
        return self.squared / self.values if self.values else None

    @property
    def psnr_db(self) -> float | None:
        """10 log10(255^2 / mean_squared); infinite where nothing differs, None where there are no values."""
        if not self.values:
            return None
        return 10 * math.log10(255**2 * self.values / self.squared) if self.squared else math.inf


def moving_pixels(true: UInt8[np.ndarray, "T H W 3"], threshold: int = MOVING_THRESHOLD) -> Bool[np.ndarray, "T H W"]:
    """True where max over colours of |true[t] - true[0]| > threshold: from the recording alone, so that no prediction
    chooses where it is looked at. Frame 0 has none.
    """
    change = np.abs(true.astype(np.int16) - true[:1].astype(np.int16)).max(axis=-1)
    moving: Bool[np.ndarray, "T H W"] = change > threshold
    return moving


def pixel_error(
    predicted: UInt8[np.ndarray, "T H W 3"],
    true: UInt8[np.ndarray, "T H W 3"],
    mask: Bool[np.ndarray, "T H W"] | None = None,
) -> PixelError:
    """Squared differences over the three colours of the pixels in `mask`, of all pixels when None."""
    squared = np.square(predicted.astype(np.float64) - true.astype(np.float64)).sum(axis=-1)
    if mask is None:
        return PixelError(squared=float(squared.sum()), values=3 * squared.size)
    return PixelError(squared=float(squared[mask].sum()), values=3 * int(mask.sum()))


def pooled(errors: Sequence[PixelError]) -> PixelError:
    """One error over all pixels of several windows: sums add up, so a window counts by how many pixels it has."""
    return PixelError(squared=sum(error.squared for error in errors), values=sum(error.values for error in errors))


def mean_absolute_error(predicted: Float[np.ndarray, "N A"], true: Float[np.ndarray, "N A"]) -> Float[np.ndarray, " A"]:
    """mean over rows of |predicted - true|, for each column in its own unit."""
    return np.abs(predicted.astype(np.float64) - true.astype(np.float64)).mean(axis=0)


def r_squared(predicted: Float[np.ndarray, "N A"], true: Float[np.ndarray, "N A"]) -> tuple[float | None, ...]:
    """1 - sum (predicted - true)^2 / sum (true - mean true)^2 for each column; None for one that never changes, by 1e-6
    of its largest value or of 1.

    1 is perfect, 0 is what their own mean would score, and worse than the mean is negative.
    """
    missed = np.square(predicted.astype(np.float64) - true.astype(np.float64)).sum(axis=0)
    spread = np.square(true.astype(np.float64) - true.mean(axis=0, dtype=np.float64)).sum(axis=0)
    # A constant column of float32 values has a spread of rounding errors, not of 0.
    least = 1e-12 * len(true) * np.maximum(np.square(true.astype(np.float64)).max(axis=0), 1.0)
    return tuple(
        float(1 - miss / total) if total > floor else None
        for miss, total, floor in zip(missed, spread, least, strict=True)
    )


def bootstrap_interval(
    windows: Sequence[Window],
    statistic: Callable[[Sequence[Window]], float],
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap: `statistic` over as many windows drawn with replacement, `resamples` times.

    The interval lies between the (1 - level) / 2 and (1 + level) / 2 quantiles of what came out.

    Windows that overlap or follow each other are not independent, so the interval is then too narrow.

    Raises:
        SettingsError: no windows, fewer than 2 resamples, or a level outside (0, 1).

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, section 13.3.
    """
    if not windows or resamples < 2 or not 0 < level < 1:
        raise SettingsError(
            f"A bootstrap needs windows, 2 resamples and a level in (0, 1); got {len(windows)}, {resamples}, {level}."
        )
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(windows), size=(resamples, len(windows)))
    values = [statistic([windows[index] for index in row]) for row in drawn]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(right: int, of: int) -> tuple[float, float]:
    """The interval of 95 % of a share. Source: Wilson 1927, Journal of the American Statistical Association 22."""
    if of < 1:
        raise SettingsError(f"There is no share of {of} cases.")
    share = right / of
    middle = (share + Z_95**2 / (2 * of)) / (1 + Z_95**2 / of)
    half = Z_95 * (share * (1 - share) / of + Z_95**2 / (4 * of**2)) ** 0.5 / (1 + Z_95**2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)
