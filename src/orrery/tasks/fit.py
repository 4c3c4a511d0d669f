"""Does a request fit a checkpoint? Decided from plain facts about the checkpoint, before anything heavy is loaded."""

from collections.abc import Collection, Mapping
from typing import Literal, get_args

from orrery.errors import ContractError, RequestError, TaskError
from orrery.tasks.checks import shown
from orrery.tasks.contract import ActionContract
from orrery.tasks.defaults import FAMILIES
from orrery.tasks.request import Request
from orrery.tasks.task import TASKS, Task

Capability = Literal["write", "see", "vision", "sound", "action"]
"""Write text, see pictures as a reader does (vision encoder), make pictures, make sound, make actions."""


def needed(task: Task, *, sees: bool = False) -> tuple[Capability, ...]:
    """What a checkpoint must have for a task; `sees` when a writing task is given pictures."""
    if task.writes:
        return ("write", "see") if sees else ("write",)
    wanted: tuple[tuple[Capability, object], ...] = (
        ("vision", task.vision),
        ("sound", task.sound),
        ("action", task.action),
    )
    return tuple(name for name, given in wanted if given is not None)


def lacking(task: Task, capabilities: Collection[str], *, sees: bool = False) -> tuple[Capability, ...]:
    """What a checkpoint with `capabilities` lacks for the task; empty when it can do it."""
    assert set(capabilities) <= set(get_args(Capability))
    return tuple(name for name in needed(task, sees=sees) if name not in capabilities)


def abilities(
    capabilities: Collection[str], family: str, trained_for: Collection[str] | None = None
) -> dict[str, str | None]:
    """For every task, None where a checkpoint can do it, or why it cannot.

    Args:
        capabilities: what the checkpoint has, words of Capability.
        family: a key of `tasks.defaults.FAMILIES`; some were distilled or trained for one task only.
        trained_for: names of tasks; None where a checkpoint does not say.
    """
    return {name: _obstacle(task, capabilities, family, trained_for) for name, task in TASKS.items()}


def _obstacle(
    task: Task, capabilities: Collection[str], family: str, trained_for: Collection[str] | None
) -> str | None:
    if missing := lacking(task, capabilities):
        return f"needs {' and '.join(missing)}"
    if family not in FAMILIES or (not task.writes and task.name not in FAMILIES[family]):
        return f"family {family!r} has no defaults for it"
    if trained_for is not None and task.name not in trained_for:
        return "it was not trained for it"
    return None


def check_against(
    request: Request,
    task: Task,
    *,
    capabilities: Collection[str],
    contract: ActionContract | None,
    multiple: int,
    trained_for: Collection[str] | None = None,
) -> None:
    """Refuse what this checkpoint cannot do, or takes to mean something else.

    Args:
        task: the row of the request, `request.row`.
        capabilities: what the checkpoint has, words of Capability.
        contract: what its actions mean; None for released checkpoints.
        multiple: pixels that height and width must be a multiple of (the codec's patch).
        trained_for: names of tasks; None where a checkpoint does not say.

    Raises:
        TaskError: a capability is missing, or the checkpoint was not trained for the task.
        ContractError: request and contract disagree; with both values.
        RequestError: a size that the codec cannot hold.
    """
    missing = lacking(task, capabilities, sees=request.vision is not None)
    if missing:
        able = [row.name for row in TASKS.values() if not lacking(row, capabilities)]
        raise TaskError(
            f"Task {task.name!r} needs {' and '.join(missing)}, the checkpoint has "
            f"{', '.join(sorted(capabilities)) or 'none of it'}. Use {' or '.join(able) or 'another checkpoint'}."
        )
    if trained_for is not None and task.name not in trained_for:
        raise TaskError(
            f"The checkpoint was trained for {', '.join(trained_for)}, not for {task.name!r}. Ask for one of these, or "
            "load another checkpoint."
        )
    for name, side in zip(("height", "width"), request.size or (), strict=False):
        if side % multiple:
            below = side // multiple * multiple
            raise RequestError(
                f"size {name} must be a multiple of {multiple}, got {side}. "
                f"Give {f'{below} or ' if below else ''}{below + multiple}."
            )
    if task.action is None:
        return
    if contract is None:
        if request.contract is not None:
            raise ContractError(
                f"The request assumes {shown(dict(request.contract))}, the checkpoint has no contract. "
                "Leave contract out, or load a checkpoint that has one."
            )
        return
    rows = request.action_table()
    chunk = rows.shape[0] if rows is not None else None
    if chunk is None and request.frames is not None and task.frames == "chunk":
        chunk = request.frames - 1
    contract.check_request(
        embodiment=request.embodiment,
        assumed=request.contract,
        action_width=None if rows is None else rows.shape[1],
        actions=chunk,
        state_width=None if request.state is None else len(request.state),
        fps=request.fps,
    )
    _check_views(request, task, contract)


def _check_views(request: Request, task: Task, contract: ActionContract) -> None:
    """Refuse pictures of other cameras than the checkpoint sees through."""
    views = contract.views
    if not isinstance(request.vision, Mapping):
        if views:
            raise RequestError(
                f"Task {task.name!r} needs pictures of {' and '.join(views)}, got one without a name. "
                f"Give vision as {{{', '.join(f'{name!r}: ...' for name in views)}}}."
            )
        return
    if not views:
        raise RequestError(
            f"The checkpoint is shown one picture, vision has {shown(list(request.vision))}. Give one picture."
        )
    if set(request.vision) != set(views):
        raise ContractError(
            f"cameras of the request are {shown(sorted(request.vision))}, of the checkpoint {shown(list(views))}. "
            "Give a picture for each of the checkpoint's."
        )
    if request.size is not None:
        raise RequestError(
            f"The sizes of {' and '.join(views)} are the checkpoint's, got size {shown(request.size)}. Leave size out."
        )
