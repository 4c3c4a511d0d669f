"""The benchmark of a policy shows every stage, gives each call pictures of its own, and tells random weights."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from makers.pico_checkpoint import small_pico

from orrery.runtime.result import RANDOM_WEIGHTS


@pytest.fixture
def latency():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
        yield importlib.import_module("policy_latency")
        sys.modules.pop("policy_latency")


@pytest.mark.parametrize("pictures", ["files", "arrays"])
def test_stages_of_a_resident_model_are_shown(latency, monkeypatch, capsys, tmp_path, pictures):
    monkeypatch.setattr(latency, "load", lambda *_, **__: small_pico())
    job = latency.PolicyLatency(calls=2, warm_up=1, warm_start=False, pictures=pictures, out=tmp_path / "found.json")
    latency.main(job)
    said = capsys.readouterr().out
    assert said.startswith("first answer")
    assert RANDOM_WEIGHTS in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["milliseconds"]) == {
        "check", "read inputs", "encode", "read text", "sample", "decode", "guard", "total",
    }  # fmt: skip
    assert all(0 <= row["median"] <= row["worst"] for row in found["milliseconds"].values())
    assert (found["weights_trained"], found["warm_start_s"]) == (False, None)


def test_every_call_has_pictures_of_its_own_under_one_instruction(latency, tmp_path):
    job = latency.PolicyLatency(pictures="arrays")
    one, other = latency.requests_for(job, small_pico(), tmp_path, 2)
    assert one.prompt == other.prompt
    assert (one.vision["front"] != other.vision["front"]).any()


def test_settings_of_the_warm_start_are_those_of_the_job(latency):
    job = latency.PolicyLatency(device="cpu", steps=2, family="tiny", calls=7)
    differing = {name for name in vars(job) if latency._differs(name, getattr(job, name))}
    assert differing == {"steps", "family"}
