"""The training loop: draw a batch, step, log, and save, so that a stopped run goes on as if it had not been stopped."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch

from orrery.errors import SettingsError
from orrery.model.mot import MoT
from orrery.training.batch import Batch, Source, draw_batch, order_of
from orrery.training.loss import Losses, flow_loss, text_loss
from orrery.training.optim import clip_gradients
from orrery.training.recipe import LossWeights, Recipe
from orrery.training.state import TrainingState, new_state, save_state
from orrery.weights.atomic import write_atomic

LOG = "log.jsonl"
STATE = "state"


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One step, as it is logged."""

    step: int
    """Counted from 0."""
    progress: float
    """How much of the run is done after it, 1 at the end."""
    loss: float
    """The weighted sum."""
    losses: dict[str, float]
    """Unweighted, of the modalities that were scored."""
    learning_rate: float
    """Before multipliers."""
    grad_norm: float
    """Before clipping."""
    seconds: float
    """Since the start of the run, over all resumptions."""


Report = Callable[[StepReport], None]


def train(
    mot: MoT,
    source: Source,
    recipe: Recipe,
    *,
    out: Path,
    state: TrainingState | None = None,
    report: Report | None = None,
    save_every: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainingState:
    """Train to the end of the recipe, or until SIGTERM, which lets the step end and saves.

    Args:
        mot: the model on the device to train on, in float32; parameters that require no gradient are left alone.
        source: recorded windows.
        recipe: what decides the numbers; `recipe.model` must be the model's.
        out: gets `state/`, the run as `state.load_state` reads it, and `log.jsonl`, one `StepReport` a line.
        state: a run to go on with, of this model; None starts at step 0, in place of any run that `out` holds. Steps
            that were logged after the state was saved are taken out of the log, since they are done again.
        report: told of every step.
        save_every: steps between saves; None saves at the end only.
        clock: seconds, for the recipe's limit and the log.

    Returns:
        The state that was saved last; `step` says whether the run was stopped early.

    Raises:
        SettingsError: the recipe is for another model, the state belongs to another one, or it followed other data.
        DatasetError: a window does not fit its task.
        NonFiniteGradientsError: a gradient is not finite; the last save stays.
    """
    if mot.config != recipe.model:
        raise SettingsError(f"The recipe is for another model than the one given: {_difference(mot, recipe)}.")
    if rare := [share.task for share in recipe.mixture if share.every > 1]:
        raise SettingsError(f"{rare[0]!r} takes part in every few steps, which only runs on stacks do. Set every to 1.")
    if save_every is not None and save_every < 1:
        raise SettingsError(f"save_every must be 1 or more steps, or None for the end only; got {save_every}.")
    if state is None:
        state = new_state(mot, recipe)
    own = dict(mot.named_parameters())
    if any(own.get(name) is not parameter for name, parameter in state.optimiser.parameters.items()):
        raise SettingsError(
            "The state updates another model than the one given. Load it with load_state into this one."
        )
    state.follow(order_of(source, recipe))
    device = mot.embed.weight.device
    began = clock() - state.seconds
    out.mkdir(parents=True, exist_ok=True)
    keep_log(out / LOG, state.step)
    mot.train()
    with stop_on_sigterm() as stop, (out / LOG).open("a") as log:
        while recipe.progress(state.step, state.seconds) < 1 and not stop.is_set():
            factor = recipe.rate(state.step, state.seconds)
            losses, norm = take_step(mot, draw_batch(source, recipe, state.step, device), recipe, state, factor)
            state.step += 1
            state.seconds = clock() - began
            done = StepReport(
                step=state.step - 1,
                progress=recipe.progress(state.step, state.seconds),
                loss=losses.total.item(),
                losses={kind: loss.item() for kind, loss in losses.parts.items()},
                learning_rate=factor * recipe.optimiser.learning_rate,
                grad_norm=norm,
                seconds=state.seconds,
            )
            log.write(json.dumps(asdict(done)) + "\n")
            log.flush()
            if report is not None:
                report(done)
            if save_every is not None and state.step % save_every == 0:
                save_state(out / STATE, mot, recipe, state)
        save_state(out / STATE, mot, recipe, state)
    return state


def take_step(mot: MoT, batch: Batch, recipe: Recipe, state: TrainingState, factor: float) -> tuple[Losses, float]:
    """One update of the weights and of their running mean.

    Returns:
        The losses before it, and the norm of the gradients before clipping.

    Raises:
        NonFiniteGradientsError: a gradient is not finite; nothing was updated.
    """
    optimiser = state.optimiser
    optimiser.clear_gradients()
    bfloat16 = recipe.precision == "bfloat16"
    with torch.autocast(batch.sigmas.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        losses = batch_losses(mot, batch, recipe.loss_weights)
    losses.total.backward()
    for parameter in optimiser.parameters.values():
        # A modality that this batch lacks pulls nowhere. Were its gradient left undefined, how often a parameter
        # is updated, and so its moments, would depend on which tasks were drawn.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    norm = clip_gradients(optimiser, recipe.clip_norm)
    optimiser.step(factor)
    if state.ema is not None:
        state.ema.update(optimiser.parameters.items())
    return losses, norm


def batch_losses(mot: MoT, batch: Batch, weights: LossWeights) -> Losses:
    """Read all text once, with gradient; score the next tokens from it, and the velocity of what is generated."""
    memory = mot.read(batch.pack.text)
    losses = Losses(total=batch.sigmas.new_zeros(()), parts={})
    if batch.labels.numel():
        loss = text_loss(mot.logits(memory.hidden[batch.before_labels]), batch.labels)
        losses += Losses(total=weights.text * loss, parts={"text": loss})
    if batch.pack.segments:
        prediction = mot(batch.pack, batch.sigmas, memory)
        floor = mot.config.sigma_floor if mot.config.prediction == "data" else 0.0
        losses += flow_loss(prediction, batch.pack, batch.noise, batch.sigmas, weights, sigma_floor=floor)
    return losses


def keep_log(path: Path, steps: int) -> None:
    """Drop the lines of a log from step `steps` on, and a last line that was cut off."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < steps]
        write_atomic(path, "".join(kept).encode())


@contextmanager
def stop_on_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process. Only the main thread may listen; elsewhere it stays."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _difference(mot: MoT, recipe: Recipe) -> str:
    own, wanted = mot.config.to_json(), recipe.model.to_json()
    return ", ".join(f"{name} {wanted[name]} instead of {own[name]}" for name in own if own[name] != wanted[name])
