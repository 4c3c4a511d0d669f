"""Weights that come to the device block by block give the bits of weights that are there, whatever happens between."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from makers.own_checkpoint import CHUNK, HEIGHT, WIDTH, write_own
from makers.samples import mixed, on_device

from orrery.cli.run import Run
from orrery.errors import SettingsError
from orrery.model.config import TINY
from orrery.model.mot import MoT
from orrery.model.offload import leave_on_cpu, stays
from orrery.packing.pack import pack_samples
from orrery.runtime.load import load
from orrery.runtime.run import run
from orrery.tasks.request import Request

CPU = torch.device("cpu")
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
REQUESTS = [
    Request(task="policy", prompt="push it", vision=PICTURE, steps=3, guidance=2.0),
    Request(task="forward_dynamics", prompt="go", vision=PICTURE, actions=[[0.0, 0.0, 0.5]] * CHUNK, steps=2),
    Request(task="reason", prompt="what is on the table?", vision=PICTURE, max_new_tokens=6),
]
BOTH = pytest.mark.parametrize("what", ["text", "all"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny checkpoint in our layout."""
    where = tmp_path_factory.mktemp("offload") / "own"
    write_own(where)
    return where


def random_mot(layers: int = 5) -> MoT:
    """More blocks than there are buffers, and an odd number of them."""
    torch.manual_seed(0)
    return MoT(replace(TINY, layers=layers)).eval()


@torch.no_grad()
def answers(mot: MoT, device: torch.device = CPU) -> list[torch.Tensor]:
    """Velocities, logits, and logits after one more token."""
    pack = pack_samples([on_device(sample, device) for sample in mixed(mot.config)], mot.config.clock)
    memory = mot.read(pack.text)
    velocity = mot(pack, torch.linspace(0.1, 0.9, len(pack.segments), device=device), memory).velocity
    one = mot.read(pack_samples([on_device(mixed(mot.config)[0], device)], mot.config.clock).text)
    return [*velocity, mot.logits(memory.hidden), one.hidden]


@BOTH
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_every_number_is_that_of_the_resident_model(what, layers):
    mot = random_mot(layers)
    away = deepcopy(mot)
    leave_on_cpu(away, what, CPU)
    for _ in range(2):
        for a, b in zip(answers(away), answers(mot), strict=True):
            assert torch.equal(a, b)


@BOTH
def test_answers_of_every_kind_are_bit_equal_with_a_loaded_checkpoint(folder, what):
    expected, found = run(load(folder), REQUESTS), run(load(folder, offload=what), REQUESTS)
    for a, b in zip(found, expected, strict=True):
        assert a.text == b.text
        assert a.latents.keys() == b.latents.keys()
        assert all(torch.equal(a.latents[kind], b.latents[kind]) for kind in a.latents)
    assert (found[0].manifest["offload"], expected[0].manifest["offload"]) == (what, None)


def test_the_fast_path_goes_with_the_text_tower_away_and_not_with_all(folder):
    expected, found = (run(load(folder, speed="fast", offload=what), REQUESTS[0]) for what in (None, "text"))
    assert torch.equal(found.latents["action"], expected.latents["action"])
    with pytest.raises(SettingsError, match=r"offload 'all'.*'plain', or offload 'text'"):
        load(folder, speed="fast", offload="all")
    assert load(folder, offload="all").speed.denoiser == "plain"


def test_a_change_of_the_weights_counts_and_weights_stand_still_between_calls():
    mot = random_mot()
    leave_on_cpu(mot, "all", CPU)
    places = {name: parameter.data_ptr() for name, parameter in mot.named_parameters()}
    before = answers(mot)
    assert {name: parameter.data_ptr() for name, parameter in mot.named_parameters()} == places
    with torch.no_grad():
        for block in mot.blocks:
            block.text.v.weight.mul_(2)
    assert not torch.equal(answers(mot)[-1], before[-1])


def test_a_pass_that_was_broken_off_does_no_harm():
    mot = random_mot()
    expected = answers(mot)
    leave_on_cpu(mot, "all", CPU)
    handle = mot.blocks[2].text.q.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        answers(mot)
    handle.remove()
    for a, b in zip(answers(mot), expected, strict=True):
        assert torch.equal(a, b)


def test_gradients_are_refused():
    mot = random_mot()
    leave_on_cpu(mot, "text", CPU)
    with pytest.raises(ValueError, match="backward pass"):
        mot.read(pack_samples(mixed(TINY), TINY.clock).text)


def test_only_named_weights_stay_where_they_are_loaded():
    names = stays(random_mot(1), "text")
    assert names == ("embed", "lm_head", "blocks.0.text")
    assert "blocks.0.generation" in stays(random_mot(1), "all")
    assert "blocks.0.generation" not in stays(MoT(replace(TINY, generates=False)), "all")
    assert stays(random_mot(1), None) == ()


def test_the_command_records_it(folder, tmp_path):
    (tmp_path / "request.json").write_text(json.dumps({"task": "reason", "prompt": "what?", "max_new_tokens": 2}))
    threads = torch.get_num_threads()
    try:
        Run(request=tmp_path / "request.json", model=str(folder), out=tmp_path / "out", offload="text", threads=1)()
    finally:
        torch.set_num_threads(threads)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["offload"] == "text"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bits_on_a_gpu_are_those_of_the_resident_model(what, dtype):
    device = torch.device("cuda")
    mot = random_mot(7).to(dtype)
    mot.time_embed.float()
    resident = deepcopy(mot).to(device)
    names = stays(mot, what)
    for name, parameter in mot.named_parameters():
        if not any(name.startswith(f"{place}.") for place in names):
            parameter.data = parameter.data.to(device)
    leave_on_cpu(mot, what, device)
    for _ in range(3):
        for a, b in zip(answers(mot, device), answers(resident, device), strict=True):
            assert torch.equal(a, b)
    assert mot.blocks[0].text.q.weight.device.type == "cpu"
