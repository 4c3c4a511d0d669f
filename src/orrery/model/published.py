"""Between the configurations of released folders and ours, strictly: `transformer/config.json` both ways, and the root
`config.json` of a reasoner.

A key that is not understood is an error, because a setting that is skipped in silence is a different model.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

from orrery.errors import CheckpointError
from orrery.model.config import EDGE, NANO, SUPER, MoTConfig
from orrery.model.vision_config import EDGE_VISION, NANO_VISION, VisionEncoderConfig
from orrery.packing.positions import Clock

CLASS_NAME = "Cosmos3OmniTransformer"

DEFAULTS: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "base_fps": 24,
    "enable_fps_modulation": True,
    "latent_channel": 48,
    "unified_3d_mrope_reset_spatial_ids": True,
    "unified_3d_mrope_temporal_modality_margin": 15000,
    "latent_patch_size": 2,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "patch_latent_dim": 192,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 5e6,
    "action_dim": None,
    "action_gen": False,
    "num_embodiment_domains": 32,
    "sound_dim": None,
    "sound_gen": False,
    "sound_latent_fps": 25.0,
    "timestep_scale": 0.001,
    "vocab_size": 151936,
    "hidden_act": "silu",
    "qk_norm_for_text": True,
    "use_und_k_norm_for_gen": False,
    "rope_axes_dim": None,
    "temporal_compression_factor": 4,
    "backbone_type": None,
}
"""What a key means when it is absent."""

NOT_NUMERIC = frozenset({"_class_name", "_diffusers_version", "_name_or_path", "dtype", "torch_dtype", "policy"})
"""Keys that change no number; `policy` is serving advice of the Edge policy checkpoint."""


def config_from_published(document: Mapping[str, Any]) -> MoTConfig:
    """The shape and arithmetic that a released transformer configuration describes.

    Raises:
        CheckpointError: a key or value that is not understood, named with its value.
    """
    unknown = sorted(set(document) - set(DEFAULTS) - NOT_NUMERIC)
    if unknown:
        raise CheckpointError(
            f"transformer/config.json has keys that are not understood: {', '.join(unknown)}. Use another revision."
        )
    values = {**DEFAULTS, **document}
    if document.get("_class_name", CLASS_NAME) != CLASS_NAME:
        raise CheckpointError(f"transformer/config.json is of {document['_class_name']!r}, not of {CLASS_NAME!r}.")
    activations = {"silu": "swiglu", "relu2": "relu2"}
    expected = {
        "attention_bias": (False,),
        "hidden_act": tuple(activations),
        "patch_latent_dim": (values["latent_channel"] * values["latent_patch_size"] ** 2,),
    }
    for key, allowed in expected.items():
        if values[key] not in allowed:
            raise CheckpointError(f"transformer/config.json has {key} = {values[key]!r}; known: {list(allowed)}.")
    for key, width in (("action_gen", "action_dim"), ("sound_gen", "sound_dim")):
        if values[key] and values[width] is None:
            raise CheckpointError(f"transformer/config.json has {key} but no {width}. Add the width.")
    axes = values["rope_axes_dim"] or (values["rope_scaling"] or {}).get("mrope_section") or (24, 20, 20)
    config = MoTConfig(
        family="custom",
        width=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        kv_heads=values["num_key_value_heads"],
        head_width=values["head_dim"],
        ffn_width=values["intermediate_size"],
        vocab=values["vocab_size"],
        activation=activations[values["hidden_act"]],  # type: ignore[arg-type]
        norm_eps=float(values["rms_norm_eps"]),
        norm_scales_in_float32=values["hidden_act"] == "relu2",
        text_qk_norm=values["qk_norm_for_text"],
        text_key_norm=values["use_und_k_norm_for_gen"] and not values["qk_norm_for_text"],
        rope_theta=float(values["rope_theta"]),
        rope_axes=tuple(axes),
        vision_channels=values["latent_channel"],
        vision_patch=values["latent_patch_size"],
        action_width=values["action_dim"] if values["action_gen"] else None,
        action_domains=values["num_embodiment_domains"],
        sound_width=values["sound_dim"] if values["sound_gen"] else None,
        sound_fps=float(values["sound_latent_fps"]),
        timestep_scale=float(values["timestep_scale"]),
        clock=Clock(
            base_fps=float(values["base_fps"]),
            temporal_compression=values["temporal_compression_factor"],
            margin=values["unified_3d_mrope_temporal_modality_margin"],
            fps_modulation=values["enable_fps_modulation"],
            reset_spatial=values["unified_3d_mrope_reset_spatial_ids"],
        ),
    )
    return replace(config, family=_family(config))


def reasoner_from_published(document: Mapping[str, Any]) -> MoTConfig:
    """The text tower that a root `config.json` of model type cosmos3_omni or cosmos3_edge describes.

    Raises:
        CheckpointError: another model type, or a setting that is not understood.
    """
    edge = _is_edge(document)
    text = document.get("text_config")
    if not isinstance(text, Mapping):
        raise CheckpointError("config.json has no text_config. Fetch the file again.")
    rope = text.get("rope_parameters") or {**(text.get("rope_scaling") or {}), "rope_theta": text.get("rope_theta")}
    if rope.get("rope_type", rope.get("type", "default")) not in ("default", "mrope"):
        raise CheckpointError(f"config.json scales rotary positions by {rope.get('rope_type')!r}; known: default.")
    if text.get("attention_bias") or text.get("mlp_bias"):
        raise CheckpointError("config.json has biases in attention or MLP, which no Cosmos 3 reasoner has.")
    base = EDGE if edge else NANO
    config = replace(
        base,
        family="custom",
        generates=False,
        width=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_width=text.get("head_dim", base.head_width),
        ffn_width=text["intermediate_size"],
        vocab=text["vocab_size"],
        norm_eps=float(text.get("rms_norm_eps", base.norm_eps)),
        rope_theta=float(rope.get("rope_theta") or base.rope_theta),
        rope_axes=tuple(rope.get("mrope_section") or base.rope_axes),
        action_width=None,
        sound_width=None,
    )
    return replace(config, family=_family(config))


def vision_from_published(document: Mapping[str, Any]) -> VisionEncoderConfig:
    """The vision encoder that a root `config.json` describes; CheckpointError as `reasoner_from_published`."""
    edge = _is_edge(document)
    vision = document.get("vision_config")
    if not isinstance(vision, Mapping):
        raise CheckpointError("config.json has no vision_config. Fetch the file again.")
    base = EDGE_VISION if edge else NANO_VISION
    if vision.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise CheckpointError(f"config.json has vision activation {vision['hidden_act']!r}; known: gelu_pytorch_tanh.")
    width, merge = vision.get("hidden_size", base.width), vision.get("spatial_merge_size", base.merge)
    positions = vision.get("num_patches" if edge else "num_position_embeddings", base.position_grid**2)
    shared = replace(
        base,
        width=width,
        depth=vision.get("num_hidden_layers" if edge else "depth", base.depth),
        heads=vision.get("num_attention_heads" if edge else "num_heads", base.heads),
        mlp_width=vision.get("intermediate_size", base.mlp_width),
        patch=vision.get("patch_size", base.patch),
        merge=merge,
        position_grid=isqrt(positions),
        merged_width=document.get("projector_hidden_size", base.merged_width) if edge else width * merge**2,
        out_width=document["text_config"]["hidden_size"] if edge else vision.get("out_hidden_size", base.out_width),
        taps=() if edge else tuple(vision.get("deepstack_visual_indexes", base.taps)),
    )
    return shared if edge else replace(shared, temporal_patch=vision.get("temporal_patch_size", base.temporal_patch))


def _is_edge(document: Mapping[str, Any]) -> bool:
    kinds = {"cosmos3_omni": False, "cosmos3_edge": True}
    if document.get("model_type") not in kinds:
        raise CheckpointError(
            f"config.json is of model type {document.get('model_type')!r}; known: {', '.join(kinds)}."
        )
    return kinds[document["model_type"]]


def config_to_published(config: MoTConfig) -> dict[str, Any]:
    """The released form of a configuration.

    Raises:
        CheckpointError: the released layout has no place for it (data prediction).
    """
    if config.prediction != "velocity":
        raise CheckpointError(
            f"The released layout holds velocity models; this one predicts {config.prediction}. Save it in our layout."
        )
    return {
        "_class_name": CLASS_NAME,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": config.head_width,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "base_fps": int(config.clock.base_fps) if config.clock.base_fps.is_integer() else config.clock.base_fps,
        "enable_fps_modulation": config.clock.fps_modulation,
        "latent_channel": config.vision_channels,
        "unified_3d_mrope_reset_spatial_ids": config.clock.reset_spatial,
        "unified_3d_mrope_temporal_modality_margin": config.clock.margin,
        "latent_patch_size": config.vision_patch,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "patch_latent_dim": config.vision_width,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": None,
        "rope_axes_dim": list(config.rope_axes),
        "rope_theta": config.rope_theta,
        "action_dim": config.action_width,
        "action_gen": config.action_width is not None,
        "num_embodiment_domains": config.action_domains,
        "sound_dim": config.sound_width,
        "sound_gen": config.sound_width is not None,
        "sound_latent_fps": config.sound_fps,
        "timestep_scale": config.timestep_scale,
        "vocab_size": config.vocab,
        "hidden_act": {"swiglu": "silu", "relu2": "relu2"}[config.activation],
        "qk_norm_for_text": config.text_qk_norm,
        "use_und_k_norm_for_gen": config.text_key_norm,
    }


def _family(config: MoTConfig) -> str:
    """The row that this is, whatever streams a variant lacks; "custom" for another shape."""
    for row in (EDGE, NANO, SUPER):
        shape = ("width", "layers", "heads", "kv_heads", "head_width", "ffn_width", "activation")
        if all(getattr(row, name) == getattr(config, name) for name in shape):
            return row.family
    return "custom"
