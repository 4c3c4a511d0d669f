"""What happened in a cell, as far as it can be heard: the entries that `sound.synthesise` plays, made and edited here.

An event can be taken out, moved or given another material (`mute`, `shifted`, `with_material`, `mirrored`) without
touching the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orrery.errors import SettingsError
from orrery.worlds.factory.contacts import Impact, Point, Rubbing
from orrery.worlds.factory.materials import MATERIALS

RATE_HZ = 48_000
"""Samples a second of the sound that is made of a history."""


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
    """Share of each of noise.BANDS_HZ."""


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
    turns = cycles(previous, np.array([previous.stop_s - previous.start_s]))[0]
    return replace(
        previous, start_s=previous.stop_s, stop_s=stop_s, speed_from=previous.speed_to, speed_to=speed,
        phase_cycles=float(turns % 1.0),
    )  # fmt: skip


def cycles(step: Motor, since: np.ndarray) -> np.ndarray:
    """Turns of the tone's phase, seconds after the step began; the speed goes in a straight line, so its square."""
    kind = MOTORS[step.kind]
    rise = (abs(step.speed_to) - abs(step.speed_from)) / (step.stop_s - step.start_s)
    turns = abs(step.speed_from) * since + rise * since**2 / 2
    return step.phase_cycles + kind.tone_Hz / kind.full_speed * turns


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
    """Left and right swapped: with sound.MICROPHONES the channels change places, but for their noise."""
    return [replace(entry, point_m=(-entry.point_m[0], entry.point_m[1], entry.point_m[2])) for entry in history]


def _made_of(body: Body, material: str) -> Body:
    changed = replace(body, material=material)
    lighter = MATERIALS[material].density_kg_m3 / MATERIALS[body.material].density_kg_m3
    return replace(changed, mass_kg=body.mass_kg * lighter)
