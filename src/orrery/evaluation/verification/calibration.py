"""Rung 5: does it know when it does not know?"""

from collections.abc import Sequence

import numpy as np

from orrery.evaluation.chart import Chart, Line
from orrery.evaluation.factory.figure import Baseline, Figure, share
from orrery.evaluation.metrics import bootstrap_interval
from orrery.evaluation.verification.interfaces import GRIPPER, Actions, Clip, Film, Imaginer, World, chain
from orrery.evaluation.verification.ladder import Rung, Setting, as_share

NAME = "calibration"
REGION = 0.9
DECLINED = 0.5
BEYOND = 1.5
"""Actions outside the range are drawn up to so many times as large as allowed."""
Pairs = list[tuple[float, float]]


def calibration(imaginer: Imaginer, world: World, setting: Setting, clips: Sequence[Clip]) -> Rung:
    """Climb the rung on clips of a few chunks, each imagined `samples` times."""
    from scipy import stats

    camera, chunk, samples = next(iter(clips[0].film)), world.chunk, setting.climb.samples
    chunks = len(clips[0].actions) // chunk
    made = [
        chain(
            imaginer, [clip.given for clip in clips], [clip.actions for clip in clips], chunk=chunk,
            seed=setting.seed + 101 * (number + 1),
        )
        for number in range(samples)
    ]  # fmt: skip
    reach = float(stats.t.ppf((1 + REGION) / 2, samples - 1)) * np.sqrt(1 + 1 / samples)
    covered: list[list[bool]] = [[] for _ in range(chunks)]
    spreads: Pairs = []
    for i, clip in enumerate(clips):
        for k in range(chunks):
            at = (k + 1) * chunk
            pictures = np.stack([made[number][i][k][camera][-1] for number in range(samples)])
            places = np.array([reading.points_m[GRIPPER] for reading in world.read(pictures)])
            within = np.abs(clip.points_m[GRIPPER][at] - places.mean(axis=0)) <= reach * places.std(axis=0, ddof=1)
            covered[k] += [bool(one) for one in within]
            if k == 0:
                error = np.square(pictures.mean(axis=0) - clip.film[camera][at].astype(float)).mean() ** 0.5
                spreads.append((float(pictures.std(axis=0, ddof=1).mean()), float(error)))
    strange: list[Film] = [_strange(clip.given, i) for i, clip in enumerate(clips)]
    films = imaginer.imagine(
        strange, [clip.actions[:chunk] for clip in clips], [setting.seed + i for i in range(len(clips))]
    )
    normal = [difference(clip.given[camera], rows[0][camera][0]) for clip, rows in zip(clips, made[0], strict=True)]
    other = [difference(frame[camera], film[camera][0]) for frame, film in zip(strange, films, strict=True)]
    rng = np.random.default_rng(setting.seed)
    usual = [excess(clip.actions, world) for clip in clips]
    beyond = [excess(clip.actions * rng.uniform(1, BEYOND, clip.actions.shape), world) for clip in clips]

    scenes, motions = list(zip(normal, other, strict=True)), list(zip(usual, beyond, strict=True))

    def over(name: str, rows: Sequence[object], statistic, baseline: float, note: str = "") -> Figure:  # type: ignore[no-untyped-def]
        interval = bootstrap_interval(rows, statistic, seed=setting.seed, resamples=300) if len(rows) > 2 else None
        return Figure(
            name=name, value=statistic(rows), interval=interval, n=len(rows), of="clips", note=note,
            baselines=(Baseline(name="knows nothing", value=baseline),),
        )  # fmt: skip

    def related(rows: Pairs) -> float:
        a, b = np.array(rows).T
        if len(set(a.tolist())) < 2 or len(set(b.tolist())) < 2:
            return 0.0
        return float(stats.spearmanr(a, b).statistic)

    def spared(rows: Pairs) -> float:
        ranked = sorted(rows)
        kept = ranked[: max(1, round(len(ranked) * (1 - DECLINED)))]
        return 1 - float(np.mean([b for _, b in kept])) / max(1e-9, float(np.mean([b for _, b in rows])))

    def auroc(rows: list[tuple[float, float]]) -> float:
        a, b = np.array(rows).T
        return float(stats.mannwhitneyu(b, a).statistic / (len(a) * len(b)))

    checks = (
        setting.check(NAME, "spread_tells_error", over("Rank correlation of spread and error", spreads, related, 0.0)),
        setting.check(
            NAME,
            "coverage",
            as_share(
                share(
                    f"True places within the samples' {REGION:.0%} region, 1 chunk", covered[0],
                    of="coordinates of the gripper",
                )
            ),
        ),
        setting.check(
            NAME, "strange_scene",
            over("AUROC of the scene's score, usual against strange pictures", scenes, auroc, 0.5,
                 "the score is how much the frame that was given differs from how the model gives it back"),
        ),
        setting.check(
            NAME, "strange_action",
            over("AUROC of the actions' score, usual against larger ones", motions, auroc, 0.5,
                 "the score is the largest motion over the contract's limit"),
        ),
        setting.check(
            NAME, "abstention_gain",
            over(f"Share of the error that goes with the {DECLINED:.0%} that are declined", spreads, spared, 0.0),
        ),
    )  # fmt: skip
    chart = Chart(
        caption=f"Coverage of the {REGION:.0%} region by chunks ahead",
        lines=(
            Line(label="found", values=[None, *(float(np.mean(row)) for row in covered)]),
            Line(label="meant", values=[REGION] * (chunks + 1)),
        ),
        across="chunks",
        up="share of true places",
    )
    return Rung(
        rung=NAME,
        title="5. Calibration and abstention",
        text=f"Each future is imagined {samples} times. Their spread should tell how wrong they are and hold the "
        "truth; scenes and actions that the model was not trained on should be told from those that it was.",
        checks=checks,
        charts=(chart,),
    )


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of two pictures' difference, 0 to 255."""
    return float(np.square(one.astype(float) - other).mean() ** 0.5)


def excess(actions: Actions, world: World) -> float:
    """The largest motion over its limit."""
    columns = [i for i in range(actions.shape[1]) if i != world.gripper]
    return float((np.abs(actions[:, columns]) / np.array(world.limits)).max())


def _strange(given: Film, number: int) -> Film:
    """Pictures as no cell looks: as a negative, or upside down."""
    return {camera: 255 - frame if number % 2 else np.ascontiguousarray(frame[::-1]) for camera, frame in given.items()}
