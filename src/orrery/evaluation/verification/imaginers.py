"""World models for the ladder: one of ours, and broken ones that every report must fail."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from orrery.evaluation.baselines import derangement
from orrery.evaluation.factory.sound import mono
from orrery.evaluation.verification.interfaces import Actions, Film, Imaginer
from orrery.runtime.model import Model
from orrery.runtime.result import Result
from orrery.runtime.run import run
from orrery.tasks.request import Request


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelImaginer:
    """A checkpoint of ours."""

    model: Model
    embodiment: str
    name: str = "model"
    batch: int = 8
    """Requests in one pack."""
    steps: int | None = None
    """Of sampling; the checkpoint's own where None."""

    @property
    def tells(self) -> bool:
        return self.model.eyes is not None and "reason" in (self.model.tasks or ("reason",))

    @property
    def sounds(self) -> bool:
        return self.model.sound is not None

    def imagine(self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int]) -> list[Film]:
        return [dict(result.videos) for result in self._made(given, actions, seeds)]

    def listen(
        self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int], rate_hz: int
    ) -> list[Float[np.ndarray, " N"]]:
        made = self._made(given, actions, seeds, sound="make")
        return [mono(result.sound, result.sound_rate or rate_hz, rate_hz) for result in made]

    def _made(
        self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int], **fields: Any
    ) -> list[Result]:
        requests = [
            Request(
                task="forward_dynamics",
                vision=dict(frames),
                actions=np.asarray(rows, dtype=np.float32),
                seed=seed % 2**31,
                embodiment=self.embodiment,
                steps=self.steps,
                **fields,
            )
            for frames, rows, seed in zip(given, actions, seeds, strict=True)
        ]
        made: list[Result] = []
        for start in range(0, len(requests), self.batch):
            made += run(self.model, requests[start : start + self.batch])
        return made

    def tell(self, films: Sequence[npt.NDArray[np.uint8]], questions: Sequence[str], fps: float) -> list[str]:
        requests = [
            Request(task="reason", prompt=question, vision=film, fps=fps, seed=0, max_new_tokens=8)
            for film, question in zip(films, questions, strict=True)
        ]
        return [(result.text or "").strip() for result in run(self.model, requests)] if requests else []


@dataclass(frozen=True, kw_only=True, eq=False)
class ShuffledActions:
    """Imagines what another row's actions lead to; a row alone gets its own backwards."""

    of: Imaginer
    name: str = "shuffled actions"
    tells: bool = False
    sounds: bool = False

    def imagine(self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int]) -> list[Film]:
        if len(actions) == 1:
            return self.of.imagine(given, [actions[0][::-1]], seeds)
        others = derangement(len(actions), 0)
        return self.of.imagine(given, [actions[i] for i in others], seeds)

    def tell(self, films: Sequence[npt.NDArray[np.uint8]], questions: Sequence[str], fps: float) -> list[str]:
        return self.of.tell(films, questions, fps)

    def listen(
        self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int], rate_hz: int
    ) -> list[Float[np.ndarray, " N"]]:
        return self.of.listen(given, actions, seeds, rate_hz)


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenVideo:
    """The frame that is given, for ever."""

    name: str = "frozen video"
    tells: bool = False
    sounds: bool = False

    def imagine(self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int]) -> list[Film]:
        return [
            {camera: np.repeat(frame[None], len(rows) + 1, axis=0) for camera, frame in frames.items()}
            for frames, rows in zip(given, actions, strict=True)
        ]

    def tell(self, films: Sequence[npt.NDArray[np.uint8]], questions: Sequence[str], fps: float) -> list[str]:
        raise NotImplementedError("A frozen video answers nothing.")

    def listen(
        self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int], rate_hz: int
    ) -> list[Float[np.ndarray, " N"]]:
        raise NotImplementedError("A frozen video is silent.")


@dataclass(frozen=True, kw_only=True, eq=False)
class FlippedGripper:
    """Opens where it is told to close."""

    of: Imaginer
    column: int
    name: str = "gripper flipped"
    tells: bool = False
    sounds: bool = False

    def imagine(self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int]) -> list[Film]:
        flipped = []
        for rows in actions:
            other = np.array(rows)
            other[:, self.column] = 1 - other[:, self.column]
            flipped.append(other)
        return self.of.imagine(given, flipped, seeds)

    def tell(self, films: Sequence[npt.NDArray[np.uint8]], questions: Sequence[str], fps: float) -> list[str]:
        return self.of.tell(films, questions, fps)

    def listen(
        self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int], rate_hz: int
    ) -> list[Float[np.ndarray, " N"]]:
        return self.of.listen(given, actions, seeds, rate_hz)


BROKEN = {"shuffled actions": "gain_db", "frozen video": "motion", "gripper flipped": "gripper"}
"""What is broken -> the figure of the first rung that must show it."""


def broken(name: str, imaginer: Imaginer, gripper: int) -> Imaginer:
    """The broken version of a model that is called so."""
    if name == "shuffled actions":
        return ShuffledActions(of=imaginer)
    return FrozenVideo() if name == "frozen video" else FlippedGripper(of=imaginer, column=gripper)
