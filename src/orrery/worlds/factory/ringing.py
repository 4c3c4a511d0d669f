"""How two bodies ring when one strikes the other: sines that die away, at pitches of their material and shape.

The modes of both bodies sound (thin plates and bars; compact parts have none that can be heard), softened by the time
the contact lasts (Hertz), and a click: a body that is suddenly stopped pushes air.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Complex128, Float32, Float64

from orrery.worlds.factory.history import RATE_HZ, Body, Strike
from orrery.worlds.factory.materials import MATERIALS

SOUND_M_S = 343.0
AIR_KG_M3 = 1.2
FULL_SCALE_PA = 110.0
"""What a sample of 1 stands for: a heavy part dropped from 32 cm onto a tray stays below sound.LIMIT (measured)."""
INAUDIBLE = 1e-5
"""A ringing ends when it has faded to this."""
THINNED_S = (0.05, 0.15, 0.4, 1.0)
"""After a blow: when modes that have died are left out."""
HIGHEST_HZ = 18_000
RING_PA = 9.0
"""Pressure at 1 m of one mode of a 1 kg body, struck with 1 Ns where it moves most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Voice:
    """Pressure in Pa at 1 m, t seconds after a blow: the imaginary part of the sum of `amplitudes` exp(`rates` t)."""

    rates: Complex128[np.ndarray, " K"]
    amplitudes: Float64[np.ndarray, " K"]
    rings_s: Float64[np.ndarray, " K"]
    """Until each is INAUDIBLE, rising."""
    fades_s: float
    """Until 60 dB below the beginning."""


@lru_cache(maxsize=4096)
def voice(strike: Strike) -> Voice:
    lasts_s = contact_time_s(strike)
    rates, amplitudes = [], []
    for which, body in enumerate(strike.bodies):
        row = MATERIALS[body.material]
        frequencies = modes_hz(body)
        # A golden-ratio sequence: blows spread evenly over the body, and no generator has to be made.
        place = 0.1 + 0.8 * ((0.618034 * (strike.seed + 1) + 0.3 * which) % 1.0)
        reached = 0.3 + 0.7 * np.abs(np.sin(np.pi * place * np.arange(1, len(frequencies) + 1)))
        # A surface radiates badly below the frequency at which it is half a wave long: the air goes round its edge.
        waves = 2 * frequencies * body.length_m / SOUND_M_S
        heard = row.radiation * waves**2 / (1 + waves**2)
        rates.append(_decay(body, frequencies) + 2j * np.pi * frequencies)
        amplitudes.append(
            RING_PA * strike.impulse_Ns / body.mass_kg**0.5 * reached * heard * _half_sine(frequencies * lasts_s)
        )
        # Acceleration noise of a compact body of volume V that stops within `lasts`: rho V / (4 pi c r) times the
        # derivative of its acceleration. Sound needs time to go round it, which smooths the pulse.
        smooth_s = (lasts_s**2 + (body.thickness_m / SOUND_M_S) ** 2) ** 0.5
        volume = body.mass_kg / row.density_kg_m3
        jerk = np.pi**2 / 2 * strike.impulse_Ns / body.mass_kg / smooth_s**2
        pitch = min(1 / (2 * smooth_s), HIGHEST_HZ)
        rates.append(np.array([-1 / smooth_s + 2j * np.pi * pitch]))
        amplitudes.append(np.array([AIR_KG_M3 * volume / (4 * np.pi * SOUND_M_S) * jerk]))
    rate, amplitude = np.concatenate(rates), np.concatenate(amplitudes)
    floor = INAUDIBLE * FULL_SCALE_PA / len(rate)
    rings = np.log(np.maximum(amplitude / floor, 1.0)) / -rate.real
    fades = np.log(np.maximum(amplitude / (1e-3 * amplitude.max()), 1.0)) / -rate.real
    order = np.argsort(rings)
    return Voice(rates=rate[order], amplitudes=amplitude[order], rings_s=rings[order], fades_s=float(fades.max()))


def contact_time_s(strike: Strike) -> float:
    """How long two elastic balls of these masses and materials touch (Hertz): 2.87 (m^2 / (R E*^2 v))^(1/5).

    m is the reduced mass, v the impulse over it, R half the thickness of the lighter body.
    """
    one, other = strike.bodies
    mass = one.mass_kg * other.mass_kg / (one.mass_kg + other.mass_kg)
    compliance = sum((1 - MATERIALS[b.material].poisson ** 2) / MATERIALS[b.material].hertz_Pa for b in strike.bodies)
    radius = min(strike.bodies, key=lambda body: body.mass_kg).thickness_m / 2
    speed = max(strike.impulse_Ns, 1e-9) / mass
    return float(2.87 * (mass**2 * compliance**2 / (radius * speed)) ** 0.2)


@lru_cache(maxsize=1024)
def modes_hz(body: Body) -> Float64[np.ndarray, " K"]:
    """Frequencies of the modes below 18 kHz that are heard: of a plate on its edges, or of a free bar if it is narrow.

    A plate has hundreds; the ones taken lie ever further apart, so that few of them span what can be heard.
    """
    row = MATERIALS[body.material]
    if body.width_m < body.length_m / 4:
        # Euler-Bernoulli, free ends: (beta L)^2 of the first modes, I / A = thickness^2 / 12.
        beta = np.array([4.730, 7.853, *((2 * np.arange(3, 12) + 1) * np.pi / 2)])
        stiffness = (row.youngs_modulus_Pa / row.density_kg_m3 * body.thickness_m**2 / 12) ** 0.5
        found = beta**2 / (2 * np.pi * body.length_m**2) * stiffness
    else:
        # Kirchhoff, simply supported: pi / 2 sqrt(D / (rho h)) (m^2 / a^2 + n^2 / b^2), D = E h^3 / (12 (1 - nu^2)).
        stiffness = (
            row.youngs_modulus_Pa * body.thickness_m**2 / (12 * (1 - row.poisson**2) * row.density_kg_m3)
        ) ** 0.5
        m, n = np.meshgrid(np.arange(1, 40), np.arange(1, 40))
        found = np.sort((np.pi / 2 * stiffness * ((m / body.length_m) ** 2 + (n / body.width_m) ** 2)).ravel())
    found = found[found < HIGHEST_HZ]
    if len(found) <= row.modes:
        return found
    chosen = np.unique(np.geomspace(1, len(found), row.modes).round().astype(int)) - 1
    return found[chosen]


def _decay(body: Body, frequencies: Float64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    row = MATERIALS[body.material]
    return -0.5 * (row.damping_alpha_1_s + row.damping_beta_s * (2 * np.pi * frequencies) ** 2)


def _half_sine(cycles: Float64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    """How much a half-sine pulse excites a mode that does `cycles` within it, against an instant blow."""
    cycles = np.where(np.abs(cycles - 0.5) < 1e-6, 0.5 + 1e-6, cycles)
    return np.abs(np.cos(np.pi * cycles) / (1 - 4 * cycles**2))


def add_strike(heard: Float64[np.ndarray, " N"], first: int, strike: Strike, distance: float, delay_s: float) -> None:
    """Add one blow to the samples from `first` on, heard at a distance and after a delay."""
    arrival_s = strike.time_s + delay_s
    if arrival_s * RATE_HZ > first + len(heard):
        return
    rung = voice(strike)
    edges = np.ceil((arrival_s + np.array([0.0, *THINNED_S, rung.rings_s[-1]])) * RATE_HZ).astype(int)
    for start, stop in itertools.pairwise(np.minimum(edges, edges[-1]).tolist()):
        # A mode is left out from the first edge after its end: edges are where they are whatever the window.
        alive = int(np.searchsorted(rung.rings_s, start / RATE_HZ - arrival_s))
        begin, end = max(start, first), min(stop, first + len(heard))
        if begin < end:
            rates = rung.rates[alive:]
            now = rung.amplitudes[alive:] / distance * np.exp((begin / RATE_HZ - arrival_s) * rates)
            heard[begin - first : end - first] += _ringing(now, rates, end - begin)


def _ringing(
    amplitudes: Complex128[np.ndarray, " K"], rates: Complex128[np.ndarray, " K"], count: int
) -> Float32[np.ndarray, " {count}"]:
    """Imaginary part of the sum over K of amplitudes exp(rates n / 48000).

    exp(a + b) = exp(a) exp(b): with n = block row + column the sum over K is one product of two small matrices.
    """
    block = max(16, int(count**0.5))
    rows = -(-count // block)
    coarse = amplitudes * np.exp(np.arange(rows)[:, None] * (block / RATE_HZ) * rates)  # (rows, K)
    fine = np.exp(np.arange(block)[:, None] / RATE_HZ * rates)  # (block, K)
    left = np.concatenate([coarse.real, coarse.imag], axis=1, dtype=np.float32)
    right = np.concatenate([fine.imag, fine.real], axis=1, dtype=np.float32)
    return (left @ right.T).reshape(-1)[:count]
