"""Forward and backward of a step's stacks as CUDA graphs: recorded once for each shape, then replayed.

A stack takes about a thousand small kernels; launching them one by one takes several times as long as they run. The
numbers are those of the same calls without recording.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from orrery.model.recording import cuda_graph
from orrery.packing.apart import put_together, taken_apart
from orrery.training.loss import Losses
from orrery.training.stacks import Asking, Flowing


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One shape's graph and the memory that it reads and writes."""

    replay: Callable[[], None]
    inputs: Sequence[Tensor]
    parts: dict[str, Tensor]


class Graphs:
    """Works out stacks and adds their gradients to those of the parameters, which from now on keep their memory."""

    def __init__(
        self, losses: Callable[[Flowing | Asking], Losses], parameters: Sequence[Parameter], *, bfloat16: bool
    ) -> None:
        self.losses, self.parameters, self.bfloat16 = losses, parameters, bfloat16
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._known: dict[Any, Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, stack: Flowing | Asking) -> dict[str, Tensor]:
        """The losses of a stack."""
        known, tensors = self.record(stack)
        for mine, given in zip(known.inputs, tensors, strict=True):
            mine.copy_(given)
        known.replay()
        # Copies: graphs share memory, and one recorded earlier may write over these losses when it is replayed.
        return {name: part.clone() for name, part in known.parts.items()}

    def record(self, stack: Flowing | Asking) -> tuple[Recorded, list[Tensor]]:
        """What is recorded for the shape of a stack, now if not before, and the stack's own tensors."""
        tensors: list[Tensor] = []
        shape = taken_apart(stack, tensors)
        if shape not in self._known:
            self._known[shape] = self._record(stack, tensors)
        return self._known[shape], tensors

    def _record(self, stack: Flowing | Asking, tensors: Sequence[Tensor]) -> Recorded:
        inputs = [tensor.clone() for tensor in tensors]
        still = put_together(stack, iter(inputs))
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        kept = [gradient.clone() for gradient in gradients]
        replay, parts = cuda_graph(lambda: self._work(still), self._pool)
        torch._foreach_copy_(gradients, kept)
        return Recorded(replay=replay, inputs=inputs, parts=parts)

    def _work(self, stack: Flowing | Asking) -> dict[str, Tensor]:
        # Weights are rounded anew in every graph: a cache of them would belong to the first one.
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.bfloat16, cache_enabled=False):
            losses = self.losses(stack)
        found = torch.autograd.grad(losses.total, self.parameters, allow_unused=True)
        own = [parameter.grad for parameter, new in zip(self.parameters, found, strict=True) if new is not None]
        torch._foreach_add_(
            [gradient for gradient in own if gradient is not None], [new for new in found if new is not None]
        )
        return {name: part.detach() for name, part in losses.parts.items()}
