"""The processes that torchrun started: each finds its device, and they come together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from orrery.errors import SettingsError


def several_started() -> bool:
    """Whether torchrun started this process as one of several."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def processes(device: str, patience: timedelta) -> Iterator[torch.device]:
    """The processes that torchrun started, or this one alone.

    Args:
        device: "cpu" or "cuda"; of several processes on a host, each takes a GPU of its own.
        patience: how long they wait for one another.

    Yields:
        Where this one computes.

    Raises:
        SettingsError: fewer GPUs than processes.
    """
    place = torch.device(device)
    if not several_started():
        yield place
        return
    if place.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if place.index is not None or local >= torch.cuda.device_count():
            raise SettingsError(
                f"Process {local} of this host has no GPU of its own: there are {torch.cuda.device_count()}. "
                "Start as many processes as there are GPUs, with --device cuda."
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    # What is agreed on (clocks, flags) lies on the CPU, so that no GPU has to be waited for.
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=patience)
    try:
        yield place
    finally:
        dist.destroy_process_group()
