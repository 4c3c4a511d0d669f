"""Record a plan as LeRobot v3.0 datasets, on any number of processes or machines, with the same bytes for any number.

Workers play, film and encode episodes into folders of their own (`stage`); one writer adopts them in order. Whoever
kills it loses the episodes that were being made; the same command goes on.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from orrery.data.lerobot_writer import Layout, Writer, stage_episode, write_table
from orrery.data.media import Sound
from orrery.data.write_media import write_flac, write_video
from orrery.errors import DatasetError, SettingsError
from orrery.weights.atomic import write_atomic
from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.captions import LEVELS, caption
from orrery.worlds.factory.cell import ACTION_COLUMNS, CONTROL_HZ, EMBODIMENT, STATE_COLUMNS, STEP_S, Cell
from orrery.worlds.factory.episode import chance_of, perform
from orrery.worlds.factory.hearing import history
from orrery.worlds.factory.plan import SIBLINGS, EpisodeSpec, Plan, Split, episodes
from orrery.worlds.factory.questions.edits import Clip, clip_sound, film_clip, make_clip
from orrery.worlds.factory.questions.question import Question, ask
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import Attempt, film, roll
from orrery.worlds.factory.sound import RATE_HZ, Sounding, Strike, labels, synthesise
from orrery.worlds.factory.tasks import TASKS, draw_job

COLUMNS = {"observation.state": STATE_COLUMNS, "action": ACTION_COLUMNS, "expert.action": ACTION_COLUMNS}
IN_FLIGHT = 3
"""Episodes per worker that may be staged ahead of the one that is adopted next."""
CARD: dict[str, Any] = {
    "licence": ("OpenMDW-1.1", "https://openmdw.ai"),
    "note": "Simulated by the factory cell of Orrery. Synthetic; no evidence about anything real.",
}
LOOPBACK_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
Tell = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Take:
    """An attempt as recorded, with its sound and what is said of it."""

    spec: EpisodeSpec
    attempt: Attempt
    instruction: str
    fork_step: int | None
    begin_s: float
    """Time of the cell at the first frame."""
    heard: Sequence[Sounding]
    """All that sounds in it, also what had begun before."""
    cell: Cell

    @property
    def branch(self) -> tuple[int, ...]:
        """What tells the streams of chance of siblings apart."""
        return () if self.spec.branch is None else (SIBLINGS.index(self.spec.branch),)


def layout_of(plan: Plan) -> Layout:
    """What all episodes of a plan have in common."""
    return Layout(
        fps=CONTROL_HZ,
        columns=COLUMNS,
        cameras={f"observation.images.{name}": (plan.height, plan.width) for name in plan.cameras},
    )


def play(spec: EpisodeSpec, plan: Plan, split: Split) -> Take:
    """Simulate one episode."""
    played = perform(
        spec,
        pairs="held_out" if split.unseen else "train",
        clearances_m=plan.clearances_m,
        random_look=split.random_look,
    )
    row, cell, attempt = TASKS[spec.task], played.cell, played.attempt
    spoken = row.held_out_phrasings if split.unseen else row.phrasings
    offset = len(row.phrasings) if split.unseen else 0
    instruction = attempt.job.instruction(offset + int(chance_of(spec.seed, 2).integers(len(spoken))))
    cell.restore(played.start)
    heard = history(cell, [*played.before, *attempt.reports])
    return Take(
        spec=spec,
        attempt=attempt,
        instruction=instruction,
        fork_step=played.fork_step,
        begin_s=played.begin_s,
        heard=heard,
        cell=cell,
    )


def stage(spec: EpisodeSpec, plan: Plan, split: Split, folder: Path) -> Path:
    """Play, film and describe one episode into a folder that a writer can adopt. Runs in any process."""
    take = play(spec, plan, split)
    stage_episode(
        folder,
        layout=layout_of(plan),
        **contents(take, plan.cameras, (plan.height, plan.width), split.name, unseen=split.unseen),
    )
    return folder


def contents(take: Take, cameras: Sequence[str], size: tuple[int, int], split: str, *, unseen: bool) -> dict[str, Any]:
    """What `stage_episode` and `Writer.add` write of an episode; pictures are made as they are asked for.

    Args:
        split: the name that is written down.
        unseen: captions and questions use the phrasings that are held out.
    """
    moments, attempt = take.attempt.moments, take.attempt
    words: Literal["train", "test"] = "test" if unseen else "train"
    renderer, states = Renderer(take.cell.model), [moment.state for moment in moments]
    chance = [np.random.default_rng([take.spec.seed, 10 + purpose, *take.branch]) for purpose in range(3)]
    captions = [caption(attempt, chance[0], level=level, split=words) for level in LEVELS]
    clip = make_clip(take.cell, attempt, chance[1], renderer=renderer)
    height, width = size
    questions = ask(
        take.cell,
        attempt,
        chance[2],
        split=words,
        height=height,
        width=width,
        cameras=cameras,
        clip=clip,
        renderer=renderer,
    )  # fmt: skip
    sound = Sound(samples=synthesise(take.heard, take.begin_s, take.begin_s + len(moments) * STEP_S), rate=RATE_HZ)
    about = {**about_of(take, split), "captions": captions, "clip": None if clip is None else about_clip(clip)}
    extras: dict[str, Callable[[Path], object]] = {
        "about.json": lambda path: path.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n"),
        "sound.flac": lambda path: write_flac(path, sound),
        "events.parquet": lambda path: write_table(path, events_table(take)),
        "phases.parquet": lambda path: write_table(path, phases_table(take)),
        "objects.parquet": lambda path: write_table(path, objects_table(take)),
        "questions.parquet": lambda path: write_table(path, questions_table(questions)),
    }
    if clip is not None:
        pictures = np.stack(list(film_clip(take.cell, clip, "front", height, width, renderer)))
        clip_heard = Sound(samples=clip_sound(clip), rate=RATE_HZ)
        extras["clip.mp4"] = lambda path: write_video(path, pictures, CONTROL_HZ, sound=clip_heard)
    return {
        "task": take.instruction,
        "columns": {
            "observation.state": np.stack([moment.proprioception for moment in moments]),
            "action": np.stack([moment.action for moment in moments]),
            "expert.action": np.stack([moment.expert for moment in moments]),
        },
        "frames": {f"observation.images.{name}": film(take.cell, states, name, *size, renderer) for name in cameras},
        "extras": extras,
    }


def record_episode(folder: Path, seed: int, *, frames: int, size: int) -> None:
    """One long episode of handling parts for no purpose, seen from the front, as a dataset in a new or empty folder.

    Raises:
        DatasetError: something is in the folder.
        SettingsError: fewer than 2 frames, or a size that video cannot hold.
    """
    if frames < 2 or size < 16 or size % 2:
        raise SettingsError(f"An episode needs 2 frames and an even size of 16 or more, got {frames} and {size}.")
    spec = EpisodeSpec(seed=seed, task="kit_fill", behaviour="goals")
    job = draw_job(spec.task, np.random.default_rng([seed, 0]), random_look=False)
    cell = Cell(job.layout, job.parameters)
    start = cell.snapshot()
    actor = policy(BEHAVIOURS[spec.behaviour], job, np.random.default_rng([seed, 1]))
    attempt = roll(cell, job, actor, steps=frames, to_the_end=True)
    cell.restore(start)
    take = Take(
        spec=spec, attempt=attempt, instruction="Handle the parts of the cell.", fork_step=None, begin_s=0.0,
        heard=history(cell, attempt.reports), cell=cell,
    )  # fmt: skip
    columns, cameras = COLUMNS, {"observation.images.front": (size, size)}
    with Writer(folder, fps=CONTROL_HZ, robot_type=EMBODIMENT, columns=columns, cameras=cameras, **CARD) as writer:
        writer.add(**contents(take, ("front",), (size, size), "one episode", unseen=False))


def about_of(take: Take, split: str) -> dict[str, Any]:
    """What an episode is, as JSON."""
    attempt, spec = take.attempt, take.spec
    return {
        "split": split,
        "seed": spec.seed,
        "task": spec.task,
        "behaviour": spec.branch or spec.behaviour,
        "group": spec.seed,
        "fork_step": take.fork_step,
        "instruction": take.instruction,
        "success": attempt.success,
        "failure": attempt.failure,
        "parameters": asdict(attempt.job.parameters),
        "layout": asdict(attempt.job.layout),
        "goals": [{"want": type(goal).__name__.lower(), **asdict(goal)} for goal in attempt.job.goals],
    }


def about_clip(clip: Clip) -> dict[str, Any]:
    """What was done to a clip."""
    names = ("start_frame", "stop_frame", "edit", "edit_start", "edit_stop", "subject")
    return {name: getattr(clip, name) for name in names}


def questions_table(questions: Sequence[Question]) -> pa.Table:
    """One row a question."""
    number, text, flag = pa.int64(), pa.string(), pa.bool_()
    kinds = {"template": number, "start_frame": number, "stop_frame": number, "sound": flag, "action": flag}
    kinds |= {"tolerance": pa.float64(), "chance": pa.float64(), "choices": pa.list_(text)}
    schema = pa.schema([(field.name, kinds.get(field.name, text)) for field in fields(Question)])
    return pa.Table.from_pylist([question.as_dict() for question in questions], schema=schema)


def events_table(take: Take) -> pa.Table:
    """What happened and what was heard, with its cause, by time from the first frame."""
    end_s = take.begin_s + len(take.attempt.moments) * STEP_S
    impulses = {
        (entry.time_s, tuple(body.name for body in entry.bodies)): entry.impulse_Ns
        for entry in take.heard
        if isinstance(entry, Strike)
    }
    rows = [
        {
            "time_s": event.time_s - take.begin_s,
            "stop_s": event.time_s - take.begin_s,
            "kind": event.kind,
            "subjects": [event.subject],
            "materials": [],
            "cause": f"{event.subject} {event.kind}",
            "impulse_Ns": None,
        }
        for event in take.attempt.events
    ]
    rows += [
        {
            "time_s": label.time_s - take.begin_s,
            "stop_s": min(label.stop_s, end_s) - take.begin_s,
            "kind": label.kind,
            "subjects": list(label.subjects),
            "materials": list(label.materials),
            "cause": label.cause,
            "impulse_Ns": impulses.get((label.time_s, label.subjects)),
        }
        for label in labels(take.heard)
        if label.stop_s > take.begin_s and label.time_s < end_s
    ]
    texts = pa.list_(pa.string())
    schema = pa.schema(
        [
            ("time_s", pa.float64()),
            ("stop_s", pa.float64()),
            ("kind", pa.string()),
            ("subjects", texts),
            ("materials", texts),
            ("cause", pa.string()),
            ("impulse_Ns", pa.float64()),
        ]
    )
    return pa.Table.from_pylist(sorted(rows, key=lambda row: (row["time_s"], row["kind"], row["cause"])), schema=schema)


def phases_table(take: Take) -> pa.Table:
    """What the expert would do at each frame, and why the task is not done there."""
    moments = take.attempt.moments
    return pa.table(
        {
            "frame_index": pa.array(range(len(moments)), pa.int64()),
            "phase": [moment.phase for moment in moments],
            "subject": [moment.subject for moment in moments],
            "failure": [moment.failure for moment in moments],
        }
    )


def objects_table(take: Take) -> pa.Table:
    """Where every part is at each frame."""
    moments = take.attempt.moments
    parts = len(take.attempt.job.layout.parts)
    poses = np.stack([moment.parts for moment in moments]).reshape(-1, 7).astype(np.float32)
    held = [moment.state.memory.held == index for moment in moments for index in range(parts)]
    columns = {
        "frame_index": pa.array(np.repeat(np.arange(len(moments)), parts), pa.int64()),
        "part": pa.array(np.tile(np.arange(parts), len(moments)), pa.int64()),
    }
    for number, name in enumerate(("x_m", "y_m", "z_m", "qw", "qx", "qy", "qz")):
        columns[name] = pa.array(poses[:, number])
    return pa.table({**columns, "held": pa.array(held, pa.bool_())})


def record(
    plan: Plan, out: Path, *, workers: int = 1, ray: str | None = None, tell: Tell = lambda done, total: None
) -> dict[str, Any]:
    """Make all datasets of a plan below `out`, one folder a split, or go on where an earlier call was killed.

    Args:
        workers: processes that make episodes, on this machine; with `ray`, tasks in flight at once.
        ray: None for processes; "local" for a Ray of this machine alone, bound to its loopback; or a cluster's
            address. Every machine must see `out` under the same path.
        tell: called with how many episodes are adopted, and how many there are.

    Returns:
        A summary, also written to `out`/record.json: episodes, frames, successes and a hash for each split.

    Raises:
        DatasetError: `out` holds something else, or a recording of another plan.
    """
    stamp = out / "plan.json"
    mine = {"plan": plan.name, "sha256": plan.sha256}
    if stamp.is_file() and json.loads(stamp.read_text()) != mine:
        raise DatasetError(f"{out} holds a recording of another plan, or of another version of it. Give a new folder.")
    if not stamp.is_file() and out.exists() and any(out.iterdir()):
        raise DatasetError(f"{out} is not empty and no recording. Give a new folder.")
    write_atomic(stamp, json.dumps(mine).encode())
    total = sum(len(episodes(split)) for split in plan.splits)
    done, summary = 0, {}
    make = staged_by_ray if ray is not None else staged_by_processes
    for split in plan.splits:
        specs, folder = episodes(split), out / split.name
        layout = layout_of(plan)
        writer = Writer(
            folder,
            fps=layout.fps,
            robot_type=EMBODIMENT,
            columns=layout.columns,
            cameras=layout.cameras,
            resume=True,
            **CARD,
        )
        staging = out / ".staging" / split.name
        for number in range(len(writer)):
            shutil.rmtree(staging / f"{number:06d}", ignore_errors=True)
        done += len(writer)
        tell(done, total)
        jobs = [(spec, plan, split, staging / f"{number:06d}") for number, spec in enumerate(specs)][len(writer) :]
        with writer:
            for path in make(jobs, workers, ray):
                writer.adopt(path)
                done += 1
                tell(done, total)
        summary[split.name] = summary_of(folder, len(specs))
    shutil.rmtree(out / ".staging", ignore_errors=True)
    write_atomic(out / "record.json", (json.dumps({**mine, "splits": summary}, indent=1) + "\n").encode())
    return {**mine, "splits": summary}


StageJob = tuple[EpisodeSpec, Plan, Split, Path]


def staged_by_processes(jobs: Sequence[StageJob], workers: int, _: str | None) -> Iterator[Path]:
    """The folders of `jobs` in their order, made by so many processes. Folders that are whole already are kept."""
    if workers <= 1:
        for job in jobs:
            yield job[3] if job[3].exists() else stage(*job)
        return
    # Not fork: threads of the encoder and of arrays may be running.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from in_order(jobs, workers, lambda job: pool.submit(stage, *job).result)


def in_order(
    jobs: Sequence[StageJob], workers: int, begin: Callable[[StageJob], Callable[[], object]]
) -> Iterator[Path]:
    """Begin jobs a little ahead of the one whose folder is asked for next; `begin` returns what waits for its end."""
    waiting: dict[int, Callable[[], object]] = {}
    begun = 0
    for number, job in enumerate(jobs):
        while begun < min(len(jobs), number + IN_FLIGHT * workers):
            if not jobs[begun][3].exists():
                waiting[begun] = begin(jobs[begun])
            begun += 1
        if number in waiting:
            waiting.pop(number)()
        yield job[3]


def staged_by_ray(jobs: Sequence[StageJob], workers: int, address: str | None) -> Iterator[Path]:
    """As `staged_by_processes`, by a Ray cluster."""
    if address == "local":
        # Whoever reaches a Ray can run code in it. Ray 2.60 takes an address of the loopback for the outer one, and
        # binds to the loopback alone where it believes itself on a system without clusters; read when it is imported.
        if "ray" in sys.modules and os.environ.get(LOOPBACK_ALONE) != "0":
            raise DatasetError(f"Ray was imported before. Set {LOOPBACK_ALONE}=0 for the whole program.")
        os.environ[LOOPBACK_ALONE] = "0"
    try:
        import ray
    except ImportError:
        raise DatasetError("Ray is not installed. Install the extra: pip install 'orrery[ray]'.") from None
    if address == "local":
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address=address, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1)(stage)

        def begin(job: StageJob) -> Callable[[], object]:
            made = remote.remote(*job)
            return lambda: ray.get(made)

        yield from in_order(jobs, workers, begin)
    finally:
        ray.shutdown()


def summary_of(folder: Path, count: int) -> dict[str, Any]:
    """How much a finished dataset holds, and the hash of all its files."""
    found = [json.loads(path.read_text()) for path in sorted((folder / "extras" / "about").rglob("*.json"))]
    assert len(found) == count
    info = json.loads((folder / "meta" / "info.json").read_text())
    return {
        "episodes": count,
        "frames": info["total_frames"],
        "successes": sum(about["success"] for about in found),
        "sha256": folder_hash(folder),
    }


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
