"""The sound of a factory cell as a pure function of what happened: `synthesise(history, start_s, stop_s)`.

Every sample is computed from its absolute time alone, by closed forms and tables of noise: no filter has a state. So a
second cut into windows sounds the same as in one piece, and an event can be taken out, moved or given another material
(`mute`, `shifted`, `with_material`, `mirrored`) without touching the rest. `labels` says what can be heard, and why.

- A strike rings the modes of both bodies (thin plates and bars; compact parts have none that can be heard), softened by
  the time the contact lasts (Hertz), and clicks: a body that is suddenly stopped pushes air.
- A scrape is noise as loud as force times speed, brighter when faster. Motors whine with their speed, a gripper hisses.
- Each microphone hears a source after distance / 343 m/s, as 1 / distance, and again from the walls.

Levels: physics gives how blows compare with each other; motors, scrapes and beeps are set louder against them than in
a real cell, or the range from a hum to steel on a tray would put them below the noise floor.
"""

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Complex128, Float32, Float64

from orrery.errors import SettingsError
from orrery.worlds.factory.contacts import Impact, Point, Rubbing
from orrery.worlds.factory.materials import MATERIALS

RATE_HZ = 48_000
SOUND_M_S = 343.0
AIR_KG_M3 = 1.2
MICROPHONES: tuple[Point, Point] = ((-0.35, -0.45, 0.25), (0.35, -0.45, 0.25))
"""Left and right."""
ECHOES = ((0.0047, 0.32), (0.0079, -0.24), (0.0113, 0.19), (0.0171, 0.13), (0.0237, -0.09))
"""Seconds after the direct sound, and gain: a few early reflections, the same for all sources and both microphones, so
that they blur neither which side is louder nor which is earlier."""

FULL_SCALE_PA = 110.0
"""What a sample of 1 stands for: a heavy part dropped from 32 cm onto a tray stays below LIMIT (measured)."""
FLOOR = 10 ** (-50 / 20)
"""RMS of the noise that is always there."""
LIMIT = 0.8
"""Samples up to here are untouched; beyond, they bend towards 1 and never reach it."""
INAUDIBLE = 1e-5
"""A ringing ends when it has faded to this."""
THINNED_S = (0.05, 0.15, 0.4, 1.0)
"""After a blow: when modes that have died are left out."""
HIGHEST_HZ = 18_000
RING_PA = 9.0
"""Pressure at 1 m of one mode of a 1 kg body, struck with 1 Ns where it moves most."""
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


@dataclass(frozen=True, kw_only=True)
class Body:
    """What sounds: a plate, bar or lump, by its outer sizes."""

    name: str
    material: str
    """A row of MATERIALS."""
    mass_kg: float
    length_m: float
    """The longest side, then the middle, then the shortest."""
    width_m: float
    thickness_m: float

    def __post_init__(self) -> None:
        if self.material not in MATERIALS:
            raise SettingsError(f"{self.name} is of {self.material!r}. Known materials: {', '.join(MATERIALS)}.")
        if not self.length_m >= self.width_m >= self.thickness_m > 0 or not self.mass_kg > 0:
            raise SettingsError(
                f"{self.name} has sides {(self.length_m, self.width_m, self.thickness_m)} m and {self.mass_kg} kg. "
                "Give a mass and sides above 0, the longest first."
            )


@dataclass(frozen=True, kw_only=True)
class Strike:
    """Two bodies hit each other."""

    time_s: float
    bodies: tuple[Body, Body]
    impulse_Ns: float  # noqa: N815 - newton seconds
    point_m: Point
    seed: int = 0
    """Where on the bodies the blow falls, and so which modes it wakes."""


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """Two bodies slide on each other: swells from start to stop and fades for as long again, into the next one."""

    start_s: float
    stop_s: float
    bodies: tuple[Body, Body]
    force_N: float  # noqa: N815 - newtons
    speed_m_s: float
    point_m: Point


@dataclass(frozen=True, kw_only=True)
class MotorKind:
    """A row of MOTORS; a speed is in whatever unit `full_speed` is in."""

    full_speed: float
    """At this speed it is as loud as `tone_Pa` and `noise_Pa` say; loudness is proportional to speed."""
    tone_Hz: float  # noqa: N815 - hertz
    """Pitch at full speed (gear teeth passing); proportional to speed."""
    tone_Pa: float  # noqa: N815 - pascals
    noise_Pa: float  # noqa: N815
    noise_bands: tuple[float, ...]
    """Share of each of BANDS_HZ."""


MOTORS = {
    "servo": MotorKind(
        full_speed=0.5, tone_Hz=900.0, tone_Pa=0.4, noise_Pa=0.05, noise_bands=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    ),
    "turn": MotorKind(
        full_speed=3.0, tone_Hz=620.0, tone_Pa=0.3, noise_Pa=0.05, noise_bands=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    ),
    "belt": MotorKind(
        full_speed=0.1, tone_Hz=85.0, tone_Pa=0.3, noise_Pa=0.3, noise_bands=(1.0, 0.5, 0.1, 0.0, 0.0, 0.0)
    ),
    "hiss": MotorKind(
        full_speed=0.1, tone_Hz=0.0, tone_Pa=0.0, noise_Pa=0.7, noise_bands=(0.0, 0.0, 0.1, 0.5, 1.0, 0.7)
    ),
}
"""Metres or radians a second. `hiss` is the valve of a pneumatic gripper, by the speed of its fingers."""
HARMONICS = (1.0, 0.5, 0.3, 0.15)


@dataclass(frozen=True, kw_only=True)
class Motor:
    """One motor during one control step. The tone goes on from `phase_cycles`; `motor_after` makes the next step's.

    It sounds from where it is mounted: a `point_m` that moves between two steps would click.
    """

    name: str
    kind: str
    """A row of MOTORS."""
    start_s: float
    stop_s: float
    speed_from: float
    speed_to: float
    point_m: Point
    phase_cycles: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in MOTORS:
            raise SettingsError(f"{self.name} is a {self.kind!r}. Known kinds of motor: {', '.join(MOTORS)}.")


@dataclass(frozen=True, kw_only=True)
class Beep:
    """A lamp or a machine says something."""

    time_s: float
    duration_s: float
    frequency_Hz: float  # noqa: N815 - hertz
    point_m: Point
    name: str = "machine"


Sounding = Strike | Scrape | Motor | Beep
History = Sequence[Sounding]


@dataclass(frozen=True, kw_only=True)
class Label:
    """Something that can be heard, and its cause. `stop_s` of a strike is when it has faded by 60 dB."""

    time_s: float
    stop_s: float
    kind: str
    """strike, scrape, beep, or the kind of a motor."""
    subjects: tuple[str, ...]
    materials: tuple[str, ...]
    cause: str


def strike_of(impact: Impact, bodies: Mapping[str, Body], seed: int) -> Strike:
    one, other = impact.bodies
    return Strike(
        time_s=impact.time_s, bodies=(bodies[one], bodies[other]), impulse_Ns=impact.impulse_Ns,
        point_m=impact.point_m, seed=seed,
    )  # fmt: skip


def scrape_of(rubbing: Rubbing, bodies: Mapping[str, Body]) -> Scrape:
    one, other = rubbing.bodies
    return Scrape(
        start_s=rubbing.start_s, stop_s=rubbing.stop_s, bodies=(bodies[one], bodies[other]), force_N=rubbing.force_N,
        speed_m_s=rubbing.speed_m_s, point_m=rubbing.point_m,
    )  # fmt: skip


def motor_after(previous: Motor, stop_s: float, speed: float) -> Motor:
    """The motor's next step: from the previous one's speed to `speed`, the tone unbroken."""
    cycles = _cycles(previous, np.array([previous.stop_s - previous.start_s]))[0]
    return replace(
        previous, start_s=previous.stop_s, stop_s=stop_s, speed_from=previous.speed_to, speed_to=speed,
        phase_cycles=float(cycles % 1.0),
    )  # fmt: skip


def synthesise(
    history: History,
    start_s: float,
    stop_s: float,
    microphones: tuple[Point, Point] = MICROPHONES,
    seed: int = 0,
) -> Float32[np.ndarray, "N 2"]:
    """Samples round(48000 start_s) to round(48000 stop_s), left and right, in (-1, 1).

    A window is final once `history` holds everything that began before its end. Contacts are reported 12 ms and up to
    a control step late, so who plays along with a simulation stays one control step and 12 ms behind it.

    Args:
        history: in any order. What ended long ago costs a look at each entry; `still_sounding` thins it out.
        seed: of the noise.

    Raises:
        SettingsError: `stop_s` is before `start_s`.
    """
    first, last = round(start_s * RATE_HZ), round(stop_s * RATE_HZ)
    if last < first:
        raise SettingsError(f"A sound from {start_s} to {stop_s} s ends before it begins.")
    echoes = [(round(later_s * RATE_HZ), gain) for later_s, gain in ECHOES]
    before = echoes[-1][0]
    direct = np.zeros((2, before + last - first))
    noise = _noise(seed)
    motors: dict[tuple[str, str, Point], list[Motor]] = {}
    for entry in history:
        if isinstance(entry, Strike):
            for channel, microphone in enumerate(microphones):
                _add_strike(direct[channel], first - before, entry, microphone)
        elif isinstance(entry, Motor):
            motors.setdefault((entry.name, entry.kind, entry.point_m), []).append(entry)
        else:
            _add_source(direct, first - before, [entry], microphones, noise)
    for steps in motors.values():
        # All steps of a motor at once: a second of twenty costs little more than one.
        _add_source(direct, first - before, sorted(steps, key=_begins), microphones, noise)
    heard = direct[:, before:].copy()
    for later, gain in echoes:
        heard += gain * direct[:, before - later : direct.shape[1] - later]
    heard /= FULL_SCALE_PA
    for channel in range(2):
        # Far apart in the table, so that the two sides have nothing in common.
        heard[channel] += FLOOR * _cut(noise[:, 0], first + channel * TABLE // 2, last - first)
    return _limited(heard).T.astype(np.float32)


def still_sounding(history: History, time_s: float) -> list[Sounding]:
    """The entries that can be heard after `time_s` anywhere within 10 m."""
    late_s = ECHOES[-1][0] + 10 / SOUND_M_S
    return [entry for entry in history if _ends(entry) + late_s > time_s]


def labels(history: History) -> list[Label]:
    """What can be heard, by time. Steps of the same sliding or of the same running motor are one row."""
    rows: list[Label] = []
    runs: dict[tuple[str, ...], Label] = {}
    for entry in sorted(history, key=_begins):
        if isinstance(entry, Motor):
            if max(abs(entry.speed_from), abs(entry.speed_to)) < 0.01 * MOTORS[entry.kind].full_speed:
                continue
            row = Label(
                time_s=entry.start_s, stop_s=entry.stop_s, kind=entry.kind, subjects=(entry.name,), materials=(),
                cause=f"{entry.name} moves",
            )  # fmt: skip
        elif isinstance(entry, Scrape):
            row = Label(
                time_s=entry.start_s, stop_s=entry.stop_s, kind="scrape",
                subjects=(entry.bodies[0].name, entry.bodies[1].name),
                materials=(entry.bodies[0].material, entry.bodies[1].material),
                cause=f"{_described(entry.bodies[0])} slides on {_described(entry.bodies[1])}",
            )  # fmt: skip
        elif isinstance(entry, Strike):
            rows.append(
                Label(
                    time_s=entry.time_s, stop_s=entry.time_s + _voice(entry).fades_s, kind="strike",
                    subjects=(entry.bodies[0].name, entry.bodies[1].name),
                    materials=(entry.bodies[0].material, entry.bodies[1].material),
                    cause=f"{_described(entry.bodies[0])} hits {_described(entry.bodies[1])}"
                    f" with {entry.impulse_Ns:.2g} Ns",
                )
            )  # fmt: skip
            continue
        else:
            rows.append(
                Label(
                    time_s=entry.time_s, stop_s=entry.time_s + entry.duration_s, kind="beep", subjects=(entry.name,),
                    materials=(), cause=f"{entry.name} beeps at {entry.frequency_Hz:.0f} Hz",
                )
            )  # fmt: skip
            continue
        key = (row.kind, *row.subjects, *row.materials)
        # Sliding is reported for the part of a step in which it slid: a gap below a step at 20 Hz is the same sliding.
        if key in runs and row.time_s - runs[key].stop_s < 0.05:
            runs[key] = replace(runs[key], stop_s=row.stop_s)
        else:
            if key in runs:
                rows.append(runs[key])
            runs[key] = row
    return sorted([*rows, *runs.values()], key=lambda row: (row.time_s, row.kind, row.subjects))


def mute(history: History, index: int) -> list[Sounding]:
    """Without one entry."""
    return [entry for i, entry in enumerate(history) if i != index % len(history)]


def shifted(history: History, seconds: float) -> list[Sounding]:
    """Everything `seconds` later. Noise stays where it was, so a hiss is another piece of the same hiss."""
    return [
        replace(entry, start_s=entry.start_s + seconds, stop_s=entry.stop_s + seconds)
        if isinstance(entry, Scrape | Motor)
        else replace(entry, time_s=entry.time_s + seconds)
        for entry in history
    ]


def with_material(history: History, index: int, body: str, material: str) -> list[Sounding]:
    """One strike or scrape as if `body` were of another material, its size and the impulse unchanged.

    Raises:
        SettingsError: the entry has no such body, or there is no such material.
    """
    entry = history[index]
    if not isinstance(entry, Strike | Scrape) or body not in (entry.bodies[0].name, entry.bodies[1].name):
        raise SettingsError(f"Entry {index} is no strike or scrape of {body!r}, but {entry}.")
    one, other = (_made_of(part, material) if part.name == body else part for part in entry.bodies)
    edited = list(history)
    edited[index] = replace(entry, bodies=(one, other))
    return edited


def mirrored(history: History) -> list[Sounding]:
    """Left and right swapped: with MICROPHONES the channels change places, but for their noise."""
    return [replace(entry, point_m=(-entry.point_m[0], entry.point_m[1], entry.point_m[2])) for entry in history]


def _made_of(body: Body, material: str) -> Body:
    changed = replace(body, material=material)
    lighter = MATERIALS[material].density_kg_m3 / MATERIALS[body.material].density_kg_m3
    return replace(changed, mass_kg=body.mass_kg * lighter)


def _described(body: Body) -> str:
    return f"{body.name} ({body.material.replace('_', ' ')})"


def _begins(entry: Sounding) -> float:
    return entry.start_s if isinstance(entry, Scrape | Motor) else entry.time_s


def _ends(entry: Sounding) -> float:
    """When its source is silent."""
    if isinstance(entry, Strike):
        return entry.time_s + float(_voice(entry).rings_s[-1])
    if isinstance(entry, Beep):
        return entry.time_s + entry.duration_s
    return 2 * entry.stop_s - entry.start_s if isinstance(entry, Scrape) else entry.stop_s


def _way(point: Point, microphone: Point) -> tuple[float, float]:
    """Metres and seconds. Nearer than 5 cm counts as 5 cm."""
    distance = max(0.05, sum((a - b) ** 2 for a, b in zip(point, microphone, strict=True)) ** 0.5)
    return distance, distance / SOUND_M_S


def _limited(samples: Float64[np.ndarray, "2 N"]) -> Float64[np.ndarray, "2 N"]:
    loud = np.abs(samples) > LIMIT
    if loud.any():
        over = (np.abs(samples[loud]) - LIMIT) / (1 - LIMIT)
        samples[loud] = np.sign(samples[loud]) * (LIMIT + (1 - LIMIT) * np.tanh(over) * (1 - 1e-6))
    return samples


# Strikes: sums of sines that die away.


@dataclass(frozen=True, kw_only=True, eq=False)
class _Voice:
    """Pressure in Pa at 1 m, t seconds after a blow: the imaginary part of the sum of `amplitudes` exp(`rates` t)."""

    rates: Complex128[np.ndarray, " K"]
    amplitudes: Float64[np.ndarray, " K"]
    rings_s: Float64[np.ndarray, " K"]
    """Until each is INAUDIBLE, rising."""
    fades_s: float
    """Until 60 dB below the beginning."""


@lru_cache(maxsize=4096)
def _voice(strike: Strike) -> _Voice:
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
    return _Voice(rates=rate[order], amplitudes=amplitude[order], rings_s=rings[order], fades_s=float(fades.max()))


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


def _add_strike(heard: Float64[np.ndarray, " N"], first: int, strike: Strike, microphone: Point) -> None:
    distance, delay_s = _way(strike.point_m, microphone)
    if (strike.time_s + delay_s) * RATE_HZ > first + len(heard):
        return
    voice = _voice(strike)
    arrival_s = strike.time_s + delay_s
    edges = np.ceil((arrival_s + np.array([0.0, *THINNED_S, voice.rings_s[-1]])) * RATE_HZ).astype(int)
    for start, stop in itertools.pairwise(np.minimum(edges, edges[-1]).tolist()):
        # A mode is left out from the first edge after its end: edges are where they are whatever the window.
        alive = int(np.searchsorted(voice.rings_s, start / RATE_HZ - arrival_s))
        begin, end = max(start, first), min(stop, first + len(heard))
        if begin < end:
            rates = voice.rates[alive:]
            now = voice.amplitudes[alive:] / distance * np.exp((begin / RATE_HZ - arrival_s) * rates)
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


# Everything else: a source that is computed once, and then delayed by whole samples.


def _add_source(
    heard: Float64[np.ndarray, "2 N"],
    first: int,
    entries: Sequence[Scrape | Motor | Beep],
    microphones: tuple[Point, Point],
    noise: Float32[np.ndarray, "table bands"],
) -> None:
    """Add one source; more than one entry are the steps of one motor, by time."""
    last = first + heard.shape[1]
    ways = [_way(entries[0].point_m, microphone) for microphone in microphones]
    delays = [round(delay_s * RATE_HZ) for _, delay_s in ways]
    start = max(math.ceil(_begins(entries[0]) * RATE_HZ), first - max(delays))
    stop = min(math.ceil(_ends(entries[-1]) * RATE_HZ), last - min(delays))
    if start >= stop:
        return
    index = np.arange(start, stop)
    entry = entries[0]
    if isinstance(entry, Scrape):
        dry = _scraping(entry, index, noise)
    elif isinstance(entry, Beep):
        dry = _beeping(entry, index)
    else:
        dry = _running([entry for entry in entries if isinstance(entry, Motor)], index, noise)
    for channel, ((distance, _), delay) in enumerate(zip(ways, delays, strict=True)):
        begin, end = max(first, start + delay), min(last, stop + delay)
        if begin < end:
            heard[channel, begin - first : end - first] += dry[begin - delay - start : end - delay - start] / distance


def _scraping(entry: Scrape, index: np.ndarray, noise: Float32[np.ndarray, "table bands"]) -> np.ndarray:
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


def _running(steps: Sequence[Motor], index: np.ndarray, noise: Float32[np.ndarray, "table bands"]) -> np.ndarray:
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
            made[begin:end] += kind.tone_Pa * level * _tone()[(_cycles(step, since) % 1.0 * TURN).astype(int)]
        if kind.noise_Pa:
            hiss = _banded(first + begin, end - begin, step.name, np.array(kind.noise_bands), noise)
            made[begin:end] += kind.noise_Pa * level * hiss
    return made


def _cycles(step: Motor, since: np.ndarray) -> np.ndarray:
    """Turns of the tone's phase, seconds after the step began; the speed goes in a straight line, so its square."""
    kind = MOTORS[step.kind]
    rise = (abs(step.speed_to) - abs(step.speed_from)) / (step.stop_s - step.start_s)
    turns = abs(step.speed_from) * since + rise * since**2 / 2
    return step.phase_cycles + kind.tone_Hz / kind.full_speed * turns


def _beeping(entry: Beep, index: np.ndarray) -> np.ndarray:
    since = index / RATE_HZ - entry.time_s
    edge = np.minimum(since, entry.duration_s - since) / BEEP_EDGE_S
    return BEEP_PA * np.clip(edge, 0, 1) * np.sin(2 * np.pi * entry.frequency_Hz * since)


def _banded(
    start: int, count: int, name: str, shares: np.ndarray, noise: Float32[np.ndarray, "table bands"]
) -> np.ndarray:
    """Noise of RMS 1 from the table, at a place of its own for each name."""
    piece = _cut(noise[:, 1:], start + zlib.crc32(name.encode()), count)
    return piece @ (shares / np.linalg.norm(shares)).astype(np.float32)


def _cut(table: Float32[np.ndarray, "table *bands"], start: int, count: int) -> Float32[np.ndarray, "N *bands"]:
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
def _noise(seed: int) -> Float32[np.ndarray, "table bands"]:
    """White noise in column 0, then a column for each band; RMS 1 each, and repeating without a seam."""
    white = np.random.default_rng([seed, 48]).standard_normal((TABLE, 1 + len(BANDS_HZ)))
    spectrum = np.fft.rfft(white[:, 1:], axis=0)
    frequencies = np.fft.rfftfreq(TABLE, 1 / RATE_HZ)[1:, None]
    # A bell on a logarithmic axis, about 1.3 octaves wide between its halves.
    spectrum[1:] *= np.exp(-0.5 * (np.log2(frequencies / np.array(BANDS_HZ)) / 0.55) ** 2)
    spectrum[0] = 0
    white[:, 1:] = np.fft.irfft(spectrum, TABLE, axis=0)
    return (white / np.sqrt(np.mean(white**2, axis=0))).astype(np.float32)
