"""Predictions that understand nothing. A figure counts only next to the one that these reach on the same windows."""

import numpy as np
from einops import repeat
from jaxtyping import Float, Float64, Int, UInt8

from orrery.errors import SettingsError


def copy_last_frame(given: UInt8[np.ndarray, "G H W 3"], frames: int) -> UInt8[np.ndarray, "{frames} H W 3"]:
    """Nothing moves any more: the given frames, then the last of them again and again, `frames` in all."""
    if not 1 <= len(given) <= frames:
        raise SettingsError(f"{frames} frames cannot start with {len(given)} given ones. Give 1 to {frames}.")
    still = repeat(given[-1], "h w c -> t h w c", t=frames - len(given))
    return np.concatenate([given, still])


def mean_future(windows: UInt8[np.ndarray, "N T H W 3"]) -> UInt8[np.ndarray, "T H W 3"]:
    """What usually comes: the mean over training windows, frame by frame, rounded."""
    mean = np.zeros(windows.shape[1:], dtype=np.float64)
    for window in windows:
        mean += window
    return np.rint(mean / len(windows)).astype(np.uint8)


def mean_action(actions: Float[np.ndarray, "N A"]) -> Float64[np.ndarray, " A"]:
    """The mean row of the training actions: the best constant guess by squared error."""
    return actions.mean(axis=0, dtype=np.float64)


def derangement(count: int, seed: int) -> Int[np.ndarray, "{count}"]:
    """A permutation of 0..count-1 that leaves nothing in its place, each with equal chance.

    Actions shuffled by it belong to another window for certain, and each chunk is used once, so that true and shuffled
    actions have exactly the same distribution.

    Raises:
        SettingsError: fewer than 2 have no such permutation.
    """
    if count < 2:
        raise SettingsError(f"{count} windows cannot swap their actions. Give at least 2.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    # About one permutation in e is a derangement, whatever the count.
    while (order == np.arange(count)).any():
        order = rng.permutation(count)
    return order
