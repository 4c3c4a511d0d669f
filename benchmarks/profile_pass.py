"""Which kernels one pass of a released shape spends its time in.

    python benchmarks/profile_pass.py --family nano --device cuda --row policy-17
    python benchmarks/profile_pass.py --family nano --device cuda --row video-720p --way 8bit

Weights are random. Prints milliseconds, calls and share of the kernels that take longest, on a CPU of PyTorch's own
operations.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from orrery.packing.pack import pack_samples
from orrery.runtime.family.bench import FAMILIES
from orrery.runtime.family.ways import DENOISERS
from orrery.runtime.family.workloads import WORKLOADS, random_mot, sample_of
from orrery.runtime.result import RANDOM_WEIGHTS

SIGMA = 0.7


@dataclass(frozen=True, kw_only=True)
class ProfilePass:
    """What to look into."""

    family: Literal["tiny", "edge", "nano"] = "tiny"
    device: str = "cpu"
    row: str = "policy-17"
    """Of `runtime.family.workloads`."""
    way: Literal["plain", "exact", "fp8", "8bit"] = "exact"
    shown: int = 16


@torch.no_grad()
def main(job: ProfilePass) -> None:
    """Profile and print."""
    device, config = torch.device(job.device), FAMILIES[job.family]
    on_gpu = device.type == "cuda"
    mot = random_mot(config, device, torch.bfloat16 if on_gpu else torch.float32)
    pack = pack_samples([sample_of(WORKLOADS[job.row], config, device)], config.clock)
    sigmas = torch.full((len(pack.segments),), SIGMA, device=device)
    velocity = DENOISERS[job.way](mot).lay_out(pack, mot.read(pack.text))
    velocity(pack.latents, sigmas)
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        velocity(pack.latents, sigmas)
        if on_gpu:
            torch.cuda.synchronize(device)
    spent = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count, event.key)
        for event in seen.key_averages()
    ]
    total = sum(time for time, _, _ in spent)
    print(f"{job.family}, {job.row}, {job.way}: {total / 1000:.3f} ms. {RANDOM_WEIGHTS}")
    for time, count, name in sorted(spent, reverse=True)[: job.shown]:
        print(f"{time / 1000:10.3f} ms {count:5} x {time / count:9.1f} us {time / total:6.1%}  {name[:90]}")


if __name__ == "__main__":
    main(tyro.cli(ProfilePass))
