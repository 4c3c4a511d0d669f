"""The bench measures each kind of call, says what it left out, and never passes random weights off as trained."""

import hashlib
import json

import pytest
from makers.own_checkpoint import write_own
from makers.pico_checkpoint import write_pico

from orrery.cli.bench import Bench
from orrery.errors import SettingsError
from orrery.runtime.bench import bench, timed
from orrery.runtime.result import RANDOM_WEIGHTS

CALLS = {"load", "short answer", "policy, 1 step", "imagined chunk, 8 steps", "imagined chunk, 4 steps"}


def test_the_first_call_is_told_apart_from_the_later_ones():
    made = []
    timing = timed(lambda: made.append(1), 4)
    assert (len(made), timing.count) == (5, 4)
    assert 0 <= timing.least <= timing.median <= timing.most


def test_every_kind_of_call_is_measured_and_random_weights_are_called_so(tmp_path, capsys):
    write_pico(tmp_path / "pico")
    Bench(checkpoint=str(tmp_path / "pico"), repeats=1, out=tmp_path / "bench.json")()
    out = capsys.readouterr().out
    assert RANDOM_WEIGHTS in out
    assert all(name in out for name in CALLS)
    document = json.loads((tmp_path / "bench.json").read_text())
    assert set(document["seconds"]) == CALLS
    assert (document["weights_trained"], document["left_out"]) == (False, {})
    weights = (tmp_path / "pico" / "model.safetensors").read_bytes()
    assert document["weights"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert document["peak_memory_bytes"] > 50e6
    assert {"processor", "cores", "threads", "torch"} <= set(document["machine"])
    with pytest.raises(SettingsError, match="exists"):
        Bench(checkpoint=str(tmp_path / "pico"), out=tmp_path / "bench.json")()


def test_a_checkpoint_of_one_camera_is_measured_too(tmp_path):
    write_own(tmp_path / "own")
    assert set(bench(tmp_path / "own", repeats=1).seconds) == CALLS


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"threads": 0}])
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError, match="got 0"):
        Bench(checkpoint="pico", **settings)()
