"""A small frozen slice of the table, to notice in a minute that shipped weights got worse. No claims rest on it."""

from dataclasses import replace

from orrery.evaluation.factory.ask import can, check_model
from orrery.evaluation.factory.codec import codec
from orrery.evaluation.factory.dynamics import forward_dynamics
from orrery.evaluation.factory.figure import QUICK, Figure, Outcome, Suite
from orrery.evaluation.factory.inverse import inverse_dynamics
from orrery.evaluation.factory.reasoner import answered_right
from orrery.runtime.model import Model

SLICE = replace(QUICK, name="regression", windows=1, inverse_windows=1, question_episodes=3, per_family=2)
SEED = 77


def regression(model: Model) -> dict[str, float]:
    """Figures of a few fixed cases by name; the same to the last digits on one kind of machine.

    Returns:
        Of what the checkpoint can do: decibels over the copied last frame and over shuffled actions, R2 of recovered
        actions, percent of right answers, and PSNR of the codec. The policy is left out: a handful of trials says
        nothing, and more take too long.

    Raises:
        ContractError: a checkpoint for something else than the factory gantry.
    """
    check_model(model)
    suite = Suite(size=SLICE, seed=SEED)
    found: dict[str, float] = {}

    def keep(outcome: Outcome, *names: str) -> None:
        figures: dict[str, Figure] = {figure.name: figure for figure in outcome.figures}
        found.update({name: float(value) for name in names if (value := figures[name].value) is not None})

    keep(codec(model, suite), "PSNR of all pixels, front", "PSNR of pixels of parts and gripper, front")
    if can(model, "forward_dynamics"):
        keep(
            forward_dynamics(model, suite),
            "Gain over the copied last frame, front",
            "Gain over shuffled actions, front",
            "Gain over the copied last frame, wrist",
        )
    if can(model, "inverse_dynamics"):
        keep(inverse_dynamics(model, suite), "R2 of dx_m", "R2 of dy_m", "R2 of dz_m", "R2 of gripper")
    if can(model, "reason"):
        found["Right answers"] = answered_right(model, suite)
    return found
