"""Stages of a call add up to the call, change nothing, and are those that the request has."""

import time

import pytest
import torch
from makers.pico_checkpoint import pictures, small_pico

from orrery.runtime.run import run
from orrery.runtime.stages import Stages
from orrery.tasks.request import Request

POLICY = Request(task="policy", prompt="go", vision=pictures(), state=[0.0] * 5, steps=2)
QUESTION = Request(task="reason", prompt="what?", max_new_tokens=2)
MADE = ["check", "read inputs", "encode", "read text", "sample", "decode", "guard"]


def test_the_laps_are_those_of_the_call_and_add_up_to_it():
    stages = Stages(device=torch.device("cpu"))
    began = time.perf_counter()
    timed = run(small_pico(), POLICY, stages=stages)
    total = time.perf_counter() - began
    assert list(stages.seconds) == MADE
    assert all(seconds >= 0 for seconds in stages.seconds.values())
    assert sum(stages.seconds.values()) <= total
    plain = run(small_pico(), POLICY)
    assert torch.equal(timed.latents["action"], plain.latents["action"])
    assert timed.manifest == plain.manifest


def test_a_call_forgets_the_one_before_and_several_requests_share_the_laps():
    stages = Stages(device=torch.device("cpu"))
    run(small_pico(), POLICY, stages=stages)
    run(small_pico(), QUESTION, stages=stages)
    assert list(stages.seconds) == ["check", "read inputs", "answer", "guard"]
    run(small_pico(), [QUESTION, POLICY], stages=stages)
    assert set(stages.seconds) == {*MADE, "answer"}


def test_a_lap_counts_from_the_one_before(monkeypatch):
    moments = iter([10.0, 11.0, 13.0, 16.0])
    monkeypatch.setattr("orrery.runtime.stages.time.perf_counter", lambda: next(moments))
    stages = Stages(device=torch.device("cpu"))
    stages.begin()
    for stage in ("one", "other", "one"):
        stages.lap(stage)
    assert stages.seconds == pytest.approx({"one": 4.0, "other": 2.0})
