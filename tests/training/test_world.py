"""A world model learns from its stacks, says how well, stops when it is told to, and names what is wrong."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers.world_run import EYES, MIXTURE, MODEL, RECIPE, RUN, full_bank, new_bank, records, sketched

from orrery.errors import DatasetError, SettingsError
from orrery.training import validation
from orrery.training.feed import Feed
from orrery.training.loop import LOG, STATE
from orrery.training.optim import NonFiniteGradientsError, OptimiserSettings
from orrery.training.recipe import LossWeights, Recipe, Share
from orrery.training.recipes import RECIPES
from orrery.training.stacks import Asking, Flowing, draw_stacks
from orrery.training.state import load_state, new_state
from orrery.training.validation import LEVELS, shuffled_actions, validate, validate_in_eight_bits
from orrery.training.world import WorldRecipe, flops_of, take_step, train_world
from orrery.training.world_model import WorldModel


@pytest.fixture(autouse=True)
def one_thread():
    with sketched():
        yield


def new_model(recipe: Recipe = RUN) -> WorldModel:
    return WorldModel(recipe.model, EYES, recipe.seed)


def only(*shares: Share, **changes) -> Recipe:
    return replace(RUN, mixture=shares, batch=len(shares) * 2, **changes)


def train(recipe: Recipe, out: Path, *, log_every: int = 1, **given):
    model = new_model(recipe)
    state = train_world(
        replace(RECIPE, run=recipe), model, full_bank(), Feed(()), out=out, log_every=log_every, **given
    )
    return model, state


def test_a_recipe_goes_through_json_and_back():
    for recipe in (*RECIPES.values(), RECIPE):
        document = json.loads(json.dumps(recipe.to_json()))
        assert WorldRecipe.from_json(document) == recipe
    for change, text in (({"version": 1}, "version"), ({"rooms": 3}, "rooms"), ({"room": "many"}, "room")):
        with pytest.raises(SettingsError, match=text):
            WorldRecipe.from_json({**document, **change})
    with pytest.raises(SettingsError, match="first"):
        WorldRecipe.from_json({name: value for name, value in document.items() if name != "first"})


def test_other_actions_are_all_that_changes():
    flowing = next(one for one in draw_stacks(full_bank(), RUN, RECIPE.emphasis, 0) if isinstance(one, Flowing))
    assert flowing.task == "forward_dynamics"
    other = shuffled_actions(flowing)
    kinds = [track.kind for track in flowing.stack.tracks]
    assert "action" in kinds
    for before, after, latents, changed in zip(
        flowing.stack.tracks, other.stack.tracks, flowing.stack.latents, other.stack.latents, strict=True
    ):
        if before.kind == "action":
            assert torch.equal(after.clean[1:], before.clean[:-1])
            assert torch.equal(changed[1:], latents[:-1])
            assert not torch.equal(changed, latents)
        else:
            assert torch.equal(after.clean, before.clean)
            assert torch.equal(changed, latents)
        assert torch.equal(after.given, before.given)
    for name in ("sigmas", "task"):
        assert getattr(other, name) is getattr(flowing, name)
    assert torch.equal(other.stack.token_ids, flowing.stack.token_ids)
    assert torch.equal(other.stack.positions, flowing.stack.positions)


def test_the_stacks_of_one_step_are_learnt_by_heart():
    recipe = only(
        *MIXTURE[1:],
        loss_weights=LossWeights(text=1.0),
        optimiser=OptimiserSettings(rule="muon", learning_rate=1e-2, weight_decay=0.0),
    )
    model, stacks = new_model(recipe), draw_stacks(full_bank(), recipe, RECIPE.emphasis, 0)
    state = new_state(model, recipe)
    costs = [take_step(model, stacks, recipe, state, 1.0)[0] for _ in range(24)]
    assert costs[0].keys() == {
        "policy_no_video vision", "policy_no_video action", "text_to_image vision", "text_to_video vision",
        "text_to_video sound", "reason still", "reason video",
    }  # fmt: skip
    for name, cost in costs[0].items():
        # Nothing is made of what is given.
        assert cost == 0 if name == "policy_no_video vision" else costs[-1][name] < 0.8 * cost, name


def test_the_work_of_a_step_is_counted_for_both_towers():
    stacks = draw_stacks(full_bank(), RUN, RECIPE.emphasis, 0)
    flowing, asking = (next(one for one in stacks if isinstance(one, kind)) for kind in (Flowing, Asking))
    model = new_model()
    assert flops_of(model, [flowing, asking]) == pytest.approx(flops_of(model, [flowing]) + flops_of(model, [asking]))
    # Six operations for each weight and token beside attention.
    weights = sum(p.numel() for p in model.mot.blocks[0].text.parameters() if p.ndim == 2)
    tokens, length = asking.labels.numel(), asking.labels.shape[1]
    attention = 3 * 2 * MODEL.layers * MODEL.heads * MODEL.head_width * length * tokens
    assert flops_of(model, [asking]) == pytest.approx(6 * MODEL.layers * weights * tokens + attention)


def test_validation_is_by_task_modality_and_level_and_leaves_the_model_as_it_was(monkeypatch):
    assert len(LEVELS) == 5
    monkeypatch.setattr(validation, "LEVELS", (0.3, 0.9))
    recipe = only(MIXTURE[0], replace(MIXTURE[4], weight=1.0))
    model = new_model(recipe)
    with torch.no_grad():
        model.mot.vision_out.weight.normal_(std=0.05)
        model.mot.action_in.weight.mul_(30)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = validate(model, full_bank(), recipe)
    assert {f"forward_dynamics vision @{level}" for level in (0.3, 0.9)} <= found.keys()
    families = {name for name in found if name.startswith("right ")} - {"right mean"}
    assert {"right kind", "right next_action"} <= families
    assert found["right mean"] == pytest.approx(sum(found[name] for name in families) / len(families))
    assert found["actions ratio"] != 1.0
    assert validate(model, full_bank(), recipe) == found
    # Rounding moves the losses a little, and is undone.
    rounded = validate_in_eight_bits(model, full_bank(), recipe)
    lost = [rounded[name] / value - 1 for name, value in found.items() if "vision" in name]
    assert 0 < max(map(abs, lost)) < 0.1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_a_run_logs_what_it_did(tmp_path):
    recipe = only(MIXTURE[1], steps=3)
    seen = []
    seconds = iter(range(100))
    _, state = train(recipe, tmp_path, tell=seen.append, clock=lambda: float(next(seconds)))
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert rows == json.loads(json.dumps(seen))
    *steps, last = rows
    assert [row["step"] for row in steps] == [0, 1, 2]
    assert [row["progress"] for row in steps] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert all(row["episodes"] == 4 and row["tokens_per_s"] > 0 and row["grad_norm"] > 0 for row in steps)
    assert "not drawn" in last["curves"]
    assert "orrery[train]" in last["curves"]
    assert state.step == 3


def test_sigterm_lets_the_step_end_and_saves_and_the_run_goes_on_to_the_bit(tmp_path):
    recipe = only(MIXTURE[1], MIXTURE[4], steps=5, ema_width=0.1)
    whole, _ = train(recipe, tmp_path / "whole")

    def tell(row) -> None:
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "stopped"
    _, stopped = train(recipe, out, tell=tell)
    assert stopped.step == 3
    model = new_model(recipe)
    state = load_state(out / STATE, model, recipe)
    assert state.step == 3
    train_world(replace(RECIPE, run=recipe), model, full_bank(), Feed(()), out=out, state=state, log_every=1)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in model.state_dict().items())
    losses = [
        [json.loads(line).get("losses") for line in (folder / LOG).read_text().splitlines()]
        for folder in (tmp_path / "whole", out)
    ]
    assert losses[0] == losses[1]


def test_records_that_arrive_while_training_are_taken_in(tmp_path):
    bank = new_bank(some=records()[:1])
    recipe = replace(RECIPE, run=only(MIXTURE[1], steps=4), first=sum(len(record.state) for record in records()[:2]))
    train_world(recipe, new_model(recipe.run), bank, Feed(iter(records()[1:])), out=tmp_path)
    assert bank.counts.episodes == 4


def test_a_feed_hands_on_what_comes_and_what_went_wrong():
    def broken():
        yield records()[0]
        raise DatasetError("Worker 1 ended.")

    feed = Feed(broken())
    assert len(feed.take(wait_s=5.0)) == 1
    with pytest.raises(DatasetError, match="Worker 1"):
        feed.take(wait_s=5.0)
    feed.close()
    feed = Feed(records() * 100, most=3)
    begun = time.monotonic()
    while not (first := feed.take(wait_s=1.0, most=2)):
        pass
    assert len(first) <= 2
    feed.close()
    assert time.monotonic() - begun < 5


def test_a_run_that_cannot_begin_says_why(tmp_path):
    with pytest.raises(DatasetError, match="ended before the first window"):
        train_world(RECIPE, new_model(), new_bank(some=[]), Feed(()), out=tmp_path)
    other = WorldModel(replace(MODEL, layers=1), EYES, 0)
    with pytest.raises(SettingsError, match="another model"):
        train_world(RECIPE, other, full_bank(), Feed(()), out=tmp_path)


def test_a_step_that_is_not_finite_ends_the_run_and_keeps_the_last_save(tmp_path):
    recipe = only(MIXTURE[1], steps=2)
    train(recipe, tmp_path)
    model = new_model(replace(recipe, steps=4))
    saved = (tmp_path / STATE / "manifest.json").read_bytes()
    with torch.no_grad():
        model.mot.action_in.bias[:] = float("nan")
    with pytest.raises(NonFiniteGradientsError, match="step 0"):
        train_world(replace(RECIPE, run=recipe), model, full_bank(), Feed(()), out=tmp_path, log_every=1)
    assert (tmp_path / STATE / "manifest.json").read_bytes() == saved
