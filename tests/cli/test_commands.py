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


def picture(**values) -> dict:
    return {"task": "text_to_image", "prompt": "a block", "size": [32, 32], "steps": 2, **values}


def asked(folder: Path, document: object) -> Path:
    (folder / "request.json").write_text(json.dumps(document))
    return folder / "request.json"


def test_a_list_of_requests_goes_into_numbered_folders(monkeypatch, capsys, checkpoint, tmp_path):
    question = {"task": "reason", "prompt": "why?", "max_new_tokens": 3}
    path = asked(tmp_path, [picture(seed=1), question, picture(seed=2)])
    call(monkeypatch, "run", path, "--model", checkpoint, "--out", tmp_path / "out")
    assert sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.*")) == [
        "000/image.png",
        "000/run.json",
        "001/answer.txt",
        "001/run.json",
        "002/image.png",
        "002/run.json",
    ]
    assert json.loads((tmp_path / "out" / "002" / "run.json").read_text())["seed"] == 2
    out, err = capsys.readouterr()
    assert "001/answer.txt" in out
    assert err.count("\n") == 1


def test_of_a_list_everything_is_written_or_nothing(monkeypatch, checkpoint, tmp_path):
    path = asked(tmp_path, [picture(), picture(seed=2)])
    counted = []
    write_png = "orrery.runtime.result.write_png"

    def fail_at_the_second(*arguments, **names):
        counted.append(arguments)
        if len(counted) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(write_png, fail_at_the_second)
    with pytest.raises(OSError, match="No space"):
        call(monkeypatch, "run", path, "--model", checkpoint, "--out", tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["request.json"]


def test_a_mistake_in_a_list_names_its_place(monkeypatch, capsys, checkpoint, tmp_path):
    path = asked(tmp_path, [picture(), picture(steps=0)])
    with pytest.raises(SystemExit):
        call(monkeypatch, "run", path, "--model", checkpoint, "--out", tmp_path / "out")
    assert "Request 1 of the list: steps" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_answer_is_streamed_to_stdout_as_it_is_written(monkeypatch, capsys, checkpoint, tmp_path):
    path = asked(tmp_path, {"task": "reason", "prompt": "why?", "max_new_tokens": 12, "temperature": 3.0, "seed": 4})
    shown = []
    monkeypatch.setattr("orrery.cli.run._show", shown.append)
    call(monkeypatch, "run", path, "--model", checkpoint, "--out", tmp_path / "out")
    answer = (tmp_path / "out" / "answer.txt").read_text()
    assert len(shown) > 1
    assert "".join(shown) == answer.removesuffix("\n")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["ended"] in ("length", "eos")
    capsys.readouterr()


def test_random_weights_are_one_line_of_warning(monkeypatch, capsys, checkpoint, tmp_path):
    call(monkeypatch, "run", asked(tmp_path, picture()), "--model", checkpoint, "--out", tmp_path / "out")
    out, err = capsys.readouterr()
    assert err == "orrery: warning: The weights are random: nothing here was learned.\n"
    assert out.count("\n") == 1


def test_threads_number_format_and_family_are_recorded(monkeypatch, checkpoint, tmp_path):
    before = torch.get_num_threads()
    options = ["--threads", "2", "--dtype", "bfloat16", "--family", "edge", "--no-verify"]
    request = asked(tmp_path, picture(guidance=1.0))
    try:
        call(monkeypatch, "run", request, "--model", checkpoint, "--out", tmp_path / "out", *options)
    finally:
        torch.set_num_threads(before)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["threads"], record["dtype"]) == (2, "bfloat16")
    assert record["settings"]["family"] == "edge"


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
