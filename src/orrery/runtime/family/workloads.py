"""Work of released size without a checkpoint: random weights of a family's shape, and noise of the sizes asked for."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch

from orrery.errors import SettingsError
from orrery.model.config import MoTConfig
from orrery.model.mot import MoT
from orrery.packing.patches import grid_of, patchify, valid_values
from orrery.packing.segment import Sample, Segment

WEIGHT_STD = 0.02
"""Spread of the random weights; those of norms lie around 1."""
RELEASED_CODEC: dict[str, Any] = {
    "base_dim": 160, "decoder_base_dim": 256, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
}  # fmt: skip
"""Wan 2.2's video autoencoder."""
SMALL_CODEC: dict[str, Any] = {"base_dim": 8, "decoder_base_dim": 8, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
DOMAIN = 8
"""Row of the action projections that the policies take."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of request, in the sizes that the model sees."""

    frames: int
    """Of the video, at the pixel rate; 1 for a picture."""
    height: int
    """Of the latents; a sixteenth of the picture's."""
    width: int
    shift: float
    """Of the noise levels: spec of the released models, by tier."""
    fps: float | None = None
    actions: int = 0
    """Rows that are made; with any of them the first frame is given, as to a policy."""

    @property
    def latent_frames(self) -> int:
        """One for the first frame and one for every four after it."""
        return (self.frames - 1) // 4 + 1

    def tokens(self, config: MoTConfig) -> int:
        """Length in the packed sequence."""
        rows, cols = grid_of(self.height, self.width, config.vision_patch)
        return self.latent_frames * rows * cols + self.actions


WORKLOADS = {
    "policy-17": Workload(frames=17, height=12, width=20, shift=3.0, fps=15.0, actions=16),
    "policy-33": Workload(frames=33, height=12, width=20, shift=3.0, fps=15.0, actions=32),
    "image-256": Workload(frames=1, height=16, width=16, shift=3.0),
    "image-1024": Workload(frames=1, height=64, width=64, shift=3.0),
    "video-256p": Workload(frames=189, height=12, width=20, shift=3.0, fps=24.0),
    "video-480p": Workload(frames=189, height=30, width=52, shift=5.0, fps=24.0),
    "video-720p": Workload(frames=189, height=45, width=80, shift=10.0, fps=24.0),
}
"""What is measured. 720p is 45 latent rows high, so that the last row of its tokens is half padding."""


@torch.no_grad()
def random_mot(config: MoTConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> MoT:
    """Random weights, drawn on the device: on the CPU first they would take minutes at released size.

    They are as such a network is started: what each layer adds is scaled so that all layers together keep the size of
    the tokens, and rounding is not blown up from layer to layer as it would be otherwise.
    """
    with torch.device("meta"):
        mot = MoT(config).to(dtype)
    mot = mot.to_empty(device=device)
    rng = torch.Generator(device).manual_seed(seed)
    for name, parameter in mot.named_parameters():
        added = name.endswith((".out.weight", ".down.weight"))
        spread = WEIGHT_STD / sqrt(2 * config.layers) if added else WEIGHT_STD
        parameter.normal_(1.0 if "norm" in name else 0.0, spread, generator=rng)
    mot.time_embed.to(torch.float32)
    return mot.eval().requires_grad_(False)


def random_video_codec(channels: int, device: torch.device, dtype: torch.dtype, *, small: bool = False) -> Any:
    """diffusers' `AutoencoderKLWan` of the released shape, or of a small one, with random weights.

    Raises:
        SettingsError: diffusers is not installed.
    """
    try:
        from diffusers import AutoencoderKLWan
    except ImportError:
        raise SettingsError("The codec of the released families needs diffusers. Install orrery[cosmos].") from None
    shape = SMALL_CODEC if small else RELEASED_CODEC
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(0)
        vae = AutoencoderKLWan(
            z_dim=channels,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * channels,
            latents_std=[1.0] * channels,
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_temporal=4,
            scale_factor_spatial=16,
            **shape,
        )
    return vae.to(dtype).eval().requires_grad_(False)


def sample_of(
    workload: Workload, config: MoTConfig, device: torch.device, *, text_tokens: int = 300, seed: int = 0
) -> Sample:
    """Noise in the shape of a request, and random text; text and noise depend on the seed alone."""
    rng = torch.Generator().manual_seed(seed)
    frames, height, width = workload.latent_frames, workload.height, workload.width
    rows, cols = grid_of(height, width, config.vision_patch)
    segments = [
        Segment(
            kind="vision",
            clean=patchify(
                torch.randn(config.vision_channels, frames, height, width, generator=rng), config.vision_patch
            ).to(device),
            given=(torch.arange(frames) < min(workload.actions, 1)).to(device),
            valid=valid_values(config.vision_channels, height, width, config.vision_patch).to(device),
            rows=rows,
            cols=cols,
            fps=workload.fps,
        )
    ]
    if workload.actions:
        assert config.action_width is not None
        segments.append(
            Segment(
                kind="action",
                clean=torch.zeros(workload.actions, 1, config.action_width, device=device),
                given=torch.zeros(workload.actions, dtype=torch.bool, device=device),
                valid=torch.ones(1, config.action_width, dtype=torch.bool, device=device),
                fps=workload.fps,
                start=1,
                domain=DOMAIN,
            )
        )
    return Sample(token_ids=text_of(config, text_tokens, device, seed=seed), segments=tuple(segments))


def text_of(config: MoTConfig, tokens: int, device: torch.device, *, seed: int) -> torch.Tensor:
    """Random token ids."""
    return torch.randint(config.vocab, (tokens,), generator=torch.Generator().manual_seed(seed)).to(device)
