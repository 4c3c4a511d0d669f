"""A run on shards is a function of recipe and shards, however often it is stopped."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers.world_run import MIXTURE, RECIPE, RUN, fit_noting, records, sketched

from orrery.errors import CheckpointError, DatasetError, SettingsError
from orrery.training import fit as fit_module
from orrery.training import world
from orrery.training.fit import fit, recipe_named
from orrery.training.loop import LOG, STATE
from orrery.training.recipes import RECIPES
from orrery.weights.folder import open_folder
from orrery.worlds.factory.shards import write_shard

SHORT = replace(RECIPE, run=replace(RUN, mixture=(MIXTURE[1], MIXTURE[2], MIXTURE[4]), batch=6, steps=5))


@pytest.fixture(autouse=True)
def pictures() -> Iterator[None]:
    with sketched():
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Path]:
    """The four records in two files."""
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "a.npz", records()[:3])
    write_shard(folder / "b.npz", records()[3:])
    return [folder / "a.npz", folder / "b.npz"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory, shards) -> Path:
    """Tokenizer and codecs, made for the other runs."""
    out = tmp_path_factory.mktemp("ground")
    rows = []
    with sketched():
        assert fit(SHORT, out, shards=shards, ground_only=True, tell=rows.append) is None
    assert rows[-1]["stage"] == "ground"
    assert rows[-1]["episodes"] == len(records())
    assert sorted(path.name for path in out.iterdir()) == ["ground"]
    return out / "ground"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shards, ground) -> Path:
    """The run that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    with sketched():
        fitted = fit(SHORT, out, shards=shards, ground=ground)
    assert fitted.facts["steps"] == SHORT.run.steps
    assert fitted.facts["episodes"] == 4
    return out


def test_a_run_leaves_recipe_log_and_state(whole):
    assert sorted(path.name for path in whole.iterdir()) == ["facts.json", LOG, "recipe.json", STATE]
    assert recipe_named(str(whole / "recipe.json")) == SHORT
    facts = json.loads((whole / "facts.json").read_text())
    assert facts["frames"] == sum(len(record.state) for record in records())
    assert (facts["processes"], facts["device"]) == (1, "cpu")
    rows = [json.loads(line) for line in (whole / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows if "losses" in row] == [4]


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_on_shards_that_was_stopped_ends_with_the_same_bits(whole, shards, ground, tmp_path, after, monkeypatch):
    take_step = world.take_step

    def stopping(*arguments):
        if arguments[3].step == after - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(*arguments)

    with monkeypatch.context() as change:
        change.setattr(world, "take_step", stopping)
        stopped = fit(SHORT, tmp_path, shards=shards, ground=ground)
    assert stopped.facts["steps"] == after
    torch.manual_seed(after)
    assert fit(SHORT, tmp_path, shards=shards, ground=ground).facts["steps"] == SHORT.run.steps
    states = [open_folder(folder / STATE) for folder in (whole, tmp_path)]
    assert {name: file.sha256 for name, file in states[0].files.items() if name.endswith(".safetensors")} == {
        name: file.sha256 for name, file in states[1].files.items() if name.endswith(".safetensors")
    }
    losses = [
        [row["losses"] for row in map(json.loads, (folder / LOG).read_text().splitlines()) if "losses" in row]
        for folder in (whole, tmp_path)
    ]
    assert losses[0] == losses[1]


def test_groups_of_records_do_not_depend_on_where_shards_end(whole, shards, ground, tmp_path):
    write_shard(tmp_path / "all.npz", records())
    fit(SHORT, tmp_path / "out", shards=[tmp_path / "all.npz"], ground=ground)
    found, expected = (
        open_folder(folder / STATE).files["weights.safetensors"].sha256 for folder in (tmp_path / "out", whole)
    )
    assert found == expected


def test_a_run_is_not_gone_on_with_by_another_recipe(whole, shards, ground):
    other = replace(SHORT, run=replace(SHORT.run, seed=6))
    with pytest.raises(CheckpointError, match="seed = 5, the recipe says 6"):
        fit(other, whole, shards=shards, ground=ground)


def test_recipes_are_found_by_name_or_file(tmp_path):
    assert recipe_named("pico") is RECIPES["pico"]
    for name, text in (("pcio", "pico"), (str(tmp_path / "none.json"), "no recipe")):
        with pytest.raises(SettingsError, match=text):
            recipe_named(name)
    (tmp_path / "recipe.json").write_text(json.dumps(SHORT.to_json()))
    assert recipe_named(str(tmp_path / "recipe.json")) == SHORT


def test_what_nothing_can_be_learnt_from_is_named(shards, ground, tmp_path):
    with pytest.raises(SettingsError, match="nothing to learn from"):
        fit(SHORT, tmp_path)
    with pytest.raises(DatasetError, match="at least 4 episodes"):
        fit(SHORT, tmp_path / "few", shards=shards[1:])
    empty = tmp_path / "empty.npz"
    write_shard(empty, [])
    with pytest.raises(DatasetError, match="ended before the first window"):
        fit(SHORT, tmp_path / "none", shards=[empty], ground=ground)
    wider = replace(SHORT, run=replace(SHORT.run, model=replace(SHORT.run.model, sound_width=16)))
    with pytest.raises(DatasetError, match="sound_width 16, the codec 8"):
        fit(wider, tmp_path / "wide", shards=shards, ground=ground)


def test_records_of_validation_are_the_first_of_their_split_in_order(monkeypatch):
    asked = []

    @contextmanager
    def arriving(first, workers, *, split):
        asked.append((first, split))
        assert workers >= 1
        yield iter([replace(records()[0], index=index) for index in (2, 0, 3, 1)])

    monkeypatch.setattr(fit_module, "stream", arriving)
    assert [record.index for record in fit_module.validation_records(3, 0)] == [0, 1, 2]
    assert asked == [(0, "validation")]


def test_costs_are_noted_as_they_are_logged(shards, ground, tmp_path):
    fit_noting(replace(SHORT, run=replace(SHORT.run, steps=1)), tmp_path, shards[0], ground)
    (row,) = map(json.loads, (tmp_path / "costs.jsonl").read_text().splitlines())
    logged = json.loads((tmp_path / LOG).read_text().splitlines()[0])
    assert {name: round(row[name], 5) for name in logged["losses"]} == logged["losses"]
