"""Everything that decides a training run, as one frozen value with a versioned JSON form.

A run is a function of its recipe, its data and its starting weights. How often it is saved, and where, are not part.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from orrery.errors import SettingsError, TaskError
from orrery.flow.noise_levels import NoiseLevels
from orrery.model.config import MoTConfig
from orrery.packing.segment import Kind
from orrery.tasks.task import Task, task_named, with_sound
from orrery.training.ema import power_gamma
from orrery.training.optim import LearningRate, OptimiserSettings
from orrery.training.settings_json import settings_from_json, settings_to_json

_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class Share:
    """One task of the mixture."""

    task: str
    """A row of `tasks.task`."""
    weight: float = 1.0
    """Examples are drawn in proportion to it."""
    every: int = 1
    """Steps from one that it takes part in to the next; then with as many times its examples and its loss, for few
    examples keep a GPU waiting. For runs on stacks alone, and not for questions."""
    sound: Literal["none", "all"] | None = None
    """Sound is made ("none" of it is given), given ("all"), or absent."""
    caption_dropout: float = 0.1
    """Probability that the caption is left out, which guidance needs; a task that writes keeps its question. Forward
    dynamics wants more: with the instruction and the first frame at hand, the actions can be ignored."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise SettingsError(f"The weight of {self.task!r} in the mixture must be above 0, got {self.weight}.")
        if self.every < 1:
            raise SettingsError(f"{self.task!r} must take part in every step or every few, got every {self.every}.")
        if not 0 <= self.caption_dropout <= 1:
            raise SettingsError(f"Caption dropout of {self.task!r} must be in [0, 1], got {self.caption_dropout}.")
        try:
            if self.row().writes and self.every > 1:
                raise SettingsError(f"{self.task!r} takes part in every step, got every {self.every}.")
        except TaskError as error:
            raise SettingsError(f"The mixture names an unfit task: {error}") from None

    def row(self) -> Task:
        """The task, with sound where it is asked for."""
        task = task_named(self.task)
        return task if self.sound is None else with_sound(task, self.sound)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Factors on the mean squared velocity error of each modality, and on the mean cross entropy of text."""

    vision: float = 1.0
    sound: float = 1.0
    action: float = 1.0
    text: float = 0.1
    sight: float = 0.0
    """Of what a picture shows and where; see `training.sight`. 0 asks for it nowhere."""

    def __post_init__(self) -> None:
        for name, weight in settings_to_json(self).items():
            if not 0 <= weight < math.inf:
                raise SettingsError(f"The loss weight of {name} must be 0 or more, got {weight}.")

    def of(self, kind: Kind) -> float:
        """The factor of one modality."""
        return {"vision": self.vision, "sound": self.sound, "action": self.action}[kind]


_LOGIT_NORMAL_3 = NoiseLevels(kind="logitnormal", shift=3.0)


@dataclass(frozen=True, kw_only=True)
class ModalityNoise:
    """Which noise levels training draws for each modality."""

    vision: NoiseLevels = _LOGIT_NORMAL_3
    sound: NoiseLevels = _LOGIT_NORMAL_3
    action: NoiseLevels = _LOGIT_NORMAL_3

    def of(self, kind: Kind) -> NoiseLevels:
        """The levels of one modality."""
        return {"vision": self.vision, "sound": self.sound, "action": self.action}[kind]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run."""

    model: MoTConfig
    mixture: tuple[Share, ...]
    steps: int
    """Optimiser steps at most."""
    batch: int
    """Samples packed into one step."""
    seconds: float | None = None
    """Wall-clock seconds at most, over all resumptions; the cool-down then follows the clock as well."""
    seed: int = 0
    """Decides the order of the data, the tasks, the noise levels and the noise."""
    loss_weights: LossWeights = field(default_factory=LossWeights)
    noise: ModalityNoise = field(default_factory=ModalityNoise)
    independent_noise: bool = True
    """One noise level per segment; False shares one per sample, drawn from the levels of its first segment's modality
    (vision where there is any), as the released models were trained."""
    clip_latents: int = 2
    """Latent frames that a "clip" shows; 2 are five pixel frames."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    schedule: LearningRate = field(default_factory=LearningRate)
    """Factor on the learning rate by step; the cool-down multiplies it."""
    cooldown: float = 0.5
    """Last share of the run over which the learning rate falls evenly to `cooldown_floor`; 0 turns it off."""
    cooldown_floor: float = 0.02
    ema_width: float | None = 0.1
    """Relative width of the running mean of the weights; None keeps none."""
    clip_norm: float | None = 1.0
    """Largest joint norm of all gradients; None does not clip."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in. Weights, noise and losses are float32 in both."""

    def __post_init__(self) -> None:
        for name, count in (("steps", self.steps), ("batch", self.batch), ("clip_latents", self.clip_latents)):
            if count < 1:
                raise SettingsError(f"{name} must be 1 or more, got {count}.")
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"seed must be from 0 to 2^63 - 1, got {self.seed}.")
        for limit_name, limit in (("seconds", self.seconds), ("clip_norm", self.clip_norm)):
            if limit is not None and not 0 < limit < math.inf:
                raise SettingsError(f"{limit_name} must be above 0, or None for no limit; got {limit}.")
        for share_name, share in (("cooldown", self.cooldown), ("cooldown_floor", self.cooldown_floor)):
            if not 0 <= share <= 1:
                raise SettingsError(f"{share_name} must be in [0, 1], got {share}.")
        if self.ema_width is not None:
            power_gamma(self.ema_width)
        if not self.mixture:
            raise SettingsError("The mixture is empty. Name at least one task to train.")
        names = [(share.task, share.sound) for share in self.mixture]
        if len(set(names)) < len(names):
            raise SettingsError(f"The mixture names a task twice: {', '.join(task for task, _ in names)}.")
        for row in (share.row() for share in self.mixture):
            for kind, given, width in (
                ("sound", row.sound, self.model.sound_width),
                ("action", row.action, self.model.action_width),
            ):
                if given is not None and width is None:
                    raise SettingsError(
                        f"Task {row.name!r} needs {kind}, but the model has no {kind} stream. Set its {kind}_width."
                    )

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is done, 1 at its end: by steps or by the clock, whichever is further on."""
        by_clock = 0.0 if self.seconds is None else seconds / self.seconds
        return min(1.0, max(step / self.steps, by_clock))

    def rate(self, step: int, seconds: float) -> float:
        """The factor on every learning rate for the step that starts now."""
        left = 1 - self.progress(step, seconds)
        cooled = 1.0 if left >= self.cooldown else left / self.cooldown
        return self.schedule.factor(step) * (self.cooldown_floor + (1 - self.cooldown_floor) * cooled)

    def to_json(self) -> dict[str, Any]:
        """Plain values, all of them, and the version of their meaning."""
        return {"version": _VERSION, **settings_to_json(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Recipe":
        """Inverse of `to_json`.

        Raises:
            SettingsError: another version, a key that is missing or unknown, a value of another type or out of range.
        """
        if document.get("version") != _VERSION:
            raise SettingsError(f"The recipe has version {document.get('version')!r}, this program reads {_VERSION}.")
        return settings_from_json(cls, {k: v for k, v in document.items() if k != "version"}, "recipe")
