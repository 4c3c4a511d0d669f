"""`orrery reproduce`: what it says, what it writes and its exit codes. Stages are tested in tests/runtime."""

import json
import sys

import pytest
import torch

from orrery.cli.main import main
from orrery.cli.run import Run


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The run.json of a small picture."""
    folder = tmp_path_factory.mktemp("run")
    request = {"task": "text_to_image", "prompt": "A red cube.", "steps": 1}
    (folder / "request.json").write_text(json.dumps(request))
    Run(request=folder / "request.json", model="pico", out=folder / "out", threads=1)()
    return folder / "out" / "run.json"


def called(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["orrery", "reproduce", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_run_that_comes_out_again_is_code_0_and_written_as_json(monkeypatch, capsys, record, tmp_path):
    assert called(monkeypatch, record, "--out", tmp_path / "verdict.json") == 0
    assert capsys.readouterr().out.startswith("bit-equal. All 1 files")
    told = json.loads((tmp_path / "verdict.json").read_text())
    assert (told["format"], told["verdict"], told["stage"]) == ("orrery.reproduction", "bit-equal", "")


def test_another_result_is_code_1_without_a_traceback(monkeypatch, capsys, record, tmp_path):
    manifest = json.loads(record.read_text())
    manifest["request"]["document"]["seed"] = 1
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert called(monkeypatch, tmp_path / "run.json") == 1
    said = capsys.readouterr()
    assert said.out.startswith("different. The first difference is at: setting. seed was 0 and is 1.")
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "orrery.gate"}, "not the record of a run"),
        ({"version": 2}, "has version 2"),
        ({"request": {}}, "has no request.document"),
        ({"stages": 3}, "has no stages"),
        ({"stages": [{"stage": "noise"}]}, "stages of another form"),
        ({"threads": "many"}, "has no threads"),
        ({"threads": 0}, "has threads 0"),
        ({"checkpoint": None}, "has no checkpoint.files"),
        ({"device": "abacus"}, "no device 'abacus'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_that_cannot_be_read_is_code_2_and_one_line(monkeypatch, capsys, record, tmp_path, changes, words):
    (tmp_path / "run.json").write_text(json.dumps({**json.loads(record.read_text()), **changes}))
    assert called(monkeypatch, tmp_path / "run.json") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert words in said[0]


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_what_is_no_json_is_code_2(monkeypatch, capsys, tmp_path, text):
    (tmp_path / "run.json").write_bytes(text)
    assert called(monkeypatch, tmp_path / "run.json") == 2
    assert "no JSON" in capsys.readouterr().err


def test_a_verdict_overwrites_nothing_and_says_so_before_it_computes(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    for taken in (tmp_path / "mine.txt", tmp_path):
        assert called(monkeypatch, tmp_path / "no.json", "--out", taken) == 2
        assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_threads_out_of_range_and_a_checkpoint_that_is_not_there_are_code_2(monkeypatch, capsys, record, tmp_path):
    assert called(monkeypatch, record, "--threads", 0) == 2
    assert called(monkeypatch, record, "--model", tmp_path / "gone") == 2
    assert "no folder" in capsys.readouterr().err
