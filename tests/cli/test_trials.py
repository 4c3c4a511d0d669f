"""`orrery trials` says what `evaluation.statistics` works out, and refuses nonsense."""

import re
import subprocess
import sys

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
    assert re.search(r"50 trials of each arm tell 0\.9 from +0\.6\d\d or less\n", said)
    worst = paired_trials_needed(0.90, 0.95, discordant=0.15)
    assert re.search(rf"at worst: .* {worst} seeds", said)


def test_the_order_of_the_two_does_not_matter(capsys):
    Trials(first=0.95, second=0.90)()
    one = capsys.readouterr().out.splitlines()[1:]
    Trials(first=0.90, second=0.95)()
    assert capsys.readouterr().out.splitlines()[1:] == one


@pytest.mark.parametrize("given", [
    {"first": 0.9, "second": 0.9}, {"first": 0.0, "second": 0.5}, {"first": 0.5, "second": 1.2},
    {"first": 0.5, "second": 0.6, "have": 0}, {"first": 0.5, "second": 0.6, "discordant": 0.01},
    {"first": 0.5, "second": 0.6, "power": 1.0}, {"first": 0.5, "second": 0.7, "power": 0.3, "alpha": 0.7},
])  # fmt: skip
def test_nonsense_is_refused(given):
    with pytest.raises(SettingsError):
        Trials(**given)()


def test_a_mistake_exits_with_two_and_one_line_and_nothing_loads_torch():
    program = "import sys\nfrom orrery.cli.main import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    for shares, code in ((["0.9", "0.95", "--have", "50"], 0), (["0.9", "0.9"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", program, "trials", *shares], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == (code == 2)
