"""Compact records to train on, made as they are needed: no pictures but what they are drawn from, no files.

`record_of` makes one, `stream` many in processes of their own. Which records there are is in `mixture`; how they are
stored in `shards`, what the processes do in `making`. They never import torch.
"""

import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from jaxtyping import Float32, Int16

from orrery.errors import DatasetError, SettingsError
from orrery.worlds.factory.captions import caption, happenings
from orrery.worlds.factory.cell import STEP_S, Cell
from orrery.worlds.factory.drawing import Drawing, drawing_of
from orrery.worlds.factory.episode import Episode, perform
from orrery.worlds.factory.hearing import history
from orrery.worlds.factory.history import Sounding
from orrery.worlds.factory.mixture import CLEARANCES_M, RecordSpec, StreamSplit, spec_of
from orrery.worlds.factory.pcm import pcm
from orrery.worlds.factory.questions.question import FORESEEN, WATCHED, Question, ask
from orrery.worlds.factory.questions.sights import Witness
from orrery.worlds.factory.render import Renderer, project
from orrery.worlds.factory.rollout import Attempt
from orrery.worlds.factory.scene_words import clip_caption, scene_caption
from orrery.worlds.factory.tasks import TASKS

AFTER_STEPS = 16
"""Steps after success or loss, so that 16 actions follow on every state up to it."""
SIZE_PX = 128
"""Side of the front camera's pictures: what is too small in them is neither asked about nor mentioned."""
FLOOR_M = -0.05
"""What is lower has fallen off the bench."""
CAPTIONS = 3
SCENES = 2
"""Frames of a record with a caption of their own, the first among them."""
CLIPS = 3
"""Clips of a record with a caption of their own; those in which something happens come first."""
CLIP_STEPS = 16
SIGHTS = 8
"""Moments that are looked at for questions about single pictures."""
HEADER = struct.Struct("<q")
"""What goes before each record in the pipe of a worker: its length in bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One episode of T frames at CONTROL_HZ. Frame t is the state before action t."""

    index: int
    split: str
    seed: int
    task: str
    behaviour: str
    branch: str | None
    group: int
    """Records of one group begin in the same state."""
    fork_step: int | None
    """Steps from the beginning of the cell to frame 0 of a branch."""
    success: bool
    failure: str
    """Why not; "" where it succeeds."""
    drawing: Drawing
    """What its pictures are drawn from."""
    state: Float32[np.ndarray, "T 5"]
    """As `cell.STATE_COLUMNS` has it."""
    action: Float32[np.ndarray, "T 5"]
    """What was executed from frame t to t + 1."""
    expert: Float32[np.ndarray, "T 5"]
    """What the expert would have done at frame t."""
    parts: Float32[np.ndarray, "T P 7"]
    """Middles in metres and quaternions (w, x, y, z)."""
    view: Float32[np.ndarray, "T things 2"]
    """Where the middles of the parts and, last, of the gripper are in the front picture: right and down, in sides of
    it. Beyond 0 and 1, or NaN, is out of it."""
    looks: tuple[tuple[str, str], ...]
    """Finish and kind of each part."""
    sound: Int16[np.ndarray, "N 2"] | None
    """Left and right at 16 kHz, 800 samples a frame."""
    instructions: tuple[str, ...]
    """The order in every phrasing of the split."""
    captions: tuple[str, ...]
    """The whole attempt in a sentence or two."""
    scenes: tuple[tuple[int, str], ...]
    """A frame, and what the front camera shows in it."""
    clips: tuple[tuple[int, str], ...]
    """The first of CLIP_STEPS + 1 frames, and what the front camera shows in them."""
    questions: tuple[Question, ...]
    """About pictures of the front camera."""
    events: tuple[tuple[float, str, str], ...]
    """Seconds from frame 0, kind and body, as `cell.Event` has them."""


def record_of(spec: RecordSpec, *, sound: bool = True, questions: bool = True) -> Record:
    """Make one record; the same for the same arguments, in any process.

    Args:
        sound: with its sound, which costs a third more time and most of the bytes.
        questions: with those that the spec asks for.
    """
    played = perform(
        spec.episode, pairs=spec.pairs, clearances_m=CLEARANCES_M, random_look=spec.random_look,
        after_steps=AFTER_STEPS, keeps=True, listens=sound,
    )  # fmt: skip
    attempt, seed = played.attempt, spec.episode.seed
    moments, begin_s = attempt.moments, played.begin_s
    # Members of a group say different things about the same beginning.
    chance = [np.random.default_rng([seed, 20 + purpose, spec.index]) for purpose in range(3)]
    heard = None
    if sound:
        heard = pcm(history_of(played), begin_s, begin_s + len(moments) * STEP_S)
    renderer = Renderer(played.cell.model)
    rows = TASKS[attempt.job.task]
    known, count = len(rows.phrasings), len(rows.phrasings) + len(rows.held_out_phrasings)
    asked: list[Question] = []
    if questions and spec.questions:
        families = (*WATCHED, *FORESEEN) if spec.foresight else WATCHED
        asked = ask(
            played.cell, attempt, chance[2], split=spec.words, height=SIZE_PX, width=SIZE_PX, cameras=("front",),
            renderer=renderer, sights=SIGHTS, families=families,
        )  # fmt: skip
    return Record(
        index=spec.index,
        split=spec.split,
        seed=seed,
        task=spec.episode.task,
        behaviour=spec.episode.behaviour,
        branch=spec.episode.branch,
        group=spec.group,
        fork_step=played.fork_step,
        success=attempt.success,
        failure=attempt.failure,
        drawing=drawing_of(played.cell, [moment.state for moment in moments]),
        state=np.stack([moment.proprioception for moment in moments]),
        action=np.stack([moment.action for moment in moments]),
        expert=np.stack([moment.expert for moment in moments]),
        parts=np.stack([moment.parts for moment in moments]).astype(np.float32),
        view=view_of(played.cell, attempt),
        looks=tuple((placed.part.finish, placed.part.kind) for placed in attempt.job.layout.parts),
        sound=heard,
        instructions=tuple(
            attempt.job.instruction(phrasing)
            for phrasing in (range(known) if spec.words == "train" else range(known, count))
        ),
        captions=tuple(
            dict.fromkeys(caption(attempt, chance[0], level="sentence", split=spec.words) for _ in range(CAPTIONS))
        ),
        scenes=scenes_of(played.cell, attempt, chance[1], spec, renderer),
        clips=clips_of(played.cell, attempt, np.random.default_rng([seed, 23, spec.index]), spec, renderer),
        questions=tuple(asked),
        events=tuple((event.time_s - begin_s, event.kind, event.subject) for event in attempt.events),
    )


def view_of(cell: Cell, attempt: Attempt) -> Float32[np.ndarray, "T things 2"]:
    """As `Record.view`. The camera stands still; parts below the floor are gone."""
    grippers = np.stack([moment.proprioception[:3] for moment in attempt.moments])
    things_m = np.concatenate(
        [np.stack([moment.parts[:, :3] for moment in attempt.moments]), grippers[:, None]], axis=1
    )
    flat = things_m.reshape(-1, 3)
    seen = project(cell.model, cell.data, "front", flat, 1, 1)[:, :2]
    seen[flat[:, 2] < FLOOR_M] = np.nan
    return seen.reshape(*things_m.shape[:2], 2).astype(np.float32)


def history_of(played: Episode) -> list[Sounding]:
    """Everything that is to be heard, also what began before the first moment. The cell is left at its beginning."""
    played.cell.restore(played.start)
    return history(played.cell, [*played.before, *played.attempt.reports])


def scenes_of(
    cell: Cell, attempt: Attempt, rng: np.random.Generator, spec: RecordSpec, renderer: Renderer
) -> tuple[tuple[int, str], ...]:
    """The first frame and others in words."""
    witness = Witness(cell, attempt, SIZE_PX, SIZE_PX, renderer, ("front",))
    others = 1 + rng.permutation(len(attempt.moments) - 1)[: SCENES - 1]
    found = []
    for frame in (0, *(int(other) for other in others)):
        sight = witness.look(frame, "front")
        found.append((frame, scene_caption(cell, sight, rng, spec.words)))
    return tuple(found)


def clips_of(
    cell: Cell, attempt: Attempt, rng: np.random.Generator, spec: RecordSpec, renderer: Renderer
) -> tuple[tuple[int, str], ...]:
    """Short clips in words: the scene they begin with, and what happens in them."""
    last = len(attempt.moments) - CLIP_STEPS - 1
    if last < 0:
        return ()
    witness = Witness(cell, attempt, SIZE_PX, SIZE_PX, renderer, ("front",))
    told = happenings(attempt)
    begins = [round(at_s / STEP_S) - int(rng.integers(3, CLIP_STEPS - 1)) for at_s, _ in told]
    before = [frame for frame in dict.fromkeys(begins) if 0 <= frame <= last]
    frames = [*(before[index] for index in rng.permutation(len(before))), int(rng.integers(last + 1))]
    found = []
    for frame in sorted(set(frames[:CLIPS])):
        scene = scene_caption(cell, witness.look(frame, "front"), rng, spec.words)
        events = [event for at_s, event in told if frame * STEP_S < at_s <= (frame + CLIP_STEPS) * STEP_S]
        found.append((frame, clip_caption(scene, events[:2], rng, spec.words)))
    return tuple(found)


class Stream:
    """Records from `first` on, each once, in the order in which they are finished. Use it in a `with` block.

    Worker w makes records first + w, first + w + workers, ...; it waits while `ahead` finished ones are not fetched.
    """

    def __init__(
        self,
        first: int,
        workers: int,
        *,
        split: StreamSplit,
        ahead: int = 64,
        sound: bool = True,
        questions: bool = True,
    ) -> None:
        if workers < 1 or ahead < 1:
            raise SettingsError(f"A stream needs a worker and room for a record, got {workers} and {ahead}.")
        spec_of(first, split)
        settings = [str(workers), split, str(int(sound)), str(int(questions))]
        self._ready: queue.Queue[Record | str] = queue.Queue(maxsize=ahead)
        self._closed = threading.Event()
        # One thread each: simulators in as many processes share the cores already.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "orrery.worlds.factory.making", str(first + number), *settings],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=environment,
            )
            for number in range(workers)
        ]
        self._threads = [
            threading.Thread(target=self._fetch, args=(number, process), daemon=True)
            for number, process in enumerate(self.processes)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        """The next finished record.

        Raises:
            DatasetError: a worker ended, or the stream is closed.
        """
        if self._closed.is_set():
            raise DatasetError("The stream of records is closed. Open another one.")
        found = self._ready.get()
        if isinstance(found, str):
            self.close()
            raise DatasetError(found)
        return found

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. Records that were not fetched are lost; the same stream makes them again."""
        self._closed.set()
        for process in self.processes:
            process.kill()
        for process, thread in zip(self.processes, self._threads, strict=True):
            process.wait()
            thread.join()
            assert process.stdout is not None
            process.stdout.close()

    def _fetch(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        """Pass on what one worker makes, and at last that it ended."""
        pipe = process.stdout
        assert pipe is not None
        while True:
            header = pipe.read(HEADER.size)
            body = pipe.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
            if len(header) < HEADER.size or len(body) < HEADER.unpack(header)[0]:
                break
            # The sender is a process that this one started.
            if not self._put(pickle.loads(body)):
                return
        status = process.wait()
        self._put(
            f"Worker {number} of the stream of records ended with status {status}; what it said is on stderr. "
            "Open the stream again from the index after the last one."
        )

    def _put(self, found: Record | str) -> bool:
        """Whether there was room before the stream was closed."""
        while not self._closed.is_set():
            try:
                self._ready.put(found, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


def stream(
    first: int,
    workers: int,
    *,
    split: StreamSplit,
    ahead: int = 64,
    sound: bool = True,
    questions: bool = True,
) -> Stream:
    """Records from `first` on from processes of their own, until closed; see `Stream` and `record_of`."""
    return Stream(first, workers, split=split, ahead=ahead, sound=sound, questions=questions)
