"""The sound of a factory cell as a pure function of what happened: `synthesise(history, start_s, stop_s)`.

Every sample is computed from its absolute time alone, by closed forms and tables of noise: no filter has a state. So a
second cut into windows sounds the same as in one piece. `labels` says what can be heard, and why.

What sounds, and how a history is edited, is in `history`; how a strike rings in `ringing`; scrapes, motors and beeps in
`noise`. Here each microphone hears a source after distance / 343 m/s, as 1 / distance, and again from the walls.

Levels: physics gives how blows compare with each other; motors, scrapes and beeps are set louder against them than in
a real cell, or the range from a hum to steel on a tray would put them below the noise floor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from orrery.errors import SettingsError
from orrery.worlds.factory.contacts import Point
from orrery.worlds.factory.history import (
    MOTORS,
    RATE_HZ,
    Beep,
    Body,
    History,
    Motor,
    Scrape,
    Sounding,
    Strike,
    mirrored,
    motor_after,
    mute,
    scrape_of,
    shifted,
    strike_of,
    with_material,
)
from orrery.worlds.factory.noise import TABLE, beeping, cut, noise_table, running, scraping
from orrery.worlds.factory.ringing import FULL_SCALE_PA, SOUND_M_S, add_strike, contact_time_s, modes_hz, voice

__all__ = [
    "RATE_HZ", "Beep", "Body", "History", "Label", "Motor", "Scrape", "Sounding", "Strike", "contact_time_s", "labels",
    "mirrored", "modes_hz", "motor_after", "mute", "scrape_of", "shifted", "still_sounding", "strike_of", "synthesise",
    "with_material",
]  # fmt: skip

MICROPHONES: tuple[Point, Point] = ((-0.35, -0.45, 0.25), (0.35, -0.45, 0.25))
"""Left and right."""
ECHOES = ((0.0047, 0.32), (0.0079, -0.24), (0.0113, 0.19), (0.0171, 0.13), (0.0237, -0.09))
"""Seconds after the direct sound, and gain: a few early reflections, the same for all sources and both microphones, so
that they blur neither which side is louder nor which is earlier."""
FLOOR = 10 ** (-50 / 20)
"""RMS of the noise that is always there."""
LIMIT = 0.8
"""Samples up to here are untouched; beyond, they bend towards 1 and never reach it."""


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
    noise = noise_table(seed)
    motors: dict[tuple[str, str, Point], list[Motor]] = {}
    for entry in history:
        if isinstance(entry, Strike):
            for channel, microphone in enumerate(microphones):
                add_strike(direct[channel], first - before, entry, *_way(entry.point_m, microphone))
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
        heard[channel] += FLOOR * cut(noise[:, 0], first + channel * TABLE // 2, last - first)
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
        if isinstance(entry, Motor) and _is_still(entry):
            continue
        row = _label(entry)
        if isinstance(entry, Strike | Beep):
            rows.append(row)
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


def _label(entry: Sounding) -> Label:
    subjects: tuple[str, ...]
    materials: tuple[str, ...] = ()
    if isinstance(entry, Strike | Scrape):
        subjects = tuple(body.name for body in entry.bodies)
        materials = tuple(body.material for body in entry.bodies)
        one, other = (f"{body.name} ({body.material.replace('_', ' ')})" for body in entry.bodies)
        if isinstance(entry, Strike):
            kind, stop_s = "strike", entry.time_s + voice(entry).fades_s
            cause = f"{one} hits {other} with {entry.impulse_Ns:.2g} Ns"
        else:
            kind, stop_s, cause = "scrape", entry.stop_s, f"{one} slides on {other}"
    elif isinstance(entry, Motor):
        kind, stop_s, subjects, cause = entry.kind, entry.stop_s, (entry.name,), f"{entry.name} moves"
    else:
        kind, stop_s, subjects = "beep", entry.time_s + entry.duration_s, (entry.name,)
        cause = f"{entry.name} beeps at {entry.frequency_Hz:.0f} Hz"
    return Label(time_s=_begins(entry), stop_s=stop_s, kind=kind, subjects=subjects, materials=materials, cause=cause)


def _is_still(step: Motor) -> bool:
    return max(abs(step.speed_from), abs(step.speed_to)) < 0.01 * MOTORS[step.kind].full_speed


def _begins(entry: Sounding) -> float:
    return entry.start_s if isinstance(entry, Scrape | Motor) else entry.time_s


def _ends(entry: Sounding) -> float:
    """When its source is silent."""
    if isinstance(entry, Strike):
        return entry.time_s + float(voice(entry).rings_s[-1])
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


def _add_source(
    heard: Float64[np.ndarray, "2 N"],
    first: int,
    entries: Sequence[Scrape | Motor | Beep],
    microphones: tuple[Point, Point],
    noise: Float32[np.ndarray, "table bands"],
) -> None:
    """Add one source, computed once and delayed by whole samples; several entries are one motor's steps, by time."""
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
        dry = scraping(entry, index, noise)
    elif isinstance(entry, Beep):
        dry = beeping(entry, index)
    else:
        dry = running([entry for entry in entries if isinstance(entry, Motor)], index, noise)
    for channel, ((distance, _), delay) in enumerate(zip(ways, delays, strict=True)):
        begin, end = max(first, start + delay), min(last, stop + delay)
        if begin < end:
            heard[channel, begin - first : end - first] += dry[begin - delay - start : end - delay - start] / distance
