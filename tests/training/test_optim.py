"""Laws of the update rules, exact resume, and what is refused."""

import json
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import Parameter

from orrery.errors import CheckpointError, SettingsError
from orrery.training.optim import (
    LearningRate,
    NonFiniteGradientsError,
    OptimiserSettings,
    build_optimiser,
    clip_gradients,
    decays,
    load_optimiser_tensors,
    optimiser_tensors,
    rule_for,
)


def parameters(seed: int = 0) -> dict[str, Parameter]:
    rng = torch.Generator().manual_seed(seed)
    shapes = {
        "embed.weight": (7, 4),
        "blocks.0.text.q.weight": (8, 4),
        "blocks.0.text.attention_norm.weight": (4,),
        "vision_in.weight": (4, 6),
        "action_in.weight": (3, 5, 4),
        "action_in.bias": (3, 4),
    }
    return {name: Parameter(torch.randn(shape, generator=rng)) for name, shape in shapes.items()}


def give_gradients(named: dict[str, Parameter], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=rng)


@pytest.mark.parametrize(
    ("name", "shape", "rule", "decayed"),
    [
        ("blocks.3.generation.mlp.up.weight", (8, 4), "muon", True),
        ("eyes.blocks.0.qkv.weight", (12, 4), "muon", True),
        ("blocks.3.text.q_norm.weight", (4,), "adamw", False),
        ("eyes.blocks.0.qkv.bias", (12,), "adamw", False),
        ("embed.weight", (100, 4), "adamw", False),
        ("eyes.positions.weight", (100, 4), "adamw", False),
        ("lm_head.weight", (100, 4), "adamw", True),
        ("vision_in.weight", (4, 6), "adamw", True),
        ("vision_out.bias", (6,), "adamw", False),
        ("time_embed.0.weight", (4, 256), "adamw", True),
        ("action_out.weight", (32, 4, 64), "adamw", False),
        ("action_out.bias", (32, 64), "adamw", False),
        ("sound_embed", (4,), "adamw", False),
    ],
)
def test_each_parameter_has_its_rule(name, shape, rule, decayed):
    assert rule_for(name, torch.empty(shape), "muon") == rule
    assert rule_for(name, torch.empty(shape), "adamw") == "adamw"
    assert decays(name, torch.empty(shape)) is decayed


def test_one_adamw_step_follows_its_formula():
    named = {"vision_in.weight": Parameter(torch.tensor([[1.0, -2.0]]))}
    settings = OptimiserSettings(learning_rate=0.1, weight_decay=0.5, epsilon=1e-8)
    optimiser = build_optimiser(named.items(), settings)
    named["vision_in.weight"].grad = torch.tensor([[3.0, -0.01]])
    optimiser.step(0.5)  # first step: the update is the sign of the gradient; rate 0.05
    expected = torch.tensor([[1 - 0.05 * 0.5 * 1 - 0.05, -2 + 0.05 * 0.5 * 2 + 0.05]])
    torch.testing.assert_close(named["vision_in.weight"].data, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(32, 8), (8, 32), (16, 16)])
def test_a_muon_update_is_near_orthogonal_and_scaled_by_the_longer_side(shape):
    weight = Parameter(torch.zeros(shape))
    optimiser = build_optimiser(
        [("blocks.0.text.q.weight", weight)], OptimiserSettings(rule="muon", learning_rate=0.01, weight_decay=0.0)
    )
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    optimiser.step(1.0)
    singular = torch.linalg.svdvals(weight.detach()) / (0.01 * 0.2 * math.sqrt(max(shape)))
    # Five steps of that quintic leave singular values between 0.5 and 1.3 or so; tiny ones may lag.
    assert singular.max() < 1.4
    assert singular.median() > 0.6


def test_the_muon_update_does_not_depend_on_the_gradients_size():
    def moved(scale: float) -> torch.Tensor:
        weight = Parameter(torch.zeros(8, 4))
        optimiser = build_optimiser([("blocks.0.text.q.weight", weight)], OptimiserSettings(rule="muon"))
        weight.grad = scale * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        optimiser.step(1.0)
        return weight.detach()

    torch.testing.assert_close(moved(1024.0), moved(1.0), rtol=0.02, atol=1e-7)


def test_rows_of_lookup_tables_that_a_run_never_reads_stay():
    named = parameters()
    optimiser = build_optimiser(named.items(), OptimiserSettings(learning_rate=0.1, weight_decay=0.5))
    before = named["action_in.weight"].detach().clone()
    for _ in range(3):
        named["action_in.weight"].grad = torch.zeros(3, 5, 4)
        named["action_in.weight"].grad[1] = 1.0
        optimiser.step(1.0)
    after = named["action_in.weight"].detach()
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.isclose(after[1], before[1]).any()


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_the_first_matching_multiplier_scales_the_learning_rate(rule):
    settings = OptimiserSettings(
        rule=rule, learning_rate=0.01, weight_decay=0.0, multipliers=(("action_", 5.0), (".weight", 0.0))
    )
    named = parameters()
    optimiser = build_optimiser(named.items(), settings)
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    give_gradients(named, 1)
    optimiser.step(1.0)
    torch.testing.assert_close((named["action_in.bias"] - before["action_in.bias"]).abs(), torch.full((3, 4), 0.05))
    assert torch.equal(named["blocks.0.text.q.weight"], before["blocks.0.text.q.weight"])
    assert torch.equal(named["vision_in.weight"], before["vision_in.weight"])


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_a_stopped_run_goes_on_to_the_bit(rule):
    settings = OptimiserSettings(rule=rule, learning_rate=0.01, multipliers=(("action_", 5.0),))
    schedule = LearningRate(kind="cosine", warmup=2, cycle=8)

    def steps(optimiser, named, first: int, last: int) -> None:
        for step in range(first, last):
            give_gradients(named, step)
            clip_gradients(optimiser, 1.0)
            optimiser.step(schedule.factor(step))

    through = parameters()
    steps(build_optimiser(through.items(), settings), through, 0, 6)

    stopped = parameters()
    optimiser = build_optimiser(stopped.items(), settings)
    steps(optimiser, stopped, 0, 3)
    tensors, document = optimiser_tensors(optimiser)
    stored, document = save(tensors), json.loads(json.dumps(document))
    resumed = {name: Parameter(parameter.detach().clone()) for name, parameter in stopped.items()}
    optimiser = build_optimiser(resumed.items(), settings)
    load_optimiser_tensors(optimiser, load(stored), document)
    steps(optimiser, resumed, 3, 6)
    for name, parameter in through.items():
        assert torch.equal(resumed[name], parameter), name


def test_a_parameter_never_stepped_has_no_state_and_resumes_so():
    named = parameters()
    optimiser = build_optimiser(named.items(), OptimiserSettings())
    named["vision_in.weight"].grad = torch.ones(4, 6)
    optimiser.step(1.0)
    tensors, document = optimiser_tensors(optimiser)
    assert set(tensors) == {f"{what}.vision_in.weight" for what in ("step", "exp_avg", "exp_avg_sq")}
    fresh = build_optimiser(parameters().items(), OptimiserSettings())
    load_optimiser_tensors(fresh, tensors, document)
    assert optimiser_tensors(fresh)[1] == document


def state_of_a_run() -> tuple[dict[str, torch.Tensor], dict]:
    named = parameters()
    optimiser = build_optimiser(named.items(), OptimiserSettings())
    give_gradients(named, 0)
    optimiser.step(1.0)
    return optimiser_tensors(optimiser)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors, document: tensors.pop("exp_avg.embed.weight"), r"missing or unknown.*exp_avg\.embed\.weight"),
        (lambda tensors, document: tensors.update(extra=torch.zeros(1)), "missing or unknown tensors: extra"),
        (
            lambda tensors, document: tensors.update({"exp_avg.embed.weight": torch.zeros(2)}),
            r"shape \(7, 4\), got \(2,\)",
        ),
        (lambda tensors, document: document["rules"].update({"embed.weight": "muon"}), r"embed\.weight \(muon\)"),
        (lambda tensors, document: document["rules"].update(stranger="adamw"), r"stranger \(adamw\)"),
        (lambda tensors, document: document.update(version=2), "version 2"),
    ],
)
def test_state_that_does_not_fit_is_refused_and_named(damage, message):
    tensors, document = state_of_a_run()
    damage(tensors, document)
    with pytest.raises(CheckpointError, match=message):
        load_optimiser_tensors(build_optimiser(parameters().items(), OptimiserSettings()), tensors, document)


def test_clipping_scales_the_joint_norm_to_the_limit_and_reports_the_norm_before():
    named = parameters()
    optimiser = build_optimiser(named.items(), OptimiserSettings())
    give_gradients(named, 0)
    gradients = [parameter.grad.clone() for parameter in named.values()]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    assert clip_gradients(optimiser, None) == pytest.approx(norm)
    assert clip_gradients(optimiser, 2 * norm) == pytest.approx(norm)
    assert all(torch.equal(p.grad, g) for p, g in zip(named.values(), gradients, strict=True))
    assert clip_gradients(optimiser, 0.1) == pytest.approx(norm)
    assert clip_gradients(optimiser, None) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_are_named_and_not_touched(value):
    named = parameters()
    optimiser = build_optimiser(named.items(), OptimiserSettings())
    give_gradients(named, 0)
    named["vision_in.weight"].grad[1, 2] = value
    kept = named["embed.weight"].grad.clone()
    with pytest.raises(NonFiniteGradientsError, match=r"vision_in\.weight \(1 of 6 tensors\)"):
        clip_gradients(optimiser, 1.0)
    assert torch.equal(named["embed.weight"].grad, kept)


def test_cleared_gradients_leave_parameters_alone():
    named = parameters()
    optimiser = build_optimiser(named.items(), OptimiserSettings())
    give_gradients(named, 0)
    optimiser.clear_gradients()
    before = named["vision_in.weight"].detach().clone()
    optimiser.step(1.0)
    assert torch.equal(named["vision_in.weight"], before)


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    assert set(build_optimiser(model.named_parameters(), OptimiserSettings()).parameters) == {"1.weight", "1.bias"}
    with pytest.raises(SettingsError, match="nothing to train"):
        build_optimiser(model[0].named_parameters(), OptimiserSettings())


def test_parameters_below_float32_are_refused():
    with pytest.raises(SettingsError, match=r"got torch\.bfloat16 for weight"):
        build_optimiser(nn.Linear(4, 4).bfloat16().named_parameters(), OptimiserSettings())


def test_a_multiplier_that_matches_nothing_is_refused():
    with pytest.raises(SettingsError, match="'actoin_' matches no"):
        build_optimiser(parameters().items(), OptimiserSettings(multipliers=(("actoin_", 5.0),)))


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (LearningRate(), {0: 1.0, 10**9: 1.0}),
        (LearningRate(warmup=4, start=0.2), {0: 0.2, 2: 0.6, 4: 1.0, 100: 1.0}),
        (LearningRate(kind="linear", cycle=100, peak=0.4), {0: 0.4, 50: 0.2, 100: 0.0, 500: 0.0}),
        (LearningRate(kind="cosine", warmup=50, cycle=1000), {0: 0.0, 25: 0.5, 50: 1.0, 525: 0.5, 1000: 0.0}),
        (LearningRate(kind="cosine", cycle=50, floor=0.1), {0: 1.0, 25: 0.55, 50: 0.1, 60: 0.1}),
    ],
)
def test_learning_rate_factors(schedule, points):
    assert {step: schedule.factor(step) for step in points} == pytest.approx(points)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LearningRate(kind="cosine"),
        lambda: LearningRate(kind="constant", cycle=5),
        lambda: LearningRate(kind="linear", warmup=10, cycle=10),
        lambda: LearningRate(warmup=-1),
        lambda: OptimiserSettings(learning_rate=0.0),
        lambda: OptimiserSettings(weight_decay=float("nan")),
        lambda: OptimiserSettings(betas=(0.9, 1.0)),
        lambda: OptimiserSettings(multipliers=(("x", -1.0),)),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(SettingsError):
        make()
