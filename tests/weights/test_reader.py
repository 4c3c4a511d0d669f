"""Filling a module: exact, bounded in memory, and every disagreement named."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from orrery.errors import CheckpointError
from orrery.weights.layouts import COSMOS3_OMNI, DIFFUSERS, NVIDIA
from orrery.weights.reader import load_into
from orrery.weights.rename import published_shape


def publish(module, layout):
    """A module's tensors under published names and shapes."""
    published = {}
    for ours, tensor in module.state_dict().items():
        name, form = layout.published(ours)
        published[name] = tensor.reshape(published_shape(form, tuple(tensor.shape))).clone()
    return published


def save_sharded(folder, tensors, shards=3):
    """A folder as diffusers writes it: shards and an index."""
    folder.mkdir(exist_ok=True)
    weight_map = {}
    for k in range(shards):
        file = f"diffusion_pytorch_model-{k + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[k::shards]}
        safetensors.torch.save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def same(module, other):
    ours, theirs = module.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("layout", [DIFFUSERS, NVIDIA], ids=lambda layout: layout.name)
def test_published_names_and_back_are_bit_equal(layout, edge, make_small, make_empty, tmp_path):
    module, empty = make_small(edge=edge), make_empty(edge=edge)
    report = load_into(empty, [save_sharded(tmp_path, publish(module, layout))], layout)
    assert same(module, empty)
    assert report.read.keys() == module.state_dict().keys()
    assert not report.ignored
    assert len(report.files) == 3
    assert report.bytes_read == sum(4 * tensor.numel() for tensor in module.state_dict().values())


def test_action_rows_are_read_as_in_then_out(make_small, make_empty, tmp_path):
    module, empty = make_small(), make_empty()
    published = publish(module, DIFFUSERS)
    domain, given, made = 2, 3, 1
    published["action_proj_in.fc.weight"][domain, given * 8 + made] = 42.0
    load_into(empty, [save_sharded(tmp_path, published)], DIFFUSERS)
    assert empty.action_in.weight[domain, given, made] == 42.0


def test_dtype_is_converted_and_named_modules_stay_float32(make_small, make_empty, tmp_path):
    module, empty = make_small(), make_empty()
    source = save_sharded(tmp_path, {name: t.bfloat16() for name, t in publish(module, DIFFUSERS).items()})
    load_into(empty, [source], DIFFUSERS, dtype=torch.float16, keep_float32=("time_embed", "blocks.1.text.q"))
    kept = {name for name, p in empty.named_parameters() if p.dtype == torch.float32}
    assert kept == {f"time_embed.{k}.{wb}" for k in (0, 2) for wb in ("weight", "bias")} | {"blocks.1.text.q.weight"}
    assert {p.dtype for name, p in empty.named_parameters() if name not in kept} == {torch.float16}
    assert torch.equal(empty.embed.weight, module.embed.weight.bfloat16().half())
    stored = make_empty()
    load_into(stored, [source], DIFFUSERS)
    assert {p.dtype for p in stored.parameters()} == {torch.bfloat16}


def test_a_module_with_memory_is_filled_in_place(make_small, tmp_path):
    module, other = make_small(seed=0), make_small(seed=1)
    other.lm_head.weight.requires_grad = False
    before = [parameter.data_ptr() for parameter in other.parameters()]
    source = save_sharded(tmp_path, publish(module, DIFFUSERS))
    load_into(other, [source], DIFFUSERS)
    assert same(module, other)
    assert [parameter.data_ptr() for parameter in other.parameters()] == before
    assert not other.lm_head.weight.requires_grad
    with pytest.raises(ValueError, match="on the meta device"):
        load_into(other, [source], DIFFUSERS, dtype=torch.bfloat16)


def test_buffers_are_filled_and_integers_keep_their_dtype(tmp_path):
    with torch.device("meta"):
        module = nn.BatchNorm1d(3)
    stored = {
        "weight": torch.ones(3),
        "bias": torch.zeros(3),
        "running_mean": torch.ones(3),
        "running_var": torch.ones(3),
    }
    safetensors.torch.save_file(stored | {"num_batches_tracked": torch.tensor(7)}, tmp_path / "m.safetensors")
    load_into(module, [tmp_path / "m.safetensors"], None, dtype=torch.bfloat16)
    assert module.num_batches_tracked.item() == 7
    assert module.num_batches_tracked.dtype == torch.int64
    assert module.running_mean.dtype == torch.bfloat16


def test_the_reasoner_alone_leaves_every_other_tensor_unread(make_small, make_empty, tmp_path):
    module, reasoner = make_small(), make_empty(generation=False)
    report = load_into(reasoner, [save_sharded(tmp_path, publish(module, DIFFUSERS))], DIFFUSERS.only("text"))
    everything = set(publish(module, DIFFUSERS))
    assert set(report.read.values()) | set(report.ignored) == everything
    assert not set(report.read.values()) & set(report.ignored)
    assert torch.equal(reasoner.lm_head.weight, module.lm_head.weight)


def test_the_root_index_is_followed_into_its_folders(make_small, make_empty, tmp_path):
    module = make_small()
    transformer = save_sharded(tmp_path / "transformer", publish(module, DIFFUSERS))
    below = json.loads((transformer / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    (tmp_path / "vision_encoder").mkdir()
    safetensors.torch.save_file({"merger.norm.bias": torch.ones(2)}, tmp_path / "vision_encoder" / "model.safetensors")
    weight_map = {name: f"transformer/{file}" for name, file in below.items()}
    weight_map["merger.norm.bias"] = "vision_encoder/model.safetensors"
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))

    for source in (tmp_path, index):
        reasoner = make_empty(generation=False)
        report = load_into(reasoner, [source], COSMOS3_OMNI.only("text"))
        assert report.ignored["merger.norm.bias"] == "belongs to eyes, which was not asked for"
        assert torch.equal(reasoner.text_norm.weight, module.text_norm.weight)


def _drop(tensors):
    del tensors["norm.weight"]


def _rename(tensors):
    tensors["layers.0.mlp.other_proj.weight"] = tensors.pop("layers.0.mlp.up_proj.weight")


def _third_block(tensors):
    tensors["layers.2.mlp.up_proj.weight"] = torch.ones(12, 8)


def _transpose(tensors):
    tensors["layers.0.self_attn.to_k.weight"] = tensors["layers.0.self_attn.to_k.weight"].T.contiguous()


def _same_size_other_rank(tensors):
    tensors["action_proj_in.fc.weight"] = tensors["action_proj_in.fc.weight"].reshape(3, 5, 8)


def _nan(tensors):
    tensors["proj_in.bias"][3] = float("nan")


def _infinite(tensors):
    tensors["proj_in.bias"] = torch.full_like(tensors["proj_in.bias"], float("inf")).bfloat16()


def _fp8(tensors):
    tensors["layers.0.self_attn.to_q.weight"] = tensors["layers.0.self_attn.to_q.weight"].to(torch.float8_e4m3fn)


def _scaled(tensors):
    tensors["layers.0.self_attn.to_q.weight_scale"] = torch.ones(1)


def _integer(tensors):
    tensors["norm.weight"] = tensors["norm.weight"].to(torch.int8)


WRONG = {
    _drop: r"1 missing: 'text_norm.weight'",
    _rename: r"unknown: 'layers.0.mlp.other_proj.weight' in diffusion.*missing: 'blocks.0.text.mlp.up.weight'",
    _third_block: r"'layers.2.mlp.up_proj.weight' in diffusion.* has no place in this model",
    _transpose: r"'layers.0.self_attn.to_k.weight' in diffusion.* has shape \[8, 4\], this model needs \[4, 8\]",
    _same_size_other_rank: r"'action_proj_in.fc.weight' .* has shape \[3, 5, 8\], this model needs \[3, 40\]",
    _nan: r"'proj_in.bias' in .*safetensors holds NaN or infinity as torch.float32",
    _infinite: r"'proj_in.bias' in .*safetensors holds NaN or infinity as torch.bfloat16",
    _fp8: r"'layers.0.self_attn.to_q.weight' .*float8_e4m3fn.* take a bf16 revision",
    _scaled: r"quantisation scales: 'layers.0.self_attn.to_q.weight_scale' .* take a bf16 revision",
    _integer: r"'norm.weight' .*int8.* take a bf16 revision",
}


@pytest.mark.parametrize("damage", WRONG, ids=lambda damage: damage.__name__)
def test_a_checkpoint_that_does_not_fit_is_refused_and_the_tensor_named(damage, make_small, make_empty, tmp_path):
    published = publish(make_small(), DIFFUSERS)
    damage(published)
    with pytest.raises(CheckpointError, match=WRONG[damage]) as caught:
        load_into(make_empty(), [save_sharded(tmp_path, published)], DIFFUSERS)
    assert "\n" not in str(caught.value)


def test_a_value_too_large_for_the_asked_dtype_is_refused(make_small, make_empty, tmp_path):
    published = publish(make_small(), DIFFUSERS)
    published["proj_in.bias"][0] = 1e6
    with pytest.raises(CheckpointError, match=r"'proj_in.bias' .* infinity as torch.float16"):
        load_into(make_empty(), [save_sharded(tmp_path, published)], DIFFUSERS, dtype=torch.float16)


def test_two_published_names_of_one_parameter_are_refused(make_small, make_empty, tmp_path):
    published = publish(make_small(), NVIDIA)
    visual = {f"language_model.{model}visual.merger.norm.bias": torch.ones(8) for model in ("", "model.")}
    merger = nn.Module()
    merger.merger = nn.Module()
    merger.merger.norm = nn.LayerNorm(8, device="meta")
    with pytest.raises(CheckpointError, match=r"are both 'merger\.norm\.bias'"):
        load_into(merger, [save_sharded(tmp_path, published | visual)], NVIDIA.only("eyes"))


def test_what_the_caller_leaves_out_is_reported(make_small, make_empty, tmp_path):
    published = publish(make_small(), DIFFUSERS) | {"extra.thing": torch.ones(1)}
    report = load_into(make_empty(), [save_sharded(tmp_path, published)], DIFFUSERS, ignore=("extra.*",))
    assert report.ignored == {"extra.thing": "the caller asked to leave it unread"}


def _index(folder):
    return folder / "diffusion_pytorch_model.safetensors.index.json"


def _edit_index(folder, edit):
    document = json.loads(_index(folder).read_text())
    edit(document["weight_map"])
    _index(folder).write_text(json.dumps(document))


def _missing_shard(folder):
    next(iter(folder.glob("*-00002-*"))).unlink()


def _unlisted_shard(folder):
    safetensors.torch.save_file({"a": torch.ones(1)}, folder / "stray.safetensors")


def _index_forgets(folder):
    _edit_index(folder, lambda weight_map: weight_map.pop("norm.weight"))


def _index_invents(folder):
    _edit_index(folder, lambda weight_map: weight_map.update({"ghost.weight": weight_map["norm.weight"]}))


def _index_escapes(folder):
    _edit_index(folder, lambda weight_map: weight_map.update({"norm.weight": "../norm.safetensors"}))


def _index_names_pickle(folder):
    _edit_index(folder, lambda weight_map: weight_map.update({"norm.weight": "norm.bin"}))


def _index_is_cut(folder):
    _index(folder).write_bytes(_index(folder).read_bytes()[:50])


def _index_is_empty(folder):
    _index(folder).write_text("{}")


def _index_is_gone(folder):
    _index(folder).unlink()


def _two_indices(folder):
    (folder / "model.safetensors.index.json").write_bytes(_index(folder).read_bytes())


def _tensor_in_two_shards(folder):
    file = sorted(folder.glob("*.safetensors"))[0]
    tensors = safetensors.torch.load_file(file) | {"layers.0.mlp.up_proj.weight": torch.ones(12, 8)}
    safetensors.torch.save_file(tensors, file)
    other = sorted(folder.glob("*.safetensors"))[1]
    safetensors.torch.save_file(
        safetensors.torch.load_file(other) | {"layers.0.mlp.up_proj.weight": torch.ones(12, 8)}, other
    )


WRONG_FOLDERS = {
    _missing_shard: r"names diffusion_pytorch_model-00002-of-00003.safetensors, which is missing",
    _unlisted_shard: r"does not name stray.safetensors",
    _index_forgets: r"holds norm.weight, unknown to",
    _index_invents: r"lacks ghost.weight",
    _index_escapes: r"lies outside its folder",
    _index_names_pickle: r"norm.bin is a pickle",
    _index_is_cut: r"index.json is not a readable JSON",
    _index_is_empty: r"has no weight_map",
    _index_is_gone: r"0 indices and 3 .safetensors files",
    _two_indices: r"2 indices",
    _tensor_in_two_shards: r"layers.0.mlp.up_proj.weight",
}


@pytest.mark.parametrize("damage", WRONG_FOLDERS, ids=lambda damage: damage.__name__)
def test_a_folder_that_contradicts_its_index_is_refused(damage, make_small, make_empty, tmp_path):
    folder = save_sharded(tmp_path, publish(make_small(), DIFFUSERS))
    damage(folder)
    with pytest.raises(CheckpointError, match=WRONG_FOLDERS[damage]):
        load_into(make_empty(), [folder], DIFFUSERS)


def test_a_tensor_in_two_files_without_an_index_is_refused(make_small, make_empty, tmp_path):
    for file in ("a", "b"):
        safetensors.torch.save_file({"lm_head.weight": torch.ones(1)}, tmp_path / f"{file}.safetensors")
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' is in two files, .*a.safetensors and .*b.safetensors"):
        load_into(make_empty(), [tmp_path / "a.safetensors", tmp_path / "b.safetensors"], DIFFUSERS)


@pytest.mark.parametrize("file", ["model.pt", "w.pth", "pytorch_model.bin", "last.ckpt", "__0_0.distcp", ".metadata"])
def test_pickles_are_never_opened(file, make_empty, tmp_path):
    (tmp_path / file).write_bytes(b"\x80\x04.")
    for source in (tmp_path / file, tmp_path):
        with pytest.raises(CheckpointError, match="is a pickle"):
            load_into(make_empty(), [source], DIFFUSERS)


MEASURE = """
import sys, torch
from pathlib import Path
from torch import nn
from orrery.weights.reader import load_into
def peak():  # ru_maxrss would count the parent's memory before exec
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
with torch.device("meta"):
    module = nn.ModuleDict({str(k): nn.Linear(1024, 2048, bias=False) for k in range(24)})
warm = nn.Linear(8, 8).to(torch.float32)
torch.aminmax(torch.ones(1 << 20)); torch.ones(1 << 20).bfloat16().float()
before = peak()
load_into(module, [Path(sys.argv[1])], None, dtype=torch.float32)
print(peak() - before)
"""


def test_memory_grows_by_the_module_and_about_one_tensor(tmp_path):
    tensors = {f"{k}.weight": torch.ones(2048, 1024, dtype=torch.bfloat16) for k in range(24)}
    save_sharded(tmp_path, tensors, shards=3)
    run = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    module, tensor = 24 * 2048 * 1024 * 4, 2048 * 1024 * 4
    extra = int(run.stdout) - module
    print(f"extra memory: {extra / 2**20:.1f} MiB over a module of {module / 2**20:.0f} MiB in tensors of 8 MiB")
    assert extra < 3 * tensor
