"""Short runs of variants of a recipe, at tiny size."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers.world_run import EYES, INDICES, RECIPE, RUN, full_bank, records, sketched, write_ground

from orrery.errors import SettingsError
from orrery.training.recipe import Share
from orrery.training.recipes import PICO_RUN
from orrery.training.world_model import WorldModel
from orrery.worlds.factory.shards import write_shard

TASKS = ("forward_dynamics", "inverse_dynamics", "policy_no_video")
SHORT = replace(RUN, mixture=tuple(Share(task=task) for task in TASKS), batch=6)


@pytest.fixture(scope="module")
def proxies():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
        yield importlib.import_module("proxies")


@pytest.fixture(autouse=True)
def sketches():
    with sketched():
        yield


def test_each_variant_prints_what_it_learned(proxies, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("orrery.training.validation.LEVELS", (0.5,))
    shard, ground, recipe = tmp_path / "shard.npz", tmp_path / "ground", tmp_path / "tiny.json"
    write_shard(shard, records())
    write_ground(ground)
    recipe.write_text(json.dumps(replace(RECIPE, run=SHORT).to_json()))
    names = ("velocity", "two")
    two = proxies.Variant(keeps=lambda record: record.index in INDICES[:2])
    monkeypatch.setitem(proxies.VARIANTS, "two", two)
    proxies.Proxies(
        shards=(shard,), validation=(shard,), ground=ground, recipe=str(recipe), seconds=0.2, device="cpu",
        variants=names, windows=2,
    )()  # fmt: skip
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["variant"] for row in rows] == list(names)
    assert [row["episodes"] for row in rows] == [len(records()), 2]
    for row in rows:
        assert row["steps"] >= 1
        assert row["tflops"] > 0
        assert "forward_dynamics vision @0.5" in row["validation"]
        assert {"true actions, dB", "shuffled actions, dB", "copied frame, dB"} < row.keys()
        assert set(row["inverse_dynamics, R2"]) == {"dx", "dy", "dz", "dyaw", "gripper"}
        assert "policy_no_video, R2" in row


def test_an_unknown_variant_is_refused(proxies, tmp_path):
    with pytest.raises(SettingsError, match="velocity"):
        proxies.Proxies(shards=(), validation=(), ground=tmp_path, variants=("velocty",))()


def test_variants_differ_from_the_base_in_their_recipe_or_their_episodes(proxies):
    recipes = {name: (variant.change(PICO_RUN), variant.emphasis) for name, variant in proxies.VARIANTS.items()}
    assert recipes.pop("base") == (PICO_RUN, None)
    same = {name for name, recipe in recipes.items() if recipe == (PICO_RUN, None)}
    assert same == {"no_branches", "no_branches_no_play"}
    others = [recipe for name, recipe in recipes.items() if name not in same]
    assert all(one != other for index, one in enumerate(others) for other in others[:index])


def test_what_is_sampled_keeps_what_is_given_and_is_the_same_again(proxies):
    model = WorldModel(SHORT.model, EYES, 0).eval()
    flowing = proxies.drawn("forward_dynamics", full_bank(), SHORT, 2)
    first, again = (proxies.made(model, flowing, SHORT) for _ in range(2))
    for track, one, other in zip(flowing.stack.tracks, first, again, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(torch.where(track.active, 0.0, one), torch.where(track.active, 0.0, track.pinned(one)))
    assert not torch.equal(first[0], flowing.stack.tracks[0].clean)


def test_pictures_of_true_latents_are_those_that_the_codec_makes(proxies):
    bank = full_bank()
    for camera in (0, 1):
        flowing = proxies.drawn("forward_dynamics", bank, SHORT, 1)
        track = flowing.stack.tracks[camera]
        (clip,) = proxies.pictures(bank, track, track.clean)
        where = next(
            first for first in bank.windows
            if torch.equal(bank.action[first : first + 16], flowing.stack.tracks[-1].clean[0, :, 0, :5])
        )  # fmt: skip
        coded = (bank.front, bank.wrist)[camera][where : where + 17]
        assert torch.equal(torch.from_numpy(clip)[1:], bank.vision.decode_frames(coded[1:].float()))
