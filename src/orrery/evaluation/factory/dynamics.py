"""Forward dynamics: imagined pixels against true ones, imagined states against true ones, and whether actions count."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from orrery.evaluation.baselines import copy_last_frame, derangement
from orrery.evaluation.factory.ask import Film, case_seed, films, forward, imagined, run_all
from orrery.evaluation.factory.figure import RESAMPLES, Baseline, Figure, Outcome, Suite, mean_of, share
from orrery.evaluation.factory.losses import flow_losses
from orrery.evaluation.factory.probe import Reader
from orrery.evaluation.factory.scenes import (
    CAMERAS,
    CHUNK,
    CHUNKS,
    SOURCES,
    Fork,
    Window,
    cases,
    cut,
    cuts,
    fork,
    gather,
)
from orrery.evaluation.metrics import PixelError, bootstrap_interval, moving_pixels, pixel_error, pooled
from orrery.evaluation.page import Strip
from orrery.runtime.model import Model
from orrery.worlds.factory.cell import CONTROL_HZ

MOVED = 12
"""A pixel moves truly when one of its colours, 0 to 255, differs from the last given frame by more. Pictures are drawn
without noise, so anything above rounding and faint shadow is motion."""
SIGMAS = (0.9, 0.7, 0.5)
"""Noise levels at which losses under true and under other actions are compared, on the same noise."""
MOVED_M = 0.01
"""A part counts as moved when it is this far from where it was in the given frame."""
SHOWN = 3
FLOORS = {1: (15.0, 5.0), 4: (30.0, 10.0), 8: (60.0, 20.0)}
"""Chunks -> floor and goal in millimetres."""

Pair = tuple[PixelError, PixelError]


def forward_dynamics(model: Model, suite: Suite) -> Outcome:
    """One chunk from the first frames and the actions: against standing still, the mean future, and other actions."""
    windows = gather(cut, cuts(suite.size.windows, seed=suite.seed, offset=0), suite.workers)
    other = derangement(len(windows), suite.seed) if len(windows) > 1 else np.zeros(1, int)
    made = imagined(model, windows, [window.action for window in windows], suite, 1)
    swapped = imagined(model, windows, [windows[i].action for i in other], suite, 1)
    figures: list[Figure] = []
    for camera in CAMERAS:
        true = [window.film[camera] for window in windows]
        masks = [moving_pixels(clip, MOVED) for clip in true]

        def errors(
            predicted: Sequence[np.ndarray], true: list[np.ndarray] = true, masks: list[np.ndarray] = masks
        ) -> list[PixelError]:
            return [pixel_error(*row) for row in zip(predicted, true, masks, strict=True)]

        own = errors([film[camera] for film in made])
        still = errors([copy_last_frame(clip[:1], len(clip)) for clip in true])
        shuffled = errors([film[camera] for film in swapped])
        usual = errors(others_mean(true))
        front = camera == "front"
        figures.append(
            Figure(
                name=f"PSNR of moving pixels, {camera}",
                value=pooled(own).psnr_db,
                unit="dB",
                interval=psnr_interval(own, suite.seed),
                baselines=(
                    Baseline(name="copy of the last given frame", value=pooled(still).psnr_db),
                    Baseline(name="mean future of the other test windows", value=pooled(usual).psnr_db),
                    Baseline(name="the same model, actions of another window", value=pooled(shuffled).psnr_db),
                ),
                n=len(windows),
                of="windows",
            )
        )
        for what, baseline, floor, goal in (
            ("the copied last frame", still, 6.0, 10.0),
            ("the mean future", usual, None, None),
            ("shuffled actions", shuffled, 5.0, 9.0),
        ):
            figures.append(
                gain(
                    f"Gain over {what}, {camera}", own, baseline, suite.seed,
                    floor=floor if front else None, goal=goal if front else None,
                )
            )  # fmt: skip
        for source in SOURCES:
            chosen = [i for i, window in enumerate(windows) if window.source == source]
            figures.append(
                gain(
                    f"Gain over the copied last frame, {camera}, windows of {source}",
                    [own[i] for i in chosen],
                    [still[i] for i in chosen],
                    suite.seed,
                )
            )
    strips = [
        Strip(
            caption=f"{windows[i].source}: {windows[i].instruction}",
            clips=(
                ("true", windows[i].front),
                ("imagined", made[i]["front"]),
                ("other actions", swapped[i]["front"]),
                ("last frame copied", copy_last_frame(windows[i].front[:1], CHUNK + 1)),
            ),
            fps=CONTROL_HZ,
        )
        for i in np.unique(np.linspace(0, len(windows) - 1, SHOWN).round().astype(int))
    ]
    return Outcome(figures=tuple(figures), strips=tuple(strips))


def others_mean(clips: Sequence[UInt8[np.ndarray, "T H W 3"]]) -> list[UInt8[np.ndarray, "T H W 3"]]:
    """For each clip what usually comes in the others: their mean, frame by frame."""
    if len(clips) < 2:
        return list(clips)
    total = np.sum(np.stack(clips), axis=0, dtype=np.int64)
    return [np.rint((total - clip) / (len(clips) - 1)).astype(np.uint8) for clip in clips]


def gain(
    name: str,
    own: Sequence[PixelError],
    baseline: Sequence[PixelError],
    seed: int,
    *,
    floor: float | None = None,
    goal: float | None = None,
) -> Figure:
    """By how many decibels one prediction is nearer to the truth than another, pooled over the same windows."""
    pairs = [(one, other) for one, other in zip(own, baseline, strict=True) if one.values]

    def difference(drawn: Sequence[Pair]) -> float:
        one, other = pooled([pair[0] for pair in drawn]).psnr_db, pooled([pair[1] for pair in drawn]).psnr_db
        return 0.0 if one is None or other is None or not np.isfinite(one - other) else one - other

    return Figure(
        name=name,
        value=difference(pairs) if pairs else None,
        unit="dB",
        interval=bootstrap_interval(pairs, difference, seed=seed, resamples=RESAMPLES) if len(pairs) > 1 else None,
        baselines=(Baseline(name="no gain", value=0.0),),
        n=len(pairs),
        of="windows",
        floor=floor,
        goal=goal,
    )


def psnr_interval(errors: Sequence[PixelError], seed: int) -> tuple[float, float] | None:
    """Of the pooled PSNR; the bootstrap resamples windows."""
    kept = [error for error in errors if error.values]
    if len(kept) < 2 or not np.isfinite(pooled(kept).psnr_db or np.inf):
        return None
    return bootstrap_interval(kept, lambda drawn: pooled(drawn).psnr_db or 0.0, seed=seed, resamples=RESAMPLES)


def imagined_state(model: Model, suite: Suite, reader: Reader) -> Outcome:
    """Where parts and gripper are after 1, 4 and 8 chained chunks, as the probe reads it from imagined frames."""
    jobs = cuts(-(-suite.size.rollouts // len(SOURCES)), seed=suite.seed, offset=100_000, steps=CHUNKS[-1] * CHUNK)
    windows = gather(cut, jobs[:: max(1, len(jobs) // suite.size.rollouts)][: suite.size.rollouts], suite.workers)
    chunks_made = chained(model, windows, [window.action for window in windows], suite, CHUNKS[-1])
    # Copied, so that the films of a chunk are let go.
    ends = [[film["front"][-1].copy() for film in made] for made in chunks_made]
    last = [np.stack(frames) for frames in zip(*ends, strict=True)]
    figures: list[Figure] = []
    for chunks in CHUNKS:
        at = chunks * CHUNK
        sights = {
            "imagined": reader.read(np.stack([frames[chunks - 1] for frames in last])),
            "true": reader.read(np.stack([window.front[at] for window in windows])),
            "copied": reader.read(np.stack([window.front[0] for window in windows])),
        }
        floor, goal = FLOORS[chunks]
        gripper = {
            name: [
                1000 * float(np.linalg.norm(sight.gripper_m[i] - window.state[at, :3]))
                for i, window in enumerate(windows)
            ]
            for name, sight in sights.items()
        }
        parts: dict[str, list[list[float]]] = {name: [] for name in sights}
        moved: dict[str, list[list[float]]] = {name: [] for name in sights}
        for i, window in enumerate(windows):
            there = [k for k in window.alone if window.seen[at, k]]
            gone = [k for k in there if np.linalg.norm(window.parts_m[at, k] - window.parts_m[0, k]) > MOVED_M]
            for name, sight in sights.items():
                miss = {
                    k: 1000 * float(np.linalg.norm(sight.part_m(i, window.parts[k]) - window.parts_m[at, k]))
                    for k in there
                }
                parts[name].append(list(miss.values()))
                moved[name].append([miss[k] for k in gone])
        for what, errors in (("Parts", parts), ("Parts that moved", moved)):
            means = {name: [float(np.mean(row)) for row in rows if row] for name, rows in errors.items()}
            figures.append(_distance(f"{what} after {chunks} chunks", means, suite, what == "Parts", floor, goal))
        figures.append(_distance(f"Gripper after {chunks} chunks", gripper, suite, True, floor, goal))
    strips = tuple(
        Strip(
            caption=f"{CHUNKS[-1]} chunks, the last frame of each: {windows[i].source}, {windows[i].instruction}",
            clips=(("true", windows[i].front[CHUNK::CHUNK]), ("imagined", last[i])),
            fps=2,
        )
        for i in range(min(2, len(windows)))
    )
    return Outcome(figures=tuple(figures), strips=strips, note=reader.note)


def _distance(
    name: str, errors: dict[str, list[float]], suite: Suite, asked: bool, floor: float, goal: float
) -> Figure:
    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return mean_of(
        name,
        errors["imagined"],
        unit="mm",
        of="rollouts",
        seed=suite.seed,
        better="lower",
        baselines=(
            Baseline(name="the probe on the true frame", value=mean(errors["true"])),
            Baseline(name="the probe on the given frame: nothing moved", value=mean(errors["copied"])),
        ),
        floor=floor if asked else None,
        goal=goal if asked else None,
    )


def chained(
    model: Model, windows: Sequence[Window], actions: Sequence[np.ndarray], suite: Suite, chunks: int
) -> Iterator[list[Film]]:
    """Films of one chunk after the other, for each window; a chunk begins with the last frames of the one before."""
    given: list[Film] = [window.given for window in windows]
    for number in range(chunks):
        requests = [
            forward(given[i], rows[number * CHUNK : (number + 1) * CHUNK], case_seed(suite, 2 + number, i))
            for i, rows in enumerate(actions)
        ]
        made = [films(result) for result in run_all(model, requests, suite)]
        yield made
        given = [{name: film[-1] for name, film in each.items()} for each in made]


def obedience(model: Model, suite: Suite) -> Outcome:
    """Whether actions decide the future: the loss under other actions, and which of four futures a clip is of."""
    size = suite.size
    forks: list[Fork] = gather(
        fork, cases(size.forks, seed=suite.seed, behaviour="expert", offset=200_000), suite.workers
    )
    ways = [way for each in forks for way in each.ways]
    made = imagined(model, ways, [way.action for way in ways], suite, 11)
    picked: list[bool] = []
    for number, each in enumerate(forks):
        futures = [way.front for way in each.ways]
        moving = np.logical_or.reduce([moving_pixels(future, MOVED) for future in futures])
        first = futures[0].astype(np.int16)
        apart = [np.abs(future.astype(np.int16) - first).max(axis=-1) > MOVED for future in futures]
        # Where the four futures agree no pixel tells them apart.
        telling = np.logical_and(moving, np.logical_or.reduce(apart))
        for place, film in enumerate(made[4 * number : 4 * number + 4]):
            misses = [pixel_error(film["front"], future, telling).squared for future in futures]
            picked.append(int(np.argmin(misses)) == place)
    windows = gather(cut, cuts(size.windows, seed=suite.seed, offset=0), suite.workers)
    other = derangement(len(windows), suite.seed)
    figures = [
        share(
            "Own branch picked among four siblings",
            picked,
            of="clips",
            baselines=(Baseline(name="chance", value=25.0), Baseline(name="true futures", value=100.0)),
            floor=80.0,
            goal=98.0,
        )
    ]
    for camera in CAMERAS:
        ratios: list[float] = []
        notes = []
        for sigma in SIGMAS:
            true = flow_losses(model, windows, [window.action for window in windows], sigma, suite)[camera]
            wrong = flow_losses(model, windows, [windows[i].action for i in other], sigma, suite)[camera]
            notes.append(f"{np.mean(wrong) / np.mean(true):.2f} at sigma {sigma}")
            ratios = [*ratios, *(b / a for a, b in zip(true, wrong, strict=True))]
        by_window = np.array(ratios).reshape(len(SIGMAS), -1)
        figures.append(
            mean_of(
                f"Loss with shuffled over loss with true actions, {camera}",
                [float(value) for value in by_window.mean(axis=0)],
                unit="",
                of="windows",
                seed=suite.seed,
                baselines=(Baseline(name="a model that ignores its actions", value=1.0),),
                floor=1.5 if camera == "front" else None,
                goal=3.0 if camera == "front" else None,
                note=", ".join(notes),
            )
        )
    return Outcome(figures=tuple(figures))
