"""Weights before training."""

import math

import torch
from torch import Tensor, nn

from orrery.model.mot import MLP, DomainLinear, MoT, RMSNorm, Tower
from orrery.training.noise import Purpose, generator


@torch.no_grad()
def start_weights(mot: MoT, seed: int) -> None:
    """Fill a model with random weights that depend on its shape and the seed alone, on any device.

    Every map keeps unit variance, what is added to the residual stream shrinks with depth, and the heads are zero: an
    untrained model scores all tokens alike and predicts 0.
    """
    rng = generator(seed, Purpose.WEIGHTS)

    def fill(parameter: Tensor, deviation: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=rng) * deviation)

    for module in mot.modules():
        match module:
            case nn.Linear():
                fill(module.weight, module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.zero_()
            case DomainLinear():
                fill(module.weight, module.weight.shape[1] ** -0.5)
                module.bias.zero_()
            case nn.Embedding():
                fill(module.weight, 1.0)
            case RMSNorm():
                module.weight.fill_(1.0)
    for module in mot.blocks.modules():
        if isinstance(module, Tower | MLP):
            last = module.out if isinstance(module, Tower) else module.down
            last.weight.div_(math.sqrt(2 * mot.config.layers))
    mot.lm_head.weight.zero_()
    mot.vision_out.weight.zero_()
    if mot.config.cameras:
        fill(mot.camera_embed, 0.02)
    if mot.config.sound_width is not None:
        mot.sound_out.weight.zero_()
        mot.sound_embed.zero_()
    if mot.config.action_width is not None:
        mot.action_out.weight.zero_()
        mot.action_embed.zero_()
