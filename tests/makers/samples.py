"""Tiny random samples of every kind, for tests of packing, the model, sampling and training."""

from dataclasses import replace

import torch
from torch import Tensor

from orrery.model.config import MoTConfig
from orrery.packing.patches import grid_of, patchify, valid_values
from orrery.packing.segment import Sample, Segment

Given = tuple[int, ...]


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal values that depend on the seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(count: int, vocab: int, seed: int) -> Tensor:
    """Random token ids."""
    return torch.randint(vocab, (count,), generator=torch.Generator().manual_seed(seed))


def mask(length: int, given: Given) -> Tensor:
    """True at the given frames."""
    return torch.tensor([index in given for index in range(length)])


def vision(
    config: MoTConfig,
    frames: int,
    height: int,
    width: int,
    given: Given = (),
    fps: float = 24.0,
    seed: int = 0,
) -> Segment:
    """Random latents of a video of `height` x `width` latent pixels."""
    latent = normal(config.vision_channels, frames, height, width, seed=seed)
    rows, cols = grid_of(height, width, config.vision_patch)
    return Segment(
        kind="vision",
        clean=patchify(latent, config.vision_patch),
        given=mask(frames, given),
        valid=valid_values(config.vision_channels, height, width, config.vision_patch),
        rows=rows,
        cols=cols,
        fps=float(fps),
    )


def sound(config: MoTConfig, length: int, given: Given = (), seed: int = 0) -> Segment:
    """Random sound latents."""
    assert config.sound_width is not None
    return Segment(
        kind="sound",
        clean=normal(length, 1, config.sound_width, seed=seed + 1000),
        given=mask(length, given),
        valid=torch.ones(1, config.sound_width, dtype=torch.bool),
        fps=config.sound_fps,
    )


def action(
    config: MoTConfig,
    length: int,
    width: int,
    given: Given = (),
    domain: int = 8,
    fps: float = 24.0,
    seed: int = 0,
) -> Segment:
    """Random actions of `width` columns, padded with zeros to what the model takes."""
    assert config.action_width is not None
    valid = (torch.arange(config.action_width) < width)[None]
    return Segment(
        kind="action",
        clean=normal(length, 1, config.action_width, seed=seed + 2000) * valid,
        given=mask(length, given),
        valid=valid,
        fps=float(fps),
        start=1,
        domain=domain,
    )


def mixed(config: MoTConfig) -> list[Sample]:
    """Eight samples of eight shapes and tasks."""
    every = tuple(range(3))
    segments: list[tuple[Segment, ...]] = [
        (vision(config, 1, 4, 4),),
        (vision(config, 3, 5, 4, seed=1),),
        (vision(config, 3, 4, 3, given=(0,), fps=10, seed=2), sound(config, 7)),
        (vision(config, 4, 3, 3, given=(0, 1), fps=30, seed=3),),
        (vision(config, 3, 4, 4, given=(0,), seed=4), action(config, 8, 10, given=tuple(range(8)))),
        (vision(config, 3, 4, 4, given=every, seed=5), action(config, 8, 7, domain=3, seed=5)),
        (vision(config, 1, 4, 4, given=(0,), seed=6), action(config, 4, 16, domain=31, seed=6)),
        (
            vision(config, 2, 2, 2, given=(0,), seed=7),
            sound(config, 5, given=tuple(range(5)), seed=7),
            action(config, 4, 3, given=(0,), seed=7),
        ),
    ]
    return [
        Sample(token_ids=tokens(3 + index, config.vocab, seed=index), segments=run)
        for index, run in enumerate(segments)
    ]


def on_device(sample: Sample, device: torch.device) -> Sample:
    """The sample with its tensors elsewhere."""
    segments = tuple(
        replace(s, clean=s.clean.to(device), given=s.given.to(device), valid=s.valid.to(device))
        for s in sample.segments
    )
    return replace(sample, token_ids=sample.token_ids.to(device), segments=segments)
