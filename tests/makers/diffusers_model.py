"""A diffusers transformer with random weights, and ours with the same ones."""

from typing import Any

import torch
from diffusers.models.transformers.transformer_cosmos3 import Cosmos3OmniTransformer

from orrery.model.config import MoTConfig
from orrery.model.mot import MoT
from orrery.packing.pack import Pack
from orrery.packing.patches import unpatchify
from orrery.weights.layouts import DIFFUSERS


def diffusers_transformer(config: MoTConfig, seed: int = 0) -> Any:
    """An independent implementation of the shape `config`, every parameter random."""
    torch.manual_seed(seed)
    peer = Cosmos3OmniTransformer(
        head_dim=config.head_width,
        hidden_size=config.width,
        intermediate_size=config.ffn_width,
        num_attention_heads=config.heads,
        num_hidden_layers=config.layers,
        num_key_value_heads=config.kv_heads,
        latent_channel=config.vision_channels,
        latent_patch_size=config.vision_patch,
        patch_latent_dim=config.vision_width,
        rms_norm_eps=config.norm_eps,
        rope_theta=config.rope_theta,
        rope_axes_dim=list(config.rope_axes),
        action_dim=config.action_width,
        action_gen=config.action_width is not None,
        num_embodiment_domains=config.action_domains,
        sound_dim=config.sound_width,
        sound_gen=config.sound_width is not None,
        vocab_size=config.vocab,
        hidden_act={"swiglu": "silu", "relu2": "relu2"}[config.activation],
        qk_norm_for_text=config.text_qk_norm,
        use_und_k_norm_for_gen=config.text_key_norm,
    )
    for name, parameter in peer.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return peer.eval()


def same_weights(peer: Any, config: MoTConfig) -> MoT:
    """Ours, with the weights of `peer` under the names of the published layout."""
    mot = MoT(config)
    shapes = {name: tensor.shape for name, tensor in mot.state_dict().items()}
    state = peer.state_dict()
    placement = DIFFUSERS.place(state)
    assert not placement.unknown
    assert not placement.ignored
    tensors = {place.ours: state[name].reshape(shapes[place.ours]) for name, place in placement.places.items()}
    mot.load_state_dict(tensors)
    return mot.eval()


def diffusers_velocity(peer: Any, pack: Pack, sizes: list[tuple[int, int]], sigma: float) -> list[torch.Tensor]:
    """What `peer` says of a pack of one sample with vision first; latents as (C, T, H, W), (T, C) and (T, C).

    `sizes` is the latent height and width of each vision segment.
    """
    (text,) = pack.text.lengths
    config = peer.config
    arguments: dict[str, Any] = {}
    start = text
    names = {"vision": "vision", "sound": "sound", "action": "action"}
    kept: dict[str, list[Any]] = {}
    for segment, latents in zip(pack.segments, pack.latents, strict=True):
        frames, patches, _ = latents.shape
        noisy = (~segment.given).nonzero().squeeze(1)
        indices = torch.arange(start, start + frames * patches)
        scored = indices.reshape(frames, patches)[noisy].flatten()
        prefix = names[segment.kind]
        if segment.kind == "vision":
            height, width = sizes[0]
            value = unpatchify(latents, height, width, config.latent_patch_size)[None]
        elif segment.kind == "sound":
            value = latents[:, 0].T
        else:
            value = latents[:, 0]
            arguments["action_domain_ids"] = [torch.tensor(segment.domain)]
        kept[segment.kind] = [value]
        arguments |= {
            f"{prefix}_tokens": [value],
            f"{prefix}_token_shapes": [(frames, segment.rows, segment.cols)],
            f"{prefix}_sequence_indexes": indices,
            f"{prefix}_mse_loss_indexes": scored,
            f"{prefix}_timesteps": torch.full((len(scored),), 1000 * sigma),
            f"{prefix}_noisy_frame_indexes": [noisy],
        }
        start += frames * patches
    out = peer(
        input_ids=pack.text.token_ids,
        text_indexes=torch.arange(text),
        position_ids=torch.cat([pack.text.positions, pack.positions], dim=1),
        und_len=text,
        sequence_length=start,
        **arguments,
    )
    found = {"vision": out.sample, "sound": out.sound, "action": out.action}
    return [
        found[segment.kind][0].squeeze(0) if segment.kind == "vision" else found[segment.kind][0]
        for segment in pack.segments
    ]
