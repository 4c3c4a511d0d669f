"""One recorded episode as the model is trained on it: frames of one camera, actions, and the contract they follow."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from orrery.data.lerobot import Dataset, Episode, extra_path, open_dataset
from orrery.data.media import Sound, read_sound
from orrery.data.resize import cover
from orrery.errors import DatasetError
from orrery.tasks.contract import ActionContract, Camera
from orrery.tasks.embodiment import EMBODIMENTS, embodiment
from orrery.tasks.normaliser import Normaliser
from orrery.tasks.rotation import DROID_TO_OPENCV, framewise_deltas, matrix_from_euler_xyz, poses
from orrery.tokenizers.codecs import VisionCodec
from orrery.tokenizers.text import TextTokenizer
from orrery.training import sources
from orrery.training.sources import EpisodeSource

CHUNK = 16
HELD_OUT = 0.1
FEWEST_HELD_OUT = 6
"""Windows behind the cut of a short episode."""
PIXELS = 64 * 112
"""About so many a frame: on two CPU cores this learned more in 8 minutes than 96 x 160 did."""
SIDE = 16
"""Frame sides are multiples of it: two latents of 8 pixels."""
POSE, GRIPPER = "observation.state.cartesian_position", "action.gripper_position"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """What is read of a dataset: N frames and the N - 1 actions between them."""

    frames: np.ndarray
    """uint8 (N, H, W, 3)."""
    actions: np.ndarray
    """float32 (N - 1, A), raw; row i leads from frame i into frame i + 1."""
    fps: float
    prompt: str
    contract: ActionContract
    remarks: tuple[str, ...]
    """What is missing or was assumed, one line each."""
    sound: Sound | None

    @property
    def cut(self) -> int:
        """The first frame that is held out: training sees none from here on."""
        return len(self.frames) - max(int(len(self.frames) * HELD_OUT), CHUNK + FEWEST_HELD_OUT)

    @property
    def training_starts(self) -> range:
        """First frames of windows that lie before the cut."""
        return range(self.cut - CHUNK)

    @property
    def held_out_starts(self) -> range:
        """First frames of windows that lie behind it."""
        return range(self.cut, len(self.frames) - CHUNK)

    def sound_of(self, frames: int) -> Sound | None:
        """The sound of the first frames, where there is any."""
        if self.sound is None:
            return None
        return replace(self.sound, samples=self.sound.samples[: round(frames / self.fps * self.sound.rate)])

    def clip(self, start: int) -> np.ndarray:
        """The CHUNK + 1 frames of a window."""
        return self.frames[start : start + CHUNK + 1]

    def chunk(self, start: int) -> np.ndarray:
        """The CHUNK actions of a window."""
        return self.actions[start : start + CHUNK]

    def windows(self, stop: int, codec: VisionCodec, text: TextTokenizer) -> EpisodeSource:
        """The windows before frame `stop`, by their first frame, as training takes them."""
        part = sources.Recording(frames=self.frames[:stop], actions=self.actions[: stop - 1], prompt=self.prompt)
        return EpisodeSource([part], text=text, codec=codec, contract=self.contract)


def read_recording(folder: Path, index: int = 0) -> Recording:
    """Read one episode of a LeRobot v3 folder, with the first camera that exists.

    Raises:
        DatasetError: not such a folder, no camera, too short an episode, or no actions that are understood.
    """
    dataset = open_dataset(folder, cameras="available")
    episode = dataset.episode(index)
    remarks = list(dataset.problems)
    if not episode.cameras:
        raise DatasetError(f"{folder}: episode {index} has no video. The model needs one camera to look through.")
    if episode.length < 4 * CHUNK:
        raise DatasetError(f"{folder}: episode {index} has {episode.length} frames; {4 * CHUNK} are needed.")
    camera = next(iter(episode.cameras))
    remarks.append(f"Camera {camera} is used, alone.")
    frames = read_frames(episode, camera)
    view = Camera(name=camera, height=frames.shape[1], width=frames.shape[2])
    actions, contract = actions_of(dataset, episode, view, remarks)
    if not episode.task:
        remarks.append("The episode has no task text; the prompt is empty.")
    sound = extra_path(folder, "sound", "flac", index)
    return Recording(
        frames=frames,
        actions=actions,
        fps=episode.fps,
        prompt=episode.task,
        contract=contract,
        remarks=tuple(remarks),
        sound=read_sound(sound) if sound.is_file() else None,
    )


def read_frames(episode: Episode, camera: str) -> np.ndarray:
    """All frames of a camera, scaled once to about PIXELS; a hundred at a time, since they are large."""
    pieces = []
    for start in range(0, episode.length, 100):
        piece = episode.frames(camera, start, min(start + 100, episode.length))
        pieces.append(cover(piece, frame_size(*piece.shape[1:3])))
    return np.concatenate(pieces)


def frame_size(height: int, width: int) -> tuple[int, int]:
    """About PIXELS pixels of nearly the same aspect, sides multiples of SIDE, never larger than the recording."""
    scale = min(1.0, (PIXELS / (height * width)) ** 0.5)
    tall, wide = (max(SIDE, round(side * scale / SIDE) * SIDE) for side in (height, width))
    return tall, wide


def actions_of(
    dataset: Dataset, episode: Episode, view: Camera, remarks: list[str]
) -> tuple[np.ndarray, ActionContract]:
    """Actions (N - 1, A) and their contract: of a robot that has a row; DROID deltas; else the `action` column."""
    row = EMBODIMENTS.get(dataset.robot_type or "")
    if row is not None and row.action_names:
        return episode.columns["action"][:-1].astype(np.float32), row.contract(chunk=CHUNK, cameras=(view,))
    if {POSE, GRIPPER} <= set(episode.columns):
        remarks.append(f"Actions are motions of the gripper from one frame to the next, from {POSE} and {GRIPPER}.")
        contract = embodiment("droid_lerobot").contract(chunk=CHUNK, cameras=(view,))
        if contract.control_rate_hz != episode.fps:
            raise DatasetError(f"DROID runs at {contract.control_rate_hz} Hz, the episode at {episode.fps}. Resample.")
        return droid_actions(episode.columns), contract
    if "action" not in episode.columns:
        raise DatasetError(
            f"{dataset.root} has no column 'action', and not both of {POSE} and {GRIPPER}. "
            f"It has: {', '.join(episode.columns)}."
        )
    actions = episode.columns["action"][:-1].reshape(episode.length - 1, -1).astype(np.float32)
    width = actions.shape[1]
    stated = dataset.features["action"].get("names")
    named = isinstance(stated, list) and len(stated) == width
    names = tuple(map(str, stated)) if named else tuple(f"action_{i}" for i in range(width))
    remarks.append("The dataset does not say what its actions mean; the contract takes them as absolute joint values.")
    low, high = np.quantile(actions, [0.01, 0.99], axis=0)
    return actions, ActionContract(
        embodiment="custom",
        domain_id=0,
        action_names=names,
        units=("as recorded",) * width,
        frame="joints",
        mode="absolute",
        control_rate_hz=episode.fps,
        chunk=CHUNK,
        cameras=(view,),
        normaliser=Normaliser(kind="quantile", lo=tuple(low.tolist()), hi=tuple(high.tolist())),
    )


def droid_actions(columns: Mapping[str, Any]) -> np.ndarray:
    """Framewise end-effector deltas and the gripper command with 1 open, (N - 1, 10)."""
    pose = columns[POSE].astype(np.float64)
    path = poses(pose[:, :3], matrix_from_euler_xyz(pose[:, 3:]) @ DROID_TO_OPENCV)
    # The recording has 1 for closed.
    gripper = 1 - columns[GRIPPER][:-1].reshape(-1, 1)
    return np.concatenate([framewise_deltas(path), gripper], axis=1).astype(np.float32)
