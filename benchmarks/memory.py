"""Sample within a limit of device memory, with weights that wait in CPU memory (`model.offload`).

    python benchmarks/memory.py --family nano --limit-gib 24 --device cuda
    python benchmarks/memory.py --family edge --limit-gib 12 --device cuda
    python benchmarks/memory.py --family tiny --rows policy-17

Weights are random and of the family's shape, and never all on the device: those that stay on the CPU repeat one piece
of 4 M numbers, for drawing 8 G of them there takes minutes. PyTorch is held to the limit, and beyond it the run fails;
what the driver takes for itself, some 0.5 GiB, comes on top. Prints seconds to read 300 tokens of text, seconds of a
sampling step without guidance, and the peak. Codecs are not part of it: they encode before and decode after.
"""

import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

import torch
import tyro
from torch import Tensor, nn

from orrery.errors import SettingsError
from orrery.flow.samplers import unipc
from orrery.flow.schedule import grid
from orrery.model.config import MoTConfig
from orrery.model.denoiser import Denoiser
from orrery.model.mot import MoT
from orrery.model.offload import Offload, leave_on_cpu, stays
from orrery.packing.pack import pack_text
from orrery.packing.segment import Sample
from orrery.runtime.family.bench import FAMILIES
from orrery.runtime.family.workloads import WEIGHT_STD, WORKLOADS, Workload, sample_of
from orrery.runtime.generate import Job, generate
from orrery.runtime.load import empty_mot
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.tasks.checks import nearest, shown

PIECE = 2**22


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What to try."""

    family: Literal["tiny", "edge", "nano", "super"] = "tiny"
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] | None = None
    """bfloat16 on a GPU and float32 on a CPU if left out."""
    limit_gib: float | None = None
    """Of device memory; all of it if left out."""
    offload: Literal["text", "all", "none"] = "text"
    """What waits in CPU memory."""
    fast: bool = True
    """The fast path; never with offload all."""
    rows: tuple[str, ...] = ("policy-17", "video-256p", "video-480p")
    """Rows of `runtime.family.workloads`."""
    steps: int = 4
    text_tokens: int = 300


def random_mot(config: MoTConfig, what: Offload | None, device: torch.device, dtype: torch.dtype) -> MoT:
    """A model of which only the resident part is ever on the device."""
    mot, names = empty_mot(config), stays(empty_mot(config), what)
    piece = torch.randn(PIECE, generator=torch.Generator().manual_seed(0)).to(dtype)
    on_device = torch.Generator(device).manual_seed(0)
    for name, parameter in list(mot.named_parameters()):
        added = name.endswith((".out.weight", ".down.weight"))
        spread = WEIGHT_STD / sqrt(2 * config.layers) if added else WEIGHT_STD
        if any(name.startswith(f"{place}.") for place in names):
            value = repeated(piece, parameter.shape).mul_(spread)
        else:
            value = torch.empty(parameter.shape, dtype=dtype, device=device).normal_(0.0, spread, generator=on_device)
        owner, _, leaf = name.rpartition(".")
        setattr(mot.get_submodule(owner), leaf, nn.Parameter(value.add_(1.0 if "norm" in name else 0.0), False))
    mot.time_embed.float()
    if what is not None:
        leave_on_cpu(mot, what, device)
    return mot.eval()


def repeated(piece: Tensor, shape: torch.Size) -> Tensor:
    """A tensor filled with the same numbers over and over."""
    count = shape.numel()
    return piece.repeat(-(-count // len(piece)))[:count].clone().view(shape)


@torch.no_grad()
def reading(mot: MoT, sample: Sample, device: torch.device) -> tuple[float, float]:
    """Seconds of the first reading of a text, and of the next one."""
    seconds = []
    for _ in range(2):
        _wait(device)
        began = time.perf_counter()
        mot.read(pack_text([sample]))
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def stepping(mot: MoT, denoiser: Denoiser | None, sample: Sample, workload: Workload, steps: int) -> float:
    """Median seconds of a sampling step, of a second run: the first compiles."""
    device = sample.token_ids.device
    rng = torch.Generator().manual_seed(1)
    marks: list[float] = []

    def report(done: int, turns: int) -> None:
        _wait(device)
        marks.append(time.perf_counter())

    for _ in range(2):
        sigmas = grid("flow", steps, workload.shift).to(device)
        noise = [segment.noise(rng) for segment in sample.segments]
        job = Job(sample=sample, negative=None, sampler=unipc(noise, sigmas), turns=steps, scales=(1.0,) * len(noise))
        marks.clear()
        (made,) = generate(mot, [job], report=report, denoiser=denoiser)
    if not all(bool(x.isfinite().all()) for x in made):
        raise SettingsError("What was sampled is not finite: these weights and this number format do not go together.")
    return statistics.median(b - a for a, b in pairwise(marks))


def main(job: Memory) -> None:
    """Try and print."""
    for name in job.rows:
        if name not in WORKLOADS:
            raise SettingsError(f"There is no row {shown(name)}. {nearest(name, WORKLOADS)}")
    if job.steps < 2:
        raise SettingsError(
            f"steps must be 2 or more, got {job.steps}: a step is timed from the end of the one before."
        )
    device = torch.device(job.device)
    dtype = getattr(torch, job.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    what: Offload | None = None if job.offload == "none" else job.offload
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    if on_gpu and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())  # holding to a limit wants to know which
    if on_gpu and job.limit_gib is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, job.limit_gib * 2**30 / total), device)
    config = FAMILIES[job.family]
    began = time.perf_counter()
    mot = random_mot(config, what, device, dtype)
    denoiser = Denoiser(mot, compiled=on_gpu, recorded=on_gpu) if job.fast and what != "all" else None
    count = sum(parameter.numel() for parameter in mot.parameters())
    on_cpu = sum(p.numel() * p.element_size() for p in mot.parameters() if p.device.type == "cpu")
    limit = "none" if job.limit_gib is None or not on_gpu else f"{job.limit_gib:g} GiB"
    print(f"{job.family}, {count / 1e9:.3f} G parameters in {dtype}, {where}, torch {torch.__version__}; limit {limit}")
    print(f"{RANDOM_WEIGHTS} Made in {time.perf_counter() - began:.1f} s.")
    print(f"offload {job.offload}: {on_cpu / 2**30:.2f} GiB of weights in CPU memory, {_resident(device)}")
    print(f"denoiser {'plain' if denoiser is None else 'fast'}, {job.steps} steps, no guidance")
    print(f"{'row':14}{'tokens':>8}{'first read s':>14}{'read s':>9}{'step s':>9}{'peak GiB':>10}{'reserved':>10}")
    for name in job.rows:
        workload = WORKLOADS[name]
        sample = sample_of(workload, config, device, text_tokens=job.text_tokens)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        first, again = reading(mot, sample, device)
        step = stepping(mot, denoiser, sample, workload, job.steps)
        peaks = "".join(
            f"{value / 2**30:10.2f}"
            for value in (
                (torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)) if on_gpu else ()
            )
        )
        tokens = workload.tokens(config)
        print(f"{name:14}{tokens:8}{first:14.3f}{again:9.3f}{step:9.3f}{peaks}", flush=True)


def _resident(device: torch.device) -> str:
    if device.type != "cuda":
        return "the rest beside it: on a CPU nothing is gained"
    return f"{torch.cuda.memory_allocated(device) / 2**30:.2f} GiB on the device"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(Memory))
