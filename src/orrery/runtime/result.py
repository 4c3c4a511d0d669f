"""What a request came to, and how it is written to disk: media, numbers, and `run.json` beside them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from orrery.data.media import Sound
from orrery.data.write_media import write_png, write_video, write_wav
from orrery.errors import RequestError
from orrery.weights.atomic import new_folder, write_atomic
from orrery.weights.documents import dump_json

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's machine-readable word for media that a model made."""
RANDOM_WEIGHTS = "The weights are random: nothing here was learned."


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What was made. A modality that the task does not have is None."""

    videos: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    """By camera, in the checkpoint's order ("vision" where it names none): RGB (T, H, W, 3). Frames that were given are
    decoded from their latents. T is 1 for a picture."""
    fps: float | None = None
    sound: npt.NDArray[np.float32] | None = None
    """(N, channels) in [-1, 1]."""
    sound_rate: int | None = None
    actions: npt.NDArray[np.float32] | None = None
    """(T, A) in raw robot units, without the row of the current state."""
    text: str | None = None
    latents: Mapping[str, Tensor] = field(default_factory=dict)
    """"vision" (C, t, h, w), "sound" (t, C), "action" (rows, A) as the model sees them, float32. Cameras after the
    first have keys such as "vision-wrist"."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """What `run.json` will hold, but for the hashes of the files."""

    @property
    def video(self) -> npt.NDArray[np.uint8] | None:
        """Of the first camera; None where no pictures were made."""
        return next(iter(self.videos.values()), None)

    def write(self, folder: Path) -> "Result":
        """Write everything into a new folder, whole or not at all.

        Returns:
            The same result, its manifest completed by the sha256 of each file.

        Raises:
            RequestError: as `check_new`.
        """
        check_new(folder)
        with new_folder(folder) as aside:
            self._write_media(aside)
            outputs = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(aside.iterdir())}
            manifest = {**self.manifest, "outputs": outputs}
            write_atomic(aside / "run.json", dump_json(manifest))
        return replace(self, manifest=manifest)

    def _write_media(self, folder: Path) -> None:
        mark = {"digitalSourceType": SYNTHETIC, "comment": f"Made by a model (Orrery). {SYNTHETIC}"}
        if self.manifest.get("weights_trained") is False:
            mark["description"] = RANDOM_WEIGHTS
        sound = None
        if self.sound is not None and self.sound_rate is not None:
            sound = Sound(samples=self.sound, rate=self.sound_rate)
            write_wav(folder / "sound.wav", sound, metadata=mark)
        for camera, (name, video) in enumerate(self.videos.items()):
            label = f"-{name}" if camera else ""
            if len(video) == 1:
                write_png(folder / f"image{label}.png", video[0], metadata=mark)
            else:
                assert self.fps is not None
                heard = None if camera else sound
                write_video(folder / f"video{label}.mp4", video, self.fps, sound=heard, metadata=mark)
        if self.actions is not None:
            rows = {"actions": self.actions.tolist(), "digital_source_type": SYNTHETIC}
            write_atomic(folder / "actions.json", dump_json(rows))
        if self.text is not None:
            write_atomic(folder / "answer.txt", f"{self.text}\n".encode())


def write_all(results: Sequence[Result], folder: Path) -> list[Result]:
    """Write results into 000, 001, ... below a new folder: all of them, or none.

    Returns:
        The same results, their manifests completed as by `Result.write`.

    Raises:
        RequestError: as `check_new`.
    """
    check_new(folder)
    with new_folder(folder) as aside:
        return [result.write(aside / f"{index:03}") for index, result in enumerate(results)]


def check_new(folder: Path) -> None:
    """Refuse a place for results that holds something already, or that cannot be written to.

    Raises:
        RequestError: it exists and is not empty, or it would lie in a file or in a folder that is read-only.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} exists and is not empty. Give a new folder; nothing is overwritten.")
    above = next(place for place in folder.absolute().parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RequestError(f"{folder} cannot be made: {above} is no folder to write to. Give another place.")
