"""What a world model costs, and how many answers it has right, on episodes that it is not trained on."""

from dataclasses import replace

import numpy as np
import torch

from orrery.training.bank import Bank
from orrery.training.recipe import Recipe
from orrery.training.stacks import PLAIN, Flowing, asking, draw_flow, samples_of
from orrery.training.world_model import WorldModel, as_written
from orrery.weights.eight_bit import as_stored

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Noise levels at which validation losses are taken."""


@torch.no_grad()
def validate(model: WorldModel, bank: Bank, recipe: Recipe) -> dict[str, float]:
    """Losses on fixed windows by task, modality and noise level, unweighted, and what other actions do to the video.

    `actions ratio`: the video loss of forward dynamics with the actions of another window, over that with the true
    ones, mean over the levels; 1 says that actions are not listened to.
    """
    with as_written(model):
        return _validated(model, bank, recipe)


def _validated(model: WorldModel, bank: Bank, recipe: Recipe) -> dict[str, float]:
    device = bank.device
    found: dict[str, float] = {}
    ratios = []
    model.eval()
    for share, _ in samples_of(recipe):
        if share.row().writes:
            continue
        for level in LEVELS:
            choice, rng = np.random.default_rng(1), torch.Generator(device).manual_seed(1)
            flowing = draw_flow(bank, share, 64, recipe, PLAIN, choice, rng, level=level)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                parts = model.losses(flowing, recipe.loss_weights).parts
            # To the mean squared error of the data itself, which is comparable over levels.
            scale = max(level, model.mot.config.sigma_floor) ** 2 if model.mot.config.prediction == "data" else level**2
            name = "+sound" if share.sound else ""
            found |= {
                f"{kind}{name} @{level}": float(part) * (1 if kind.endswith("sight") else scale)
                for kind, part in parts.items()
            }
            if share.task == "forward_dynamics" and share.sound is None:
                other = shuffled_actions(flowing)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                    wrong = model.losses(other, recipe.loss_weights).parts
                key = "forward_dynamics vision"
                ratios.append(float(wrong[key]) / float(parts[key]))
    if ratios:
        found["actions ratio"] = float(np.mean(ratios))
    if any(share.row().writes for share in recipe.mixture):
        found |= right_answers(model, bank, recipe)
    model.train()
    return found


def validate_in_eight_bits(model: WorldModel, bank: Bank, recipe: Recipe) -> dict[str, float]:
    """As `validate`, with the weights as a checkpoint in 8 bits stores them; the model keeps its own."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(as_stored(kept))
    found = validate(model, bank, recipe)
    model.load_state_dict(kept)
    return found


def shuffled_actions(flowing: Flowing) -> Flowing:
    """The same windows, each with the actions of the next one."""
    stack = flowing.stack
    tracks = tuple(
        replace(track, clean=track.clean.roll(1, 0)) if track.kind == "action" else track for track in stack.tracks
    )
    latents = [
        x.roll(1, 0) if track.kind == "action" else x for track, x in zip(stack.tracks, stack.latents, strict=True)
    ]
    return replace(flowing, stack=replace(stack, tracks=tracks).with_latents(latents))


@torch.no_grad()
def right_answers(model: WorldModel, bank: Bank, recipe: Recipe, most: int = 64) -> dict[str, float]:
    """Share of the answers whose every token is the likeliest one, by family, given the tokens before."""
    found = {}
    for kind, families in bank.questions.items():
        for family, rows in families.items():
            if len(rows) < 8:
                continue
            stack = asking(bank, bank.forms[kind], rows[:most])
            with torch.autocast(bank.device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                best = model.likeliest(stack)
            wrong = (best != stack.labels) & (stack.labels >= 0)
            found[f"right {family}"] = float((~wrong.any(dim=1)).float().mean())
    if found:
        found["right mean"] = float(np.mean(list(found.values())))
    return found
