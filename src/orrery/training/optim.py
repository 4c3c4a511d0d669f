"""Optimisers, their learning rates over time, gradient clipping, and optimiser state as plain tensors.

Leaves the loop and the loss to the other modules of `training`, and the files that hold the state to `weights`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from orrery.errors import CheckpointError, OrreryError, SettingsError
from orrery.training.muon import WHOLE, Lying, Muon

Rule = Literal["adamw", "muon"]

# Tables of which one step reads only some rows: weight decay would fade the tokens and robots that a run never sees.
LOOKUP_TABLES = (
    "embed.weight",
    "positions.weight",
    "action_in.weight",
    "action_in.bias",
    "action_out.weight",
    "action_out.bias",
)

_STATE = {"adamw": ("step", "exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}
_VERSION = 1


class NonFiniteGradientsError(OrreryError):
    """A gradient holds inf or NaN. Nothing was clipped and nothing may be stepped."""


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """How parameters are updated."""

    rule: Rule = "adamw"
    """`muon` updates the matrices inside blocks by Muon and all else by AdamW."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    """Decoupled; for matrices and tensors above, except the lookup tables."""
    betas: tuple[float, float] = (0.9, 0.99)
    epsilon: float = 1e-8
    multipliers: tuple[tuple[str, float], ...] = ()
    """(part of a parameter name, factor on its learning rate); the first that matches counts."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"The learning rate must be positive, got {self.learning_rate}. 1e-4 is a usual start.")
        if not 0 <= self.weight_decay < math.inf:
            raise SettingsError(f"Weight decay must be 0 or more, got {self.weight_decay}. 0 turns it off.")
        if not all(0 <= beta < 1 for beta in self.betas) or not 0 < self.epsilon < math.inf:
            raise SettingsError(
                f"AdamW needs betas in [0, 1) and epsilon above 0, got {self.betas} and {self.epsilon}."
            )
        for part, factor in self.multipliers:
            if not part or not 0 <= factor < math.inf:
                raise SettingsError(f"A multiplier is (part of a name, factor of 0 or more), got ({part!r}, {factor}).")


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """The factor on every learning rate, as a function of the step alone.

    Rises evenly from `start` to `peak` over `warmup` steps; then `constant` stays, `linear` and `cosine` fall to
    `floor` at step `cycle` and stay there.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    cycle: int | None = None
    start: float = 0.0
    peak: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise SettingsError(f"Warm-up must be 0 steps or more, got {self.warmup}.")
        if (self.kind == "constant") != (self.cycle is None):
            raise SettingsError(
                f"linear and cosine need a cycle, constant has none; got {self.kind} with {self.cycle}."
            )
        if self.cycle is not None and self.cycle <= self.warmup:
            raise SettingsError(f"The cycle must be longer than the warm-up of {self.warmup} steps, got {self.cycle}.")

    def factor(self, step: int) -> float:
        """The factor at `step`, counted from 0."""
        if step < self.warmup:
            return self.start + (self.peak - self.start) * step / self.warmup
        if self.cycle is None:
            return self.peak
        done = min(1.0, (step - self.warmup) / (self.cycle - self.warmup))
        left = 1 - done if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.floor + (self.peak - self.floor) * left


class Optimiser:
    """AdamW, or Muon with AdamW beside it, over named parameters."""

    def __init__(
        self, parameters: Mapping[str, Parameter], rules: Mapping[str, Rule], parts: Sequence[torch.optim.Optimizer]
    ):
        self.parameters = dict(parameters)
        self.rules = dict(rules)
        """Which rule updates each parameter."""
        self.parts = tuple(parts)

    def step(self, factor: float) -> None:
        """Update every parameter that has a gradient; its learning rate is setting * multiplier * factor."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["initial_lr"] * factor
            part.step()

    def clear_gradients(self) -> None:
        """Forget the gradients of all parameters, so that one without a gradient next time is left alone."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self, name: str) -> dict[str, Tensor]:
        """The live state of one parameter; empty before its first update."""
        for part in self.parts:
            if self.parameters[name] in part.state:
                state: dict[str, Tensor] = part.state[self.parameters[name]]
                return state
        return {}


def build_optimiser(
    named_parameters: Iterable[tuple[str, Parameter]], settings: OptimiserSettings, lying: Lying = WHOLE
) -> Optimiser:
    """Make the optimiser for the parameters that require a gradient.

    Args:
        lying: where the values of the parameters are.

    Raises:
        SettingsError: none requires a gradient, one is below float32 (small updates would round away), or a multiplier
            matches no parameter.
    """
    parameters = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
    if not parameters:
        raise SettingsError("No parameter requires a gradient: there is nothing to train. Unfreeze some.")
    low = [name for name, parameter in parameters.items() if torch.finfo(parameter.dtype).bits < 32]
    if low:
        raise SettingsError(
            f"Trained parameters must be float32, got {parameters[low[0]].dtype} for {low[0]} ({len(low)} in all)."
            " Cast the model to float32 and compute in bfloat16 by autocast."
        )
    for pattern, _ in settings.multipliers:
        if not any(pattern in name for name in parameters):
            raise SettingsError(
                f"The learning-rate multiplier {pattern!r} matches no trained parameter. Check its spelling."
            )

    rules = {name: rule_for(name, parameter, settings.rule) for name, parameter in parameters.items()}
    groups: dict[tuple[Rule, float, float], list[Parameter]] = {}
    for name, parameter in parameters.items():
        decay = settings.weight_decay if decays(name, parameter) else 0.0
        rate = settings.learning_rate * _multiplier(name, settings.multipliers)
        groups.setdefault((rules[name], rate, decay), []).append(parameter)

    def of(rule: Rule) -> list[dict[str, Any]]:
        return [
            {"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for (its_rule, rate, decay), members in groups.items()
            if its_rule == rule
        ]

    parts: list[torch.optim.Optimizer] = []
    if adamw := of("adamw"):
        parts.append(torch.optim.AdamW(adamw, betas=settings.betas, eps=settings.epsilon))
    if muon := of("muon"):
        parts.append(Muon(muon, lying))
    return Optimiser(parameters, rules, parts)


def rule_for(name: str, parameter: Tensor, rule: Rule) -> Rule:
    """Muon takes the matrices inside blocks; embeddings, heads, projections, tables and vectors stay with AdamW."""
    hidden = parameter.ndim == 2 and "blocks" in name.split(".")
    return "muon" if rule == "muon" and hidden else "adamw"


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay acts on a parameter: not on gains, biases and lookup tables."""
    return parameter.ndim >= 2 and not any(f".{name}".endswith(f".{table}") for table in LOOKUP_TABLES)


def clip_gradients(optimiser: Optimiser, limit: float | None) -> float:
    """Scale all gradients so that their joint 2-norm is at most `limit`; None only measures.

    Returns:
        The norm before clipping.

    Raises:
        NonFiniteGradientsError: a gradient is not finite. Gradients are left as they are, and the names are listed.
    """
    gradients = {name: p.grad for name, p in optimiser.parameters.items() if p.grad is not None}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    if not torch.isfinite(norm):
        bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        where = (
            f"{', '.join(bad[:5])} ({len(bad)} of {len(gradients)} tensors)"
            if bad
            else "their norm alone, which overflows"
        )
        raise NonFiniteGradientsError(
            f"Gradients are not finite in {where}. Look at the batch, or lower the learning rate and resume."
        )
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(optimiser.parameters.values(), limit, norm)
    return norm.item()


def optimiser_tensors(optimiser: Optimiser) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The whole state as tensors, named `<what>.<parameter>`, and a JSON-able document that says what they are.

    The tensors are the live ones, not copies. Learning rates are not state: they follow from settings and step.
    """
    tensors: dict[str, Tensor] = {}
    rules: dict[str, Rule] = {}
    for name in optimiser.parameters:
        if state := optimiser.state(name):
            rules[name] = optimiser.rules[name]
            tensors |= {f"{what}.{name}": state[what] for what in _STATE[optimiser.rules[name]]}
    return tensors, {"version": _VERSION, "rules": rules}


def load_optimiser_tensors(optimiser: Optimiser, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Put state from `optimiser_tensors` into an optimiser over the same parameters; it then goes on to the bit.

    Raises:
        CheckpointError: another version, a parameter that is unknown here or updated by another rule, or tensors that
            are missing, left over or of another shape.
    """
    if document["version"] != _VERSION:
        raise CheckpointError(f"Optimiser state has version {document['version']}, this program reads {_VERSION}.")
    rules = document["rules"]
    strange = [f"{name} ({rule})" for name, rule in rules.items() if optimiser.rules.get(name) != rule]
    if strange:
        raise CheckpointError(
            f"Optimiser state does not fit the trained parameters and their rules: {', '.join(strange[:5])}"
            f" ({len(strange)} in all). Resume with the settings of the saved run."
        )
    expected = {f"{what}.{name}": (name, what) for name, rule in rules.items() for what in _STATE[rule]}
    if odd := sorted(expected.keys() ^ tensors.keys()):
        raise CheckpointError(
            f"Optimiser state has missing or unknown tensors: {', '.join(odd[:5])} ({len(odd)} in all)."
        )
    for key, (name, what) in expected.items():
        shape = torch.Size([]) if what == "step" else optimiser.parameters[name].shape
        if tensors[key].shape != shape:
            raise CheckpointError(
                f"Optimiser tensor {key} must have shape {tuple(shape)}, got {tuple(tensors[key].shape)}."
            )
    for part in optimiser.parts:
        part.state.clear()
    part_of = {id(p): part for part in optimiser.parts for group in part.param_groups for p in group["params"]}
    for key, (name, what) in expected.items():
        parameter = optimiser.parameters[name]
        # AdamW counts its steps on the CPU, so that reading them does not wait for the device.
        device = torch.device("cpu") if what == "step" else parameter.device
        part_of[id(parameter)].state[parameter][what] = tensors[key].to(device=device, dtype=torch.float32, copy=True)


def _multiplier(name: str, multipliers: tuple[tuple[str, float], ...]) -> float:
    return next((factor for part, factor in multipliers if part in name), 1.0)
