"""The five panels: what the loaded checkpoint does on test seeds, beside what knows nothing on the same cases.

Cases, requests and figures are those of `evaluation.factory`, in small numbers; only what a page shows is put together
here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from orrery.data.media import Sound
from orrery.errors import CheckpointError
from orrery.evaluation.baselines import copy_last_frame, derangement
from orrery.evaluation.chart import Chart, Line
from orrery.evaluation.factory.ask import Film, case_seed, recovered, run_all
from orrery.evaluation.factory.dynamics import MOVED, chained, gain, psnr_interval
from orrery.evaluation.factory.figure import Baseline, Figure, Size, Suite, mean_of, share
from orrery.evaluation.factory.inverse import columns, percent
from orrery.evaluation.factory.policy import (
    FILMED_EVERY,
    Told,
    closed_loop,
    done_by_noise,
    done_by_play,
    filmed,
    trials_for,
)
from orrery.evaluation.factory.probe import load_probes
from orrery.evaluation.factory.reasoner import (
    Asked,
    answered,
    can_be_given,
    chosen_of,
    filmed_of,
    question_cases,
    questions_of,
)
from orrery.evaluation.factory.scenes import CHUNK, SOURCES, Case, Window, cases, cut, cuts, gather, job_of, seed_of
from orrery.evaluation.factory.text_to_media import facts_of, shares_present, video_of
from orrery.evaluation.metrics import PixelError, moving_pixels, pixel_error, pooled
from orrery.evaluation.page import Section, Still, Strip, Table
from orrery.evaluation.question_only import blind_scores, is_right
from orrery.runtime.model import Model
from orrery.tasks.request import Request
from orrery.worlds.factory.cell import ACTION_COLUMNS, CONTROL_HZ

SIZE = Size(
    name="demo", windows=0, rollouts=3, forks=0, inverse_windows=2, replays=0, trials=1, unseen_trials=0, steps=None,
    question_episodes=4, blind_episodes=4, per_family=3, captions=4, sounds=0,
)  # fmt: skip
CHUNKS = 3
"""Imagined in a row."""
FRAME_TASK = "kit_fill"
"""It has the most parts in view."""
LOOKS = 3
"""Frames of that episode, of which the one is taken that most can be asked about."""
CLIPS_SHOWN, FILMS_SHOWN = 2, 2
OFFSETS = {
    "frame": 630_000,
    "known": 620_000,
    "asked": 610_000,
    "imagine": 760_000,
    "plan": 120_000,
    "recover": 320_000,
}
"""Sets the test episodes of the panels apart from each other, and from those of the table."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One panel, and where its numbers come from in full."""

    tasks: tuple[str, ...]
    """What the checkpoint must be able to do."""
    rows: tuple[str, ...]
    """Of `orrery eval --suite factory`, which measure the same on many cases."""
    show: Callable[[Model, Suite], Section]


def ask(model: Model, suite: Suite) -> Section:
    """Questions about one frame, and the share of right answers to others."""
    case = Case(seed=seed_of(OFFSETS["frame"], seed=suite.seed), task=FRAME_TASK)
    first = about_one_frame(questions_of(case, sights=LOOKS, families=()))
    told = answered(model, first, suite, 90)
    picture = filmed_of((case, ((first[0].question.start_frame,),)))[0][0]
    others = question_cases(suite.size.blind_episodes, suite, offset=OFFSETS["known"], unseen=False)
    given = question_cases(suite.size.question_episodes, suite, offset=OFFSETS["asked"], unseen=False)
    rows = gather(partial(questions_of, families=()), [*others, *given], suite.workers)
    known, asked = (list(chain.from_iterable(part)) for part in (rows[: len(others)], rows[len(others) :]))
    families = {row.question.family for row in known}
    chosen = [row for row in chosen_of(asked, suite) if row.question.family in families]
    answers = answered(model, chosen, suite, 91)
    blind = blind_scores(
        [row.question for row in known if can_be_given(row.question)],
        [row.question for row in chosen],
        seed=suite.seed,
    )
    common = sum(row.majority * row.questions for row in blind) / max(1, sum(row.questions for row in blind))
    figure = share(
        "Right answers",
        [is_right(row.question, answer) for row, answer in zip(chosen, answers, strict=True)],
        of="other questions about frames",
        baselines=(Baseline(name="the commonest answer of each family", value=100 * common),),
        note=f"{len(blind)} families, {suite.size.question_episodes} episodes; the commonest answers are those of "
        f"{suite.size.blind_episodes} others",
    )
    return Section(
        title="Ask: what is in the picture?",
        text="A frame of the front camera from the simulator, and questions whose answers follow from its true state. "
        "Points and boxes are in thousandths of the picture.",
        measures=tuple(figure.measures()),
        stills=(Still(caption="What the model is shown.", picture=picture),),
        tables=(
            Table(
                head=("Family", "Question", "Model", "True", ""),
                rows=tuple(
                    (
                        row.question.family,
                        row.question.prompt,
                        answer or "(nothing)",
                        row.question.answer,
                        "right" if is_right(row.question, answer) else "wrong",
                    )
                    for row, answer in zip(first, told, strict=True)
                ),
            ),
        ),
    )


def about_one_frame(rows: list[Asked]) -> list[Asked]:
    """A question of each family about the frame that most families ask about."""
    frames: dict[int, dict[str, Asked]] = {}
    for row in rows:
        frames.setdefault(row.question.start_frame, {}).setdefault(row.question.family, row)
    return list(max(frames.values(), key=len).values())


def imagine(model: Model, suite: Suite) -> Section:
    """Clips with sound from sentences; a probe looks for what was asked for."""
    count = max(2, suite.size.captions)
    wanted = gather(
        video_of, cases(count, seed=suite.seed, behaviour="expert", offset=OFFSETS["imagine"]), suite.workers
    )
    requests = [
        Request(
            task="text_to_video",
            prompt=row.prompt,
            seed=case_seed(suite, 92, i),
            frames=CHUNK + 1,
            sound=None if model.sound is None else "make",
        )
        for i, row in enumerate(wanted)
    ]
    results = run_all(model, requests, suite)
    clips = [next(iter(result.videos.values())) for result in results]
    note, value, others, ceiling = "", None, None, None
    try:
        reader = load_probes()
    except CheckpointError as error:
        note = f"Not measured, since the frozen probes are not there: {error}"
    else:
        sights = reader.read(np.stack([clip[-1] for clip in clips]))
        true = reader.read(np.stack([row.true[-1] for row in wanted]))
        other = derangement(count, suite.seed)

        def shares(rows: list[dict[str, list[bool]]]) -> list[float]:
            return shares_present(rows, list(rows[0]))

        value = shares([facts_of(row, sights, i) for i, row in enumerate(wanted)])
        others = float(np.mean(shares([facts_of(wanted[other[i]], sights, i) for i in range(count)])))
        ceiling = float(np.mean(shares([facts_of(row, true, i) for i, row in enumerate(wanted)])))
    figure = mean_of(
        "Asked parts, colours, places and outcomes that a frozen probe finds in the last frame",
        value or [],
        unit="%",
        of="prompts",
        seed=suite.seed,
        baselines=(
            Baseline(name="the same clips, prompts of others", value=others),
            Baseline(name="the true pictures", value=ceiling),
        ),
        note=note,
    )
    heard = "Turn the sound on with the control of the video." if model.sound else "The checkpoint makes no sound."
    return Section(
        title="Imagine: a clip with sound from a sentence",
        text=f"From a sentence alone the model makes {CHUNK + 1} frames and their sound. {heard} The true clip is the "
        "end of the episode that the sentence tells of; the scene may look otherwise and still be right.",
        measures=tuple(figure.measures()),
        strips=tuple(
            Strip(
                caption=row.prompt,
                clips=(("imagined", clip), ("true end of the episode, silent", row.true)),
                fps=CONTROL_HZ,
                sound=None
                if result.sound is None or result.sound_rate is None
                else Sound(samples=result.sound, rate=result.sound_rate),
            )
            for row, clip, result in list(zip(wanted, clips, results, strict=True))[:CLIPS_SHOWN]
        ),
    )


def plan(model: Model, suite: Suite) -> Section:
    """The same actions imagined and simulated, chunk after chunk."""
    jobs = cuts(-(-suite.size.rollouts // len(SOURCES)), seed=suite.seed, offset=OFFSETS["plan"], steps=CHUNKS * CHUNK)
    windows = gather(cut, jobs[: max(2, suite.size.rollouts)], suite.workers)
    other = derangement(len(windows), suite.seed)
    made = rollouts(model, windows, [window.action for window in windows], suite)
    swapped = rollouts(model, windows, [windows[i].action for i in other], suite)
    figures: list[Figure] = []
    charts: list[Chart] = []
    for camera in ("front", "wrist"):
        true = [window.film[camera] for window in windows]
        predictions = {
            "imagined under the true actions": [film[camera] for film in made],
            "the given frame copied": [copy_last_frame(clip[:1], len(clip)) for clip in true],
            "imagined under the actions of another window": [film[camera] for film in swapped],
        }
        masks = [moving_pixels(clip, MOVED) for clip in true]
        errors = {
            name: [pixel_error(*row) for row in zip(predicted, true, masks, strict=True)]
            for name, predicted in predictions.items()
        }
        own, still, shuffled = errors.values()
        figures += [
            Figure(
                name=f"PSNR of moving pixels over {CHUNKS} chunks, {camera}",
                value=pooled(own).psnr_db,
                unit="dB",
                interval=psnr_interval(own, suite.seed),
                baselines=tuple(
                    Baseline(name=name, value=pooled(rows).psnr_db) for name, rows in list(errors.items())[1:]
                ),
                n=len(windows),
                of="windows",
            ),
            gain(f"Gain over the copied frame, {camera}", own, still, suite.seed),
            gain(f"Gain over shuffled actions, {camera}", own, shuffled, suite.seed),
        ]
        charts.append(
            Chart(
                caption=f"{camera}: higher is nearer to the truth; all {len(windows)} windows together.",
                lines=tuple(
                    Line(label=name, values=psnr_by_frame(predicted, true, masks))
                    for name, predicted in predictions.items()
                ),
                across=f"frame, {CONTROL_HZ} a second",
                up="PSNR of moving pixels, dB",
            )
        )
    return Section(
        title="Plan: the same actions imagined and simulated",
        text=f"From one frame of each camera and {CHUNKS} chunks of {CHUNK} actions the model imagines what follows, "
        "each chunk from the last frames that it imagined itself. The simulator carries out the same actions. Moving "
        "pixels are those whose true colour differs from the given frame.",
        measures=tuple(measure for figure in figures for measure in figure.measures()),
        strips=tuple(
            Strip(
                caption=f"Actions of {window.source}. The order of the episode: {window.instruction}",
                clips=(
                    ("front, simulated", window.front),
                    ("front, imagined", film["front"]),
                    ("front, other actions", wrong["front"]),
                    ("wrist, simulated", doubled(window.wrist)),
                    ("wrist, imagined", doubled(film["wrist"])),
                ),
                fps=CONTROL_HZ,
            )
            for window, film, wrong in zip(windows, made, swapped, strict=True)
        ),
        charts=tuple(charts),
    )


def rollouts(model: Model, windows: list[Window], actions: list[np.ndarray], suite: Suite) -> list[Film]:
    """Whole films of CHUNKS chunks; the frame that a chunk was given is that of the one before."""
    films: list[Film] = [{} for _ in windows]
    for made in chained(model, windows, actions, suite, CHUNKS):
        films = [
            {name: np.concatenate([film[name], clip[1:]]) if film else clip for name, clip in chunk.items()}
            for film, chunk in zip(films, made, strict=True)
        ]
    return films


def psnr_by_frame(
    predicted: list[np.ndarray], true: list[np.ndarray], masks: list[np.ndarray]
) -> tuple[float | None, ...]:
    """Frame by frame over all windows; none where nothing moved."""

    def at(frame: int) -> float | None:
        rows: list[PixelError] = [
            pixel_error(one[frame : frame + 1], clip[frame : frame + 1], mask[frame : frame + 1])
            for one, clip, mask in zip(predicted, true, masks, strict=True)
        ]
        return pooled(rows).psnr_db

    return tuple(at(frame) for frame in range(len(true[0])))


def doubled(film: np.ndarray) -> np.ndarray:
    """Twice as high and wide, so that the wrist camera stands beside the front camera."""
    return film.repeat(2, axis=1).repeat(2, axis=2)


def recover(model: Model, suite: Suite) -> Section:
    """Actions read from films against those that were executed."""
    windows = gather(cut, cuts(suite.size.inverse_windows, seed=suite.seed, offset=OFFSETS["recover"]), suite.workers)
    found = recovered(model, [window.film for window in windows], suite, 94)
    figures = columns([(one, window.action) for one, window in zip(found, windows, strict=True)], suite)
    executed = [window.action for window in windows]
    mean = np.concatenate(executed).mean(axis=0)
    charts = []
    for index, name in enumerate(ACTION_COLUMNS):
        charts.append(
            Chart(
                caption=f"{name}: {len(windows)} windows of {CHUNK} steps, one after the other with gaps.",
                lines=(
                    Line(label="recovered", values=with_gaps([rows[:, index] for rows in found])),
                    Line(label="executed", values=with_gaps([rows[:, index] for rows in executed])),
                    Line(label="mean action", values=[float(mean[index])] * (len(windows) * (CHUNK + 1) - 1)),
                ),
                across="control step",
                up=name,
            )
        )
    return Section(
        title="Recover: which actions did this?",
        text=f"The model sees {CHUNK + 1} frames of both cameras and says which actions led from each to the next. R2 "
        "is 1 for the true actions and 0 for their mean.",
        measures=tuple(measure for figure in figures for measure in figure.measures()),
        charts=tuple(charts),
    )


def with_gaps(pieces: list[np.ndarray]) -> list[float | None]:
    """Values one after the other, with a gap between the pieces."""
    return [value for piece in pieces for value in (*piece.tolist(), None)][:-1]


RIVALS = ("expert with noise", "play")


def rivals_of(case: Case) -> tuple[bool, bool]:
    """Whether each of RIVALS does the task of a trial."""
    return done_by_noise(case), done_by_play(case)


def act(model: Model, suite: Suite) -> Section:
    """Trials in the simulator, closed loop."""
    given = trials_for(suite, unseen=False)
    actions: list[list[np.ndarray]] = [[] for _ in given]

    def watch(told: Told) -> None:
        for number, rows in told.items():
            actions[number].append(rows)

    ended = closed_loop(model, given, suite, 30, watch)
    rivals = dict(zip(RIVALS, zip(*gather(rivals_of, given, suite.workers), strict=True), strict=True))
    done = [end.success for end in ended]
    # One of each outcome, where there are both.
    shown = sorted(range(len(given)), key=lambda i: ([*done[:i]].count(done[i]), i))[:FILMS_SHOWN]
    films = gather(filmed, [(given[i], np.concatenate(actions[i])[: ended[i].steps]) for i in shown], suite.workers)
    orders = [job_of(case)[1] for case in given]
    figure = share(
        "Success, all tasks",
        done,
        of="trials",
        baselines=[Baseline(name=name, value=percent(rows)) for name, rows in rivals.items()],
    )
    return Section(
        title="Act: the policy in the simulator",
        text=f"The model sees both cameras, the state of the gantry and the order, and acts in the simulator; "
        f"{suite.execute} of {CHUNK} actions are executed before it is asked again.",
        measures=tuple(figure.measures()),
        tables=(
            Table(
                head=("Task", "Order", "Model", "Steps", *rivals),
                rows=tuple(
                    (
                        case.task,
                        orders[i],
                        "done" if end.success else f"not done: {end.failure}",
                        str(end.steps),
                        *("done" if rows[i] else "not done" for rows in rivals.values()),
                    )
                    for i, (case, end) in enumerate(zip(given, ended, strict=True))
                ),
            ),
        ),
        strips=tuple(
            Strip(
                caption=f"Simulated, {given[i].task}: {orders[i]} "
                f"{'Done' if done[i] else f'Not done ({ended[i].failure})'} after {ended[i].steps} steps.",
                clips=(("front", film["front"]), ("wrist", doubled(film["wrist"]))),
                fps=CONTROL_HZ / FILMED_EVERY,
            )
            for i, film in zip(shown, films, strict=True)
        ),
    )


PANELS: Mapping[str, Panel] = {
    "ask": Panel(tasks=("reason",), rows=("reasoner", "grounding"), show=ask),
    "imagine": Panel(tasks=("text_to_video",), rows=("text_to_video", "sound"), show=imagine),
    "plan": Panel(tasks=("forward_dynamics",), rows=("forward", "state"), show=plan),
    "recover": Panel(tasks=("inverse_dynamics",), rows=("inverse",), show=recover),
    "act": Panel(tasks=("policy_no_video",), rows=("policy",), show=act),
}
