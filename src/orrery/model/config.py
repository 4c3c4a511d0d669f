"""The shapes of the released families, and of ours, as rows of data."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from orrery.errors import CheckpointError
from orrery.packing.positions import Clock
from orrery.weights.documents import exact_fields


@dataclass(frozen=True, kw_only=True)
class MoTConfig:
    """Everything that decides the shape and the arithmetic of a `MoT`; both towers are alike."""

    family: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    vocab: int
    activation: Literal["swiglu", "relu2"] = "swiglu"
    norm_eps: float = 1e-6
    norm_scales_in_float32: bool = False
    """Multiply by the norm's weight before the cast to the activations' type, not after (visible in bfloat16)."""
    generates: bool = True
    """False: a reasoner alone, without the generation tower and its heads."""
    text_qk_norm: bool = True
    text_key_norm: bool = False
    """Text keys get a norm of their own when the generation tower reads them."""
    rope_theta: float = 5e6
    rope_axes: tuple[int, int, int] = (24, 20, 20)
    """Rotary frequencies of the time, row and column axis; they sum to half the head width."""
    vision_channels: int = 48
    vision_patch: int = 2
    cameras: int = 0
    """Vision items that the model tells apart by an embedding of their own; 0 is none, as in the released families."""
    action_width: int | None = 64
    action_domains: int = 32
    action_sums: bool = False
    """The model is shown running sums of actions beside them: of displacements, they are the way gone."""
    sound_width: int | None = 64
    sound_fps: float = 25.0
    timestep_scale: float = 0.001
    clock: Clock = field(default_factory=Clock)
    prediction: Literal["velocity", "data"] = "velocity"
    """What the heads put out. From data, velocity = (x - data) / max(sigma, sigma_floor)."""
    sigma_floor: float = 0.05

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise CheckpointError(f"{self.heads} query heads cannot share {self.kv_heads} key heads evenly.")
        if self.cameras < 0:
            raise CheckpointError(f"cameras must be 0 or more, got {self.cameras}.")
        if 2 * sum(self.rope_axes) != self.head_width:
            raise CheckpointError(f"rope_axes {self.rope_axes} must sum to half of head_width {self.head_width}.")

    @property
    def vision_width(self) -> int:
        """Values of one vision token."""
        return self.vision_channels * self.vision_patch**2

    def to_json(self) -> dict[str, Any]:
        """Plain values, all of them, for a saved configuration."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "MoTConfig":
        """Inverse of `to_json`; a missing or unknown key is an error."""
        values = exact_fields(cls, document, "Model configuration")
        values["clock"] = Clock(**exact_fields(Clock, values["clock"], "Clock of the model configuration"))
        values["rope_axes"] = tuple(values["rope_axes"])
        return cls(**values)


NANO = MoTConfig(
    family="nano", width=4096, layers=36, heads=32, kv_heads=8, head_width=128, ffn_width=12288, vocab=151936
)
SUPER = MoTConfig(
    family="super", width=5120, layers=64, heads=64, kv_heads=8, head_width=128, ffn_width=25600, vocab=151936
)
EDGE = MoTConfig(
    family="edge",
    width=2048,
    layers=28,
    heads=16,
    kv_heads=8,
    head_width=128,
    ffn_width=9216,
    vocab=131072,
    activation="relu2",
    norm_eps=1e-5,
    norm_scales_in_float32=True,
    text_qk_norm=False,
    text_key_norm=True,
    rope_theta=1e8,
    sound_width=None,
)
PICO = MoTConfig(
    family="pico",
    width=512,
    layers=8,
    heads=8,
    kv_heads=2,
    head_width=64,
    ffn_width=1728,
    vocab=1024,
    activation="relu2",
    rope_theta=100.0,
    rope_axes=(12, 10, 10),
    vision_channels=64,
    cameras=2,
    action_width=8,
    action_sums=True,
    sound_width=64,
    sound_fps=20.0,
    clock=Clock(base_fps=80.0, margin=64, one_pace=True),
    prediction="data",
    sigma_floor=0.1,
)
"""Ours, trained on the factory cell: 20 M parameters a tower, both of which read and make everything.

Frames of its films are 1 position apart, and frequencies high enough to tell neighbours apart from the first step on.
"""
TINY = MoTConfig(
    family="tiny",
    width=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_width=24,
    ffn_width=96,
    vocab=512,
    rope_axes=(4, 4, 4),
    vision_channels=8,
    action_width=16,
    action_domains=32,
    sound_width=12,
)
"""For tests: q is wider than the model (4 x 24 > 64), as in Super."""
