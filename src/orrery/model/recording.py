"""CUDA graphs: work on a GPU that is recorded once and then done again, without launching its kernels one by one."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")
WARM_UP = 2
"""Calls before one is recorded: what is compiled or set up on the first one cannot be recorded."""


def cuda_graph(work: Callable[[], T], pool: Any) -> tuple[Callable[[], None], T]:
    """What does a piece of work again, in the same memory, and what it makes there.

    Args:
        pool: memory that graphs share; None for some of its own. Where it is shared, what one graph has made may be
            written over when another is replayed.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile, on streams of their own: training fills its bank so.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        made = work()
    return graph.replay, made
