"""What a policy makes is held to an envelope before it leaves the process, and the record says to which."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from orrery.errors import ContractError, RequestError
from orrery.runtime.model import Model
from orrery.runtime.result import Result
from orrery.tasks.contract import ActionContract
from orrery.tasks.envelope import Envelope, check_finite
from orrery.tasks.request import Request

Choice = Envelope | Literal["contract"] | None
"""An envelope, the one that follows from the contract of the checkpoint, or none."""
Asked = Sequence[tuple[Request, ActionContract | None]]
"""Requests in order, each with the contract that its actions follow."""


def acts(request: Request) -> bool:
    """Whether the actions of the result are still to be executed: those of inverse dynamics have been."""
    return request.row.action == "none" and request.row.vision != "all"


def envelopes(model: Model, asked: Asked, choice: Choice) -> list[Envelope | None]:
    """The envelope of each request, None for those that do not act.

    "contract" gives none where the checkpoint carries no contract, and where its weights are random: nothing was
    trained, so there is no range of training.

    Raises:
        ContractError: an envelope of other actions than the checkpoint's, or one that needs a state which is not given.
        RequestError: an envelope, and no request that acts.
    """
    if isinstance(choice, Envelope) and not any(acts(request) for request, _ in asked):
        tasks = ", ".join(sorted({request.task for request, _ in asked}))
        raise RequestError(f"An envelope holds the actions of a policy, got only {tasks}. Leave it out.")
    found: list[Envelope | None] = []
    for request, contract in asked:
        envelope = None
        if acts(request) and isinstance(choice, Envelope):
            envelope = choice
            if contract is not None:
                envelope.check_contract(contract)
            if envelope.needs_state and request.state is None:
                raise ContractError("The workspace of the envelope needs the current state, got none. Give state.")
        elif acts(request) and choice == "contract" and contract is not None and model.origin.trained is not False:
            envelope = Envelope.of(contract)
        found.append(envelope)
    return found


def guarded(results: Sequence[Result], asked: Asked, held_to: Sequence[Envelope | None]) -> list[Result]:
    """The same results, with the envelope of those that act in their manifests.

    Raises:
        ContractError: the first of the actions that lies outside, or that is not finite, whatever the envelope.
    """
    passed = []
    for index, (result, (request, contract), envelope) in enumerate(zip(results, asked, held_to, strict=True)):
        if result.actions is not None:
            names = [f"action_{i}" for i in range(result.actions.shape[1])]
            try:
                check_finite(names if contract is None else contract.action_names, result.actions)
                if envelope is not None:
                    envelope.check(result.actions, state=request.state)
            except ContractError as error:
                raise (ContractError(f"Request {index}: {error}") if len(results) > 1 else error) from None
        if acts(request):
            document = None if envelope is None else envelope.to_json()
            result = replace(result, manifest={**result.manifest, "envelope": document})
        passed.append(result)
    return passed
