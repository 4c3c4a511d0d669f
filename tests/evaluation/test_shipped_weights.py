"""The weights in checkpoints/pico, on a small frozen slice of the factory suite: as good as when they were shipped."""

import json
from pathlib import Path

import pytest

import orrery
from orrery.evaluation.factory.regression import regression

EXPECTED = json.loads((Path(__file__).parent / "pico_regression.json").read_text())
"""`python benchmarks/pico_regression.py > tests/evaluation/pico_regression.json` makes it again."""
WITHIN = {"dB": 0.1, "R2": 0.03, "%": 8.0}
"""What another processor may change: a few of the answers, and sums in another order. Of what got worse, far more."""


def unit_of(name: str) -> str:
    if name.startswith("R2"):
        return "R2"
    return "%" if name == "Right answers" else "dB"


def test_the_shipped_weights_are_as_good_as_when_they_were_shipped():
    model = orrery.load("pico")
    weights = {name: digest for name, digest in model.origin.weights.items() if name in EXPECTED["weights"]}
    assert weights == EXPECTED["weights"]
    found = regression(model)
    assert found.keys() == EXPECTED["figures"].keys()
    for name, wanted in EXPECTED["figures"].items():
        assert found[name] == pytest.approx(wanted, abs=WITHIN[unit_of(name)]), name
