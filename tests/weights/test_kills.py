"""Killed while saving: a whole checkpoint always opens, no acknowledged one is lost, and the next save tidies up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_saves.py")


def _run(path, *arguments):
    command = [sys.executable, str(SCRIPT), str(path / "checkpoint"), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    counts = json.loads(run.stdout)
    print(*arguments, counts)
    return counts


@pytest.mark.parametrize("way", ["swap", "two renames"])
def test_killed_at_25_random_moments(way, tmp_path):
    counts = _run(tmp_path, "moments", "7", way)
    assert counts["kills"] == 25
    assert counts["orphans"] > 0  # it was indeed killed while writing


@pytest.mark.parametrize("way", ["swap", "two renames"])
def test_killed_before_every_step_of_a_save(way, tmp_path):
    counts = _run(tmp_path, "steps", "0", way)
    assert counts["kills"] > 20
    assert counts["between renames"] == (1 if way == "two renames" else 0)
