"""Matrix products of the network, on the faster of the two libraries that torch brings for the CPU."""

from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear`, to rounding; on some processors another library multiplies (benchmarks/cpu_calls.py).

    That library is asked for float32 on the CPU without gradients; all else is torch's own choice.
    """

    def forward(self, input: Float[Tensor, "*L I"]) -> Float[Tensor, "*L O"]:
        """The input times the transposed weight, plus the bias where there is one."""
        if prefers_onednn() and _plain(input) and _plain(self.weight.data):
            product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
            return product
        return super().forward(input)


def _plain(x: Tensor) -> bool:
    """Whether a tensor is one in float32 on the CPU, and nobody differentiates, casts or records what is done to it."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


@cache
def prefers_onednn(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether oneDNN multiplies faster here than MKL, which torch takes and which is made for Intel's processors.

    False also where torch does not bring oneDNN, or the processor is not known.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        return "AuthenticAMD" in cpuinfo.read_text()
    except OSError:
        return False
