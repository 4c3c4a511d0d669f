"""Print what tests/evaluation/pico_regression.json must hold: the shipped weights on their frozen slice.

python benchmarks/pico_regression.py > tests/evaluation/pico_regression.json
"""

import json

import orrery
from orrery.evaluation.factory.regression import regression

if __name__ == "__main__":
    model = orrery.load("pico")
    print(json.dumps({"weights": dict(model.origin.weights), "figures": regression(model)}, indent=1))
