"""`orrery trials` says what `evaluation.statistics` works out, and refuses nonsense."""

import re

import pytest

from orrery.cli.trials import Trials
from orrery.errors import SettingsError
from orrery.evaluation.statistics import paired_trials_needed, trials_needed


def test_ninety_against_ninety_five(capsys):
    Trials(first=0.90, second=0.95, have=50, discordant=0.1)()
    said = capsys.readouterr().out
    assert f"{trials_needed(0.90, 0.95)} trials" in said
    assert f"{paired_trials_needed(0.90, 0.95, discordant=0.1)} seeds" in said
    assert re.search(r"45 of 50 done .* 0\.786 to 0\.957 \(Wilson\), 0\.782 to 0\.967 \(exact\)", said)
    assert "50 trials of each arm tell 0.9 from" in said


def test_the_order_of_the_two_does_not_matter(capsys):
    Trials(first=0.95, second=0.90)()
    one = capsys.readouterr().out.splitlines()[1:]
    Trials(first=0.90, second=0.95)()
    assert capsys.readouterr().out.splitlines()[1:] == one


@pytest.mark.parametrize("given", [
    {"first": 0.9, "second": 0.9}, {"first": 0.0, "second": 0.5}, {"first": 0.5, "second": 1.2},
    {"first": 0.5, "second": 0.6, "have": 0}, {"first": 0.5, "second": 0.6, "discordant": 0.01},
    {"first": 0.5, "second": 0.6, "power": 1.0},
])  # fmt: skip
def test_nonsense_is_refused(given):
    with pytest.raises(SettingsError):
        Trials(**given)()
