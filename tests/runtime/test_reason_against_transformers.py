"""Golden: the reasoner of both families against transformers 5.23, from the folder that it saved; float32, CPU."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from makers.samples import tokens
from safetensors.torch import save_file

from orrery.model.config import TINY
from orrery.model.vision_config import TINY_EDGE_VISION, TINY_QWEN_VISION
from orrery.packing.segment import Sample
from orrery.runtime.decode import TextSampling, write
from orrery.runtime.load import load
from orrery.runtime.reason import Question, Reader, see
from orrery.tokenizers.eyes import Look, reason_positions, visual_spans

IMAGE, VIDEO, START, END = 500, 501, 502, 503
CONFIGS = {
    "omni": (TINY, TINY_QWEN_VISION),
    "edge": (
        replace(
            TINY, activation="relu2", norm_scales_in_float32=True, text_qk_norm=False, text_key_norm=True, norm_eps=1e-5
        ),
        TINY_EDGE_VISION,
    ),
}
GRIDS = {
    "still": [("image", (1, 4, 6))],
    "video": [("video", (3, 2, 4))],
    "both": [("image", (1, 2, 8)), ("video", (2, 6, 4)), ("image", (1, 4, 4))],
    "words": [],
}


def peer_of(family: str) -> Any:
    config, vision = CONFIGS[family]
    rope = {"rope_type": "default", "rope_theta": config.rope_theta, "mrope_section": list(config.rope_axes)}
    text = {
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}
    torch.manual_seed(0)
    if family == "omni":
        from transformers.models.cosmos3_omni import modeling_cosmos3_omni as modeling
        from transformers.models.cosmos3_omni.configuration_cosmos3_omni import Cosmos3OmniConfig

        eyes = {
            "depth": vision.depth,
            "hidden_size": vision.width,
            "intermediate_size": vision.mlp_width,
            "num_heads": vision.heads,
            "out_hidden_size": vision.out_width,
            "num_position_embeddings": vision.position_grid**2,
            "deepstack_visual_indexes": list(vision.taps),
        }
        peer = modeling.Cosmos3OmniForConditionalGeneration(
            Cosmos3OmniConfig(text_config=text, vision_config=eyes, **ids)
        )
    else:
        from transformers.models.cosmos3_edge import modeling_cosmos3_edge as modeling
        from transformers.models.cosmos3_edge.configuration_cosmos3_edge import Cosmos3EdgeConfig

        eyes = {
            "hidden_size": vision.width,
            "intermediate_size": vision.mlp_width,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.heads,
            "num_patches": vision.position_grid**2,
        }
        published = Cosmos3EdgeConfig(
            text_config=text, vision_config=eyes, projector_hidden_size=vision.merged_width, **ids
        )
        peer = modeling.Cosmos3EdgeForConditionalGeneration(published)
    for name, parameter in peer.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "bias" not in name else 0.0, std=0.15)
    return peer.eval()


@cache
def pair(family: str) -> Any:
    """A model of transformers, and ours, loaded from what it saved."""
    peer, folder = peer_of(family), Path(mkdtemp(prefix="orrery-test-"))
    peer.save_pretrained(folder)
    model = load(folder)
    assert model.origin.layout == "reasoner"
    return peer, model.mot, model.eyes


def question(family: str, pictures: list[Any], seed: int) -> Question:
    vision = CONFIGS[family][1]
    looks, ids = [], tokens(4, 480, seed=seed).tolist()
    for index, (kind, (frames, rows, cols)) in enumerate(pictures):
        patches = torch.randn(
            frames * rows * cols, vision.patch_values, generator=torch.Generator().manual_seed(seed + index)
        )
        seconds = tuple(float(frame) for frame in range(frames)) if kind == "video" else ()
        looks.append(Look(kind=kind, patches=patches, grid=(frames, rows, cols), merge=2, seconds=seconds))
        for _ in range(frames):
            pad = IMAGE if kind == "image" else VIDEO
            ids += [7, START, *[pad] * (rows * cols // 4), END]
    ids += tokens(3, 480, seed=seed + 1).tolist()
    spans = visual_spans(ids, looks, image_id=IMAGE, video_id=VIDEO)
    positions, next_position = reason_positions(len(ids), spans)
    token_ids = torch.tensor(ids)
    sample = Sample(token_ids=token_ids, positions=positions, visual=(token_ids == IMAGE) | (token_ids == VIDEO))
    return Question(sample=sample, looks=tuple(looks), next_position=next_position)


def peer_inputs(asked: Question) -> dict[str, Any]:
    ids = asked.sample.token_ids[None]
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    for kind, pixels, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        looks = [look for look in asked.looks if look.kind == kind]
        if looks:
            inputs[pixels] = torch.cat([look.patches for look in looks])
            inputs[grid] = torch.tensor([look.grid for look in looks])
    return inputs


@pytest.mark.oracle
@pytest.mark.parametrize("pictures", GRIDS, ids=str)
@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_logits_and_greedy_text_are_those_of_transformers(family, pictures):
    peer, mot, eyes = pair(family)
    asked = question(family, GRIDS[pictures], seed=3)
    sights = see(eyes, asked.looks, torch.device("cpu")) if asked.looks else None
    reader = Reader(mot=mot, question=asked, sights=sights)
    reader(asked.sample.token_ids.tolist())
    assert reader.memory is not None
    theirs = peer(**peer_inputs(asked)).logits[0]
    difference = (mot.logits(reader.memory.hidden) - theirs).abs().max()
    assert theirs.abs().max() > 1
    assert difference <= 1e-3
    expected = peer.generate(**peer_inputs(asked), max_new_tokens=64, do_sample=False, eos_token_id=None)
    written = write(
        Reader(mot=mot, question=asked, sights=sights),
        asked.sample.token_ids.tolist(),
        lambda ids: " ".join(map(str, ids)),
        TextSampling(max_new_tokens=64),
        eos_ids=(),
        rng=torch.Generator(),
    )
    assert list(written.token_ids) == expected[0, asked.sample.token_ids.numel() :].tolist()
    assert len(written.token_ids) == 64
    assert len(set(written.token_ids)) > 3


@pytest.mark.oracle
@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_a_state_dict_in_module_names_is_the_same_reasoner(family, tmp_path):
    peer, mot, eyes = pair(family)
    peer.save_pretrained(tmp_path)
    save_file({name: tensor.contiguous() for name, tensor in peer.state_dict().items()}, tmp_path / "model.safetensors")
    model = load(tmp_path)
    for ours, same in ((model.mot, mot), (model.eyes, eyes)):
        assert all(
            torch.equal(a, b) for a, b in zip(ours.state_dict().values(), same.state_dict().values(), strict=True)
        )
