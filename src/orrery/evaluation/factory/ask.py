"""Requests of the suite to a model: what it is shown, in packs of a size, each with a seed of its own."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float32

from orrery.errors import ContractError, TaskError
from orrery.evaluation.factory.figure import Suite
from orrery.evaluation.factory.scenes import CAMERAS, CHUNK, Window
from orrery.runtime.model import Model
from orrery.runtime.result import Result
from orrery.runtime.run import run
from orrery.tasks.fit import abilities
from orrery.tasks.request import Request
from orrery.worlds.factory.cell import EMBODIMENT

Film = dict[str, npt.NDArray[np.uint8]]
SEED_STEP = 1_000_003
"""Keeps the seeds of rows and cases apart."""


def check_model(model: Model) -> None:
    """Refuse a checkpoint that this suite has no test for.

    Raises:
        ContractError: no contract of the factory gantry, or other cameras than front and wrist.
    """
    if EMBODIMENT not in model.contracts:
        known = ", ".join(model.contracts) or "none"
        raise ContractError(
            f"The suite factory needs a contract {EMBODIMENT!r}; the checkpoint has {known}. Load another."
        )
    contract = model.contracts[EMBODIMENT]
    cameras = {camera.name: (camera.height, camera.width) for camera in contract.cameras}
    if cameras != CAMERAS or contract.chunk != CHUNK:
        raise ContractError(
            f"The suite factory shows {CAMERAS} in chunks of {CHUNK}; the checkpoint takes {cameras} in chunks of "
            f"{contract.chunk}. Load another."
        )


def can(model: Model, task: str) -> bool:
    """Whether a checkpoint can be asked for a task."""
    return abilities(model.capabilities, model.family, model.tasks)[task] is None


def run_all(model: Model, requests: Sequence[Request], suite: Suite) -> list[Result]:
    """All results in order, `suite.batch` requests in a pack; the cell limits actions itself, so none is refused."""
    results: list[Result] = []
    for start in range(0, len(requests), suite.batch):
        results += run(model, list(requests[start : start + suite.batch]), envelope=None)
    return results


def case_seed(suite: Suite, row: int, index: int) -> int:
    """The seed of one generation."""
    return (suite.seed * SEED_STEP + row * 100_003 + index) % 2**31


def forward(
    given: Film, actions: Float32[np.ndarray, "A 5"], seed: int, *, prompt: str = "", sound: bool = False
) -> Request:
    """What will the cameras see? `given` holds one frame a camera."""
    return Request(
        task="forward_dynamics",
        prompt=prompt,
        vision=given,
        actions=actions,
        seed=seed,
        embodiment=EMBODIMENT,
        sound="make" if sound else None,
    )


def inverse(film: Film, seed: int) -> Request:
    """Which actions did this?"""
    return Request(task="inverse_dynamics", vision=film, seed=seed, embodiment=EMBODIMENT)


def act(task: str, given: Film, state: Float32[np.ndarray, "5"], instruction: str, seed: int) -> Request:
    """What to do next?"""
    return Request(task=task, prompt=instruction, vision=given, state=state, seed=seed, embodiment=EMBODIMENT)


def films(result: Result) -> Film:
    """The film of each camera.

    Raises:
        TaskError: the result has none.
    """
    if result.videos:
        return dict(result.videos)
    if result.video is None:
        raise TaskError("The model made no video where one was asked for.")
    return {"front": result.video}


def imagined(
    model: Model, windows: Sequence[Window], actions: Sequence[np.ndarray], suite: Suite, row: int
) -> list[Film]:
    """One chunk of both cameras for each window, under the given actions."""
    requests = [
        forward(window.given, chunk, case_seed(suite, row, index))
        for index, (window, chunk) in enumerate(zip(windows, actions, strict=True))
    ]
    return [films(result) for result in run_all(model, requests, suite)]


def recovered(model: Model, chunks: Sequence[Film], suite: Suite, row: int) -> list[Float[np.ndarray, "16 5"]]:
    """The actions that a model reads from films of 17 frames."""
    requests = [inverse(film, case_seed(suite, row, index)) for index, film in enumerate(chunks)]
    return [np.asarray(result.actions) for result in run_all(model, requests, suite)]
