"""Tiny checkpoints in the released folder layout, written by diffusers itself, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from diffusers.models.autoencoders.autoencoder_cosmos3_audio import Cosmos3AVAEAudioTokenizer
from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import Cosmos3OmniPipeline
from makers.diffusers_model import diffusers_transformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orrery.model.config import MoTConfig

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer() -> Any:
    """One token a byte, with the special tokens of the Qwen families."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIALS),
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_vae(channels: int) -> Any:
    """A Wan 2.2 autoencoder with few channels: 4 x 16 x 16 compression as released."""
    torch.manual_seed(1)
    vae = AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        latents_mean=[0.01 * index for index in range(channels)],
        latents_std=[1.0 + 0.02 * index for index in range(channels)],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=16,
    )
    return vae.eval()


def tiny_sound_tokenizer(width: int) -> Any:
    """A sound autoencoder of the released construction with few channels."""
    torch.manual_seed(2)
    return Cosmos3AVAEAudioTokenizer(
        enc_dim=8,
        enc_intermediate_dim=16,
        enc_num_blocks=1,
        enc_latent_dim=2 * width,
        dec_dim=4,
        vocoder_input_dim=width,
    ).eval()


def scheduler(karras: bool) -> Any:
    """The released solver; `karras` as Nano and Super ship it."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        use_karras_sigmas=karras,
        sigma_max=200.0 if karras else None,
        sigma_min=0.147 if karras else None,
        flow_shift=1.0 if karras else 3.0,
        solver_order=2,
        solver_type="bh2",
        predict_x0=True,
    )


def pipeline(config: MoTConfig, *, native: bool = True, seed: int = 0) -> Any:
    """An independent pipeline with every component random."""
    return Cosmos3OmniPipeline(
        transformer=diffusers_transformer(config, seed),
        text_tokenizer=byte_tokenizer(),
        vae=tiny_vae(config.vision_channels),
        scheduler=scheduler(karras=not native),
        sound_tokenizer=None if config.sound_width is None else tiny_sound_tokenizer(config.sound_width),
        enable_safety_checker=False,
        default_use_system_prompt=False,
        use_native_flow_schedule=native,
    )


def write_released(folder: Path, config: MoTConfig, *, native: bool = True, shard: str = "5GB") -> Any:
    """Save a released folder and return the pipeline that wrote it."""
    peer = pipeline(config, native=native)
    peer.save_pretrained(folder, max_shard_size=shard)
    (folder / "text_tokenizer" / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "Cosmos3OmniPipeline"
    return peer
