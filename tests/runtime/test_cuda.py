"""On a GPU: the same numbers as on the CPU, in every mode."""

import numpy as np
import pytest
import torch
from makers.own_checkpoint import CHUNK, HEIGHT, WIDTH, write_own
from makers.samples import mixed, on_device

from orrery.model.config import TINY
from orrery.model.mot import MoT
from orrery.packing.pack import pack_samples
from orrery.runtime.load import load
from orrery.runtime.run import run
from orrery.runtime.selftest import TOLERANCE, check_numbers
from orrery.tasks.request import Request

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
CUDA = torch.device("cuda")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_self_test_passes(dtype):
    assert check_numbers(CUDA, dtype) <= TOLERANCE[dtype]


@torch.no_grad()
def test_a_packed_forward_pass_is_that_of_the_cpu():
    torch.manual_seed(0)
    mot = MoT(TINY).eval()
    samples = mixed(TINY)
    sigmas = torch.linspace(0.1, 0.9, sum(len(sample.segments) for sample in samples))
    expected = mot(pack_samples(samples, TINY.clock), sigmas).velocity
    found = mot.to(CUDA)(pack_samples([on_device(s, CUDA) for s in samples], TINY.clock), sigmas.to(CUDA)).velocity
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=1e-4, rtol=1e-4)


def test_requests_of_every_kind_come_out_as_on_the_cpu(tmp_path):
    write_own(tmp_path / "own")
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    clip = np.full((CHUNK + 1, HEIGHT, WIDTH, 3), 90, np.uint8)
    actions = np.zeros((CHUNK, 3), np.float32)
    size = (HEIGHT, WIDTH)
    requests = [
        Request(task="text_to_image", prompt="a", size=size, steps=3),
        Request(task="text_to_video", prompt="b", size=size, frames=9, steps=4, sound="make", guidance=2.0),
        Request(task="image_to_video", prompt="c", vision=picture, size=size, frames=9, steps=3),
        Request(task="forward_dynamics", prompt="d", vision=picture, actions=actions, steps=2),
        Request(task="inverse_dynamics", prompt="e", vision=clip, steps=3),
        Request(task="policy", prompt="f", vision=picture, steps=3, sampler="stochastic"),
        Request(task="reason", prompt="g", vision=picture, max_new_tokens=5),
    ]
    expected, found = (run(load(tmp_path / "own", device=device), requests) for device in ("cpu", "cuda"))
    for here, there in zip(expected, found, strict=True):
        assert here.text == there.text
        for kind, latents in here.latents.items():
            torch.testing.assert_close(there.latents[kind], latents, atol=1e-3, rtol=1e-3)
