"""Between `transformer/config.json` of a released folder and `MoTConfig`, both ways and strictly.

A key that is not understood is an error, because a setting that is skipped in silence is a different model.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orrery.errors import CheckpointError
from orrery.model.config import EDGE, NANO, SUPER, MoTConfig
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
