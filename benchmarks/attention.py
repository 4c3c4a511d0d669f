"""How fast the kernels of attention are, by length, and how far from float32.

    python benchmarks/attention.py --device cuda
    python benchmarks/attention.py --lengths 64 256

Noise with the heads of Nano, 32 and 8 of 128, and 300 more keys than queries, in bfloat16. On a GPU every kernel is
recorded as a CUDA graph, so that launching takes no time. Prints microseconds, TFLOP/s and the relative error against
float32 (up to 4,096 queries). Rounding to 8 bits counts to the kernel that takes them.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from torch import Tensor

from orrery.errors import SettingsError
from orrery.model import attention_kernels as kernels
from orrery.model.recording import cuda_graph

HEADS, KEY_HEADS, WIDTH, TEXT = 32, 8, 128, 300
JUDGED_UP_TO = 4096


@dataclass(frozen=True, kw_only=True)
class Attention:
    """What to time."""

    device: str = "cpu"
    lengths: tuple[int, ...] = (316, 1024, 2880, 18720, 44160)
    repeats: int = 10


def in_eight_bits_of_any_length(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`eight_bit` also where it would not pay."""
    if not kernels.has_flash(q.device):
        raise SettingsError(f"Attention in 8 bits needs a Hopper card and fa3-fwd; the device is {q.device}.")
    from fa3_fwd_interface import flash_attn_func

    *rounded, of_q, of_k, of_v = kernels.in_eight_bits(q, k, v)
    found = flash_attn_func(*rounded, q_descale=of_q, k_descale=of_k, v_descale=of_v)
    return found[0] if isinstance(found, tuple) else found


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "PyTorch's choice": kernels.torch_choice,
    "cuDNN": kernels.cudnn,
    "FlashAttention 3": kernels.flash,
    "the same in 8 bits": in_eight_bits_of_any_length,
}


@torch.no_grad()
def main(job: Attention) -> None:
    """Time and print."""
    device = torch.device(job.device)
    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}")
    for length in job.lengths:
        shapes = ((1, length, HEADS, WIDTH), (1, length + TEXT, KEY_HEADS, WIDTH), (1, length + TEXT, KEY_HEADS, WIDTH))
        q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16) for shape in shapes)
        exact = kernels.torch_choice(q.float(), k.float(), v.float()) if length <= JUDGED_UP_TO else None
        for name, kernel in KERNELS.items():
            try:
                found = kernel(q, k, v)
                seconds = timed(partial(kernel, q, k, v), device, job.repeats)
            except (ImportError, RuntimeError, SettingsError) as error:
                print(f"{length:7} {name:20} not measured: {str(error).splitlines()[0]}", flush=True)
                continue
            rate = 4 * length * (length + TEXT) * HEADS * WIDTH / seconds / 1e12
            off = "" if exact is None else f", {float((found.float() - exact).norm() / exact.norm()):.1e} off float32"
            print(f"{length:7} {name:20} {1e6 * seconds:10.1f} us {rate:8.1f} TFLOP/s{off}", flush=True)


def timed(call: Callable[[], Tensor], device: torch.device, repeats: int) -> float:
    """Median seconds."""
    again: Callable[[], object] = call
    if device.type == "cuda":
        again, _ = cuda_graph(call, None)
    times = []
    for _ in range(repeats + 2):
        _wait(device)
        began = time.perf_counter()
        again()
        _wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(Attention))
