"""Two hundred seeded corruptions in each layout: every one is refused, and the message names the tensor or the file."""

import copy
import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from orrery.errors import CheckpointError
from orrery.weights.documents import dump_json
from orrery.weights.folder import open_folder, save_folder
from orrery.weights.layouts import DIFFUSERS
from orrery.weights.reader import load_into
from orrery.weights.writer import save_published

CASES = 200


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One checkpoint about to be corrupted."""

    folder: Path
    shards: list[Path]
    rng: random.Random

    def shard(self) -> Path:
        return self.rng.choice(self.shards)

    def change(self, edit: Callable[[dict[str, Tensor], str], list[str]]) -> list[str]:
        """Rewrite one shard with one tensor changed by `edit`, which returns the names that an error may use."""
        shard = self.shard()
        tensors = safetensors.torch.load_file(shard)
        names = edit(tensors, self.rng.choice(sorted(tensors)))
        safetensors.torch.save_file(tensors, shard)
        return names


def _flip(scene, low, high, path):
    data = bytearray(path.read_bytes())
    data[scene.rng.randrange(low, high)] ^= 1 << scene.rng.randrange(8)
    path.write_bytes(data)
    return [path.name]


def flip_any_bit(scene):
    path = scene.rng.choice([file for file in scene.folder.rglob("*") if file.is_file()])
    return _flip(scene, 0, path.stat().st_size, path)


def flip_header_bit(scene):
    """Among the bytes that place tensors: a flip inside the free text `format: pt` would harm nothing."""
    path = scene.shard()
    names = list(safetensors.torch.load_file(path))
    data = path.read_bytes()
    start, end = data.index(b'"pt"},') + 6, 8 + int.from_bytes(data[:8], "little")
    return [*_flip(scene, start, end, path), *names]


def flip_length_bit(scene):
    return _flip(scene, 0, 8, scene.shard())


def truncate(scene):
    path = scene.shard()
    path.write_bytes(path.read_bytes()[: scene.rng.randrange(path.stat().st_size)])
    return [path.name]


def append(scene):
    path = scene.shard()
    path.write_bytes(path.read_bytes() + scene.rng.randbytes(scene.rng.randrange(1, 99)))
    return [path.name]


def drop_tensor(scene):
    def edit(tensors, name):
        del tensors[name]
        return [name]

    return scene.change(edit)


def rename_tensor(scene):
    def edit(tensors, name):
        tensors[name + "x"] = tensors.pop(name)
        return [name]

    return scene.change(edit)


def reshape_tensor(scene):
    def edit(tensors, name):
        tensor = tensors[name]
        tensors[name] = tensor.reshape(-1) if tensor.ndim > 1 else tensor.reshape(1, -1)
        return [name]

    return scene.change(edit)


def shorten_tensor(scene):
    def edit(tensors, name):
        tensors[name] = tensors[name][1:].clone()
        return [name]

    return scene.change(edit)


def make_one_value_not_finite(scene):
    def edit(tensors, name):
        flat = tensors[name].view(-1)
        flat[scene.rng.randrange(len(flat))] = scene.rng.choice([float("nan"), float("inf"), -float("inf")])
        return [name]

    return scene.change(edit)


def turn_into_fp8(scene):
    def edit(tensors, name):
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        return [name]

    return scene.change(edit)


def turn_into_int8_with_scale(scene):
    def edit(tensors, name):
        tensors[name] = tensors[name].to(torch.int8)
        tensors[name + "_scale"] = torch.ones(1)
        return [name]

    return scene.change(edit)


def add_tensor(scene):
    def edit(tensors, name):
        tensors["blocks.0.text.surprise.weight"] = torch.ones(2)
        return ["blocks.0.text.surprise.weight"]

    return scene.change(edit)


def copy_tensor_to_another_shard(scene):
    source, target = scene.rng.sample(scene.shards, 2)
    name, tensor = scene.rng.choice(sorted(safetensors.torch.load_file(source).items(), key=str))
    safetensors.torch.save_file(safetensors.torch.load_file(target) | {name: tensor}, target)
    return [name]


def remove_shard(scene):
    path = scene.shard()
    path.unlink()
    return [path.name]


def swap_shards(scene):
    one, other = scene.rng.sample(scene.shards, 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return [one.name, other.name]


def add_shard(scene):
    safetensors.torch.save_file({"a": torch.ones(1)}, scene.shards[0].with_name("model-9.safetensors"))
    return ["model-9.safetensors"]


def _reseal(folder, records):
    """Rewrite the manifest so that it vouches for itself and for `records`."""
    manifest = json.loads((folder / "manifest.json").read_text()) | {"files": records}
    del manifest["sha256"]
    digest = hashlib.sha256(dump_json(manifest)).hexdigest()
    (folder / "manifest.json").write_bytes(dump_json(manifest | {"sha256": digest}))


def state_wrong_hash(scene):
    records = json.loads((scene.folder / "manifest.json").read_text())["files"]
    name = scene.rng.choice(sorted(records))
    digest = records[name]["sha256"]
    k = scene.rng.randrange(64)
    records[name]["sha256"] = digest[:k] + "0123456789abcdef"[int(digest[k], 16) - 1] + digest[k + 1 :]
    _reseal(scene.folder, records)
    return [name]


def state_wrong_size(scene):
    records = json.loads((scene.folder / "manifest.json").read_text())["files"]
    name = scene.rng.choice(sorted(records))
    records[name]["size"] += 1
    _reseal(scene.folder, records)
    return [name]


def misplace_in_index(scene):
    index = next(scene.folder.glob("*.index.json"))
    document = json.loads(index.read_text())
    name = scene.rng.choice(sorted(document["weight_map"]))
    others = sorted(set(document["weight_map"].values()) - {document["weight_map"][name]})
    document["weight_map"][name] = scene.rng.choice(others)
    index.write_text(json.dumps(document))
    return [name]


def vouched(corruption):
    """The same corruption where whoever made it also made the hashes agree: only the reader can notice."""

    def corrupt(scene):
        names = corruption(scene)
        files = [file for file in scene.folder.rglob("*") if file.is_file() and file.name != "manifest.json"]
        records = {
            file.relative_to(scene.folder).as_posix(): {
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "size": file.stat().st_size,
            }
            for file in files
        }
        _reseal(scene.folder, records)
        return names

    corrupt.__name__ = f"{corruption.__name__}, vouched for"
    return corrupt


TENSORS = [
    drop_tensor,
    rename_tensor,
    reshape_tensor,
    shorten_tensor,
    make_one_value_not_finite,
    turn_into_fp8,
    turn_into_int8_with_scale,
    add_tensor,
    copy_tensor_to_another_shard,
]
FILES = [truncate, append, remove_shard, add_shard, flip_length_bit, flip_header_bit]
OURS = [flip_any_bit, flip_any_bit, swap_shards, state_wrong_hash, state_wrong_size, *FILES, *TENSORS]
OURS += [vouched(corruption) for corruption in [*TENSORS, truncate, append, flip_length_bit, flip_header_bit]]
PUBLISHED = [*FILES, *TENSORS, swap_shards, misplace_in_index]


def _changed(base, path):
    """Files of the corrupted copy that are not as they were."""
    files = {file.relative_to(root) for root in (base, path) for file in root.rglob("*") if file.is_file()}
    both = [file for file in files if (base / file).is_file() and (path / file).is_file()]
    same = {file for file in both if (base / file).read_bytes() == (path / file).read_bytes()}
    return [file.name for file in files - same]


@pytest.mark.parametrize("layout", ["ours", "diffusers"])
def test_two_hundred_corruptions_are_refused_and_named(layout, make_small, make_empty, tmp_path):
    state = make_small(seed=3, blocks=1).state_dict()
    base = tmp_path / "base"
    if layout == "ours":
        names = sorted(state)
        tensors = {f"model-{k}.safetensors": {name: state[name] for name in names[k::3]} for k in range(3)}
        save_folder(base, tensors=tensors, documents={"config.json": {"blocks": 1}}, metadata={"trained": False})
        corruptions, below = OURS, "."
    else:
        save_published(base, transformer=state, layout=DIFFUSERS, documents={}, max_shard_bytes=7000)
        corruptions, below = PUBLISHED, "transformer"

    empty = make_empty(blocks=1)

    def load(path):
        module = copy.deepcopy(empty)
        if layout == "ours":
            load_into(module, open_folder(path).matching("model-*.safetensors"), None)
        else:
            load_into(module, [path / below], DIFFUSERS)

    load(base)
    counts = Counter()
    for case in range(CASES):
        corruption = corruptions[case % len(corruptions)]
        path = tmp_path / "corrupt"
        shutil.copytree(base, path)
        shards = sorted((path / below).glob("*.safetensors"))
        assert len(shards) >= 3
        expected = corruption(Scene(folder=path / below, shards=shards, rng=random.Random(case)))
        with pytest.raises(CheckpointError) as caught:
            load(path)
        message = str(caught.value)
        if corruption in OURS and "vouched" not in corruption.__name__ and layout == "ours":
            expected += _changed(base, path)  # hashes are compared before any tensor is looked at
        expected += [place.ours for place in DIFFUSERS.place(expected).places.values()]
        assert any(name in message for name in expected), (corruption.__name__, expected, message)
        assert "\n" not in message
        counts[corruption.__name__] += 1
        shutil.rmtree(path)
    print(f"{layout}: {counts.total()} of {CASES} corruptions refused and named, {len(counts)} kinds: {dict(counts)}")
