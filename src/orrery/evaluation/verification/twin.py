"""Rung 6: when the real cell is not its twin, does the ladder notice, and does it say where?

The "real" cell is the simulator with one known parameter changed. The model, which knows the twin alone, imagines both.
"""

from collections.abc import Sequence

import numpy as np

from orrery.evaluation.factory.figure import Baseline, Figure
from orrery.evaluation.metrics import bootstrap_interval
from orrery.evaluation.page import Table
from orrery.evaluation.verification.interfaces import GRIPPER, Clip, Imaginer, World
from orrery.evaluation.verification.ladder import Check, Rung, Setting

NAME = "twin_gap"
Signals = dict[str, float]


def signals(imaginer: Imaginer, world: World, setting: Setting, clips: Sequence[Clip]) -> list[Signals]:
    """For each clip, how far reality is from what was imagined or is known: the motion of the gripper and of parts, and
    how the first camera's picture fits what the machine says of itself."""
    camera = next(iter(clips[0].film))
    films = imaginer.imagine(
        [clip.given for clip in clips], [clip.actions for clip in clips], [setting.seed + i for i in range(len(clips))]
    )
    begins = world.read(np.stack([clip.film[camera][0] for clip in clips]))
    ends = world.read(np.stack([clip.film[camera][-1] for clip in clips]))
    made = world.read(np.stack([film[camera][-1] for film in films]))
    found = []
    for clip, begin, end, imagined in zip(clips, begins, ends, made, strict=True):
        felt = clip.points_m[GRIPPER]
        moved = imagined.points_m[GRIPPER] - begin.points_m[GRIPPER]
        parts = [
            float(np.linalg.norm(imagined.points_m[name] - end.points_m[name]))
            for name, seen in clip.seen.items()
            if name != GRIPPER and seen[0] and seen[-1]
        ]
        found.append(
            {
                GRIPPER: 1000 * float(np.linalg.norm(moved - (felt[-1] - felt[0]))),
                "parts": 1000 * float(np.mean(parts)) if parts else 0.0,
                camera: 1000 * float(np.linalg.norm(begin.points_m[GRIPPER] - felt[0])),
                "brightness": float(clip.film[camera][0].mean()),
            }
        )
    return found


def gaps(real: Sequence[Signals], twin: Sequence[Signals], camera: str) -> list[Signals]:
    """By how much each signal is larger in the real cell, pair by pair; other brightness counts for the camera."""
    found = []
    for one, other in zip(real, twin, strict=True):
        light = abs(one["brightness"] - other["brightness"])
        row = {name: one[name] - other[name] for name in one if name != "brightness"}
        row[camera] = max(row[camera], light)
        found.append(row)
    return found


def strength(rows: Sequence[Signals], name: str) -> float:
    """A signal's mean in standard errors."""
    values = np.array([row[name] for row in rows])
    return float(values.mean() / max(1e-6, values.std(ddof=1) / len(values) ** 0.5)) if len(values) > 1 else 0.0


def twin_gap(imaginer: Imaginer, world: World, setting: Setting, count: int) -> Rung:
    """Climb the rung with `count` clips for each known difference."""
    checks: list[Check] = []
    lines: list[tuple[str, ...]] = []
    for number, (change, thing) in enumerate(world.changes.items()):
        offset = 20_000 + 1000 * number
        real = world.clips(count, chunks=1, seed=setting.seed, offset=offset, change=change)
        twin = world.clips(count, chunks=1, seed=setting.seed, offset=offset, change=f"{change}: none")
        camera = next(iter(real[0].film))
        rows = gaps(signals(imaginer, world, setting, real), signals(imaginer, world, setting, twin), camera)
        others = [name for name in rows[0] if name != thing]

        def lead(drawn: Sequence[Signals], thing: str = thing, others: list[str] = others) -> float:
            return strength(drawn, thing) - max(strength(drawn, name) for name in others)

        def mean(drawn: Sequence[Signals], thing: str = thing) -> float:
            return float(np.mean([row[thing] for row in drawn]))

        for key, name, statistic, unit in (
            ("found", f"{change}: {thing} differs more than in the twin", mean, "mm or levels"),
            ("named", f"{change}: {thing} stands out before {' and '.join(others)}", lead, "standard errors"),
        ):
            figure = Figure(
                name=name, value=statistic(rows), unit=unit, n=len(rows), of="pairs of clips",
                interval=bootstrap_interval(rows, statistic, seed=setting.seed, resamples=300) if count > 2 else None,
                baselines=(Baseline(name="no gap", value=0.0),),
            )  # fmt: skip
            checks.append(setting.check(NAME, key, figure))
        lines.append((change, thing, *(f"{strength(rows, name):+.1f}" for name in (GRIPPER, "parts", camera))))
    return Rung(
        rung=NAME,
        title="6. Twin gap",
        text="The real cell differs from its twin by one known parameter at a time. The same clips are imagined for "
        "both; signals are how far the gripper and the parts end from what was imagined, and how the first camera's "
        "picture fits the felt place of the gripper and the twin's brightness.",
        checks=tuple(checks),
        tables=(
            Table(
                head=("difference", "should show in", "gripper, standard errors", "parts", "camera"), rows=tuple(lines)
            ),
        ),
    )
