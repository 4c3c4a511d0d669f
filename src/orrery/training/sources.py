"""Recorded data as windows to learn from: LeRobot episodes, and captioned clips of a JSONL list.

Pictures are fitted, encoded and turned into prompts exactly as a request would be at inference; noise, tasks and order
are `training.batch`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, UInt8

from orrery.data.clips import Clip, ClipList
from orrery.data.clips import Window as ClipWindow
from orrery.data.lerobot import Dataset
from orrery.data.media import probe_video, read_video
from orrery.data.resize import cover
from orrery.errors import DatasetError
from orrery.tasks.contract import ActionContract
from orrery.tasks.task import Task
from orrery.tokenizers.codecs import VisionCodec
from orrery.tokenizers.text import TextTokenizer
from orrery.training.batch import Window


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """One episode in memory: N frames and the N - 1 actions between them; row i leads from frame i into frame i + 1."""

    frames: UInt8[np.ndarray, "N H W 3"]
    """Already of the size that the model takes."""
    actions: Float32[np.ndarray, "N-1 A"]
    """Raw robot units."""
    prompt: str = ""


def read_recordings(
    dataset: Dataset, *, camera: str, size: tuple[int, int], actions: str = "action"
) -> list[Recording]:
    """Read every episode of a LeRobot dataset once, its pictures scaled to cover `size` (height, width) and cut.

    A dataset has an action in every row; that of the last row leads out of the episode and is left.

    Args:
        camera: one of the dataset's cameras.
        actions: the column of actions.

    Raises:
        DatasetError: no such column, or an episode that contradicts its index.
    """
    recordings = []
    for index in range(len(dataset)):
        episode = dataset.episode(index)
        if actions not in episode.columns:
            known = ", ".join(sorted(episode.columns))
            raise DatasetError(f"{dataset.root} has no column {actions!r} of actions. It has {known}.")
        table = np.asarray(episode.columns[actions], dtype=np.float32).reshape(episode.length, -1)
        frames = cover(episode.frames(camera), size)
        recordings.append(Recording(frames=frames, actions=table[:-1], prompt=episode.task))
    return recordings


class EpisodeSource:
    """Every window of `chunk` + 1 frames of some recordings, under one contract. A `batch.Source`."""

    def __init__(
        self, recordings: Sequence[Recording], *, text: TextTokenizer, codec: VisionCodec, contract: ActionContract
    ) -> None:
        """Take recordings that are long enough and of the contract's action width.

        Raises:
            DatasetError: a recording that is too short or of another width, by number.
        """
        for index, recording in enumerate(recordings):
            if len(recording.frames) <= contract.chunk:
                raise DatasetError(
                    f"Recording {index} has {len(recording.frames)} frames; one window takes {contract.chunk + 1}. "
                    "Leave it out, or lower the chunk."
                )
            if recording.actions.shape[1] != contract.width:
                raise DatasetError(
                    f"Recording {index} has actions of {recording.actions.shape[1]} columns; the contract of "
                    f"{contract.embodiment!r} has {contract.width}. Convert them."
                )
        self.recordings = tuple(recordings)
        self.text = text
        self.codec = codec
        self.contract = contract
        self.starts = [0, *accumulate(len(recording.frames) - contract.chunk for recording in recordings)]

    def __len__(self) -> int:
        """One window starts at every frame that has `chunk` frames after it."""
        return self.starts[-1]

    def place(self, index: int) -> tuple[Recording, int]:
        """The recording that a window is cut from, and its first frame."""
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.recordings[which], index - self.starts[which]

    def window(self, index: int, task: Task, rng: torch.Generator) -> Window:
        """Frames and normalised actions of a window, with the recording's prompt."""
        recording, first = self.place(index)
        last = first + self.contract.chunk
        frames = recording.frames[first : last + 1] if task.frames != "one" else recording.frames[first : first + 1]
        rate = float(self.contract.control_rate_hz)
        return Window(
            prompt=torch.tensor(self.text.prompt_ids(recording.prompt)),
            empty_prompt=torch.tensor(self.text.prompt_ids("")),
            vision=self.codec.encode(frames),
            vision_fps=rate,
            actions=torch.from_numpy(self.contract.encode(recording.actions[first:last])),
            action_fps=rate,
            domain=self.contract.domain_id,
        )


class ClipSource:
    """The first `frames` frames of every captioned window of a clip list, read each time. A `batch.Source`."""

    def __init__(
        self, clips: ClipList, *, frames: int, size: tuple[int, int], text: TextTokenizer, codec: VisionCodec
    ) -> None:
        """Take the windows of a list.

        Args:
            frames: 4k + 1.
            size: height and width that pictures are fitted to.

        Raises:
            DatasetError: a window with fewer frames, by its clip.
        """
        self.windows: list[tuple[Clip, ClipWindow]] = [
            (clip, window) for clip in clips.clips for window in clip.windows
        ]
        for clip, window in self.windows:
            if window.frames < frames:
                raise DatasetError(
                    f"Clip {clip.uuid} has a window of {window.frames} frames, fewer than {frames}. Drop it."
                )
        self.frames = frames
        self.size = size
        self.text = text
        self.codec = codec

    def __len__(self) -> int:
        """Number of captioned windows."""
        return len(self.windows)

    def window(self, index: int, task: Task, rng: torch.Generator) -> Window:
        """A window's frames, at the rate that its interval leaves, with its caption."""
        clip, window = self.windows[index]
        count = 1 if task.frames == "one" else self.frames
        stop = window.start + (count - 1) * window.interval + 1
        video = read_video(clip.path, start=window.start, stop=stop, trusted=True)
        pixels: npt.NDArray[np.uint8] = np.ascontiguousarray(video.frames[:: window.interval])
        return Window(
            prompt=torch.tensor(self.text.prompt_ids(window.caption)),
            empty_prompt=torch.tensor(self.text.prompt_ids("")),
            vision=self.codec.encode(cover(pixels, self.size)),
            vision_fps=float(probe_video(clip.path, trusted=True).fps) / window.interval,
        )
