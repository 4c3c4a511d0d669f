"""Time the released video autoencoder's decoder and encoder in several settings of PyTorch, on the same random weights.

    python benchmarks/video_codec.py --device cuda
    python benchmarks/video_codec.py --shape tiny

The network is that of diffusers, of Wan 2.2's shape (704.7 M parameters), in bfloat16 on a GPU. Settings are taken in
turn in one process: as it comes; with weights laid out channels last, as `load` does on a GPU; with cuDNN trying its
kernels out (`benchmark`); both. Prints the median of each in seconds a clip, frames a second, peak memory, and the
largest difference of a pixel from the first setting. Needs the extra `cosmos`.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import tyro

from orrery.runtime.family.workloads import random_video_codec
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.tokenizers.wan import WanCodec, channels_last

CHANNELS = 48
SETTINGS = {
    "as it comes": (False, False),
    "channels last": (True, False),
    "kernels tried out": (False, True),
    "both": (True, True),
}


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """What to time."""

    shape: Literal["released", "tiny"] = "released"
    device: str = "cpu"
    frames: int = 33
    height: int = 480
    width: int = 832
    repeats: int = 3


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> tuple[float, Any]:
    """Median of `repeats` calls after two, and what the last one gave."""
    found = call()
    call()
    times = []
    for _ in range(repeats):
        _wait(device)
        began = time.perf_counter()
        found = call()
        _wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times), found


@torch.no_grad()
def main(job: VideoCodec) -> None:
    """Time and print."""
    device = torch.device(job.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    vae = random_video_codec(CHANNELS, device, dtype, small=job.shape == "tiny")
    codec = WanCodec(vae, "vae")
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (job.frames, job.height, job.width, 3), dtype=np.uint8)
    latents = torch.randn(CHANNELS, (job.frames - 1) // 4 + 1, job.height // 16, job.width // 16).to(device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    print(f"{parameters / 1e6:,.1f} M parameters, {where}, {job.frames} frames of {job.height} x {job.width}")
    print(RANDOM_WEIGHTS)
    first: dict[str, Any] = {}
    for name, (last, tried) in SETTINGS.items():
        if last:
            channels_last(vae)
        else:
            for parameter in vae.parameters():
                parameter.data = parameter.data.contiguous()
        torch.backends.cudnn.benchmark = tried
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        decoding, frames = seconds(lambda: codec.decode(latents), device, job.repeats)
        encoding, found = seconds(lambda: codec.encode(clip), device, job.repeats)
        first.setdefault("frames", frames)
        first.setdefault("latents", found)
        off = int(np.abs(frames.astype(int) - first["frames"].astype(int)).max())
        peak = f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
        print(
            f"{name:18} decode {decoding:8.3f} s ({job.frames / decoding:7.1f} frames/s), encode {encoding:8.3f} s "
            f"({job.frames / encoding:7.1f}){peak}, pixels off by {off}",
            flush=True,
        )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(VideoCodec))
