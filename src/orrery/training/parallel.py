"""Training on several devices: FSDP2, one unit per block. The model and the losses stay single-device code.

`torchrun` starts the processes and tells each who it is. Every process draws the whole of a step, as one alone would,
and works out its part of the samples of each stack; added up over all processes that is the loss and the gradient of
one alone, to rounding. Weights, gradients and the optimiser's state lie in parts; files hold them whole.
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from orrery.errors import SettingsError
from orrery.model.processes import processes, several_started
from orrery.packing.pack import TextPack
from orrery.training.ema import PowerEma
from orrery.training.optim import build_optimiser, load_optimiser_tensors, optimiser_tensors
from orrery.training.recipe import Recipe
from orrery.training.sight import Marks
from orrery.training.stacks import Asking, Flowing
from orrery.training.state import TrainingState

if TYPE_CHECKING:
    # These take as long to load as torch itself, and one process alone does without.
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: as long as one of them may train codecs for all."""
OLDEST_TORCH = (2, 13)
"""From there on FSDP2 finds what a module returns inside a dataclass, as the memory of a block is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Team:
    """The processes of a run, as one of them sees them. One alone waits for nobody and has the whole of everything."""

    rank: int = 0
    size: int = 1
    mesh: "DeviceMesh | None" = None
    """None for one alone."""

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks for all."""
        return self.rank == 0

    def clock(self) -> float:
        """Seconds by the clock of the one that leads. All processes must ask."""
        now = torch.tensor(time.monotonic(), dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(now, src=0)
        return float(now)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process. All must ask, so that this is also where they wait for one another."""
        found = torch.tensor(int(flag))
        if self.size > 1:
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return bool(found)

    def part(self, stack: Flowing | Asking) -> tuple[Flowing | Asking, Tensor | float]:
        """The samples of this process, and by what to multiply the mean over them.

        Products of all processes add up to the mean over the stack. Where there are fewer samples than processes, some
        get the first one times 0: all must take part in every call of the model.
        """
        if self.size == 1:
            return stack, 1.0
        count = samples(stack)
        begin, end = (count * rank // self.size for rank in (self.rank, self.rank + 1))
        if begin == end:
            return some(stack, 0, 1), 0.0
        mine = some(stack, begin, end)
        if isinstance(stack, Asking):
            assert isinstance(mine, Asking)
            share = (mine.labels >= 0).sum() / (stack.labels >= 0).sum()
            if mine.marks is not None:
                # Pictures count by their number, not by the words of the answers.
                mine = replace(mine, marks=replace(mine.marks, weight=(end - begin) / count / share))
            return mine, share
        # In a stack that is denoised, all samples are shown and score alike.
        return mine, (end - begin) / count

    def total(self, parts: Mapping[str, Tensor]) -> dict[str, float]:
        """Each value added up over all processes. They all must give the same names in the same order."""
        if not parts:
            return {}
        values = torch.stack([part.float() for part in parts.values()])
        if self.size > 1:
            dist.all_reduce(values)
        return dict(zip(parts, values.tolist(), strict=True))

    def gather(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        """Tensors made whole, for the one that leads; None for the others, which must ask, too."""
        if self.size == 1:
            return tensors
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            whole = whole_of(tensor)
            if self.leads:
                found[name] = whole.cpu()
        return found if self.leads else None

    def norm(self, gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
        """The joint 2-norm of all gradients."""
        norm = torch.nn.utils.get_total_norm(gradients)
        return norm if self.size == 1 else whole_of(norm)


ALONE = Team()


def whole_of(tensor: Tensor) -> Tensor:
    """A tensor of which each process has a part, put together; all processes must ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor) -> "DTensor":
    """A tensor that is known to lie in parts."""
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor), "FSDP shards every parameter"
    return tensor


@contextmanager
def team_of(device: str) -> Iterator[tuple[Team, torch.device]]:
    """The processes that torchrun started, or this one alone, and where this one computes.

    Args:
        device: "cpu" or "cuda"; of several processes on a host, each takes a GPU of its own.

    Raises:
        SettingsError: an older torch, or fewer GPUs than processes.
    """
    if not several_started():
        yield ALONE, torch.device(device)
        return
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise SettingsError(f"Several processes need torch {oldest} or newer, this is {torch.__version__}. Update it.")
    from torch.distributed.device_mesh import init_device_mesh

    with processes(device, PATIENCE) as place:
        size = dist.get_world_size()
        mesh = init_device_mesh(place.type, (size,))
        yield Team(rank=dist.get_rank(), size=size, mesh=mesh), place


def shard(
    model: nn.Module,
    blocks: Mapping[nn.Module, Sequence[str]],
    entries: Sequence[str],
    recipe: Recipe,
    state: TrainingState | None,
    team: Team,
) -> TrainingState:
    """Give each process its part of the weights and of the optimiser's state.

    Args:
        model: whole, and the same in every process.
        blocks: each becomes a unit; its methods beside `forward` by which the model calls it.
        entries: methods of the model by which it is called from outside.
        state: of the whole model; None starts one.

    Returns:
        The state to go on with; the given one is of no use any more.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    mesh = team.mesh
    assert mesh is not None, "one process alone shards nothing"
    # Nobody changes in place what a block returns, which is what this warns of.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    moments, document = ({}, None) if state is None else optimiser_tensors(state.optimiser)
    for block, methods in blocks.items():
        fully_shard(block, mesh=mesh)
        for method in methods:
            register_fsdp_forward_method(block, method)
    fully_shard(model, mesh=mesh)
    for method in entries:
        register_fsdp_forward_method(model, method)
    for unit in model.modules():
        if isinstance(unit, FSDPModule):
            # Each process has its part of one loss: gradients are added up, not averaged.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)
    optimiser = build_optimiser(model.named_parameters(), recipe.optimiser, Rows(team=team))
    if document is not None:
        load_optimiser_tensors(optimiser, _distributed(moments, optimiser.parameters), document)
    ema = None if recipe.ema_width is None else PowerEma(optimiser.parameters.items(), recipe.ema_width)
    if state is None:
        return TrainingState(optimiser=optimiser, ema=ema)
    if ema is not None:
        assert state.ema is not None
        mean = {f".{name}": tensor for name, tensor in state.ema.tensors().items()}
        spread = _distributed(mean, optimiser.parameters)
        ema.load({name.removeprefix("."): tensor for name, tensor in spread.items()}, state.ema.document())
    return replace(state, optimiser=optimiser, ema=ema)


def _distributed(tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Whole tensors `<what>.<parameter>` in parts, as their parameters lie; counts of steps stay as they are."""
    from torch.distributed.tensor import distribute_tensor

    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        what, _, name = key.partition(".")
        if what == "step":
            found[key] = tensor
        else:
            like = part_of(parameters[name])
            # Every process has the whole already: nothing is sent.
            found[key] = distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Matrices of which each process has some rows, for Muon: all processes work out the same whole update."""

    team: Team

    def here(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The rows of this process, in the memory of the tensors."""
        return [part_of(tensor).to_local() for tensor in tensors]

    def whole(self, rows: Sequence[Tensor], shape: torch.Size) -> Float[Tensor, "M rows cols"]:
        """Matrices of one shape put together; one exchange for all."""
        from torch.distributed.tensor import DTensor, Shard

        size, stride = torch.Size([len(rows), *shape]), (shape[0] * shape[1], shape[1], 1)
        stacked = torch.stack(list(rows))
        return DTensor.from_local(stacked, self.team.mesh, [Shard(1)], shape=size, stride=stride).full_tensor()

    def rows(self, whole: Float[Tensor, "M rows cols"]) -> list[Tensor]:
        """Of each matrix what belongs to this process: FSDP cuts as `torch.chunk` does."""
        each = -(-whole.shape[1] // self.team.size)
        return list(whole[:, self.team.rank * each : (self.team.rank + 1) * each].unbind())


def samples(stack: Flowing | Asking) -> int:
    """How many there are in a stack."""
    return stack.count if isinstance(stack, Asking) else len(stack.stack.token_ids)


def some(stack: Flowing | Asking, begin: int, end: int) -> Flowing | Asking:
    """A few samples of a stack as a stack."""
    if isinstance(stack, Flowing):
        tracks = tuple(
            replace(track, clean=track.clean[begin:end], given=track.given[begin:end]) for track in stack.stack.tracks
        )
        latents = tuple(values[begin:end] for values in stack.stack.latents)
        return replace(
            stack,
            stack=replace(stack.stack, token_ids=stack.stack.token_ids[begin:end], tracks=tracks, latents=latents),
            sigmas=stack.sigmas[begin:end],
            weights=tuple(None if weight is None else weight[begin:end] for weight in stack.weights),
            marks=_some_marks(stack.marks, begin, end, len(stack.sigmas)),
        )
    text, count = stack.text, stack.count
    tokens, patches, sights = (len(values) // count for values in (text.token_ids, stack.patches, text.visual))
    return Asking(
        text=TextPack(
            token_ids=text.token_ids[begin * tokens : end * tokens],
            positions=text.positions[:, begin * tokens : end * tokens],
            visual=text.visual[begin * sights : end * sights] - begin * tokens,
            lengths=text.lengths[begin:end],
        ),
        patches=stack.patches[begin * patches : end * patches],
        grids=stack.grids[begin:end],
        count=end - begin,
        labels=stack.labels[begin:end],
        marks=_some_marks(stack.marks, begin, end, count),
    )


def _some_marks(marks: Marks | None, begin: int, end: int, count: int) -> Marks | None:
    """Those of some of `count` samples, each of which has as many pictures."""
    if marks is None:
        return None
    each = len(marks.shown) // count
    here = slice(begin * each, end * each)
    return Marks(shown=marks.shown[here], place=marks.place[here])
