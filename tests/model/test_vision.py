"""The vision encoders against transformers' own, and the laws that pictures do not mix."""

from dataclasses import replace

import pytest
import torch

from orrery.errors import CheckpointError, RequestError
from orrery.model.vision import EdgeVision, QwenVision, vision_encoder
from orrery.model.vision_config import (
    EDGE_VISION,
    NANO_VISION,
    SUPER_VISION,
    TINY_EDGE_VISION,
    TINY_QWEN_VISION,
    VisionEncoderConfig,
)

TINY = [TINY_QWEN_VISION, TINY_EDGE_VISION]
GRIDS = [(1, 6, 10), (3, 2, 14), (1, 2, 2), (2, 18, 6)]
"""Two stills of odd merged sizes, one of a single feature's size, and videos of three and two temporal patches."""


def patches_for(grids, config, seed=0):
    count = sum(t * h * w for t, h, w in grids)
    return torch.randn(count, config.patch_values, generator=torch.Generator().manual_seed(seed))


def spread(module, seed=0):
    """Random weights far from their initial ones, so that no norm or bias is trivial."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * scale + (parameter.ndim == 1) * 0.5)
    return module.eval()


@pytest.mark.oracle
def test_qwen_vision_agrees_with_transformers():
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    config = replace(TINY_QWEN_VISION, depth=4, taps=(0, 2))
    theirs = spread(
        Qwen3VLVisionModel(
            Qwen3VLVisionConfig(
                depth=config.depth,
                hidden_size=config.width,
                intermediate_size=config.mlp_width,
                num_heads=config.heads,
                out_hidden_size=config.out_width,
                num_position_embeddings=config.position_grid**2,
                deepstack_visual_indexes=list(config.taps),
                patch_size=config.patch,
                temporal_patch_size=config.temporal_patch,
                spatial_merge_size=config.merge,
            )
        )
    )
    renames = {
        "patch_embed.proj": "patch",
        "pos_embed": "positions",
        "attn.qkv": "qkv",
        "attn.proj": "out",
        "mlp.linear_fc1": "up",
        "mlp.linear_fc2": "down",
        "linear_fc1": "up",
        "linear_fc2": "down",
        "deepstack_merger_list": "taps",
    }
    ours = QwenVision(config)
    load_renamed(ours, theirs.state_dict(), renames)
    patches = patches_for(GRIDS, config)
    with torch.no_grad():
        expected = theirs(patches, grid_thw=torch.tensor(GRIDS))
        found = ours(patches, GRIDS)
    torch.testing.assert_close(found.features, expected.pooler_output, rtol=0, atol=1e-4)
    for tap, reference in zip(found.taps, expected.deepstack_features, strict=True):
        torch.testing.assert_close(tap, reference, rtol=0, atol=1e-4)


@pytest.mark.oracle
def test_edge_vision_agrees_with_transformers():
    from transformers.models.cosmos3_edge.configuration_cosmos3_edge import Cosmos3EdgeConfig
    from transformers.models.cosmos3_edge.modeling_cosmos3_edge import Cosmos3EdgePatchMerger, Cosmos3EdgeVisionModel

    config = TINY_EDGE_VISION
    published = Cosmos3EdgeConfig(
        vision_config={
            "hidden_size": config.width,
            "intermediate_size": config.mlp_width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.heads,
            "num_patches": config.position_grid**2,
            "patch_size": config.patch,
            "spatial_merge_size": config.merge,
        },
        text_config={"hidden_size": config.out_width, "num_attention_heads": 4, "num_key_value_heads": 2},
        projector_hidden_size=config.merged_width,
    )
    theirs = spread(Cosmos3EdgeVisionModel(published.vision_config))
    projector = spread(Cosmos3EdgePatchMerger(published), seed=1)
    weights = theirs.state_dict() | {f"projector.{name}": value for name, value in projector.state_dict().items()}
    renames = {
        "embeddings.patch_embedding": "patch",
        "embeddings.position_embedding": "positions",
        "encoder.layers": "blocks",
        "layer_norm": "norm",
        "self_attn.": "",
        "_proj": "",
        "mlp.fc1": "up",
        "mlp.fc2": "down",
        "linear_fc1": "up",
        "linear_fc2": "down",
        "post_layernorm": "norm",
    }
    ours = EdgeVision(config)
    load_renamed(ours, weights, renames)
    patches = patches_for(GRIDS, config)
    with torch.no_grad():
        expected = projector(theirs(patches, grid_thw=torch.tensor(GRIDS)).last_hidden_state)
        found = ours(patches, GRIDS)
    torch.testing.assert_close(found.features, expected, rtol=0, atol=1e-4)
    assert found.taps == ()


def load_renamed(module, weights, renames):
    """Strict: every published tensor fills one of our parameters, each of ours is filled."""
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in renames.items():
            name = name.replace(theirs, ours)
        renamed[name] = value.flatten(1) if name == "patch.weight" else value
    module.load_state_dict(renamed)


@pytest.mark.parametrize("config", TINY, ids=lambda config: config.kind)
def test_pictures_together_are_seen_as_each_alone(config):
    encoder = spread(vision_encoder(config))
    patches = patches_for(GRIDS, config)
    together = encoder(patches, GRIDS)
    pieces = patches.split([t * h * w for t, h, w in GRIDS])
    alone = [encoder(piece, [grid]) for piece, grid in zip(pieces, GRIDS, strict=True)]
    torch.testing.assert_close(together.features, torch.cat([one.features for one in alone]), rtol=0, atol=1e-5)
    for tap, *singles in zip(together.taps, *(one.taps for one in alone), strict=True):
        torch.testing.assert_close(tap, torch.cat(singles), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", TINY, ids=lambda config: config.kind)
def test_no_frame_sees_another(config):
    encoder = spread(vision_encoder(config))
    patches = patches_for([(3, 4, 6)], config)
    changed = patches.clone()
    changed[24:48] += 1
    before, after = (encoder(x, [(3, 4, 6)]).features.reshape(3, 6, -1) for x in (patches, changed))
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert (before[1] != after[1]).any(dim=-1).all()


@pytest.mark.parametrize("config", TINY, ids=lambda config: config.kind)
def test_bfloat16_stays_close(config):
    encoder = spread(vision_encoder(config))
    patches = patches_for([(1, 4, 6)], config)
    exact = encoder(patches, [(1, 4, 6)]).features
    rough = encoder.to(torch.bfloat16)(patches, [(1, 4, 6)]).features
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() / exact.norm() < 0.05


def test_released_sizes_have_the_published_number_of_parameters():
    with torch.device("meta"):
        nano, large, edge = (vision_encoder(config) for config in (NANO_VISION, SUPER_VISION, EDGE_VISION))
    count = lambda module: sum(parameter.numel() for parameter in module.parameters()) / 1e9  # noqa: E731
    assert count(nano) == pytest.approx(0.576, abs=5e-4)
    assert count(large) == pytest.approx(0.595, abs=5e-4)
    assert count(edge.projector) == pytest.approx(0.077, abs=5e-4)
    assert count(edge) - count(edge.projector) == pytest.approx(0.413, abs=5e-4)
    assert nano.patch.weight.shape == (1152, 1536)
    assert edge.patch.weight.shape == (1152, 768)


@pytest.mark.parametrize(
    ("grids", "patches", "message"),
    [
        ([(1, 4, 4)], (15, 1536), "describe 16 patches, got 15"),
        ([(1, 3, 4)], (12, 1536), "multiples of 2"),
        ([], (0, 1536), "describe 0 patches"),
        ([(1, 4, 4)], (16, 768), "768 values"),
    ],
)
def test_grids_that_do_not_fit_are_refused(grids, patches, message):
    with pytest.raises(RequestError, match=message):
        QwenVision(TINY_QWEN_VISION)(torch.zeros(patches), grids)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (TINY_QWEN_VISION, {"heads": 5}, "evenly"),
        (TINY_QWEN_VISION, {"heads": 4}, "in fours"),
        (TINY_QWEN_VISION, {"taps": (1, 0)}, "taps must rise"),
        (TINY_QWEN_VISION, {"taps": (3,)}, "taps must rise"),
        (TINY_EDGE_VISION, {"taps": (0,)}, "no taps"),
    ],
)
def test_impossible_shapes_are_refused(config, change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(config, **change)


def test_configuration_survives_json():
    assert VisionEncoderConfig.from_json(NANO_VISION.to_json()) == NANO_VISION
    with pytest.raises(CheckpointError, match=r"missing keys \['width'\]"):
        VisionEncoderConfig.from_json({name: value for name, value in EDGE_VISION.to_json().items() if name != "width"})
