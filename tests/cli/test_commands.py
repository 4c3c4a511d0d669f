"""`orrery run` and `orrery inspect` from the command line to the files, on a small model with random weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers.tiny_text import tiny_tokenizer

from orrery.cli import main as command_line
from orrery.model.config import TINY
from orrery.model.mot import MoT
from orrery.runtime.model import Model, Origin
from orrery.runtime.save import save
from orrery.tokenizers.pixel_patch import PixelPatchCodec


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in our layout that makes pictures but no sound and has no vision encoder."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    codec = PixelPatchCodec(spatial=8)
    torch.manual_seed(0)
    model = Model(
        mot=MoT(replace(TINY, vision_channels=codec.channels, sound_width=None)),
        text=tiny_tokenizer(),
        vision=codec,
        sound=None,
        eyes=None,
        contracts={},
        family="orrery",
        origin=Origin(path=folder, layout="orrery", weights={}, trained=False),
    )
    save(model, folder, trained=False, licence="Apache-2.0")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["orrery", *map(str, arguments)])
    command_line.main()


def test_inspect_as_json_holds_sizes_tasks_and_licence(monkeypatch, capsys, checkpoint):
    call(monkeypatch, "inspect", checkpoint, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["licence"] == "Apache-2.0"
    assert facts["weights_trained"] is False
    assert facts["parameters"]["network"] == sum(
        parameter.numel() for parameter in MoT(replace(TINY, vision_channels=768, sound_width=None)).parameters()
    )
    assert facts["tasks"]["text_to_image"] is None
    assert facts["files"].keys() >= {"model.safetensors", "config.json"}


def test_inspect_as_text_says_that_the_weights_are_random(monkeypatch, capsys, checkpoint):
    call(monkeypatch, "inspect", checkpoint)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["task", "text_to_image", "yes"] for line in lines)
    assert any(line.startswith("weights") and "random" in line for line in lines)


def test_run_writes_the_result_and_its_record(monkeypatch, capsys, checkpoint, tmp_path):
    request = {"task": "text_to_image", "prompt": "a block", "size": [32, 32], "steps": 2, "guidance": 1.0, "seed": 3}
    (tmp_path / "request.json").write_text(json.dumps(request))
    call(monkeypatch, "run", tmp_path / "request.json", "--model", checkpoint, "--out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"image.png", "run.json"}
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["seed"], record["weights"], record["synthetic"]) == (3, "random", True)
    assert "image.png, run.json" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", '{"task": "text_to_imag"}', '{"task": "text_to_image", "steps": 0}'])
def test_a_wrong_document_is_one_line_and_code_2_and_leaves_nothing(monkeypatch, capsys, checkpoint, tmp_path, text):
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "run", tmp_path / "request.json", "--model", checkpoint, "--out", tmp_path / "out")
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_is_code_2(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "inspect", tmp_path / "none")
    assert (left.value.code, capsys.readouterr().err.count("\n")) == (2, 1)
