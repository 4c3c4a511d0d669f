"""Weights that wait in CPU memory and come to the device block by block, each while the one before it computes.

For models that do not fit: the text tower of the released families is half of their weights and is needed once a
prompt. The numbers are those of the resident model to the bit. On a GPU blocks are copied from pinned memory on a
stream of their own into two buffers that are used in turn. On the CPU the same is done without a stream: that gains
nothing, and shows that it is right.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from orrery.model.mot import Block, MoT, Tower

Offload = Literal["text", "all"]
"""The text tower with the embedding and the head of the next token; or the blocks of the generation tower as well."""
ALIGNMENT = 512
"""Bytes. As the allocator places tensors, so that products take the same kernels as on resident weights."""
SLOTS = 2


def stays(mot: MoT, what: Offload | None) -> tuple[str, ...]:
    """Names of the submodules whose weights stay on the CPU."""
    if what is None:
        return ()
    towers = ["text", *(["generation"] if what == "all" and mot.config.generates else [])]
    blocks = (f"blocks.{index}.{tower}" for index in range(len(mot.blocks)) for tower in towers)
    return ("embed", "lm_head", *blocks)


def leave_on_cpu(mot: MoT, what: Offload, device: torch.device) -> None:
    """Make a model compute on a device although the weights named by `stays` lie in CPU memory.

    From then on it can be asked without gradients only.

    Args:
        mot: with those weights on the CPU and all others on the device.
    """
    blocks = [cast(Block, block) for block in mot.blocks]
    Stream([block.text for block in blocks], device)
    if what == "all":
        towers = [block.generation for block in blocks if block.generation is not None]
        if towers:
            Stream(towers, device)
    # A few rows are looked up where they lie, and travel alone.
    mot.embed.register_forward_pre_hook(lambda _, args: tuple(x.cpu() for x in args))
    mot.embed.register_forward_hook(lambda _, args, found: found.to(device))
    _borrow(mot.lm_head, device)


class Stream:
    """Towers in the order in which they compute, each of which has its weights on the device while it does.

    A tower begins with its `attention_norm` and ends with its `mlp`: that is where hooks stand.
    """

    def __init__(self, towers: Sequence[Tower], device: torch.device) -> None:
        """Take the weights into pinned memory, one tower after the other."""
        self._device, self._on_gpu = device, device.type == "cuda"
        self._parameters = [list(tower.parameters()) for tower in towers]
        self._homes: list[Tensor] = []
        for parameters in self._parameters:
            self._homes.append(_packed(parameters, pinned=self._on_gpu))
            _point(parameters, self._homes[-1])  # at once: no two towers are held twice
        size = self._homes[0].numel()
        assert all(home.numel() == size for home in self._homes), "towers of one model are alike"
        self._slots = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(SLOTS)]
        self._held: list[int | None] = [None] * SLOTS
        """Which tower's weights a slot has."""
        self._computing: int | None = None
        if self._on_gpu:
            self._copying = torch.cuda.Stream(device)
            self._copying.wait_stream(torch.cuda.current_stream(device))
            self._filled = [torch.cuda.Event() for _ in range(SLOTS)]
            self._free = [torch.cuda.Event() for _ in range(SLOTS)]
        for index, tower in enumerate(towers):
            tower.attention_norm.register_forward_pre_hook(self._arriving(index))
            tower.mlp.register_forward_hook(self._leaving(index))

    def _arriving(self, index: int) -> Any:
        def arrive(module: nn.Module, args: Any) -> None:
            if torch.is_grad_enabled():
                raise ValueError("Weights that stay on the CPU are gone before a backward pass. Compute in no_grad().")
            if self._computing is not None:  # It was broken off.
                self._leave(self._computing)
            slot = index % SLOTS
            if self._held[slot] != index:
                self._fetch(index)
            if self._on_gpu:
                torch.cuda.current_stream(self._device).wait_event(self._filled[slot])
            _point(self._parameters[index], self._slots[slot])
            self._computing = index
            if index + 1 < len(self._homes):
                self._fetch(index + 1)

        return arrive

    def _leaving(self, index: int) -> Any:
        def leave(module: nn.Module, args: Any, found: Any) -> None:
            self._leave(index)

        return leave

    def _leave(self, index: int) -> None:
        _point(self._parameters[index], self._homes[index])
        slot = index % SLOTS
        # Weights may change meanwhile: what was copied serves once.
        self._held[slot], self._computing = None, None
        if self._on_gpu:
            self._free[slot].record(torch.cuda.current_stream(self._device))

    def _fetch(self, index: int) -> None:
        slot = index % SLOTS
        self._held[slot] = index
        if not self._on_gpu:
            self._slots[slot].copy_(self._homes[index])
            return
        # Where nothing has been recorded yet there is nothing to wait for.
        self._copying.wait_event(self._free[slot])
        with torch.cuda.stream(self._copying):
            self._slots[slot].copy_(self._homes[index], non_blocking=True)
            self._filled[slot].record(self._copying)


def _borrow(linear: nn.Linear, device: torch.device) -> None:
    """Copy a matrix to the device for each of its products."""
    home = linear.weight.detach()
    if device.type == "cuda":
        home = home.pin_memory()
        linear.weight.data = home

    def arrive(module: nn.Module, args: Any) -> None:
        linear.weight.data = home.to(device, non_blocking=True)

    def leave(module: nn.Module, args: Any, found: Any) -> None:
        linear.weight.data = home

    linear.register_forward_pre_hook(arrive)
    linear.register_forward_hook(leave)


def _packed(parameters: Sequence[nn.Parameter], *, pinned: bool) -> Tensor:
    """The bytes of all parameters in one piece of CPU memory."""
    home = torch.empty(_places(parameters)[-1], dtype=torch.uint8, pin_memory=pinned)
    for parameter, view in zip(parameters, _views(parameters, home), strict=True):
        view.copy_(parameter.detach())
    return home


def _point(parameters: Sequence[nn.Parameter], piece: Tensor) -> None:
    """Let parameters be what lies in a piece of memory."""
    for parameter, view in zip(parameters, _views(parameters, piece), strict=True):
        parameter.data = view


def _views(parameters: Sequence[nn.Parameter], piece: Tensor) -> list[Tensor]:
    places = _places(parameters)
    return [
        piece[place : place + parameter.numel() * parameter.element_size()].view(parameter.dtype).view(parameter.shape)
        for parameter, place in zip(parameters, places, strict=False)
    ]


def _places(parameters: Sequence[nn.Parameter]) -> list[int]:
    """Where each parameter begins, and where the last one ends, in bytes."""
    places = [0]
    for parameter in parameters:
        size = parameter.numel() * parameter.element_size()
        places.append(places[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return places
