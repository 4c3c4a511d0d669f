"""What a run carries from step to step, and its folder on disk, from which it goes on to the bit.

The random state is the step itself, since every draw is made by `noise.generator`; so is the position in the data,
which is written down beside it for the reader, with the order that it belongs to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orrery.data.order import Order
from orrery.errors import CheckpointError, SettingsError
from orrery.training.batch import place_of
from orrery.training.ema import PowerEma
from orrery.training.optim import Optimiser, build_optimiser, load_optimiser_tensors, optimiser_tensors
from orrery.training.recipe import Recipe
from orrery.weights.folder import open_folder, save_folder
from orrery.weights.shard import read_tensors

Gather = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor] | None]
"""Makes tensors whole of which each process has a part; None in a process that writes nothing."""
_VERSION = 1
_DOCUMENT = "training.json"
_WEIGHTS, _OPTIMISER, _EMA = "weights.safetensors", "optimiser.safetensors", "ema.safetensors"


@dataclass(kw_only=True, eq=False)
class TrainingState:
    """A run between two steps. The weights are in the model that `optimiser` updates."""

    optimiser: Optimiser
    ema: PowerEma | None
    step: int = 0
    """Steps done, and the number of the next one."""
    seconds: float = 0.0
    """Wall-clock time spent, over all resumptions."""
    order: Order | None = None
    """The order of the data that the steps so far followed; None before the first one."""

    def follow(self, order: Order) -> None:
        """Go on in an order of the data.

        Raises:
            SettingsError: the steps so far followed another one.
        """
        if self.order not in (None, order):
            raise SettingsError(
                f"The run has followed {self.order} and is given {order}. Resume it with the data it began with."
            )
        self.order = order


def new_state(mot: nn.Module, recipe: Recipe) -> TrainingState:
    """The state before the first step. Parameters that require no gradient are left alone.

    Raises:
        SettingsError: the optimiser settings do not fit the parameters.
    """
    optimiser = build_optimiser(mot.named_parameters(), recipe.optimiser)
    ema = None if recipe.ema_width is None else PowerEma(optimiser.parameters.items(), recipe.ema_width)
    return TrainingState(optimiser=optimiser, ema=ema)


def save_state(
    path: Path, mot: nn.Module, recipe: Recipe, state: TrainingState, *, gather: Gather = lambda tensors: tensors
) -> None:
    """Write everything that the rest of the run depends on, replacing the folder at `path` only when it is on disk.

    Args:
        gather: for a model in parts; then every process calls this function, and one writes.

    Raises:
        CheckpointError: a value is not finite, or `path` holds something else. What was there is then unchanged.
    """
    moments, optimiser_document = optimiser_tensors(state.optimiser)
    parts: dict[str, Mapping[str, Tensor]] = {_WEIGHTS: mot.state_dict()}
    if moments:
        parts[_OPTIMISER] = moments
    if state.ema is not None:
        parts[_EMA] = state.ema.tensors()
    gathered = {file: gather(table) for file, table in parts.items()}
    tensors = {file: table for file, table in gathered.items() if table is not None}
    if not tensors:
        return
    document = {
        "version": _VERSION,
        "step": state.step,
        "seconds": state.seconds,
        "recipe": recipe.to_json(),
        "data": None if state.order is None else state.order.to_json(place_of(state.order, recipe, state.step)),
        "optimiser": optimiser_document,
        "ema": None if state.ema is None else state.ema.document(),
        "torch": torch.__version__,
    }
    metadata = {"kind": "training state", "step": state.step}
    save_folder(path, tensors=tensors, documents={_DOCUMENT: document}, metadata=metadata)


def load_state(path: Path, mot: nn.Module, recipe: Recipe) -> TrainingState:
    """Put a saved run into a model of the same recipe, weights included, and return its state.

    Raises:
        CheckpointError: the folder is damaged, holds no training state, or is of another recipe or version. Then the
            weights of `mot` are not to be used.
    """
    folder = open_folder(path)
    document = folder.document(_DOCUMENT)
    if document["version"] != _VERSION:
        raise CheckpointError(
            f"{path} holds a training state of version {document['version']}, this program reads {_VERSION}."
        )
    _require_equal(recipe.to_json(), document["recipe"], path)
    weights = read_tensors(folder.file(_WEIGHTS))
    own = mot.state_dict()
    if odd := sorted(own.keys() ^ weights.keys()):
        raise CheckpointError(f"{path} has missing or unknown weights: {', '.join(odd[:5])} ({len(odd)} in all).")
    for name, tensor in weights.items():
        if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype):
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, the model has {tuple(own[name].shape)}"
                f" {own[name].dtype}."
            )
    mot.load_state_dict(weights)
    state = new_state(mot, recipe)
    moments = read_tensors(folder.file(_OPTIMISER)) if _OPTIMISER in folder.files else {}
    load_optimiser_tensors(state.optimiser, moments, document["optimiser"])
    if state.ema is not None:
        state.ema.load(read_tensors(folder.file(_EMA)), document["ema"])
    state.step, state.seconds = document["step"], document["seconds"]
    if (data := document["data"]) is not None:
        state.order = Order(seed=data["seed"], size=data["size"])
    return state


def saved_recipe(path: Path) -> Recipe:
    """The recipe of a saved run.

    Raises:
        CheckpointError: the folder is damaged or holds no training state.
        SettingsError: the recipe is of another version.
    """
    return Recipe.from_json(open_folder(path, verify=False).document(_DOCUMENT)["recipe"])


def _require_equal(given: Mapping[str, Any], saved: Mapping[str, Any], path: Path) -> None:
    differing = [name for name in {**given, **saved} if given.get(name) != saved.get(name)]
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"{path} was trained with {name} = {saved.get(name)}, the recipe says {given.get(name)}"
            f" ({len(differing)} settings differ). Resume with the saved recipe, or start another run."
        )
