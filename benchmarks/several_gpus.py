"""Time one pass of a released shape on one GPU, with its tokens over all, and with the branches of guidance apart.

    torchrun --nproc-per-node 2 benchmarks/several_gpus.py --family nano --size 720p
    torchrun --nproc-per-node 2 benchmarks/several_gpus.py --family tiny --size 256p --device cpu

Weights are random, the same in every process. A video of 189 frames under a prompt of 300 tokens is one branch;
guidance asks for two, under two prompts. Prints the median of each way in milliseconds, how many times faster than one
GPU it is, the peak of memory of the fullest GPU and the largest difference of a velocity from the one of one GPU,
relative to the largest velocity. Small passes of one GPU, and of groups of one GPU, are recorded as a graph; those that
share tokens never are.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import tyro

from orrery.errors import SettingsError
from orrery.flow.samplers import Latents
from orrery.model.attention_kernels import eight_bit, exact
from orrery.model.config import EDGE, NANO, SUPER, TINY
from orrery.model.denoiser import Denoiser
from orrery.model.matrix import Linears
from orrery.model.mot import LaysOut, MoT
from orrery.packing.pack import pack_samples
from orrery.runtime.family.workloads import WORKLOADS, random_mot, sample_of
from orrery.runtime.several import several, spread

ALONE = "one GPU"
SIGMA = 0.7


@dataclass(frozen=True, kw_only=True)
class SeveralGpus:
    """What to time."""

    family: Literal["tiny", "edge", "nano", "super"] = "nano"
    size: Literal["256p", "480p", "720p"] = "720p"
    device: str = "cuda"
    dtype: Literal["float32", "bfloat16"] | None = None
    """bfloat16 on a GPU and float32 on a CPU if left out."""
    linears: Linears = "exact"
    attention: Literal["exact", "8bit"] = "exact"
    text_tokens: int = 300
    repeats: int = 5
    warm_up: int = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What was seen of one way, in the slowest and the fullest process."""

    milliseconds: float
    peak_bytes: int
    velocity: Latents


@torch.no_grad()
def main(job: SeveralGpus) -> None:
    """Time and print."""
    with several(job.device) as device:
        if not dist.is_initialized():
            raise SettingsError("This is one process alone. Start several: torchrun --nproc-per-node 2 " + __file__)
        gpu = device.type == "cuda"
        dtype = getattr(torch, job.dtype or ("bfloat16" if gpu else "float32"))
        mot = random_mot({"tiny": TINY, "edge": EDGE, "nano": NANO, "super": SUPER}[job.family], device, dtype)
        denoiser = Denoiser(
            mot, linears=job.linears, kernel=exact if job.attention == "exact" else eight_bit, compiled=gpu
        )
        where = f"{dist.get_world_size()} x {torch.cuda.get_device_name(device) if gpu else 'CPU'}"
        say(f"{job.family}, {job.size}, {dtype}, {job.linears} linears, {job.attention} attention, {where}")
        say(f"{'branches':9}{'way':32}{'ms':>10}{'faster':>8}{'GiB':>7}{'difference':>12}")
        for branches in (1, 2):
            measure(job, mot, ways(denoiser, branches), branches, device)


def ways(denoiser: Denoiser, branches: int) -> Mapping[str, Callable[[], LaysOut]]:
    """What is timed, made when it is needed: some processes cannot share the heads."""
    size = dist.get_world_size()
    found: dict[str, Callable[[], LaysOut]] = {
        ALONE: lambda: denoiser,
        f"tokens over {size}": lambda: spread(denoiser),
    }
    if branches == 2 and size % 2 == 0:
        found[f"2 groups, tokens over {size // 2}"] = lambda: spread(denoiser, branches=2)
    return found


def measure(
    job: SeveralGpus, mot: MoT, ways: Mapping[str, Callable[[], LaysOut]], branches: int, device: torch.device
) -> None:
    """Time all ways to do one pass over so many branches, and print a line for each."""
    workload = WORKLOADS[f"video-{job.size}"]
    samples = [
        sample_of(workload, mot.config, device, text_tokens=job.text_tokens, seed=seed) for seed in range(branches)
    ]
    pack = pack_samples(samples, mot.config.clock)
    memory = mot.read(pack.text)
    sigmas = torch.full((len(pack.segments),), SIGMA, device=device)
    alone: Seen | None = None
    for name, made in ways.items():
        try:
            velocity = made().lay_out(pack, memory)
        except SettingsError as error:
            say(f"{branches:<9}{name:32}  left out: {error}")
            continue
        seen = timed(lambda velocity=velocity: velocity(pack.latents, sigmas), job, device)  # type: ignore[misc]
        alone = alone or seen
        say(
            f"{branches:<9}{name:32}{seen.milliseconds:10.2f}{alone.milliseconds / seen.milliseconds:8.2f}"
            f"{seen.peak_bytes / 2**30:7.1f}{difference(seen.velocity, alone.velocity):12.1e}"
        )


def timed(call: Callable[[], Latents], job: SeveralGpus, device: torch.device) -> Seen:
    """The median; all processes begin each call together."""
    gpu, taken = device.type == "cuda", []
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    for repeat in range(job.warm_up + job.repeats):
        largest(0.0)
        began = time.perf_counter()
        velocity = call()
        if gpu:
            torch.cuda.synchronize(device)
        if repeat >= job.warm_up:
            taken.append(1000 * (time.perf_counter() - began))
    assert all(bool(x.isfinite().all()) for x in velocity)
    peak = torch.cuda.max_memory_allocated(device) if gpu else 0
    return Seen(milliseconds=largest(statistics.median(taken)), peak_bytes=int(largest(peak)), velocity=velocity)


def difference(found: Latents, expected: Latents) -> float:
    """The largest of a value, relative to the largest value, in any process."""
    most = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    return largest(most / max(float(x.abs().max()) for x in expected))


def largest(value: float) -> float:
    """In all processes; they wait for one another here."""
    found = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return float(found)


def say(line: str) -> None:
    """Print once."""
    if dist.get_rank() == 0:
        print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(SeveralGpus))
