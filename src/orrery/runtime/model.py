"""A loaded checkpoint: the network with everything that stands between it and media, and what it may be asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from orrery.errors import ContractError, TaskError
from orrery.model.mot import LaysOut, MoT
from orrery.model.offload import Offload
from orrery.model.reader import Reader
from orrery.model.vision import EdgeVision, QwenVision
from orrery.model.vision_config import VisionEncoderConfig
from orrery.runtime.outline import capabilities
from orrery.runtime.speed import Speed
from orrery.tasks.contract import ActionContract
from orrery.tasks.fit import Capability
from orrery.tokenizers.codecs import SoundCodec, VisionCodec
from orrery.tokenizers.eyes import EDGE_EYES, PICO_EYES, QWEN_EYES, Eyes
from orrery.tokenizers.text import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model came from, for the record beside every output."""

    path: Path
    layout: str
    """"orrery", "diffusers" or "reasoner"."""
    weights: Mapping[str, str]
    """File -> sha256 of everything that was read."""
    trained: bool | None
    """False: the weights are random. None: a released folder does not say."""
    licence: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Price:
    """What an approximate speed costs, as `runtime.price` measures it."""

    errors: Mapping[str, float]
    """Kind of segment -> root mean square error of its velocities, as a share of their root mean square, at the noise
    level where it is largest."""

    def to_text(self) -> str:
        """In words."""
        return ", ".join(f"{error:.1%} ({kind})" for kind, error in self.errors.items())


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What `orrery.load` returns."""

    mot: MoT
    text: TextTokenizer | None
    vision: VisionCodec | None
    sound: SoundCodec | None
    eyes: QwenVision | EdgeVision | None
    contracts: Mapping[str, ActionContract]
    """By embodiment; empty for released folders, which carry none."""
    family: str
    """Whose defaults apply: a key of `tasks.defaults.FAMILIES`."""
    origin: Origin
    tasks: tuple[str, ...] | None = None
    """What it was trained for; anything else is refused. None where a checkpoint does not say."""
    speed: Speed = field(default_factory=Speed)
    denoiser: LaysOut | None = None
    """The network made fast; None asks the network itself. `runtime.price.made_fast` makes it."""
    reader: Reader | None = None
    """The text tower made fast; None asks the network itself."""
    price: Price | None = None
    """What an approximate speed costs; None where it is exact to rounding."""
    offload: Offload | None = None
    """Which weights wait in CPU memory (`model.offload`)."""

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.mot.text_norm.weight.device

    @property
    def sight(self) -> Eyes:
        """How pictures are cut for the vision encoder.

        Raises:
            TaskError: there is no encoder, or none that is known cuts pictures as it wants them.
        """
        if self.eyes is None:
            raise TaskError(f"{self.origin.path} holds no vision encoder, so no picture can be seen. Load another.")
        return sight_of(self.eyes.config)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the checkpoint has, in the words of `tasks.fit`."""
        return capabilities(
            self.mot.config,
            text=self.text is not None,
            eyes=self.eyes is not None,
            vision=self.vision is not None,
            sound=self.sound is not None,
        )

    def contract(self, embodiment: str | None) -> ActionContract | None:
        """The contract of an embodiment; None where the checkpoint carries none at all.

        Raises:
            ContractError: the checkpoint has contracts, but not that one, or several and none was named.
        """
        if not self.contracts:
            return None
        if embodiment is None and len(self.contracts) == 1:
            return next(iter(self.contracts.values()))
        if embodiment is None or embodiment not in self.contracts:
            raise ContractError(
                f"Embodiment of the request is {embodiment!r}, the checkpoint has {', '.join(self.contracts)}. "
                "Name one of them, or load a checkpoint made for it."
            )
        return self.contracts[embodiment]

    def need_text(self) -> TextTokenizer:
        """The tokenizer; TaskError without one."""
        if self.text is None:
            raise TaskError(
                f"{self.origin.path} holds no text tokenizer, so no prompt can be read. Add text_tokenizer/."
            )
        return self.text


def sight_of(config: VisionEncoderConfig) -> Eyes:
    """The eyes that cut pictures as an encoder takes them.

    Raises:
        TaskError: no known family has such an encoder.
    """
    for kind, eyes in (("edge", EDGE_EYES), ("qwen", QWEN_EYES), ("qwen", PICO_EYES)):
        cut = (eyes.patch, eyes.temporal_patch, eyes.merge)
        if (kind, *cut) == (config.kind, config.patch, config.temporal_patch, config.merge):
            return eyes
    raise TaskError(
        f"No eyes fit a {config.kind!r} encoder of patch {config.patch}, {config.temporal_patch} frames and merge "
        f"{config.merge}. Add a row to tokenizers/eyes.py."
    )
