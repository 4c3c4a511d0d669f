"""A tiny Mixture-of-Transformers with random weights, and the families that it may be like."""

from dataclasses import replace

import torch

from orrery.model.config import TINY, MoTConfig
from orrery.model.mot import MoT

EDGE_LIKE = replace(
    TINY, activation="relu2", norm_scales_in_float32=True, text_qk_norm=False, text_key_norm=True, norm_eps=1e-5
)


def random_mot(config: MoTConfig) -> MoT:
    """Norms near 1, all else near 0."""
    torch.manual_seed(0)
    mot = MoT(config)
    for name, parameter in mot.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return mot.eval()
