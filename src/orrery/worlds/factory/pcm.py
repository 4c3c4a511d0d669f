"""The sound of an attempt as 16 kHz samples, a third of the rate at which it is synthesised."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int16

from orrery.worlds.factory.history import History
from orrery.worlds.factory.sound import RATE_HZ, synthesise

PCM_HZ = 16_000
FACTOR = RATE_HZ // PCM_HZ
HALF_TAPS = 60
EDGE_HZ = 7_400.0
"""Where the filter is half way down: with 121 taps and KAISER, 0.1 dB at 6.8 kHz and 70 dB at 8 kHz."""
KAISER = 7.0


def pcm(history: History, start_s: float, stop_s: float) -> Int16[np.ndarray, "N 2"]:
    """What is heard from `start_s` to `stop_s`, left and right."""
    # The filter looks this far to both sides.
    margin_s = HALF_TAPS / RATE_HZ
    heard = decimated(synthesise(history, start_s - margin_s, stop_s + margin_s))
    # Samples are within (-1, 1); only the ringing of the filter can exceed that.
    return np.asarray(np.rint(np.clip(heard, -1, 1) * 32767), dtype=np.int16)


def decimated(samples: Float32[np.ndarray, "M 2"]) -> Float32[np.ndarray, "N 2"]:
    """Every third sample after a low pass without delay. The outer HALF_TAPS samples of each end are used up."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, 2 * HALF_TAPS + 1, axis=0)[::FACTOR]
    count = (len(samples) - 2 * HALF_TAPS) // FACTOR
    return np.asarray(windows[:count] @ low_pass().astype(np.float32))


@lru_cache(maxsize=1)
def low_pass() -> Float64[np.ndarray, " taps"]:
    """A windowed sinc whose sum is 1."""
    at = np.arange(-HALF_TAPS, HALF_TAPS + 1)
    taps = np.sinc(2 * EDGE_HZ / RATE_HZ * at) * np.kaiser(2 * HALF_TAPS + 1, KAISER)
    return np.asarray(taps / taps.sum())
