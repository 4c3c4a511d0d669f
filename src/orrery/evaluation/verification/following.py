"""Rung 1: do the actions decide what is imagined, and in the right direction?

From one start each, the true actions and what can be done to them; the simulator says what every one of them leads to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orrery.evaluation.baselines import derangement
from orrery.evaluation.factory.dynamics import MOVED, gain
from orrery.evaluation.factory.figure import Baseline, Figure, share
from orrery.evaluation.metrics import bootstrap_interval, moving_pixels, pixel_error
from orrery.evaluation.page import Strip, Table
from orrery.evaluation.verification.interfaces import GRIPPER, Actions, Clip, Film, Imaginer, World
from orrery.evaluation.verification.ladder import Rung, Setting, as_share

NAME = "action_following"
KINDS = ("true", "shuffled", "zero", "time-reversed", "half", "mirrored")
MOVES_M = 0.03
"""A gripper that truly moves less has no direction to get right."""
APART = 8
"""Colours, 0 to 255, that differ by more tell two imagined pictures apart."""
RESAMPLES = 500


def variants(clips: Sequence[Clip], gripper: int, seed: int) -> dict[str, list[Actions]]:
    """What is done to the actions of each clip, by the names of KINDS. Motion is changed; the gripper is told what it
    was, but where actions are another clip's or come in another order."""
    other = derangement(len(clips), seed) if len(clips) > 1 else np.zeros(1, int)

    def moved(factor: float) -> list[Actions]:
        found = []
        for clip in clips:
            rows = np.array(clip.actions)
            keep = rows[:, gripper].copy()
            rows *= factor
            rows[:, gripper] = keep
            found.append(rows)
        return found

    return {
        "true": [clip.actions for clip in clips],
        "shuffled": [clips[i].actions for i in other],
        "zero": moved(0.0),
        "time-reversed": [np.ascontiguousarray(clip.actions[::-1]) for clip in clips],
        "half": moved(0.5),
        "mirrored": moved(-1.0),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Followed:
    """One clip under one kind of actions."""

    kind: str
    true_m: np.ndarray
    """Motion of the gripper in the simulator, start to end."""
    made_m: np.ndarray
    """As it is read from what was imagined, less what is read from the frame that was given."""
    change: float
    """Mean difference, 0 to 255, of the last imagined picture from that under the true actions."""


def following(
    imaginer: Imaginer, world: World, setting: Setting, clips: Sequence[Clip], truths: Mapping[str, Sequence[Clip]]
) -> Rung:
    """Climb the rung.

    Args:
        clips: of one chunk.
        truths: of `truths_of`: the same for every model; of the kinds of actions that are to be tried, "true" and
            "shuffled" among them.
    """
    camera = next(iter(clips[0].film))
    plans = variants(clips, world.gripper, setting.seed)
    made: dict[str, list[Film]] = {}
    rows: list[list[Followed]] = [[] for _ in clips]
    before = world.read(np.stack([clip.film[camera][0] for clip in clips]))
    for kind in truths:
        made[kind] = imaginer.imagine(
            [clip.given for clip in clips], plans[kind], [setting.seed * 1_000_003 + i for i in range(len(clips))]
        )
        after = world.read(np.stack([film[camera][-1] for film in made[kind]]))
        for i, truth in enumerate(truths[kind]):
            place = truth.points_m[GRIPPER]
            difference = made[kind][i][camera][-1].astype(float) - made["true"][i][camera][-1]
            rows[i].append(
                Followed(
                    kind=kind,
                    true_m=place[-1] - place[0],
                    made_m=after[i].points_m[GRIPPER] - before[i].points_m[GRIPPER],
                    change=float(np.abs(difference).mean()),
                )
            )
    masks = [moving_pixels(clip.film[camera], MOVED) for clip in clips]
    errors = {
        kind: [
            pixel_error(film[camera], clip.film[camera], mask)
            for film, clip, mask in zip(made[kind], clips, masks, strict=True)
        ]
        for kind in ("true", "shuffled")
    }

    def over(name: str, statistic, unit: str, baseline: str) -> Figure:  # type: ignore[no-untyped-def]
        value = statistic(rows)
        interval = None
        if value is not None and len(rows) > 1:
            interval = bootstrap_interval(
                rows, lambda drawn: statistic(drawn) or 0.0, seed=setting.seed, resamples=RESAMPLES
            )
        return Figure(
            name=name, value=value, unit=unit, interval=interval,
            baselines=(Baseline(name=baseline, value=0.0),), n=len(rows), of="clips",
        )  # fmt: skip

    opposite = imaginer.imagine(
        [clip.given for clip in clips],
        [_opposite(clip.actions, world.gripper) for clip in clips],
        [setting.seed * 1_000_003 + i for i in range(len(clips))],
    )
    picked = [_nearer(*row) for row in zip(made["true"], opposite, clips, strict=True)]
    checks = (
        setting.check(
            NAME,
            "gain_db",
            gain("Gain of true over shuffled actions", errors["true"], errors["shuffled"], setting.seed),
        ),
        setting.check(
            NAME,
            "direction",
            over("Cosine of imagined and true motion of the gripper", direction, "", "no relation"),
        ),
        setting.check(
            NAME,
            "motion",
            over("Share of the gripper's true motion that is explained", explained, "", "nothing moves"),
        ),
        setting.check(
            NAME,
            "gripper",
            as_share(
                share(
                    "Nearer to the truth than under opposite gripper commands", picked, of="clips",
                    baselines=(Baseline(name="chance", value=50.0),),
                )
            ),
        ),
    )  # fmt: skip
    table = Table(
        head=("actions", "gripper moves in truth, mm", "imagined, mm", "cosine", "picture differs from true actions"),
        rows=tuple(_line(kind, [row for each in rows for row in each if row.kind == kind]) for kind in truths),
    )
    middle = len(clips) // 2
    strip = Strip(
        caption=f"{clips[middle].source}: {clips[middle].prompt}",
        clips=(
            ("true", clips[middle].film[camera]),
            *((kind, films[middle][camera]) for kind, films in made.items()),
        ),
        fps=world.rate_hz,
    )
    return Rung(
        rung=NAME,
        title="1. Action following",
        text="What is imagined under the true actions and under what is done to them, against the simulator under the "
        "same actions; the gripper is read from pictures by a frozen probe.",
        checks=checks,
        strips=(strip,),
        tables=(table,),
    )


def truths_of(
    world: World, clips: Sequence[Clip], seed: int, kinds: Sequence[str] = KINDS
) -> dict[str, Sequence[Clip]]:
    """What the simulator makes of each kind of actions."""
    plans = variants(clips, world.gripper, seed)
    return {
        kind: clips if kind == "true" else [world.execute(*pair) for pair in zip(clips, plans[kind], strict=True)]
        for kind in kinds
    }


def direction(rows: Sequence[Sequence[Followed]]) -> float | None:
    """Mean cosine between imagined and true motion, where there is true motion."""
    cosines = [
        float(row.made_m @ row.true_m / max(1e-9, np.linalg.norm(row.made_m) * np.linalg.norm(row.true_m)))
        for each in rows
        for row in each
        if np.linalg.norm(row.true_m) > MOVES_M
    ]
    return float(np.mean(cosines)) if cosines else None


def explained(rows: Sequence[Sequence[Followed]]) -> float | None:
    """1 - squared error over squared motion; 0 for a gripper that stands still, below for one that goes astray."""
    true = np.array([row.true_m for each in rows for row in each])
    made = np.array([row.made_m for each in rows for row in each])
    total = float(np.square(true).sum())
    return 1 - float(np.square(made - true).sum()) / total if total > 0 else None


def _opposite(actions: Actions, gripper: int) -> Actions:
    rows = np.array(actions)
    rows[:, gripper] = 1 - rows[:, gripper]
    return rows


def _nearer(own: Film, other: Film, clip: Clip) -> bool:
    """Whether what was imagined is nearer to the truth than what was imagined under other actions, over all cameras
    where the two differ; not where they are the same."""
    miss = [0.0, 0.0]
    for camera, truth in clip.film.items():
        apart = np.abs(own[camera].astype(np.int16) - other[camera]).max(axis=-1) > APART
        for index, film in enumerate((own, other)):
            miss[index] += float(np.square(film[camera][apart].astype(float) - truth[apart]).sum())
    return miss[0] < miss[1]


def _line(kind: str, rows: Sequence[Followed]) -> tuple[str, ...]:
    true, made = (
        1000 * float(np.mean([np.linalg.norm(getattr(r, name)) for r in rows])) for name in ("true_m", "made_m")
    )
    cosine = direction([rows])
    return (
        kind, f"{true:.0f}", f"{made:.0f}", "none moves" if cosine is None else f"{cosine:.2f}",
        f"{np.mean([row.change for row in rows]):.1f} of 255",
    )  # fmt: skip
