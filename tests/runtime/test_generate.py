"""Texts of the call before are not read again, unless anything that their keys and values depend on has changed."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from makers.own_checkpoint import HEIGHT, WIDTH, tiny_model

from orrery.model.mot import MoT
from orrery.runtime.model import Model
from orrery.runtime.run import run
from orrery.tasks.request import Request

rng = np.random.default_rng(0)
PICTURES = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)


def push(picture: int = 0, prompt: str = "push it") -> Request:
    return Request(task="policy_no_video", vision=PICTURES[picture], prompt=prompt, steps=1, seed=picture)


def own_model() -> Model:
    """The tiny model with weights of its own, which has read nothing."""
    return replace(tiny_model(), mot=deepcopy(tiny_model().mot))


@pytest.fixture
def readings(monkeypatch):
    """How many tokens were read by each call of the text tower."""
    counted, read = [], MoT.read

    def counting(mot, text, *further):
        counted.append(len(text.token_ids))
        return read(mot, text, *further)

    monkeypatch.setattr(MoT, "read", counting)
    return counted


def test_the_order_of_the_call_before_is_not_read_again_and_the_bits_are_the_same(readings):
    model = own_model()
    run(model, push(0), envelope=None)
    again = run(model, push(1), envelope=None)
    assert len(readings) == 1
    fresh = run(own_model(), push(1), envelope=None)
    assert len(readings) == 2
    assert torch.equal(again.latents["action"], fresh.latents["action"])
    run(model, push(1, "pull it"), envelope=None)
    run(model, push(1), envelope=None)  # only the last one is known
    assert len(readings) == 4


def test_texts_that_are_read_together_are_not_taken_for_the_same_alone(readings):
    model = own_model()
    run(model, [push(0), push(1, "pull it")], envelope=None)
    run(model, push(0), envelope=None)
    run(model, [push(1), push(0)], envelope=None)
    assert len(readings) == 2  # a text that is asked for twice is one text


def _other_weight(model):
    with torch.no_grad():
        model.mot.embed.weight.mul_(2)


def _moved(model):
    model.mot.to(torch.float64).to(torch.float32)


def _other_threads(model):
    torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)


@pytest.mark.parametrize("change", [_other_weight, _moved, _other_threads])
def test_a_text_is_read_again_once_a_weight_or_the_number_of_threads_has_changed(readings, change):
    model, threads = own_model(), torch.get_num_threads()
    try:
        before = run(model, push(), envelope=None)
        change(model)
        after = run(model, push(), envelope=None)
    finally:
        torch.set_num_threads(threads)
    assert len(readings) == 2
    same = torch.allclose(before.latents["action"], after.latents["action"], atol=1e-5)
    assert same is (change is not _other_weight)
