"""What `orrery inspect` says of a checkpoint: true sizes, true hashes, and no more than was looked at."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers.own_checkpoint import CONTRACT, tiny_model, write_own
from makers.released_folder import write_released

from orrery.errors import CheckpointError
from orrery.model.config import TINY
from orrery.runtime.report import CheckpointReport, report
from orrery.tasks.defaults import FAMILIES
from orrery.tasks.fit import abilities
from orrery.tasks.task import TASKS


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "own"
    write_own(folder)
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "released"
    write_released(folder, replace(TINY, sound_width=None), shard="100KB")
    return folder


def facts_of(found: CheckpointReport) -> dict:
    """As they come out of a file: everything must be JSON."""
    return json.loads(json.dumps(found.to_json(), allow_nan=False))


def test_sizes_are_those_of_the_model_and_parts_sum_to_it(own):
    facts, model = facts_of(report(own)), tiny_model()
    sizes = facts["parameters"]
    assert sizes["network"] == sum(p.numel() for p in model.mot.parameters())
    assert sizes["vision_encoder"] == sum(p.numel() for p in model.eyes.parameters())
    parts = ("text_tower", "generation_tower", "vision_head", "sound_head", "action_head")
    assert sum(sizes[part] for part in parts) == sizes["network"]
    assert min(sizes[part] for part in parts) > 0
    assert facts["stored"]["values"] == {"float32": sizes["network"] + sizes["vision_encoder"]}


def test_our_own_layout_tells_its_contract_and_that_its_weights_are_random(own):
    found = report(own)
    facts = facts_of(found)
    assert facts["contracts"] == {"custom": json.loads(json.dumps(CONTRACT.to_json()))}
    assert (facts["weights_trained"], facts["licence"], facts["layout"]) == (False, "OpenMDW-1.1", "orrery")
    assert set(facts["tasks"].values()) == {None}
    text = found.to_text()
    assert CONTRACT.normaliser.sha256 in text
    assert "random: nothing here was learned" in text


def test_hashes_are_of_the_files(own, released):
    for folder in (own, released):
        files = facts_of(report(folder))["files"]
        assert any(name.endswith(".safetensors") for name in files)
        for name, digest in files.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_a_released_folder_is_described_with_its_autoencoder(released):
    facts = facts_of(report(released))
    assert facts["layout"] == "diffusers"
    assert facts["weights_trained"] is None
    assert facts["parameters"]["vision_codec"] > 0
    assert facts["vision_codec"] == {"kind": "wan", "folder": "vae"}
    assert "sound" not in facts["capabilities"]
    assert any(name.startswith("vae/") for name in facts["files"])
    assert "headers of vision_codec only" in facts["verified"]["codecs"]


def test_no_tensor_is_read(own, released, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("orrery.weights.reader.read_bytes", refuse)
    assert report(own, verify=False).to_json()["files"] == report(own).to_json()["files"]
    facts = report(released, verify=False).to_json()
    assert set(facts["files"].values()) == {None}
    assert facts["verified"]["hashes"] == "not read"


def test_files_that_contradict_the_configuration_are_refused(released, tmp_path):
    config = released / "transformer" / "config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps({**json.loads(before), "intermediate_size": 80}))
        with pytest.raises(CheckpointError, match="has shape"):
            report(released, verify=False)
    finally:
        config.write_text(before)


def test_a_changed_byte_is_seen_unless_hashes_are_left_out(tmp_path):
    write_own(tmp_path / "own")
    path = tmp_path / "own" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        report(tmp_path / "own")
    assert "not read" in report(tmp_path / "own", verify=False).to_json()["verified"]["hashes"]


@pytest.mark.parametrize(("arguments", "named"), [({"device": "tpu9"}, "tpu9"), ({"dtype": "int4"}, "int4")])
def test_the_self_test_is_of_the_device_and_format_asked_for(own, arguments, named):
    with pytest.raises(CheckpointError, match=named):
        report(own, **arguments)
    test = report(own, dtype="bfloat16", verify=False).to_json()["self_test"]
    assert test["dtype"] == "bfloat16"
    assert 0 < test["error"] < test["allowed"]


def test_wrong_numbers_are_refused_by_the_self_test(own, monkeypatch):
    monkeypatch.setattr("orrery.runtime.selftest.TOLERANCE", {torch.bfloat16: 1e-9})
    with pytest.raises(CheckpointError, match="wrong numbers"):
        report(own, dtype="bfloat16")


def test_abilities_say_what_is_missing_or_which_family_does_not_do_it():
    every = {"write", "see", "vision", "sound", "action"}
    assert set(abilities(every, "orrery").values()) == {None}
    lacking = abilities({"write"}, "nano")
    assert lacking["reason"] is None
    assert lacking["policy"] == "needs vision and action"
    assert set(abilities(every, "policy-droid")) == set(TASKS)
    assert "no defaults" in abilities(every, "policy-droid")["text_to_video"]
    assert all(abilities(every, family)["reason"] is None for family in FAMILIES)
