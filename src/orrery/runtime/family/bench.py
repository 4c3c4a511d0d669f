"""The bench of a family: its ways and peers are built, its rows measured one after the other.

Weights are random, and only the network is measured: no codec, no file. Each row of `rows` is one kind of work, done in
several ways in turn; a way that fails is left out with its reason. Ours are in `ways`, the others in `peers`; what the
device could do at best is measured first, by `ceilings`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeVar

import torch

from orrery.errors import SettingsError
from orrery.model.config import EDGE, NANO, SUPER, TINY
from orrery.model.mot import LaysOut, MoT
from orrery.model.reader import Reader
from orrery.runtime.bench import machine
from orrery.runtime.family.ceilings import ceilings
from orrery.runtime.family.peers import diffusers_peer, transformers_peer
from orrery.runtime.family.report import FamilyBench, Row, Settings
from orrery.runtime.family.rows import ROWS, Stand
from orrery.runtime.family.stopwatch import FAILURES, clear, reason
from orrery.runtime.family.ways import DENOISERS, WRITERS, Writes
from orrery.runtime.family.workloads import random_mot
from orrery.tasks.checks import nearest

FAMILIES = {config.family: config for config in (TINY, EDGE, NANO, SUPER)}
COMPILED_FORMS = 64
"""Of one function: for each way, for one sample and for several."""
Way = TypeVar("Way")


@torch.no_grad()
def bench_family(settings: Settings, report: Callable[[FamilyBench], None]) -> FamilyBench:
    """Measure the rows one after the other.

    Args:
        report: told what is known before the first row and after each.

    Raises:
        SettingsError: a row that does not exist, or a peer that is not installed.
    """
    names = selected(settings.rows)
    device = torch.device(settings.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    with _room_to_compile(device):
        return _measure(settings, names, device, report)


def _measure(
    settings: Settings, names: list[str], device: torch.device, report: Callable[[FamilyBench], None]
) -> FamilyBench:
    dtype = getattr(torch, settings.dtype)
    rates = ceilings(device, dtype)
    mot = random_mot(FAMILIES[settings.family], device, dtype, settings.seed)
    memory = {"weights": _allocated(device)}
    failed: dict[str, str] = {}
    denoisers: dict[str, LaysOut] = {}
    writers: dict[str, Writes] = {}
    reads = any(name.startswith("reasoner/") for name in names)
    if not all(name.startswith("reasoner/") for name in names):
        denoisers, why = _built(settings, DENOISERS, mot)
        failed |= why
    if reads:
        writers, why = _built(settings, WRITERS, mot)
        failed |= why
    memory["fast ways"] = _allocated(device) - memory["weights"]
    # After ours, whose matrices become parts of joined ones: a peer then holds parts of the same. It is first in every
    # row, since the others are set against it.
    if "diffusers" in settings.against and denoisers:
        denoisers = {"diffusers": diffusers_peer(mot), **denoisers}
    if "transformers" in settings.against and writers:
        writers = {"transformers": transformers_peer(mot), **writers}
    memory["peers"] = _allocated(device) - sum(memory.values())
    stand = Stand(
        settings=settings,
        mot=mot,
        ceilings=rates,
        denoisers=denoisers,
        writers=writers,
        failed=failed,
        reader=Reader(mot, compiled=device.type == "cuda"),
    )
    found = FamilyBench(
        settings=settings,
        parameters=sum(parameter.numel() for parameter in mot.parameters()),
        machine=machine(device),
        ceilings=rates,
        memory_bytes=memory,
    )
    report(found)
    for name in names:
        try:
            row = ROWS[name](stand, name)
        except FAILURES as error:
            row = Row(name=name, left_out={"all": reason(error)})
        clear(device)
        found = replace(found, rows=(*found.rows, row))
        stand = replace(stand, done={row.name: row for row in found.rows})
        report(found)
    return found


def selected(asked: tuple[str, ...]) -> list[str]:
    """Rows by name, or by the beginning of it up to a slash or a dash, in the order of measuring; all for none.

    Raises:
        SettingsError: no row begins so.
    """

    def begins(name: str, asked_for: str) -> bool:
        return f"{name}/".startswith((f"{asked_for}/", f"{asked_for}-"))

    for wrong in (word for word in asked if not any(begins(name, word) for name in ROWS)):
        groups = dict.fromkeys(name.split("/")[0] for name in ROWS)
        raise SettingsError(f"There is no row {wrong!r}. {nearest(wrong, [*groups, *ROWS])}")
    return [name for name in ROWS if not asked or any(begins(name, word) for word in asked)]


def _built(
    settings: Settings, table: Mapping[str, Callable[[MoT], Way]], mot: MoT
) -> tuple[dict[str, Way], dict[str, str]]:
    """Those of the asked ways that are in the table, and why some could not be made."""
    built: dict[str, Way] = {}
    failed: dict[str, str] = {}
    for name in settings.variants:
        if name not in table:
            continue
        try:
            built[name] = table[name](mot)
        except FAILURES as error:
            failed[name] = reason(error)
        clear(mot.embed.weight.device)
    return built, failed


def _room_to_compile(device: torch.device) -> AbstractContextManager[object]:
    """Several ways share the functions that are compiled, and beyond the usual number of forms PyTorch gives up."""
    if device.type != "cuda":
        return nullcontext()
    import torch._dynamo.config

    return torch._dynamo.config.patch(recompile_limit=COMPILED_FORMS)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
