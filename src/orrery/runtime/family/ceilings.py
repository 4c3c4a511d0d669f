"""How fast the device is at what a pass is made of, measured here and now: products, attention, and memory."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from orrery.model import attention_kernels
from orrery.model.attention_kernels import Kernel
from orrery.model.matrix import FP8_FROM
from orrery.model.operations import Operations
from orrery.runtime.family.stopwatch import Call, clear, interleaved


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Rates; None where the device cannot, or where it failed."""

    product: float | None
    """Operations a second of a large matrix product in the run's number format."""
    eight_bit_product: float | None
    attention: float | None
    """The same of attention without a mask, by the fastest kernel that is exact."""
    eight_bit_attention: float | None
    """With the rounding of what it is given."""
    memory: float | None
    """Bytes a second, read and written."""
    sizes: dict[str, int]
    """What they were measured on."""
    failed: dict[str, str]

    def floor(
        self, operations: Operations, weight_bytes: int, *, eight_bit: bool = False, eight_bit_attention: bool = False
    ) -> float | None:
        """Seconds below which no pass of so many operations can come at these rates; None where a rate is missing.

        Args:
            weight_bytes: of the matrices that the pass reads, in the number format that they are read in.
        """
        product = self.eight_bit_product if eight_bit else self.product
        attention = self.eight_bit_attention if eight_bit_attention else self.attention
        if product is None or attention is None or self.memory is None:
            return None
        return max(weight_bytes / self.memory, operations.linear / product + operations.attention / attention)

    def to_text(self) -> str:
        """A line for people."""
        rates = {
            "product": self.product,
            "product in 8 bits": self.eight_bit_product,
            "attention": self.attention,
            "attention in 8 bits": self.eight_bit_attention,
        }
        parts = [f"{name} {rate / 1e12:,.4g} TFLOP/s" for name, rate in rates.items() if rate is not None]
        parts += [f"memory {self.memory / 1e12:,.3g} TB/s"] if self.memory is not None else []
        return "ceilings here: " + ", ".join([*parts, *(f"{name}: {why}" for name, why in self.failed.items())])


@torch.no_grad()
def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Medians of ten, of sizes that fill a GPU; of small ones on a CPU."""
    large = device.type == "cuda"
    side, copied, tokens, width = (8192, 2**31, 16384, 128) if large else (512, 2**24, 256, 32)
    heads, kv_heads = (32, 8) if large else (4, 2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    def product() -> Call:
        x, weight = normal(side, side), normal(side, side)
        return lambda _: F.linear(x, weight)

    def eight_bit_product() -> Call:
        if not large or torch.cuda.get_device_capability(device) < FP8_FROM:
            raise RuntimeError("the device has none")
        x, weight = (normal(side, side).to(torch.float8_e4m3fn) for _ in range(2))
        ones = torch.ones(side, 1, device=device)
        return lambda _: torch._scaled_mm(
            x, weight.T, scale_a=ones, scale_b=ones.T, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    def attention(kernel: Kernel) -> Call:
        q, k, v = (normal(1, tokens, n, width) for n in (heads, kv_heads, kv_heads))
        return lambda _: kernel(q, k, v)

    def memory() -> Call:
        source = torch.zeros(copied, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return lambda _: target.copy_(source)

    amounts = {
        "product": (product, 2 * side**3),
        "eight_bit_product": (eight_bit_product, 2 * side**3),
        "attention": (lambda: attention(attention_kernels.exact), 4 * tokens**2 * heads * width),
        "eight_bit_attention": (lambda: attention(attention_kernels.eight_bit), 4 * tokens**2 * heads * width),
        "memory": (memory, 2 * copied),
    }
    rates: dict[str, float | None] = dict.fromkeys(amounts)
    failed: dict[str, str] = {}
    for name, (ready, amount) in amounts.items():
        seen = interleaved({name: ready}, device, repeats=10, warm_up=3, enough_s=5.0)
        failed |= seen.failed
        if name in seen.taken:
            rates[name] = amount / seen.taken[name].timing.median
        clear(device)
    return Ceilings(
        product=rates["product"],
        eight_bit_product=rates["eight_bit_product"],
        attention=rates["attention"],
        eight_bit_attention=rates["eight_bit_attention"],
        memory=rates["memory"],
        sizes={"product": side, "attention_tokens": tokens, "copied_bytes": copied},
        failed=failed,
    )
