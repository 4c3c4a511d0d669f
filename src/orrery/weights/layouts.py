"""The namings that Cosmos 3 weights are published in, as tables to our names. How a table is used is in `rename`.

Sources: the public model folders and the state dicts of diffusers 0.42.1 and transformers 5.23.0.
"""

from collections.abc import Mapping
from dataclasses import replace

from orrery.weights.rename import Layout, Part, Row


def _rows(part: Part, names: Mapping[str, str]) -> tuple[Row, ...]:
    return tuple(Row(part=part, published=published, ours=ours) for published, ours in names.items())


def _under(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    return {prefix + published: ours for published, ours in names.items()}


# k_norm_und_for_gen and norm_moe_gen are the generation tower's: the reasoner computes the same without them.
_DIFFUSERS_ROWS = (
    *_rows(
        "text",
        {
            "embed_tokens.weight": "embed.weight",
            "layers.{i}.input_layernorm.weight": "blocks.{i}.text.attention_norm.weight",
            "layers.{i}.self_attn.to_q.weight": "blocks.{i}.text.q.weight",
            "layers.{i}.self_attn.to_k.weight": "blocks.{i}.text.k.weight",
            "layers.{i}.self_attn.to_v.weight": "blocks.{i}.text.v.weight",
            "layers.{i}.self_attn.to_out.weight": "blocks.{i}.text.out.weight",
            "layers.{i}.self_attn.norm_q.weight": "blocks.{i}.text.q_norm.weight",
            "layers.{i}.self_attn.norm_k.weight": "blocks.{i}.text.k_norm.weight",
            "layers.{i}.post_attention_layernorm.weight": "blocks.{i}.text.mlp_norm.weight",
            "layers.{i}.mlp.gate_proj.weight": "blocks.{i}.text.mlp.gate.weight",
            "layers.{i}.mlp.up_proj.weight": "blocks.{i}.text.mlp.up.weight",
            "layers.{i}.mlp.down_proj.weight": "blocks.{i}.text.mlp.down.weight",
            "norm.weight": "text_norm.weight",
            "lm_head.weight": "lm_head.weight",
        },
    ),
    *_rows(
        "generation",
        {
            "layers.{i}.input_layernorm_moe_gen.weight": "blocks.{i}.generation.attention_norm.weight",
            "layers.{i}.self_attn.add_q_proj.weight": "blocks.{i}.generation.q.weight",
            "layers.{i}.self_attn.add_k_proj.weight": "blocks.{i}.generation.k.weight",
            "layers.{i}.self_attn.add_v_proj.weight": "blocks.{i}.generation.v.weight",
            "layers.{i}.self_attn.to_add_out.weight": "blocks.{i}.generation.out.weight",
            "layers.{i}.self_attn.norm_added_q.weight": "blocks.{i}.generation.q_norm.weight",
            "layers.{i}.self_attn.norm_added_k.weight": "blocks.{i}.generation.k_norm.weight",
            "layers.{i}.self_attn.k_norm_und_for_gen.weight": "blocks.{i}.text_key_norm.weight",
            "layers.{i}.post_attention_layernorm_moe_gen.weight": "blocks.{i}.generation.mlp_norm.weight",
            "layers.{i}.mlp_moe_gen.gate_proj.weight": "blocks.{i}.generation.mlp.gate.weight",
            "layers.{i}.mlp_moe_gen.up_proj.weight": "blocks.{i}.generation.mlp.up.weight",
            "layers.{i}.mlp_moe_gen.down_proj.weight": "blocks.{i}.generation.mlp.down.weight",
            "norm_moe_gen.weight": "generation_norm.weight",
            "time_embedder.linear_1.{wb}": "time_embed.0.{wb}",
            "time_embedder.linear_2.{wb}": "time_embed.2.{wb}",
        },
    ),
    *_rows("vision", {"proj_in.{wb}": "vision_in.{wb}", "proj_out.{wb}": "vision_out.{wb}"}),
    *_rows(
        "sound",
        {
            "audio_proj_in.{wb}": "sound_in.{wb}",
            "audio_proj_out.{wb}": "sound_out.{wb}",
            "audio_modality_embed": "sound_embed",
        },
    ),
    Row(part="action", published="action_proj_in.fc.weight", ours="action_in.weight", form="domains"),
    Row(part="action", published="action_proj_out.fc.weight", ours="action_out.weight", form="domains"),
    *_rows(
        "action",
        {
            "action_proj_in.bias.weight": "action_in.bias",
            "action_proj_out.bias.weight": "action_out.bias",
            "action_modality_embed": "action_embed",
        },
    ),
)

# The text tower in the spelling of Qwen's own modules, below whichever prefix a publisher puts first.
_QWEN_TEXT = {
    "embed_tokens.weight": "embed.weight",
    "layers.{i}.input_layernorm.weight": "blocks.{i}.text.attention_norm.weight",
    "layers.{i}.self_attn.q_proj.weight": "blocks.{i}.text.q.weight",
    "layers.{i}.self_attn.k_proj.weight": "blocks.{i}.text.k.weight",
    "layers.{i}.self_attn.v_proj.weight": "blocks.{i}.text.v.weight",
    "layers.{i}.self_attn.o_proj.weight": "blocks.{i}.text.out.weight",
    "layers.{i}.self_attn.q_norm.weight": "blocks.{i}.text.q_norm.weight",
    "layers.{i}.self_attn.k_norm.weight": "blocks.{i}.text.k_norm.weight",
    "layers.{i}.post_attention_layernorm.weight": "blocks.{i}.text.mlp_norm.weight",
    "layers.{i}.mlp.gate_proj.weight": "blocks.{i}.text.mlp.gate.weight",
    "layers.{i}.mlp.up_proj.weight": "blocks.{i}.text.mlp.up.weight",
    "layers.{i}.mlp.down_proj.weight": "blocks.{i}.text.mlp.down.weight",
    "norm.weight": "text_norm.weight",
}

_QWEN_GENERATION = {
    "layers.{i}.input_layernorm_moe_gen.weight": "blocks.{i}.generation.attention_norm.weight",
    "layers.{i}.self_attn.q_proj_moe_gen.weight": "blocks.{i}.generation.q.weight",
    "layers.{i}.self_attn.k_proj_moe_gen.weight": "blocks.{i}.generation.k.weight",
    "layers.{i}.self_attn.v_proj_moe_gen.weight": "blocks.{i}.generation.v.weight",
    "layers.{i}.self_attn.o_proj_moe_gen.weight": "blocks.{i}.generation.out.weight",
    "layers.{i}.self_attn.q_norm_moe_gen.weight": "blocks.{i}.generation.q_norm.weight",
    "layers.{i}.self_attn.k_norm_moe_gen.weight": "blocks.{i}.generation.k_norm.weight",
    "layers.{i}.self_attn.k_norm_und_for_gen.weight": "blocks.{i}.text_key_norm.weight",
    "layers.{i}.post_attention_layernorm_moe_gen.weight": "blocks.{i}.generation.mlp_norm.weight",
    "layers.{i}.mlp_moe_gen.gate_proj.weight": "blocks.{i}.generation.mlp.gate.weight",
    "layers.{i}.mlp_moe_gen.up_proj.weight": "blocks.{i}.generation.mlp.up.weight",
    "layers.{i}.mlp_moe_gen.down_proj.weight": "blocks.{i}.generation.mlp.down.weight",
    "norm_moe_gen.weight": "generation_norm.weight",
}


def _qwen_eyes(prefix: str) -> tuple[Row, ...]:
    return (
        Row(part="eyes", published=prefix + "patch_embed.proj.weight", ours="patch.weight", form="patches"),
        *_rows(
            "eyes",
            _under(
                prefix,
                {
                    "patch_embed.proj.bias": "patch.bias",
                    "pos_embed.weight": "positions.weight",
                    "blocks.{i}.norm1.{wb}": "blocks.{i}.norm1.{wb}",
                    "blocks.{i}.norm2.{wb}": "blocks.{i}.norm2.{wb}",
                    "blocks.{i}.attn.qkv.{wb}": "blocks.{i}.qkv.{wb}",
                    "blocks.{i}.attn.proj.{wb}": "blocks.{i}.out.{wb}",
                    "blocks.{i}.mlp.linear_fc1.{wb}": "blocks.{i}.up.{wb}",
                    "blocks.{i}.mlp.linear_fc2.{wb}": "blocks.{i}.down.{wb}",
                    "merger.norm.{wb}": "merger.norm.{wb}",
                    "merger.linear_fc1.{wb}": "merger.up.{wb}",
                    "merger.linear_fc2.{wb}": "merger.down.{wb}",
                    "deepstack_merger_list.{i}.norm.{wb}": "taps.{i}.norm.{wb}",
                    "deepstack_merger_list.{i}.linear_fc1.{wb}": "taps.{i}.up.{wb}",
                    "deepstack_merger_list.{i}.linear_fc2.{wb}": "taps.{i}.down.{wb}",
                },
            ),
        ),
    )


_EDGE_EYES = _rows(
    "eyes",
    {
        "model.visual.embeddings.patch_embedding.{wb}": "patch.{wb}",
        "model.visual.embeddings.position_embedding.weight": "positions.weight",
        "model.visual.encoder.layers.{i}.layer_norm1.{wb}": "blocks.{i}.norm1.{wb}",
        "model.visual.encoder.layers.{i}.layer_norm2.{wb}": "blocks.{i}.norm2.{wb}",
        "model.visual.encoder.layers.{i}.self_attn.q_proj.{wb}": "blocks.{i}.q.{wb}",
        "model.visual.encoder.layers.{i}.self_attn.k_proj.{wb}": "blocks.{i}.k.{wb}",
        "model.visual.encoder.layers.{i}.self_attn.v_proj.{wb}": "blocks.{i}.v.{wb}",
        "model.visual.encoder.layers.{i}.self_attn.out_proj.{wb}": "blocks.{i}.out.{wb}",
        "model.visual.encoder.layers.{i}.mlp.fc1.{wb}": "blocks.{i}.up.{wb}",
        "model.visual.encoder.layers.{i}.mlp.fc2.{wb}": "blocks.{i}.down.{wb}",
        "model.visual.post_layernorm.{wb}": "norm.{wb}",
        "model.projector.norm.{wb}": "projector.norm.{wb}",
        "model.projector.linear_fc1.{wb}": "projector.up.{wb}",
        "model.projector.linear_fc2.{wb}": "projector.down.{wb}",
    },
)

DIFFUSERS = Layout(name="diffusers", rows=_DIFFUSERS_ROWS)
"""`transformer/` of a released folder: both towers and every head."""

QWEN_EYES = Layout(name="Qwen vision encoder", rows=_qwen_eyes(""))
"""`vision_encoder/` of Nano and Super, stored without a prefix."""

EDGE_EYES = Layout(name="Edge vision encoder", rows=_EDGE_EYES)
"""`vision_encoder/` of Edge, stored with the prefixes of its reasoner."""

COSMOS3_OMNI = Layout(name="cosmos3_omni", rows=(*_DIFFUSERS_ROWS, *QWEN_EYES.rows))
"""Everything that the root index of Nano and Super names. Ask for `.only("text")` or `.only("eyes")`."""

COSMOS3_EDGE = Layout(name="cosmos3_edge", rows=(*_DIFFUSERS_ROWS, *_EDGE_EYES))
"""Everything that the root index of Edge names. Ask for `.only("text")` or `.only("eyes")`."""

_RESAVED = {
    ".self_attn.q_proj.": ".self_attn.to_q.",
    ".self_attn.k_proj.": ".self_attn.to_k.",
    ".self_attn.v_proj.": ".self_attn.to_v.",
    ".mlp.fc1.": ".mlp.up_proj.",
    ".mlp.fc2.": ".mlp.down_proj.",
}


def _resaved(row: Row) -> Row:
    name = row.published
    for module, stored in _RESAVED.items():
        name = name.replace(module, stored)
    return replace(row, published=name)


COSMOS3_EDGE_RESAVED = Layout(
    name="cosmos3_edge saved by transformers", rows=(*_DIFFUSERS_ROWS, *(_resaved(row) for row in _EDGE_EYES))
)
"""An Edge reasoner as transformers 5.23 saves it: it undoes its renaming of the text tower in the vision encoder too,
whose names had never been changed."""

OMNI_MODULES = Layout(
    name="cosmos3_omni modules",
    rows=(
        *_rows("text", {**_under("model.language_model.", _QWEN_TEXT), "lm_head.weight": "lm_head.weight"}),
        *_qwen_eyes("model.visual."),
    ),
)
"""The reasoner of Nano and Super under the names of its transformers modules, as fine-tuned copies may be stored."""

EDGE_MODULES = Layout(
    name="cosmos3_edge modules",
    rows=(
        *_rows(
            "text",
            {
                **_under("model.language_model.", {k: v for k, v in _QWEN_TEXT.items() if ".mlp." not in k}),
                "model.language_model.layers.{i}.mlp.fc1.weight": "blocks.{i}.text.mlp.up.weight",
                "model.language_model.layers.{i}.mlp.fc2.weight": "blocks.{i}.text.mlp.down.weight",
                "lm_head.weight": "lm_head.weight",
            },
        ),
        *_EDGE_EYES,
    ),
)
"""The reasoner of Edge under the names of its transformers modules."""

_NO_PLACE = "the released models compute without it"

NVIDIA = Layout(
    name="NVIDIA original",
    rows=(
        *_rows("text", _under("language_model.model.", _QWEN_TEXT)),
        *_rows("text", {"language_model.lm_head.weight": "lm_head.weight"}),
        *_rows("generation", _under("language_model.model.", _QWEN_GENERATION)),
        *_rows(
            "generation",
            {"time_embedder.mlp.0.{wb}": "time_embed.0.{wb}", "time_embedder.mlp.2.{wb}": "time_embed.2.{wb}"},
        ),
        *_rows("vision", {"vae2llm.{wb}": "vision_in.{wb}", "llm2vae.{wb}": "vision_out.{wb}"}),
        *_rows(
            "sound",
            {
                "sound2llm.{wb}": "sound_in.{wb}",
                "llm2sound.{wb}": "sound_out.{wb}",
                "sound_modality_embed": "sound_embed",
            },
        ),
        Row(part="action", published="action2llm.fc.weight", ours="action_in.weight", form="domains"),
        Row(part="action", published="llm2action.fc.weight", ours="action_out.weight", form="domains"),
        *_rows(
            "action",
            {
                "action2llm.bias.weight": "action_in.bias",
                "llm2action.bias.weight": "action_out.bias",
                "action_modality_embed": "action_embed",
            },
        ),
        *_qwen_eyes("language_model.visual."),
        *_qwen_eyes("language_model.model.visual."),
    ),
    unused={
        "latent_pos_embed*": _NO_PLACE,
        "action_pos_embed*": _NO_PLACE,
        "media_modality_embed": _NO_PLACE,
        "vision_modality_embed": _NO_PLACE,
        "lidar2llm.{wb}": "this model has no lidar",
        "llm2lidar.{wb}": "this model has no lidar",
    },
    copies=("net_ema.", "net.", ""),
)
"""The original training framework's names. Its averaged copy is preferred where a checkpoint holds both."""
