"""`orrery train` from a shard of episodes to a checkpoint that loads, and `orrery episodes` to the shards."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from makers.world_run import INDICES, MIXTURE, RECIPE, RUN, records, sketched, write_ground

import orrery
from orrery.cli import main as command_line
from orrery.cli.train import print_row
from orrery.worlds.factory import shard_folder
from orrery.worlds.factory.mixture import spec_of
from orrery.worlds.factory.shards import read_shard, write_shard
from orrery.worlds.factory.stream import record_of

SHORT = replace(RECIPE, run=replace(RUN, mixture=(MIXTURE[1], MIXTURE[4]), batch=4, steps=2), validation=2)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path | int) -> None:
    monkeypatch.setattr("sys.argv", ["orrery", *map(str, arguments)])
    command_line.main()


@pytest.fixture
def sketches() -> Iterator[None]:
    with sketched(draws=True):
        yield


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(SHORT.to_json()))
    return path


def test_a_run_ends_in_a_checkpoint_that_loads(monkeypatch, capsys, sketches, recipe, tmp_path):
    pytest.importorskip("matplotlib")
    shard, out = tmp_path / "shard.npz", tmp_path / "out"
    write_shard(shard, records())
    write_ground(tmp_path / "ground")
    # In place of 48 simulated ones.
    monkeypatch.setattr("orrery.training.fit.validation_records", lambda count, workers: list(records()[:count]))
    monkeypatch.setattr("orrery.training.validation.LEVELS", (0.5,))
    # After the first of two steps.
    monkeypatch.setattr("orrery.training.fit.SAVE_S", 0.0)
    call(monkeypatch, "train", recipe, "--out", out, "--shards", shard, "--ground", tmp_path / "ground")
    assert {path.name for path in out.iterdir()} == {
        "recipe.json", "log.jsonl", "facts.json", "curves.png", "state", "checkpoint",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "step 1" in said
    assert "policy no video action" in said
    assert said.endswith(f"Wrote {out / 'checkpoint'}.\n")
    assert said.count("Wrote ") == SHORT.run.steps + 1
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert "policy_no_video action @0.5" in rows[-1]["validation"]
    facts = json.loads((out / "facts.json").read_text())
    assert facts["validation_in_8_bits"].keys() == rows[-1]["validation"].keys()
    assert facts["validation_in_8_bits"] != rows[-1]["validation"]

    model = orrery.load(out / "checkpoint")
    assert (model.family, model.origin.trained, model.origin.licence) == ("pico", True, "OpenMDW-1.1")
    assert set(model.tasks) == {"policy_no_video", "reason"}
    question = orrery.Request(task="reason", prompt="What is on the belt?", max_new_tokens=4)
    assert isinstance(orrery.run(model, question).text, str)


def test_a_run_goes_on_from_a_checkpoint(monkeypatch, capsys, sketches, recipe, tmp_path):
    shard, slow = tmp_path / "shard.npz", tmp_path / "slow.json"
    write_shard(shard, records())
    write_ground(tmp_path / "ground")
    optimiser = replace(SHORT.run.optimiser, learning_rate=1e-12, weight_decay=0.0)
    still = replace(SHORT, validation=0, run=replace(SHORT.run, optimiser=optimiser))
    slow.write_text(json.dumps(still.to_json()))
    first, further = tmp_path / "first", tmp_path / "further"
    given = ("--shards", shard)
    call(monkeypatch, "train", recipe, "--out", first, *given, "--ground", tmp_path / "ground")
    call(monkeypatch, "train", slow, "--out", further, *given, "--start", first / "checkpoint")
    old, new = (orrery.load(out / "checkpoint") for out in (first, further))
    for name, weight in old.mot.state_dict().items():
        # What is stored in 8 bits is stored again.
        assert (new.mot.state_dict()[name] - weight).abs().max() <= 1e-2 * weight.abs().max() + 1e-9, name
    assert new.text.files == old.text.files
    facts = json.loads((further / "facts.json").read_text())
    assert facts["codecs"]["start"]["weights"] == dict(old.origin.weights)

    for start, more, why in (
        (first, ("--ground", tmp_path / "ground"), "Give one of the two"),
        (further, (), "is not of the model to start from"),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, "train", slow, "--out", further, *given, "--start", start / "checkpoint", *more)
        assert why in capsys.readouterr().err


def test_a_row_of_the_log_is_one_line(capsys):
    print_row({"step": 19, "seconds": 3.21, "losses": {"text_to_image vision": 0.5}, "mfu": None})
    print_row({"step": 20, "validation": {"actions ratio": 1.23456}})
    assert capsys.readouterr().out.splitlines() == [
        "step 19 seconds 3.21 text to image vision 0.500",
        "step 20 ",
        "  validation {'actions ratio': 1.2346}",
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["pcio", "--workers", "1"], "Did you mean 'pico'"),
        (["pico"], "nothing to learn from"),
        (["pico", "--shards", "none.npz"], "none.npz is not a whole file of records"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(monkeypatch, capsys, tmp_path, arguments, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "train", *arguments, "--out", tmp_path / "out")
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1)
    assert text in err


class Records:
    """Stands in for a stream: the four records of the tests, renumbered, out of order."""

    opened: ClassVar[list[tuple[int, int, str, bool, bool]]] = []

    def __init__(self, first, workers, *, split, sound, questions):
        self.opened.append((first, workers, split, sound, questions))
        self.order = iter([first + 1, first, *range(first + 2, first + 1000)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __next__(self):
        index = next(self.order)
        return replace(records()[index % len(INDICES)], index=index, questions=())


@pytest.fixture
def simulated(monkeypatch) -> type[Records]:
    monkeypatch.setattr(Records, "opened", [])
    monkeypatch.setattr(shard_folder, "stream", Records)
    monkeypatch.setattr(shard_folder, "TOGETHER", 3)
    return Records


def test_episodes_go_into_files_of_whole_parts_in_order(monkeypatch, capsys, simulated, tmp_path):
    out = tmp_path / "out"
    call(monkeypatch, "episodes", "--out", out, "--first", 5, "--count", 7, "--workers", 2, "--no-questions")
    names = ["train-00000005-00000008.npz", "train-00000008-00000011.npz", "train-00000011-00000012.npz"]
    assert sorted(path.name for path in out.glob("*.npz")) == names
    assert [record.index for name in names for record in read_shard(out / name)] == list(range(5, 12))
    assert simulated.opened == [(5, 2, "train", True, False)]
    said, told = capsys.readouterr()
    assert "episodes 5 to 11 of train" in said
    assert told.splitlines() == ["3 of 7 episodes", "6 of 7 episodes", "7 of 7 episodes"]


def test_whole_files_are_kept_and_the_others_made_again_to_the_byte(monkeypatch, capsys, simulated, tmp_path):
    out = tmp_path / "out"
    asked = ["episodes", "--out", out, "--count", 12]
    call(monkeypatch, *asked)
    files = {path: path.read_bytes() for path in sorted(out.glob("*.npz"))}
    paths = list(files)
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].write_bytes(files[paths[1]][:1000])
    paths[3].unlink()
    simulated.opened.clear()
    call(monkeypatch, *asked)
    assert {path: path.read_bytes() for path in sorted(out.glob("*.npz"))} == files
    assert [opened[0] for opened in simulated.opened] == [3, 9]
    assert [path.stat().st_mtime_ns for path in paths][::2] == times[::2]
    assert "not a whole file" in capsys.readouterr().err
    simulated.opened.clear()
    # Nothing is left to do; and more can be added.
    call(monkeypatch, *asked)
    assert simulated.opened == []
    call(monkeypatch, "episodes", "--out", out, "--first", 12, "--count", 2)
    assert len(list(out.glob("*.npz"))) == 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--count", 5], "holds some of the episodes 0 to 4 already. Go on from --first 6"),
        (["--first", 2, "--count", 3], "Go on from --first 3"),
        (["--count", 6, "--no-sound"], "asked for is"),
        (["--count", 0], "count and workers must be 1 or more"),
        (["--first", 10_000_000, "--count", 1], "numbered from 0"),
    ],
)
def test_episodes_that_do_not_go_together_are_refused(monkeypatch, capsys, simulated, tmp_path, arguments, text):
    call(monkeypatch, "episodes", "--out", tmp_path / "out", "--count", 6)
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "episodes", "--out", tmp_path / "out", *arguments)
    assert left.value.code == 2
    assert text in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_a_folder_of_something_else_is_left_alone(monkeypatch, capsys, simulated, tmp_path):
    (tmp_path / "thesis.txt").write_text("done")
    with pytest.raises(SystemExit):
        call(monkeypatch, "episodes", "--out", tmp_path)
    assert "something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_recorded_episodes_are_those_of_the_simulator(monkeypatch, tmp_path):
    call(
        monkeypatch, "episodes", "--out", tmp_path / "out", "--first", 18, "--count", 1, "--no-sound", "--no-questions"
    )
    (record,) = read_shard(tmp_path / "out" / "train-00000018-00000019.npz")
    expected = record_of(spec_of(18, "train"), sound=False, questions=False)
    np.testing.assert_array_equal(record.action, expected.action)
    assert (record.sound, record.questions) == (None, ())
