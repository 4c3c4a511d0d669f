"""The tables of names: a bijection, in every layout, and complete against independent implementations."""

import itertools

import pytest
import torch

from orrery.weights import layouts
from orrery.weights.rename import Layout, published_shape

EVERY = [value for value in vars(layouts).values() if isinstance(value, Layout)]


def _expand(template: str) -> list[str]:
    leaves = ("weight", "bias") if "{wb}" in template else ("",)
    blocks = ("0", "7", "63") if "{i}" in template else ("",)
    return [template.format(i=i, wb=wb) for i, wb in itertools.product(blocks, leaves)]


@pytest.mark.parametrize("layout", EVERY, ids=lambda layout: layout.name)
def test_every_published_name_has_one_place_and_comes_back(layout):
    seen = set()
    for row in layout.rows:
        for name, ours in zip(_expand(row.published), _expand(row.ours), strict=True):
            places = layout.place([name]).places
            assert places[name].ours == ours
            assert places[name].form == row.form
            back, form = layout.published(ours)
            assert form == row.form
            # The original framework has two spellings of its vision encoder; only the first is written.
            assert back == name or name.startswith("language_model.model.visual.")
            seen.add(name)
    assert len(seen) == sum(len(_expand(row.published)) for row in layout.rows)


def test_names_that_contain_one_another_stay_apart():
    names = [f"layers.0.self_attn.{leaf}.weight" for leaf in ("norm_k", "k_norm_und_for_gen", "norm_added_k")]
    assert [place.ours for place in layouts.DIFFUSERS.place(names).places.values()] == [
        "blocks.0.text.k_norm.weight",
        "blocks.0.text_key_norm.weight",
        "blocks.0.generation.k_norm.weight",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "layers.00.mlp.up_proj.weight",
        "xlm_head.weight",
        "lm_headxweight",
        "layers.0.mlp.up_proj.bias",
        "",
        "layers.{i}",
    ],
)
def test_a_name_outside_the_table_is_unknown(name):
    assert layouts.DIFFUSERS.place([name]).unknown == (name,)


def test_a_part_not_asked_for_is_left_unread_with_the_reason():
    placement = layouts.COSMOS3_OMNI.only("text").place(
        ["norm.weight", "norm_moe_gen.weight", "audio_modality_embed", "blocks.3.norm1.bias", "layers.0.other"]
    )
    assert list(placement.places) == ["norm.weight"]
    assert placement.ignored == {
        "norm_moe_gen.weight": "belongs to generation, which was not asked for",
        "audio_modality_embed": "belongs to sound, which was not asked for",
        "blocks.3.norm1.bias": "belongs to eyes, which was not asked for",
    }
    assert placement.unknown == ("layers.0.other",)


@pytest.mark.parametrize("prefix", ["", "net.", "net_ema."])
def test_the_original_names_are_read_under_any_one_prefix(prefix):
    placement = layouts.NVIDIA.place([f"{prefix}language_model.model.layers.5.self_attn.q_proj_moe_gen.weight"])
    assert [place.ours for place in placement.places.values()] == ["blocks.5.generation.q.weight"]


def test_the_averaged_copy_is_preferred():
    placement = layouts.NVIDIA.place(
        ["net.vae2llm.bias", "net_ema.vae2llm.bias", "net_ema.lidar2llm.bias", "vae2llm.bias"]
    )
    assert list(placement.places) == ["net_ema.vae2llm.bias"]
    assert placement.ignored == {
        "net.vae2llm.bias": "a copy under net., where net_ema. is preferred",
        "net_ema.lidar2llm.bias": "this model has no lidar",
    }
    assert placement.unknown == ("vae2llm.bias",)


def test_published_shapes():
    assert published_shape("same", (3, 2)) == (3, 2)
    assert published_shape("domains", (32, 64, 2048)) == (32, 131072)
    assert published_shape("patches", (1152, 1536)) == (1152, 3, 2, 16, 16)
    with pytest.raises(ValueError, match="cannot be published as patches"):
        published_shape("patches", (1152, 1537))


@pytest.mark.oracle
@pytest.mark.parametrize("family", ["omni", "edge"])
def test_every_name_of_the_transformers_reasoners_is_known(family):
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 8, "vocab_size": 10}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}}
    vision = {"hidden_size": 8, "intermediate_size": 12, "num_heads": 2}
    with torch.device("meta"):
        if family == "omni":
            vision |= {"depth": 3, "out_hidden_size": 8, "deepstack_visual_indexes": [0, 1, 2]}
            config = transformers.Cosmos3OmniConfig(text_config=text, vision_config=vision)
            model = transformers.Cosmos3OmniForConditionalGeneration(config)
        else:
            vision = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2}
            config = transformers.Cosmos3EdgeConfig(text_config=text, vision_config=vision, projector_hidden_size=12)
            model = transformers.Cosmos3EdgeForConditionalGeneration(config)
    names = list(model.state_dict())
    layout = layouts.OMNI_MODULES if family == "omni" else layouts.EDGE_MODULES
    placement = layout.place(names)
    assert len(placement.places) == len(names)
    assert len(
        {(place.ours, "visual" in name or "projector" in name) for name, place in placement.places.items()}
    ) == len(names)
    for name, place in placement.places.items():
        assert layout.published(place.ours)[0] == name
