"""Time one forward pass of the generation tower, with the text read once and with the text read again every time.

    python benchmarks/forward.py --family nano --device cuda --dtype bfloat16
    python benchmarks/forward.py --family tiny --device cpu

Weights are random and of the family's shape, made on the device. The job is a policy call at 320 x 192: 17 frames (5
latent frames of 6 x 10 tokens), 16 actions and a prompt of 300 tokens. Prints the median of each in milliseconds, their
ratio and the peak memory.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Literal

import torch
import tyro

from orrery.model.config import EDGE, NANO, SUPER, TINY, MoTConfig
from orrery.model.mot import MoT
from orrery.packing.pack import pack_samples, pack_text
from orrery.packing.segment import Sample, Segment


@dataclass(frozen=True, kw_only=True)
class Forward:
    """What to time."""

    family: Literal["tiny", "edge", "nano", "super"] = "tiny"
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    repeats: int = 20
    text_tokens: int = 300


def random_mot(config: MoTConfig, device: torch.device, dtype: torch.dtype) -> MoT:
    """Random weights on the device; on the CPU first they would take minutes at released size."""
    with torch.device("meta"):
        mot = MoT(config).to(dtype)
    mot = mot.to_empty(device=device)
    for parameter in mot.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    mot.time_embed.to(torch.float32)
    return mot.eval()


def policy_sample(config: MoTConfig, text_tokens: int, device: torch.device) -> Sample:
    """Random latents of a policy call."""
    rng = torch.Generator().manual_seed(0)
    first = torch.arange(5) == 0
    vision = Segment(
        kind="vision",
        clean=torch.randn(5, 60, config.vision_width, generator=rng).to(device),
        given=first.to(device),
        valid=torch.ones(60, config.vision_width, dtype=torch.bool, device=device),
        rows=6,
        cols=10,
        fps=15.0,
    )
    assert config.action_width is not None
    action = Segment(
        kind="action",
        clean=torch.zeros(16, 1, config.action_width, device=device),
        given=torch.zeros(16, dtype=torch.bool, device=device),
        valid=torch.ones(1, config.action_width, dtype=torch.bool, device=device),
        fps=15.0,
        start=1,
        domain=8,
    )
    ids = torch.randint(config.vocab, (text_tokens,), generator=rng).to(device)
    return Sample(token_ids=ids, segments=(vision, action))


@torch.no_grad()
def main(job: Forward) -> None:
    """Time and print."""
    device = torch.device(job.device)
    config = {"tiny": TINY, "edge": EDGE, "nano": NANO, "super": SUPER}[job.family]
    mot = random_mot(config, device, getattr(torch, job.dtype))
    pack = pack_samples([policy_sample(config, job.text_tokens, device)], config.clock)
    sigmas = torch.full((2,), 0.5, device=device)
    memory = mot.read(pack_text([policy_sample(config, job.text_tokens, device)]))
    runs = {"text read once": (pack, sigmas, memory), "text read every time": (pack, sigmas)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(job.repeats + 3):
        for name, arguments in runs.items():
            _wait(device)
            began = time.perf_counter()
            prediction = mot(*arguments)
            _wait(device)
            if repeat >= 3:
                times[name].append(1000 * (time.perf_counter() - began))
    assert all(bool(x.isfinite().all()) for x in prediction.velocity)
    medians = {name: statistics.median(values) for name, values in times.items()}
    parameters = sum(parameter.numel() for parameter in mot.parameters())
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{job.family}, {parameters / 1e6:,.1f} M random parameters, {job.dtype}, {where}, {sum(pack.lengths)} tokens"
    )
    for name, median in medians.items():
        print(f"{name:22} {median:9.2f} ms (median of {job.repeats}, {min(times[name]):.2f} to {max(times[name]):.2f})")
    print(f"ratio {medians['text read every time'] / medians['text read once']:.2f}")
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(Forward))
