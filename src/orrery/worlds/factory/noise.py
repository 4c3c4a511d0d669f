"""Scrapes, running motors and beeps as they sound at 1 m, and the tables of noise that they are cut from.

A scrape is noise as loud as force times speed, brighter when faster. Motors whine with their speed, a gripper hisses.
All are in Pa, one value for each of the samples `index`, counted from time 0 and with no gap.
"""

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64

from orrery.worlds.factory.history import MOTORS, RATE_HZ, Beep, Motor, Scrape, cycles
from orrery.worlds.factory.materials import MATERIALS

SCRAPE_PA = 0.08
"""RMS at 1 m of steel on steel per N m/s."""
BEEP_PA = 3.0
BEEP_EDGE_S = 0.005
TABLE = 1 << 17
"""Samples after which the noise repeats."""
TURN = 1 << 14
"""Samples of one turn of a gear's tone."""
BANDS_HZ = (150, 400, 1000, 2500, 6000, 13000)
"""Middle of each octave and a bit of the noise tables."""
HARMONICS = (1.0, 0.5, 0.3, 0.15)


def scraping(entry: Scrape, index: np.ndarray, noise: Float32[np.ndarray, "table bands"]) -> np.ndarray:
    rows = [MATERIALS[body.material] for body in entry.bodies]
    # Longitudinal waves run at sqrt(E / rho), 5 km/s in steel: stiff and light sounds bright. The duller one decides.
    bright = min(row.youngs_modulus_Pa / row.density_kg_m3 for row in rows) ** 0.5 / 5000
    cutoff = 6000 * bright**0.5 * (entry.speed_m_s / 0.2) ** 0.5
    shares = 1 / (1 + (np.array(BANDS_HZ) / cutoff) ** 2)
    shares *= np.array(BANDS_HZ) ** 2 / (np.array(BANDS_HZ) ** 2 + 500.0**2)
    loud = SCRAPE_PA * (rows[0].roughness * rows[1].roughness) ** 0.5 * entry.force_N * entry.speed_m_s
    times = index / RATE_HZ
    lasts = entry.stop_s - entry.start_s
    hat = np.interp(times, [entry.start_s, entry.stop_s, entry.stop_s + lasts], [0.0, 1.0, 0.0])
    names = f"{entry.bodies[0].name} {entry.bodies[1].name}"
    return loud * hat * _banded(int(index[0]), len(index), names, shares, noise)


def running(steps: Sequence[Motor], index: np.ndarray, noise: Float32[np.ndarray, "table bands"]) -> np.ndarray:
    kind = MOTORS[steps[0].kind]
    made = np.zeros(len(index))
    # A sample belongs to the step in which its time lies, wherever the window begins.
    first = int(index[0])
    for step in steps:
        begin = max(math.ceil(step.start_s * RATE_HZ) - first, 0)
        end = min(math.ceil(step.stop_s * RATE_HZ) - first, len(index))
        if begin >= end or step.speed_from == step.speed_to == 0:
            continue
        since = index[begin:end] / RATE_HZ - step.start_s
        rise = (abs(step.speed_to) - abs(step.speed_from)) / (step.stop_s - step.start_s)
        level = (abs(step.speed_from) + rise * since) / kind.full_speed
        if kind.tone_Pa:
            made[begin:end] += kind.tone_Pa * level * _tone()[(cycles(step, since) % 1.0 * TURN).astype(int)]
        if kind.noise_Pa:
            hiss = _banded(first + begin, end - begin, step.name, np.array(kind.noise_bands), noise)
            made[begin:end] += kind.noise_Pa * level * hiss
    return made


def beeping(entry: Beep, index: np.ndarray) -> np.ndarray:
    since = index / RATE_HZ - entry.time_s
    edge = np.minimum(since, entry.duration_s - since) / BEEP_EDGE_S
    return BEEP_PA * np.clip(edge, 0, 1) * np.sin(2 * np.pi * entry.frequency_Hz * since)


def _banded(
    start: int, count: int, name: str, shares: np.ndarray, noise: Float32[np.ndarray, "table bands"]
) -> np.ndarray:
    """Noise of RMS 1 from the table, at a place of its own for each name."""
    piece = cut(noise[:, 1:], start + zlib.crc32(name.encode()), count)
    return piece @ (shares / np.linalg.norm(shares)).astype(np.float32)


def cut(table: Float32[np.ndarray, "table *bands"], start: int, count: int) -> Float32[np.ndarray, "N *bands"]:
    """Rows start..start + count of a table that repeats."""
    start %= len(table)
    if start + count <= len(table):
        return table[start : start + count]
    return table[np.arange(start, start + count) % len(table)]


@lru_cache(maxsize=1)
def _tone() -> Float64[np.ndarray, " n"]:
    """One turn of a gear's tone, RMS 1."""
    phase = 2 * np.pi * np.arange(TURN) / TURN
    wave = sum(gain * np.sin((k + 1) * phase + k) for k, gain in enumerate(HARMONICS))
    return np.asarray(wave / np.sqrt(np.mean(np.square(wave))))


@lru_cache(maxsize=8)
def noise_table(seed: int) -> Float32[np.ndarray, "table bands"]:
    """White noise in column 0, then a column for each band; RMS 1 each, and repeating without a seam."""
    white = np.random.default_rng([seed, 48]).standard_normal((TABLE, 1 + len(BANDS_HZ)))
    spectrum = np.fft.rfft(white[:, 1:], axis=0)
    frequencies = np.fft.rfftfreq(TABLE, 1 / RATE_HZ)[1:, None]
    # A bell on a logarithmic axis, about 1.3 octaves wide between its halves.
    spectrum[1:] *= np.exp(-0.5 * (np.log2(frequencies / np.array(BANDS_HZ)) / 0.55) ** 2)
    spectrum[0] = 0
    white[:, 1:] = np.fft.irfft(spectrum, TABLE, axis=0)
    return (white / np.sqrt(np.mean(white**2, axis=0))).astype(np.float32)
