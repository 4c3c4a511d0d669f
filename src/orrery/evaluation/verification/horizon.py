"""Rung 2: how far ahead is it right, and do things stay what they are?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orrery.evaluation.baselines import copy_last_frame, derangement
from orrery.evaluation.chart import Chart, Line
from orrery.evaluation.factory.dynamics import MOVED, gain, others_mean
from orrery.evaluation.factory.figure import Baseline, Figure, mean_of, share
from orrery.evaluation.factory.sound import f1
from orrery.evaluation.metrics import bootstrap_interval, moving_pixels, pixel_error, pooled
from orrery.evaluation.page import Strip
from orrery.evaluation.verification.interfaces import GRIPPER, Blows, Clip, Imaginer, Reading, World, chain
from orrery.evaluation.verification.ladder import Check, Rung, Setting, as_share

NAME = "fidelity"
CLOSE_M = 0.015
"""Middles of two parts that are nearer than this lie in each other; the smallest parts are 30 mm across."""


@dataclass(frozen=True, kw_only=True)
class Missed:
    """Errors at the end of one chunk of one rollout, in millimetres; None where nothing is to be seen."""

    gripper: float
    gripper_still: float
    """Of what is read from the frame that was given: if nothing had moved since."""
    parts: float | None
    parts_still: float | None


def fidelity(
    imaginer: Imaginer, world: World, setting: Setting, clips: Sequence[Clip], blows: Sequence[Blows] = ()
) -> Rung:
    """Climb the rung on clips of several chunks, and of one chunk with sound where things strike."""
    camera = next(iter(clips[0].film))
    chunk, chunks = world.chunk, len(clips[0].actions) // world.chunk
    made = chain(
        imaginer, [clip.given for clip in clips], [clip.actions for clip in clips], chunk=chunk, seed=setting.seed
    )
    ends = [[film[camera][-1] for film in films] for films in made]
    imagined = [world.read(np.stack(pictures)) for pictures in ends]
    true = [world.read(clip.film[camera][chunk::chunk]) for clip in clips]
    given = world.read(np.stack([clip.film[camera][0] for clip in clips]))
    grasps = [
        _grasp(
            [row.held for row in world.read(clip.film[camera][1:])],
            [row.held for row in world.read(np.concatenate([film[camera][1:] for film in films]))],
            world.rate_hz,
        )
        for clip, films in zip(clips, made, strict=True)
    ]
    missed = [
        [_missed(clip, rows[k], still, (k + 1) * chunk) for k in range(chunks)]
        for clip, rows, still in zip(clips, imagined, given, strict=True)
    ]
    first = [clip.film[camera][: chunk + 1] for clip in clips]
    masks = [moving_pixels(film, MOVED) for film in first]
    errors = {
        name: [pixel_error(*row) for row in zip(films, first, masks, strict=True)]
        for name, films in (
            ("made", [films[0][camera] for films in made]),
            ("copied", [copy_last_frame(film[:1], len(film)) for film in first]),
            ("usual", others_mean(first)),
        )
    }
    kept, invented, invented_true, agrees, close, close_true = [], [], [], [], [], []
    for clip, rows, truth in zip(clips, imagined, true, strict=True):
        for k, (row, fact) in enumerate(zip(rows, truth, strict=True)):
            at = (k + 1) * chunk
            there = [name for name, seen in clip.seen.items() if name != GRIPPER and seen[at]]
            kept += [name in row.present for name in there if name in fact.present]
            invented.append(len(row.present - set(clip.points_m)))
            invented_true.append(len(fact.present - set(clip.points_m)))
            agrees.append(row.held == fact.held)
            close.append(_crowded(row, there))
            close_true.append(_crowded(fact, there))
    horizon = horizon_of(missed)
    interval = None
    if len(missed) > 1:
        interval = bootstrap_interval(missed, lambda rows: float(horizon_of(rows)), seed=setting.seed, resamples=300)

    def at_first(name: str, what: str) -> Figure:
        values = [v for rows in missed if (v := getattr(rows[0], name)) is not None]
        still = [v for rows in missed if (v := getattr(rows[0], f"{name}_still")) is not None]
        return mean_of(
            f"{what} after 1 chunk", values, unit="mm", of="rollouts", seed=setting.seed, better="lower",
            baselines=(Baseline(name="nothing moved", value=float(np.mean(still)) if still else None),),
        )  # fmt: skip

    checks: tuple[Check, ...] = (
        setting.check(
            NAME, "gain_db", gain("Gain over the copied last frame", errors["made"], errors["copied"], setting.seed)
        ),
        setting.check(NAME, "gripper_mm", at_first("gripper", "Gripper")),
        setting.check(NAME, "parts_mm", at_first("parts", "Parts")),
        setting.check(
            NAME,
            "horizon_chunks",
            Figure(
                name="Horizon: chunks up to which gripper and parts are nearer than if nothing had moved",
                value=float(horizon), unit="chunks", interval=interval, n=len(missed), of="rollouts",
                baselines=(Baseline(name="no horizon", value=0.0),),
                note=f"of {chunks}; beyond it a verdict about states is worthless",
            ),
        ),
        setting.check(NAME, "kept", as_share(share("Parts that are still seen", kept, of="parts in pictures"))),
        setting.check(
            NAME,
            "invented",
            mean_of(
                "Parts that nobody put there, for each picture",
                [float(n - m) for n, m in zip(invented, invented_true, strict=True)],
                unit="", of="pictures", seed=setting.seed, better="lower",
                baselines=(Baseline(name="invented on true pictures", value=float(np.mean(invented_true))),),
                note="a part that changed colour or kind counts here, and as one that is not kept",
            ),
        ),
        setting.check(
            NAME, "held_agrees", as_share(share("Held or not, as on the true picture", agrees, of="pictures"))
        ),
    )  # fmt: skip
    if imaginer.sounds and len(blows) > 1:
        checks += (setting.check(NAME, "sound_f1", sound_figure(imaginer, world, setting, blows)),)
    usual = [pooled(errors[name]).psnr_db for name in ("made", "copied", "usual")]
    further = (
        Figure(
            name="PSNR of moving pixels, first chunk", value=usual[0], unit="dB", n=len(clips), of="rollouts",
            baselines=(Baseline(name="copied frame", value=usual[1]), Baseline(name="mean future", value=usual[2])),
        ),
        mean_of(
            "Pairs of parts that lie in each other, for each picture", [float(v) for v in close], unit="",
            of="pictures", seed=setting.seed, better="lower",
            baselines=(Baseline(name="true pictures", value=float(np.mean(close_true))),),
        ),
        mean_of(
            "First grasp or release is seen so much too early or late", [v for _, v in grasps if v is not None],
            unit="s",
            of="rollouts that show one in truth and in imagination", seed=setting.seed, better="lower",
            baselines=(Baseline(name="as in truth", value=0.0),),
        ),
        share(
            "Rollouts that show a grasp or release exactly if the true one does", [same for same, _ in grasps],
            of="rollouts",
        ),
    )  # fmt: skip

    def curve(name: str) -> list[float | None]:
        found: list[float | None] = [0.0]
        for k in range(chunks):
            values = [v for rows in missed if (v := getattr(rows[k], name)) is not None]
            found.append(float(np.mean(values)) if values else None)
        return found

    charts = tuple(
        Chart(
            caption=f"{what} by chunks ahead",
            lines=(
                Line(label="imagined", values=curve(name)),
                Line(label="if nothing moved", values=curve(f"{name}_still")),
            ),
            across="chunks",
            up="mm off",
        )
        for name, what in (("gripper", "Gripper"), ("parts", "Parts"))
    )
    strip = Strip(
        caption=f"The last frame of each of {chunks} chunks. {clips[0].source}: {clips[0].prompt}",
        clips=(("true", clips[0].film[camera][chunk::chunk]), ("imagined", np.stack(ends[0]))),
        fps=2,
    )
    return Rung(
        rung=NAME,
        title="2. Fidelity by horizon",
        text="Chunks follow on each other, each from what was imagined before. Places are read by the frozen probe and "
        "compared with the simulator's; what is seen and held, with what the probe reads from true pictures.",
        checks=checks,
        further=further,
        charts=charts,
        strips=(strip,),
    )


def _missed(clip: Clip, row: Reading, still: Reading, at: int) -> Missed:
    def off(name: str, place: np.ndarray) -> float:
        return 1000 * float(np.linalg.norm(place - clip.points_m[name][at]))

    parts = [name for name, seen in clip.seen.items() if name != GRIPPER and seen[at]]
    return Missed(
        gripper=off(GRIPPER, row.points_m[GRIPPER]),
        gripper_still=off(GRIPPER, still.points_m[GRIPPER]),
        parts=float(np.mean([off(name, row.points_m[name]) for name in parts])) if parts else None,
        parts_still=float(np.mean([off(name, still.points_m[name]) for name in parts])) if parts else None,
    )


def horizon_of(rows: Sequence[Sequence[Missed]]) -> int:
    """Chunks, from the first on, after which gripper and parts are nearer, on the mean, than if nothing had moved."""
    for k in range(len(rows[0])):
        for name in ("gripper", "parts"):
            pairs = [(getattr(row[k], name), getattr(row[k], f"{name}_still")) for row in rows]
            pairs = [pair for pair in pairs if None not in pair]
            if pairs and np.mean([a for a, _ in pairs]) >= np.mean([b for _, b in pairs]):
                return k
    return len(rows[0])


def _crowded(row: Reading, names: Sequence[str]) -> int:
    places = [row.points_m[name] for name in names if name in row.present]
    return sum(float(np.linalg.norm(a - b)) < CLOSE_M for i, a in enumerate(places) for b in places[i + 1 :])


def _grasp(true: Sequence[bool], imagined: Sequence[bool], rate_hz: float) -> tuple[bool, float | None]:
    """Whether the first change of what is held is there in imagination exactly if it is in truth, and the seconds
    between the two; a change lasts two frames."""
    first, other = (
        next((t for t in range(1, len(held) - 1) if held[t] != held[0] and held[t + 1] == held[t]), None)
        for held in (true, imagined)
    )
    seconds = None if first is None or other is None else abs(first - other) / rate_hz
    return (first is None) == (other is None), seconds


def sound_figure(imaginer: Imaginer, world: World, setting: Setting, blows: Sequence[Blows]) -> Figure:
    """Are blows heard when things strike in what is imagined of the same actions?"""
    seeds = [setting.seed * 1_000_003 + i for i in range(len(blows))]
    made = imaginer.listen([row.given for row in blows], [row.actions for row in blows], seeds, world.sound_rate_hz)
    counts = world.heard(made, blows)

    def score(sounds: Sequence[np.ndarray]) -> float:
        return f1(world.heard(sounds, blows))

    others = derangement(len(blows), setting.seed)
    return Figure(
        name="Sound: F1 of blows within 50 ms of when things strike",
        value=f1(counts),
        interval=bootstrap_interval(counts, f1, seed=setting.seed),
        baselines=(
            Baseline(name="silence", value=score([np.zeros_like(row.sound) for row in blows])),
            Baseline(name="sounds of other clips", value=score([made[i] for i in others])),
            Baseline(name="the true sound", value=score([row.sound for row in blows])),
        ),
        n=len(blows),
        of="clips with a blow",
    )
