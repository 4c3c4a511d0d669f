"""Sampling over several GPUs of one host: for long sequences, and for the two branches of guidance at once.

In a program that `torchrun --nproc-per-node 4` starts, every process does the same, with the same seeds, and finds the
same; one of them writes it:

    with several("cuda") as device:
        model = share(load(folder, device=str(device), dtype="bfloat16"), branches=2)
        result = run(model, request)

Which is faster, and by how much: `benchmarks/several_gpus.py`.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist

from orrery.errors import SettingsError
from orrery.model.branch_parallel import BranchParallel
from orrery.model.context_parallel import ContextParallel
from orrery.model.denoiser import Denoiser
from orrery.model.mot import LaysOut
from orrery.model.processes import processes
from orrery.runtime.model import Model

PATIENCE = timedelta(minutes=30)
"""How long processes wait for one another: as long as one of them may take to read weights from a slow disk."""


def several(device: str) -> AbstractContextManager[torch.device]:
    """Bring the processes together that torchrun started; one that was started alone stays alone.

    Args:
        device: "cpu" or "cuda".

    Returns:
        A context, inside of which they are together; it yields where this process computes.

    Raises:
        SettingsError: fewer GPUs than processes.
    """
    return processes(device, PATIENCE)


def share(model: Model, *, branches: int = 1) -> Model:
    """The same model, which samples with those of the other processes; all must ask, and be asked for the same.

    Args:
        model: on the fast path, with the same weights in every process.
        branches: as `spread`.

    Raises:
        SettingsError: the model is on the plain path, or the processes or the heads cannot be divided so.
    """
    if (branches, how_many()) == (1, 1):
        return model
    if not isinstance(model.denoiser, Denoiser):
        raise SettingsError(
            "Several GPUs share the work of a model on the fast path, and of this one only once, got speed "
            f"{model.speed.to_text()}. Load it with speed 'fast', 'fp8' or '8bit'."
        )
    return replace(model, denoiser=spread(model.denoiser, branches=branches))


def how_many() -> int:
    """Processes that are together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes what all of them found."""
    return not dist.is_initialized() or dist.get_rank() == 0


def spread(denoiser: Denoiser, *, branches: int = 1) -> LaysOut:
    """A denoiser that works with those of the other processes; all must ask.

    Args:
        denoiser: with the same weights in every process.
        branches: into how many groups the processes are divided, which take samples of a pack apart: 2 for guidance.
            The processes of a group take the tokens of each of its samples apart. Where a pack has fewer samples than
            there are groups, as outside the interval in which guidance acts, some wait.

    Returns:
        What `generate` takes; of one process alone the denoiser itself.

    Raises:
        SettingsError: the processes or the heads cannot be divided so.
    """
    size = how_many()
    if branches < 1 or size % branches:
        raise SettingsError(
            f"{size} processes cannot be divided into {branches} groups. Take branches that divide the number of "
            "processes, which torchrun --nproc-per-node says."
        )
    if size == 1:
        return denoiser
    from torch.distributed.device_mesh import init_device_mesh

    device = denoiser.mot.embed.weight.device.type
    mesh = init_device_mesh(device, (branches, size // branches), mesh_dim_names=("branches", "context"))
    found: LaysOut = denoiser
    if branches < size:
        found = ContextParallel(denoiser, mesh.get_group("context"))
    if branches > 1:
        found = BranchParallel(found, mesh.get_group("branches"))
    return found
