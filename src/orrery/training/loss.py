"""The two losses of one step, and how they are averaged. What weighs them is `recipe.LossWeights`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from orrery.flow.samplers import Latents
from orrery.model.mot import Prediction
from orrery.packing.pack import Pack
from orrery.packing.segment import Kind
from orrery.training.recipe import LossWeights


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """What a batch costs; modalities with nothing to score are not listed."""

    total: Float[Tensor, ""]
    """The weighted sum, with its gradient."""
    parts: dict[str, Float[Tensor, ""]]
    """Each modality's own mean, unweighted, by "vision", "sound", "action" or "text"."""

    def __add__(self, other: "Losses") -> "Losses":
        """Both together; they may not have a modality in common."""
        return Losses(total=self.total + other.total, parts={**self.parts, **other.parts})


def flow_loss(
    prediction: Prediction,
    pack: Pack,
    noise: Latents,
    sigmas: Float[Tensor, " S"],
    weights: LossWeights,
    *,
    sigma_floor: float = 0.0,
) -> Losses:
    """Squared error of the velocity, for each modality the mean over all its active values in the pack.

    Values that are given or do not exist count neither in the sum nor in the number, so how many frames are given does
    not scale the loss. The mean is float32.

    The target is (x - data) / max(sigma, sigma_floor), which is noise - data above the floor. With the floor of a model
    that predicts data, the loss is |prediction - data|^2 / max(sigma, sigma_floor)^2 at every level, and bounded.

    Args:
        prediction: of the pack with the noised latents.
        pack: S segments, with the data in `Segment.clean`.
        noise: standard normal, one (T, P, C) a segment.
        sigmas: noise level of each segment.
        weights: factors on each modality's mean.
        sigma_floor: `MoTConfig.sigma_floor` for a model that predicts data, 0 for one that predicts velocity.
    """
    errors: dict[Kind, list[Tensor]] = {}
    counts: dict[Kind, int] = {}
    for segment, velocity, drawn, sigma in zip(pack.segments, prediction.velocity, noise, sigmas, strict=True):
        target = drawn.float() - segment.clean.float()
        if sigma_floor > 0:
            target = target * (sigma / sigma_floor).clamp(max=1)
        error = torch.where(segment.active, velocity.float() - target, 0.0).square().sum()
        errors.setdefault(segment.kind, []).append(error)
        counts[segment.kind] = counts.get(segment.kind, 0) + int(segment.active.sum())
    means = {kind: torch.stack(errors[kind]).sum() / max(1, counts[kind]) for kind in errors}
    total = torch.stack([weights.of(kind) * mean for kind, mean in means.items()]).sum()
    parts: dict[str, Tensor] = {kind: mean for kind, mean in means.items() if counts[kind]}
    return Losses(total=total, parts=parts)


def text_loss(logits: Float[Tensor, "M V"], labels: Int[Tensor, " M"]) -> Float[Tensor, ""]:
    """Cross entropy in nats, the mean over supervised tokens in float32.

    Args:
        logits: next-token scores at the tokens before the supervised ones.
        labels: the supervised tokens; at least one.
    """
    return F.cross_entropy(logits.float(), labels)
