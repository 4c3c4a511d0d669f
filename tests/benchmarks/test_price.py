"""Priced modes are compared with the exact run: equal is equal, far off is refused, and calls are counted."""

import importlib
import math
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from makers.pico_checkpoint import pictures, small_pico

from orrery.runtime.price import made_fast
from orrery.runtime.speed import SPEEDS
from orrery.tasks.request import Request


@pytest.fixture(scope="module")
def price():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
        yield importlib.import_module("price")
        sys.modules.pop("price")


def asked(task: str) -> list[Request]:
    """Two requests, as random as the model is."""
    given = {"actions": [[0.0] * 5] * 16} if task == "forward_dynamics" else {"state": [0.0] * 5}
    return [
        Request(task=task, prompt="go", vision=pictures(seed=seed), steps=8, seed=seed, **given) for seed in range(2)
    ]


def test_modes_are_found_out_and_counted(price):
    model = replace(small_pico(), mot=deepcopy(small_pico().mot))
    modes = {mode.name: mode for mode in price.modes_for(model.speed, 2.0)}

    def row(name, task):
        mode = modes[name]
        return price.compare(model, made_fast(model, mode.speed, bound=math.inf), mode, asked(task), 1)

    fast = row("fast", "forward_dynamics")
    assert fast.frames_db > 50
    assert fast.actions_db is None
    assert (fast.calls, fast.exact_calls, fast.refused) == (16, 16, False)
    eight = row("fp8", "policy")
    assert eight.latents_db < fast.latents_db
    assert eight.probe is not None
    assert math.isfinite(eight.actions_db)
    reused = row("reuse 0.4", "policy_no_video")
    assert (reused.frames_db, reused.latents_db) == (None, None)
    assert reused.calls <= reused.exact_calls
    guided = row("guidance 400-1000", "forward_dynamics")
    assert 16 < guided.calls < guided.exact_calls == 32


def test_decibels_and_the_verdict(price):
    assert price.decibels(0.0, 10) == math.inf
    assert price.decibels(0.0, 0) is None
    assert price.decibels(0.01, 10) == pytest.approx(30.0)
    row = price.Row(
        mode="a", task="b", requests=1, exact_s=1.0, seconds=1.0, exact_calls=1, calls=1, latents_db=None,
        frames_db=None, actions_db=29.9, probe=None,
    )  # fmt: skip
    assert row.refused
    assert not replace(row, actions_db=30.1).refused
    assert replace(row, frames_db=float("nan"), actions_db=99.0).refused
    assert not replace(row, frames_db=math.inf, actions_db=None).refused
    assert replace(row, frames_db=35.0, actions_db=24.5).refused
    assert price._finite(replace(row, frames_db=math.inf))["frames_db"] == "equal"
    assert SPEEDS["8bit"].approximate
