"""The eyes' first lesson: what still pictures of the front camera show and where, before they learn to answer.

Cheap, since nothing but the eyes takes part; a model that can already tell parts apart learns words for them in a
fraction of the steps. What counts as seen is in `training.sight`.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from orrery.model.vision import vision_encoder
from orrery.model.vision_config import VisionEncoderConfig
from orrery.tokenizers.eyes import Eyes, patches_of
from orrery.training.codec import CodecTraining, Report, run_by_clock
from orrery.training.sight import Marks, SightHead

Stills = tuple[UInt8[Tensor, "B H W 3"], Marks]
AT_ONCE = 64
"""Held-out pictures that are looked at together."""


class Looker(nn.Module):
    """Eyes, and what reads marks from their features."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.eyes = vision_encoder(config)
        self.head = SightHead(config.out_width)

    def forward(self, patches: Float[Tensor, "N V"], count: int) -> Float[Tensor, "B tokens D"]:
        """Features of so many stills of one size."""
        side = round((len(patches) / count) ** 0.5)
        seen = self.eyes(patches, [(1, side, side)] * count).features
        return rearrange(seen, "(b n) d -> b n d", b=count)


def train_eyes(
    config: VisionEncoderConfig,
    eyes: Eyes,
    draw: Callable[[int], Stills],
    training: CodecTraining,
    *,
    device: torch.device,
    seed: int,
    held_out: Stills,
    report: Report = lambda step, figures: None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Train eyes from nothing.

    Args:
        draw: pictures and what they show, on the device; asked once for every step from 0 on.
        held_out: only measured.

    Returns:
        Tensors of a `Looker`, and figures: steps, seconds, loss, and over `held_out` the loss and precision and recall
        of all names in all tokens, each said to be there where its chance is above a half.
    """
    torch.manual_seed(seed)
    looker = Looker(config).to(device)

    def one_step(step: int) -> Tensor:
        pictures, marks = draw(step)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            features = looker(patches_of(doubled(pictures, eyes), eyes), len(pictures))
        return looker.head.loss(features, marks)

    steps, seconds, loss = run_by_clock(looker, one_step, training, device, report)
    looker.eval()
    figures = {"steps": float(steps), "seconds": seconds, "loss": loss, **_measured(looker, eyes, *held_out)}
    return looker.state_dict(), figures


def doubled(stills: UInt8[Tensor, "N H W 3"], eyes: Eyes) -> UInt8[Tensor, "N T H W 3"]:
    """Stills as the shortest videos that the encoder sees."""
    return stills[:, None].expand(-1, eyes.temporal_patch, -1, -1, -1)


@torch.no_grad()
def _measured(looker: Looker, eyes: Eyes, pictures: Tensor, marks: Marks) -> dict[str, float]:
    features = torch.cat([looker(patches_of(doubled(some, eyes), eyes), len(some)) for some in pictures.split(AT_ONCE)])
    said, shown = looker.head.chances(features) > 0.5, marks.shown > 0.5
    right = float((said & shown).sum())
    return {
        "held_out_loss": float(looker.head.loss(features, marks)),
        "precision": right / max(1.0, float(said.sum())),
        "recall": right / max(1.0, float(shown.sum())),
    }
