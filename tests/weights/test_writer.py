"""Back to the published layout: what is written reads back bit-equal, and diffusers itself takes it."""

import json

import pytest
import torch

from orrery.errors import CheckpointError
from orrery.weights.layouts import COSMOS3_OMNI, DIFFUSERS, QWEN_EYES
from orrery.weights.reader import load_into
from orrery.weights.writer import published, save_published


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 3000])
def test_ours_to_diffusers_and_back_is_bit_equal(edge, max_shard_bytes, make_small, make_empty, tmp_path):
    module, empty = make_small(edge=edge), make_empty(edge=edge)
    state = {name: t.bfloat16() if "mlp" in name else t for name, t in module.state_dict().items()}
    path = tmp_path / "out"
    documents = {"transformer/config.json": {"hidden_size": 8}, "LICENSE": b"text"}
    save_published(path, transformer=state, layout=DIFFUSERS, documents=documents, max_shard_bytes=max_shard_bytes)
    load_into(empty, [path / "transformer"], DIFFUSERS)
    assert all(torch.equal(state[name], tensor) for name, tensor in empty.state_dict().items())
    assert {name: t.dtype for name, t in state.items()} == {name: t.dtype for name, t in empty.state_dict().items()}
    assert json.loads((path / "transformer" / "config.json").read_text()) == {"hidden_size": 8}
    assert (path / "LICENSE").read_bytes() == b"text"
    shards = sorted((path / "transformer").glob("*.safetensors"))
    assert (len(shards) > 3) == (max_shard_bytes == 3000)
    from_root = make_empty(edge=edge)
    load_into(from_root, [path], DIFFUSERS)
    assert all(torch.equal(state[name], tensor) for name, tensor in from_root.state_dict().items())


def test_the_root_index_spans_both_folders(make_small, make_empty, tmp_path):
    eyes = {"patch.weight": torch.randn(4, 24), "merger.norm.bias": torch.randn(4)}
    module = make_small()
    save_published(
        tmp_path / "out",
        transformer=module.state_dict(),
        layout=DIFFUSERS,
        eyes=eyes,
        eyes_layout=QWEN_EYES,
        documents={},
    )
    seen = torch.nn.Module()
    seen.patch = torch.nn.Linear(24, 4, bias=False, device="meta")
    seen.merger = torch.nn.Module()
    seen.merger.norm = torch.nn.Module()
    seen.merger.norm.bias = torch.nn.Parameter(torch.empty(4, device="meta"))
    report = load_into(seen, [tmp_path / "out"], COSMOS3_OMNI.only("eyes"))
    assert torch.equal(seen.patch.weight, eyes["patch.weight"])
    assert report.read["patch.weight"] == "patch_embed.proj.weight"
    assert len(report.ignored) == len(module.state_dict())
    reasoner = make_empty(generation=False)
    load_into(reasoner, [tmp_path / "out"], COSMOS3_OMNI.only("text"))
    assert torch.equal(reasoner.embed.weight, module.embed.weight)


def test_a_name_without_a_place_and_an_existing_folder_are_refused(make_small, tmp_path):
    state = make_small().state_dict()
    with pytest.raises(CheckpointError, match=r"diffusers layout has no place for 'tactile_in\.weight'"):
        published(state | {"tactile_in.weight": torch.ones(1)}, DIFFUSERS)
    with pytest.raises(CheckpointError, match="exists and would be replaced"):
        save_published(tmp_path, transformer=state, layout=DIFFUSERS, documents={})
    state["embed.weight"][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"'embed_tokens\.weight' holds NaN"):
        save_published(tmp_path / "out", transformer=state, layout=DIFFUSERS, documents={})
    assert not list(tmp_path.iterdir())


FAMILIES = {
    "silu": {"hidden_act": "silu"},
    "relu2": {"hidden_act": "relu2", "qk_norm_for_text": False, "use_und_k_norm_for_gen": True},
}


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_a_diffusers_model_loads_whole_and_comes_back(family, make_empty, tmp_path):
    cosmos = pytest.importorskip("diffusers.models.transformers.transformer_cosmos3")
    torch.manual_seed(0)
    theirs = cosmos.Cosmos3OmniTransformer(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=2,
        vocab_size=10,
        latent_channel=4,
        patch_latent_dim=16,
        action_gen=True,
        action_dim=5,
        num_embodiment_domains=3,
        sound_gen=True,
        sound_dim=6,
        rope_axes_dim=(1, 0, 0),
        **FAMILIES[family],
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=3000)
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 3

    ours = make_empty(edge=family == "relu2")
    report = load_into(ours, [tmp_path / "theirs"], DIFFUSERS)
    state = theirs.state_dict()
    assert sorted(report.read.values()) == sorted(state)
    assert not report.ignored
    weight = ours.action_in.weight[2]  # (in, out) of one domain, as their forward views it
    assert torch.equal(weight, theirs.action_proj_in.fc.weight[2].view(5, 8))

    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    save_published(
        tmp_path / "back",
        transformer=ours.state_dict(),
        layout=DIFFUSERS,
        documents={"transformer/config.json": config},
        max_shard_bytes=3000,
    )
    back = cosmos.Cosmos3OmniTransformer.from_pretrained(tmp_path / "back" / "transformer")
    assert back.state_dict().keys() == state.keys()
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in state.items())
