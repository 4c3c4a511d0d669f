"""A recorded run comes out again bit by bit; whatever was changed since is found, with the stage at which it shows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orrery.cli.reproduce import Reproduce
from orrery.cli.run import Run
from orrery.data.write_media import write_png
from orrery.errors import CheckpointError, SettingsError
from orrery.runtime import generate as generate_module
from orrery.runtime import prepare as prepare_module
from orrery.runtime.load import load
from orrery.runtime.reproduce import read_manifest, reproduce
from orrery.runtime.save import save
from orrery.weights.hub import resolve

REQUESTS = {
    "forward.json": {
        "task": "forward_dynamics", "vision": {"front": "front.png", "wrist": "wrist.png"}, "actions": "actions.json",
        "embodiment": "factory_gantry", "seed": 4, "steps": 3,
    },
    "text.json": {"task": "text_to_image", "prompt": "A red cube.", "seed": 5, "steps": 3, "guidance": 2.0},
    "words.json": {"task": "reason", "prompt": "What is a cube?", "max_new_tokens": 4},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A folder of requests, what they ask with, and the records of their runs."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for name, size in (("front", 128), ("wrist", 64)):
        write_png(folder / f"{name}.png", rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    actions = np.clip(rng.normal(0, 0.01, (16, 5)), 0, 0.02)
    (folder / "actions.json").write_text(json.dumps({"actions": actions.tolist()}))
    for name, document in REQUESTS.items():
        (folder / name).write_text(json.dumps(document))
        Run(request=folder / name, model="pico", out=folder / name[:-5], threads=1)()
    return folder


@pytest.fixture
def at(recorded, tmp_path) -> Path:
    """A copy of it to be meddled with."""
    where = tmp_path / "runs"
    shutil.copytree(recorded, where)
    for name in REQUESTS:
        record = where / name[:-5] / "run.json"
        record.write_text(record.read_text().replace(str(recorded), str(where)))
    return where


def manifest_of(at: Path, name: str = "forward", **changes: Any) -> dict[str, Any]:
    return {**read_manifest(at / name / "run.json"), **changes}


@pytest.mark.parametrize("name", ["forward", "text", "words"])
def test_an_unchanged_run_is_bit_equal(at, name, capsys):
    Reproduce(record=at / name / "run.json", out=at / "verdict.json")()
    assert capsys.readouterr().out.startswith("bit-equal")
    told = json.loads((at / "verdict.json").read_text())
    assert (told["verdict"], told["stage"], told["remarks"]) == ("bit-equal", "", [])


def picture(at: Path) -> dict[str, Any]:
    write_png(at / "wrist.png", np.zeros((64, 64, 3), dtype=np.uint8))
    return manifest_of(at)


def missing(at: Path) -> dict[str, Any]:
    (at / "front.png").unlink()
    return manifest_of(at)


def actions(at: Path) -> dict[str, Any]:
    (at / "actions.json").write_text(json.dumps({"actions": [[0.0] * 5] * 16}))
    return manifest_of(at)


def asked(**fields: Any) -> Any:
    def change(at: Path) -> dict[str, Any]:
        manifest = manifest_of(at, "text")
        manifest["request"]["document"] |= fields
        return manifest

    return change


def hashed(name: str) -> Any:
    def change(at: Path) -> dict[str, Any]:
        manifest = manifest_of(at, "text")
        files = {**manifest["checkpoint"]["files"], name: "0" * 64}
        return {**manifest, "checkpoint": {**manifest["checkpoint"], "files": files}}

    return change


@pytest.mark.parametrize(
    ("change", "stage", "named"),
    [
        (picture, "input", "wrist"),
        (missing, "input", "front.png"),
        (actions, "input", "actions"),
        (hashed("model.safetensors"), "weights", "model.safetensors"),
        (hashed("vision_codec/model.safetensors"), "weights", "vision_codec"),
        (asked(seed=6), "setting", "seed was 5 and is 6"),
        (asked(steps=4), "setting", "steps was 3 and is 4"),
        (asked(guidance=3.0), "setting", "guidance.vision was 2.0 and is 3.0"),
        (asked(guidance_interval=[200, 900]), "setting", "guidance_interval"),
        (asked(prompt="A blue cube."), "setting", "prompt"),
    ],
    ids=["picture", "missing", "actions", "weights", "codec", "seed", "steps", "guidance", "interval", "prompt"],
)
def test_a_planted_difference_is_found_and_its_stage_is_named(at, change, stage, named):
    found = reproduce(change(at))
    assert found.verdict == "different"
    assert found.stage == stage
    assert named in found.reason, found.reason


def test_another_weight_in_another_checkpoint_is_named(at, tmp_path):
    model = load("pico")
    with torch.no_grad():
        model.mot.embed.weight[5, 5] += 1.0
    save(model, tmp_path / "other", trained=True, licence="OpenMDW-1.1")
    found = reproduce(manifest_of(at, "text"), model=str(tmp_path / "other"))
    assert (found.verdict, found.stage) == ("different", "weights")
    assert "model.safetensors" in found.reason


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_weight_file_that_was_changed_where_it_lies_is_a_difference_of_weights(at, tmp_path, harm):
    shutil.copytree(resolve("pico"), tmp_path / "pico")
    file = tmp_path / "pico" / "model.safetensors"
    if harm == "remove":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[:-4] if harm == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    found = reproduce(manifest_of(at, "text"), model=str(tmp_path / "pico"))
    assert (found.verdict, found.stage) == ("different", "weights")
    assert found.reason.endswith(": model.safetensors.")


def test_a_fault_of_the_caller_is_no_difference_of_weights(at):
    with pytest.raises(CheckpointError, match="abacus"):
        reproduce(manifest_of(at, "text"), device="abacus")


def test_a_sampler_that_strays_is_caught_at_its_step(at, monkeypatch):
    honest, turns = generate_module._velocities, []

    def straying(*arguments):
        turns.append(1)
        return {
            branch: [x * (1.5 if len(turns) == 2 else 1.0) for x in velocity]
            for branch, velocity in honest(*arguments).items()
        }

    monkeypatch.setattr(generate_module, "_velocities", straying)
    found = reproduce(manifest_of(at, "text"))
    assert (found.verdict, found.stage) == ("different", "sampler step 2")


def test_a_decoder_that_strays_is_caught_behind_the_last_step(at, monkeypatch):
    honest = prepare_module.finish

    def brighter(model, prepared, latents, manifest, **how):
        return honest(model, prepared, [x + 1 for x in latents], manifest, **how)

    monkeypatch.setattr("orrery.runtime.run.finish", brighter)
    found = reproduce(manifest_of(at, "text"))
    assert (found.verdict, found.stage) == ("different", "decoded")


@pytest.mark.parametrize("place", [0, 5, 700])
def test_one_value_that_strays_is_seen(at, monkeypatch, place):
    honest, turns = generate_module._velocities, []

    def straying(*arguments):
        turns.append(1)
        velocities = honest(*arguments)
        if len(turns) == 2:
            for velocity in velocities.values():
                velocity[0].view(-1)[place] += 2.0
        return velocities

    monkeypatch.setattr(generate_module, "_velocities", straying)
    found = reproduce(manifest_of(at, "text"))
    assert (found.verdict, found.stage) == ("different", "sampler step 2")


def test_one_pixel_that_strays_is_seen(at, monkeypatch):
    honest = prepare_module.finish

    def spotted(model, prepared, latents, manifest, **how):
        result = honest(model, prepared, latents, manifest, **how)
        videos = {name: video.copy() for name, video in result.videos.items()}
        for video in videos.values():
            video[0, 41, 41] = 255 - video[0, 41, 41]
        return replace(result, videos=videos)

    monkeypatch.setattr("orrery.runtime.run.finish", spotted)
    found = reproduce(manifest_of(at, "text"))
    assert (found.verdict, found.stage) == ("different", "decoded")


def test_a_difference_that_grows_tells_since_when_bits_differ(at, monkeypatch):
    honest, turns = generate_module._velocities, []

    def straying(*arguments):
        turns.append(1)
        share = {1: 1 + 1e-4, 3: 1.5}.get(len(turns), 1.0)
        return {branch: [x * share for x in velocity] for branch, velocity in honest(*arguments).items()}

    monkeypatch.setattr(generate_module, "_velocities", straying)
    found = reproduce(manifest_of(at, "text"))
    assert (found.verdict, found.stage) == ("different", "sampler step 3")
    assert found.reason.endswith("Bits differ since sampler step 1.")


def test_other_words_are_different_however_near(at):
    manifest = manifest_of(at, "words")
    (answer,) = manifest["stages"]
    found = reproduce({**manifest, "stages": [{**answer, "sha256": "0" * 64}]})
    assert (found.verdict, found.stage) == ("different", "answer")


def test_a_request_of_a_pack_is_within_tolerance_alone_and_the_pack_is_named(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([REQUESTS["text.json"], {**REQUESTS["text.json"], "seed": 6}]))
    Run(request=tmp_path / "list.json", model="pico", out=tmp_path / "out", threads=1)()
    found = reproduce(read_manifest(tmp_path / "out" / "001" / "run.json"))
    assert found.verdict in ("bit-equal", "within tolerance")
    assert "in one pack with 1 more" in found.remarks[0]
    assert ("  remark: " if found.verdict == "bit-equal" else "  possible cause: ") in found.to_text()


def test_threads_and_versions_are_named_and_differ_within_tolerance_at_most(at):
    manifest = manifest_of(at, "text")
    found = reproduce({**manifest, "versions": {**manifest["versions"], "torch": "1.0"}}, threads=2)
    assert found.verdict in ("bit-equal", "within tolerance")
    assert any(row.startswith("threads was 1 and is 2") for row in found.remarks)
    assert any(row.startswith("torch was 1.0") for row in found.remarks)


def test_the_command_says_different_with_its_exit_code(at, capsys):
    (at / "front.png").unlink()
    with pytest.raises(SystemExit) as end:
        Reproduce(record=at / "forward" / "run.json")()
    assert end.value.code == 1
    assert "input" in capsys.readouterr().out


def test_what_is_no_record_is_refused(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(SettingsError, match="no file"):
        read_manifest(path)
    bare = '{"format": "orrery.run", "version": 1}'
    for text, words in (("{", "no JSON"), ("[]", "not the record"), (bare, "no request")):
        path.write_text(text)
        with pytest.raises(SettingsError, match=words):
            read_manifest(path)
