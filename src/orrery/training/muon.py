"""Muon: momentum, made orthogonal, for the matrices inside blocks. Which these are is `training.optim`'s to say.

torch has a Muon, but it orthogonalises one matrix at a time and in bfloat16, which most CPUs only emulate. Here,
matrices of one shape go through together, in float32 on the CPU and in bfloat16 elsewhere. Else the update is the same.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

# As the published recipes have them. The update is scaled by 0.2 * sqrt(max(rows, cols)), so that learning rates of
# AdamW carry over (arXiv:2502.16982, section 2.2).
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


@runtime_checkable
class Lying(Protocol):
    """Where the values of matrices lie: all in this process, or some rows of each."""

    def here(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What of them is in this process, in the memory of the tensors."""

    def whole(self, rows: Sequence[Tensor], shape: torch.Size) -> Float[Tensor, "M rows cols"]:
        """Matrices of one shape, put together from what is in each process."""

    def rows(self, whole: Float[Tensor, "M rows cols"]) -> list[Tensor]:
        """What of each matrix belongs in this process."""


class Whole:
    """All values in this process."""

    def here(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def whole(self, rows: Sequence[Tensor], shape: torch.Size) -> Float[Tensor, "M rows cols"]:
        return torch.stack(list(rows))

    def rows(self, whole: Float[Tensor, "M rows cols"]) -> list[Tensor]:
        return list(whole.unbind())


WHOLE = Whole()


class Muon(torch.optim.Optimizer):
    """Nesterov momentum and five Newton-Schulz steps; state `momentum_buffer` for each matrix."""

    def __init__(self, groups: Iterable[dict[str, Any]], lying: Lying = WHOLE) -> None:
        """Take parameter groups with "lr" and "weight_decay"; every parameter is a matrix."""
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0})
        self._lying = lying

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; weight decay is decoupled."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, matrices in shapes.items():
                update = orthogonalised(self._lying.whole(self._momenta(matrices), shape))
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                here = self._lying.here(matrices)
                torch._foreach_mul_(here, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(here, self._lying.rows(update), alpha=-rate)

    def _momenta(self, matrices: list[Tensor]) -> list[Tensor]:
        # One call for all matrices: a GPU would wait for the hundreds of small ones.
        gradients = self._lying.here([matrix.grad for matrix in matrices if matrix.grad is not None])
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        buffers = self._lying.here([self.state[matrix]["momentum_buffer"] for matrix in matrices])
        torch._foreach_lerp_(buffers, gradients, 1 - MOMENTUM)
        return list(torch._foreach_lerp(gradients, buffers, MOMENTUM))


def orthogonalised(matrices: Float[Tensor, "M rows cols"]) -> Float[Tensor, "M rows cols"]:
    """Each matrix with all singular values brought near 1 (between about 0.5 and 1.3), its singular vectors kept.

    Source: Newton-Schulz iteration with the quintic of K. Jordan's Muon (2024).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x if x.device.type == "cpu" else x.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
