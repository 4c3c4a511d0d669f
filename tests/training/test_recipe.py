"""A recipe is one value: its JSON form gives it back, and settings that cannot be meant are refused by name."""

import json
from dataclasses import replace

import pytest
from makers.training_run import MIXTURE, RECIPE, SMALL

from orrery.errors import SettingsError
from orrery.flow.noise_levels import NoiseLevels
from orrery.training.optim import LearningRate, OptimiserSettings
from orrery.training.recipe import LossWeights, ModalityNoise, Recipe, Share

EVERYTHING = Recipe(
    model=replace(SMALL, prediction="data"),
    mixture=MIXTURE,
    steps=100,
    batch=4,
    seconds=90.5,
    seed=2**62,
    loss_weights=LossWeights(vision=10.0, sound=2.0, action=10.0, text=0.2),
    noise=ModalityNoise(vision=NoiseLevels(kind="waver", shift=10.0), action=NoiseLevels(kind="ltx2", shift=5.0)),
    independent_noise=False,
    clip_latents=3,
    optimiser=OptimiserSettings(rule="muon", betas=(0.9, 0.95), multipliers=(("action_", 5.0), ("embed", 3.0))),
    schedule=LearningRate(kind="cosine", warmup=10, cycle=90, floor=0.1),
    cooldown=0.25,
    cooldown_floor=0.02,
    ema_width=None,
    clip_norm=None,
    precision="bfloat16",
)


@pytest.mark.parametrize("recipe", [RECIPE, EVERYTHING], ids=["defaults", "everything"])
def test_json_gives_the_recipe_back(recipe):
    document = json.loads(json.dumps(recipe.to_json(), allow_nan=False))
    assert Recipe.from_json(document) == recipe
    assert document["version"] == 3
    assert "orrery" not in json.dumps(document)  # no class paths


def changed(path: str, value: object) -> dict[str, object]:
    document = json.loads(json.dumps(RECIPE.to_json()))
    *parents, last = path.split(".")
    inner = document
    for key in parents:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "version 2, this program reads 3"),
        ("stepz", 5, "recipe has no setting 'stepz'. Did you mean 'steps'"),
        ("optimiser.rate", 5, r"recipe\.optimiser has no setting 'rate'"),
        ("steps", "100", r"recipe\.steps must be a whole number, got '100'"),
        ("steps", 1.5, "must be a whole number, got 1.5"),
        ("steps", True, "must be a whole number, got True"),
        ("independent_noise", 1, "must be a true or false, got 1"),
        ("cooldown", False, "must be a finite number, got False"),
        ("cooldown", float("nan"), "must be a finite number, got nan"),
        ("precision", "float16", "must be one of float32, bfloat16, got 'float16'"),
        ("noise.vision.kind", "normal", r"recipe\.noise\.vision\.kind must be one of uniform"),
        ("noise.vision.shift", 0, "Shift must be a positive"),
        ("optimiser.betas", [0.9], r"recipe\.optimiser\.betas must have 2 values"),
        ("mixture", {}, r"recipe\.mixture must be a list"),
        ("mixture.0.task", "reson", "unfit task: There is no task 'reson'. Did you mean 'reason'"),
        ("mixture.1.weight", "2", r"recipe\.mixture\[1\]\.weight must be a finite number"),
        ("model", None, r"recipe\.model must be an object, got None"),
        ("model.width", None, r"recipe\.model\.width must be a whole number"),
    ],
)
def test_a_document_that_is_not_a_recipe_is_refused_at_its_place(path, value, message):
    with pytest.raises(SettingsError, match=message):
        Recipe.from_json(changed(path, value))


def test_a_document_that_leaves_a_setting_out_is_refused():
    document = RECIPE.to_json()
    del document["batch"], document["seed"]
    with pytest.raises(SettingsError, match="recipe lacks batch, seed"):
        Recipe.from_json(document)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"batch": -1}, "batch must be 1 or more, got -1"),
        ({"clip_latents": 0}, "clip_latents must be 1"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**63}, "seed must be from 0"),
        ({"seconds": 0.0}, "seconds must be above 0"),
        ({"clip_norm": float("inf")}, "clip_norm must be above 0"),
        ({"cooldown": 1.5}, r"cooldown must be in \[0, 1\], got 1\.5"),
        ({"cooldown_floor": -0.5}, "cooldown_floor must be in"),
        ({"ema_width": 0.5}, r"relative width of the mean must be in \(0, 0\.28\], got 0\.5"),
        ({"mixture": ()}, "mixture is empty"),
        ({"mixture": (Share(task="policy"), Share(task="policy"))}, "task twice: policy, policy"),
        (
            {"mixture": (Share(task="policy"),), "model": replace(SMALL, action_width=None)},
            "model has no action stream",
        ),
        ({"mixture": MIXTURE, "model": replace(SMALL, sound_width=None)}, "model has no sound stream"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(SettingsError, match=message):
        replace(RECIPE, **setting)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Share(task="policy", weight=0.0), "weight of 'policy' in the mixture must be above 0"),
        (lambda: Share(task="policy", caption_dropout=1.1), "Caption dropout of 'policy'"),
        (lambda: Share(task="text_to_image", sound="none"), "cannot carry sound"),
        (lambda: LossWeights(action=-1.0), "loss weight of action must be 0 or more, got -1"),
        (lambda: LossWeights(text=float("nan")), "loss weight of text"),
    ],
)
def test_parts_out_of_range_are_named(make, message):
    with pytest.raises(SettingsError, match=message):
        make()


def test_the_cool_down_falls_evenly_over_the_last_share_of_the_run():
    recipe = replace(RECIPE, steps=100, schedule=LearningRate(warmup=10), cooldown=0.5, cooldown_floor=0.2)
    factors = [recipe.rate(step, 0.0) for step in (0, 5, 10, 50, 75, 100)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.6, 0.2])
    assert replace(recipe, cooldown=0.0).rate(99, 0.0) == 1.0


def test_with_a_time_limit_the_run_is_as_far_as_the_further_of_steps_and_clock():
    recipe = replace(RECIPE, steps=100, seconds=60.0, schedule=LearningRate(), cooldown=0.5, cooldown_floor=0.0)
    assert recipe.rate(10, 45.0) == pytest.approx(0.5)
    assert recipe.rate(75, 1.0) == pytest.approx(0.5)
    assert recipe.progress(10, 61.0) == 1.0
    assert recipe.progress(10, 30.0) == 0.5
