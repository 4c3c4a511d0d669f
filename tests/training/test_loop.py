"""Training learns, can be stopped anywhere, and goes on to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers.training_run import MIXTURE, RECIPE, SMALL, RandomWindows, run, start

from orrery.errors import CheckpointError, SettingsError
from orrery.model.mot import MoT
from orrery.training.batch import draw_batch
from orrery.training.loop import LOG, STATE, batch_losses, keep_log, stop_on_sigterm, take_step, train
from orrery.training.optim import NonFiniteGradientsError, OptimiserSettings, optimiser_tensors
from orrery.training.recipe import LossWeights
from orrery.training.state import load_state, new_state, save_state, saved_recipe
from orrery.weights.folder import open_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, MoT]:
    """The run that was never stopped, and a copy of its folder as it lay on the disk in the middle of each step."""
    out, mot = tmp_path_factory.mktemp("whole"), start(RECIPE)
    run(mot, out, RECIPE, report=lambda done: shutil.copytree(out, out.with_name(f"killed-{done.step}")))
    return out, mot


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_run_that_was_killed_goes_on_to_the_bit(whole, cut):
    through, reference = whole
    out = through.with_name(f"killed-{cut}")
    assert len((out / LOG).read_text().splitlines()) == cut + 1  # the step that was logged and not saved
    mot = MoT(SMALL)
    state = load_state(out / STATE, mot, RECIPE)
    assert state.step == cut
    torch.manual_seed(cut)  # the global generator is of no account
    run(mot, out, RECIPE, state)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(mot.state_dict()[name], tensor), name
    # Byte for byte: weights, both optimisers, the mean, the seconds, and every logged loss.
    assert open_folder(out / STATE).sha256 == open_folder(through / STATE).sha256
    assert open_folder(out / STATE).document("training.json")["data"] == {
        "seed": 16,
        "size": 7,
        "epoch": 3,  # 6 steps of 4 samples
        "position": 3,
    }
    assert (out / LOG).read_text() == (through / LOG).read_text()


def test_a_run_limited_by_the_clock_cools_down_by_it_and_goes_on_to_the_bit(tmp_path):
    recipe = replace(RECIPE, steps=1000, seconds=5.5, optimiser=OptimiserSettings(learning_rate=0.01))
    out, copy = tmp_path / "whole", tmp_path / "killed"
    run(start(recipe), out, recipe, report=lambda done: done.step == 3 and shutil.copytree(out, copy))
    mot = MoT(SMALL)
    state = run(mot, copy, recipe, load_state(copy / STATE, mot, recipe))
    assert (state.step, state.seconds) == (6, 6.0)
    assert (copy / LOG).read_text() == (out / LOG).read_text()
    rates = [json.loads(line)["learning_rate"] for line in (out / LOG).read_text().splitlines()]
    assert rates == [0.01 * recipe.rate(step, float(step)) for step in range(6)]
    assert rates[2] > rates[3] > rates[5]


def test_a_finished_run_has_nothing_left_to_do(whole):
    out, reference = whole
    mot = MoT(SMALL)
    log = (out / LOG).read_text()
    state = run(mot, out, RECIPE, load_state(out / STATE, mot, RECIPE))
    assert state.step == RECIPE.steps
    assert (out / LOG).read_text() == log
    assert torch.equal(mot.embed.weight, reference.embed.weight)


def test_sigterm_lets_the_step_end_and_saves(tmp_path):
    script = Path(__file__).parents[1] / "makers" / "training_run.py"
    env = os.environ | {"PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True, env=env) as process:
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        *_, last = process.stdout.read().split()
    assert process.returncode == 0
    recipe = saved_recipe(tmp_path / STATE)
    mot = MoT(recipe.model)
    state = load_state(tmp_path / STATE, mot, recipe)
    assert state.step == int(last) >= 3
    lines = (tmp_path / LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(state.step))
    # The next step after it is the one of a run that was not stopped.
    other, threads = start(recipe), torch.get_num_threads()
    torch.set_num_threads(1)
    straight = new_state(other, recipe)
    for step in range(state.step + 1):
        take_step(other, draw_batch(RandomWindows(7), recipe, step, CPU), recipe, straight, 1.0)
    take_step(mot, draw_batch(RandomWindows(7), recipe, state.step, CPU), recipe, state, 1.0)
    torch.set_num_threads(threads)
    assert all(torch.equal(a, other.state_dict()[name]) for name, a in mot.state_dict().items())
    assert all(torch.equal(a, straight.ema.tensors()[name]) for name, a in state.ema.tensors().items())


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def listen() -> None:
        with stop_on_sigterm() as stop:
            found.append((signal.getsignal(signal.SIGTERM), stop.is_set()))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [(before, False)]
    with stop_on_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_one_mixed_batch_is_learnt_by_heart(prediction):
    recipe = replace(
        RECIPE,
        model=replace(SMALL, prediction=prediction),
        loss_weights=LossWeights(text=1.0),
        optimiser=OptimiserSettings(learning_rate=1e-2, weight_decay=0.0),
    )
    batch, mot = draw_batch(RandomWindows(7), recipe, 0, CPU), start(recipe)
    state = new_state(mot, recipe)
    losses = [take_step(mot, batch, recipe, state, 1.0)[0] for _ in range(60)]
    first, last = losses[0].parts, losses[-1].parts
    assert set(first) == {"vision", "sound", "action", "text"}
    assert all(last[kind] < loss / 5 for kind, loss in first.items())


def test_every_parameter_is_updated_whatever_the_batch_holds():
    recipe = replace(RECIPE, mixture=MIXTURE[:1])
    mot = start(recipe)
    state = new_state(mot, recipe)
    before = {name: p.detach().clone() for name, p in mot.named_parameters()}
    take_step(mot, draw_batch(RandomWindows(7), recipe, 0, CPU), recipe, state, 1.0)
    moments, _ = optimiser_tensors(state.optimiser)
    assert {name.split(".", 1)[1] for name in moments} == before.keys()
    assert all(p.grad is not None for p in mot.parameters())
    # A zero gradient moves nothing by itself; weight decay still acts.
    assert torch.equal(before["vision_in.bias"], mot.vision_in.bias)
    assert not torch.equal(before["lm_head.weight"], mot.lm_head.weight)


def test_frozen_parameters_stay():
    recipe = replace(RECIPE, mixture=MIXTURE[3:4])
    mot = start(recipe)
    mot.embed.requires_grad_(False)
    state = new_state(mot, recipe)
    before = mot.embed.weight.clone()
    take_step(mot, draw_batch(RandomWindows(7), recipe, 0, CPU), recipe, state, 1.0)
    assert torch.equal(mot.embed.weight, before)
    assert "embed.weight" not in state.ema.tensors()


def test_bfloat16_computes_near_float32_and_keeps_float32_weights():
    batch, mot = draw_batch(RandomWindows(7), RECIPE, 0, CPU), start(RECIPE)
    for parameter in mot.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        exact = batch_losses(mot, batch, RECIPE.loss_weights).parts
    recipe = replace(RECIPE, precision="bfloat16")
    losses, _ = take_step(mot, batch, recipe, new_state(mot, recipe), 1.0)
    for kind, loss in losses.parts.items():
        assert loss.dtype == torch.float32
        assert loss != exact[kind]
        torch.testing.assert_close(loss, exact[kind], rtol=0.02, atol=0)
    assert {p.dtype for p in mot.parameters()} == {torch.float32}


def test_a_step_that_is_not_finite_updates_nothing_and_keeps_the_last_save(tmp_path):
    mot = start(RECIPE)
    state = new_state(mot, RECIPE)
    save_state(tmp_path / STATE, mot, RECIPE, state)
    with torch.no_grad():
        mot.vision_in.weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteGradientsError):
        train(mot, RandomWindows(7), RECIPE, out=tmp_path, state=state)
    assert (state.step, state.ema.updates) == (0, 0)
    load_state(tmp_path / STATE, MoT(SMALL), RECIPE)


def test_another_recipe_cannot_go_on_with_a_run(whole):
    out, _ = whole
    with pytest.raises(CheckpointError, match="was trained with batch = 4, the recipe says 6"):
        load_state(out / STATE, MoT(SMALL), replace(RECIPE, batch=6))
    mot = MoT(SMALL)
    with pytest.raises(SettingsError, match=r"followed Order\(seed=16, size=7\) and is given Order\(seed=16, size=8\)"):
        train(mot, RandomWindows(8), RECIPE, out=out, state=load_state(out / STATE, mot, RECIPE))
    with pytest.raises(SettingsError, match="updates another model"):
        train(start(RECIPE), RandomWindows(7), RECIPE, out=out, state=load_state(out / STATE, mot, RECIPE))
    assert saved_recipe(out / STATE) == RECIPE
    with pytest.raises(SettingsError, match="another model than the one given: width 24 instead of 48"):
        train(MoT(replace(SMALL, width=48)), RandomWindows(7), RECIPE, out=out)
    rare = tuple(share if share.row().writes else replace(share, every=2) for share in RECIPE.mixture)
    with pytest.raises(SettingsError, match="every few steps"):
        train(MoT(SMALL), RandomWindows(7), replace(RECIPE, mixture=rare), out=out)
    with pytest.raises(SettingsError, match="save_every must be 1 or more"):
        train(MoT(SMALL), RandomWindows(7), RECIPE, out=out, save_every=0)


def test_a_saved_run_does_not_fit_another_model(whole):
    out, _ = whole
    with pytest.raises(CheckpointError, match="missing or unknown weights: sound_embed"):
        load_state(out / STATE, MoT(replace(SMALL, sound_width=None)), RECIPE)
    with pytest.raises(CheckpointError, match=r"action_embed is \(24,\) torch\.float32, the model has \(48,\)"):
        load_state(out / STATE, MoT(replace(SMALL, width=48)), RECIPE)


def test_a_log_is_cut_back_to_the_steps_that_count(tmp_path):
    log = tmp_path / LOG
    keep_log(log, 3)
    assert not log.exists()
    lines = [json.dumps({"step": step}) + "\n" for step in range(5)]
    log.write_text("".join(lines) + '{"st')
    keep_log(log, 3)
    assert log.read_text() == "".join(lines[:3])
