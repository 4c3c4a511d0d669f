"""Independent implementations that hold our weights, to be measured beside ours. None is needed to run a model.

A peer's parameters are ours, not copies: what is measured on both is the same numbers, held once.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orrery.errors import SettingsError
from orrery.flow.samplers import Latents
from orrery.model.config import MoTConfig
from orrery.model.mot import MoT, TextMemory, Velocity
from orrery.packing.pack import Pack
from orrery.packing.patches import patchify, unpatchify
from orrery.packing.segment import Segment
from orrery.weights.layouts import DIFFUSERS, EDGE_MODULES, OMNI_MODULES
from orrery.weights.rename import published_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Diffusers:
    """The transformer of diffusers 0.42.1 under the interface of ours: its attention as it comes, nothing compiled.

    It takes one sample at a time and reads the text again at every call. All that its pipeline prepares before the
    first step is prepared in `lay_out`; a call then only brings latents into its order, asks, and brings them back,
    which is less than a hundredth of the time at released size.
    """

    transformer: Any

    def lay_out(self, pack: Pack, memory: TextMemory) -> Velocity:
        """As `MoT.lay_out`. The memory is of no account: the peer keeps none."""
        patch = self.transformer.config.latent_patch_size
        asked = [self._arguments(pack, sample) for sample in range(len(pack.lengths))]
        # Worked out here: to ask a GPU for them at every call would make it wait.
        sizes = [latent_size(segment, patch) if segment.kind == "vision" else (1, 1) for segment in pack.segments]

        @torch.no_grad()
        def velocity(latents: Latents, sigmas: Tensor) -> Latents:
            found: Latents = []
            for sample, arguments in enumerate(asked):
                span = pack.of(sample)
                found += self._ask(pack.segments[span], latents[span], sigmas[span], sizes[span], arguments)
            return found

        return velocity

    def _ask(
        self,
        segments: Sequence[Segment],
        latents: Latents,
        sigmas: Tensor,
        sizes: Sequence[tuple[int, int]],
        arguments: Mapping[str, Any],
    ) -> Latents:
        patch, dtype = self.transformer.config.latent_patch_size, self.transformer.embed_tokens.weight.dtype
        changing: dict[str, Any] = {}
        for segment, x, sigma, size in zip(segments, latents, sigmas, sizes, strict=True):
            value = x.to(dtype)
            if segment.kind == "vision":
                value = unpatchify(value, *size, patch)[None]
            else:
                value = value[:, 0].T if segment.kind == "sound" else value[:, 0]
            changing[f"{segment.kind}_tokens"] = [value]
            changing[f"{segment.kind}_timesteps"] = (1000 * sigma).expand(
                len(arguments[f"{segment.kind}_mse_loss_indexes"])
            )
        vision, sound, action = self.transformer(**arguments, **changing, return_dict=False)
        found: Latents = []
        for segment in segments:
            if segment.kind == "vision":
                tokens = patchify(vision[0].squeeze(0).float(), patch)
            else:
                tokens = (sound[0].T if segment.kind == "sound" else action[0]).float()[:, None]
            found.append(torch.where(segment.active, tokens, 0.0))
        return found

    def _arguments(self, pack: Pack, sample: int) -> dict[str, Any]:
        """What stays the same from step to step."""
        segments = pack.segments[pack.of(sample)]
        if len({segment.kind for segment in segments}) < len(segments):
            raise ValueError("The peer takes one segment of a kind in each sample.")
        device = pack.positions.device
        text = pack.text.lengths[sample]
        words, own = (
            slice(sum(lengths[:sample]), sum(lengths[: sample + 1])) for lengths in (pack.text.lengths, pack.lengths)
        )
        arguments: dict[str, Any] = {
            "input_ids": pack.text.token_ids[words],
            "text_indexes": torch.arange(text, device=device),
            "position_ids": torch.cat([pack.text.positions[:, words], pack.positions[:, own]], dim=1),
            "und_len": text,
            "sequence_length": text + pack.lengths[sample],
        }
        start = text
        for segment in segments:
            indexes = torch.arange(start, start + segment.tokens, device=device)
            noisy = (~segment.given).nonzero().squeeze(1)
            arguments |= {
                f"{segment.kind}_token_shapes": [(segment.clean.shape[0], segment.rows, segment.cols)],
                f"{segment.kind}_sequence_indexes": indexes,
                f"{segment.kind}_mse_loss_indexes": indexes.unflatten(0, segment.clean.shape[:2])[noisy].flatten(),
                f"{segment.kind}_noisy_frame_indexes": [noisy],
            }
            if segment.kind == "action":
                arguments["action_domain_ids"] = [torch.tensor(segment.domain, device=device)]
            start += segment.tokens
        return arguments


def diffusers_peer(mot: MoT) -> Diffusers:
    """The released shapes as diffusers builds them, with the weights of `mot`.

    Raises:
        SettingsError: diffusers is not installed.
    """
    modeling = needed("diffusers.models.transformers.transformer_cosmos3", "orrery[cosmos]")
    with torch.device("meta"):
        peer = modeling.Cosmos3OmniTransformer(**_diffusers_config(mot.config))
    share(peer, mot, {ours: DIFFUSERS.published(ours) for ours, _ in mot.named_parameters()})
    # Made anew on the device: its frequencies are no parameter.
    peer.rotary_emb = modeling.Cosmos3VLTextRotaryEmbedding(
        head_dim=mot.config.head_width, rope_theta=mot.config.rope_theta, rope_axes_dim=list(mot.config.rope_axes)
    ).to(mot.embed.weight.device)
    _check_whole(peer)
    return Diffusers(transformer=peer.eval())


@dataclass(frozen=True, kw_only=True, eq=False)
class Transformers:
    """The text model of transformers 5.23 with our weights, its attention PyTorch's, nothing compiled."""

    model: Any
    head: Tensor
    """The matrix of next-token scores."""

    @torch.no_grad()
    def read(self, token_ids: Tensor) -> tuple[Any, Tensor]:
        """Its cache after a prompt, and the scores (V,) of what follows."""
        return self._on(token_ids, None)

    @torch.no_grad()
    def write(self, state: tuple[Any, Tensor], prompt_ids: Sequence[int], count: int) -> list[int]:
        """The likeliest tokens, one after the other, after what `read` gave; the cache is cut back to it first."""
        cache, scores = state
        cache.crop(len(prompt_ids) - cache.get_seq_length())
        written: list[int] = []
        while True:
            token = scores.argmax(keepdim=True)
            written.append(int(token))
            if len(written) == count:
                return written
            cache, scores = self._on(token, cache)

    def _on(self, token_ids: Tensor, cache: Any) -> tuple[Any, Tensor]:
        out = self.model(input_ids=token_ids[None], past_key_values=cache, use_cache=True)
        return out.past_key_values, F.linear(out.last_hidden_state[0, -1], self.head).float()


def transformers_peer(mot: MoT) -> Transformers:
    """The text towers of the released shapes as transformers builds them, with the weights of `mot`.

    Raises:
        SettingsError: transformers is not installed.
    """
    config = mot.config
    gated = config.activation == "swiglu"
    package = "transformers.models.qwen3_vl" if gated else "transformers.models.cosmos3_edge"
    modeling = needed(f"{package}.modeling_{package.split('.')[-1]}", "transformers==5.23.0")
    shape = {
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "mrope_section": list(config.rope_axes),
        },
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if gated:
        its_config, model, rotary = (
            modeling.Qwen3VLTextConfig,
            modeling.Qwen3VLTextModel,
            modeling.Qwen3VLTextRotaryEmbedding,
        )
    else:
        its_config, model, rotary = (
            modeling.Cosmos3EdgeTextConfig,
            modeling.Cosmos3EdgeTextModel,
            modeling.Cosmos3EdgeTextRotaryEmbedding,
        )
    built = its_config(**shape)
    built._attn_implementation = "sdpa"
    with torch.device("meta"):
        peer = model(built)
    layout, prefix = OMNI_MODULES if gated else EDGE_MODULES, "model.language_model."
    names: dict[str, Any] = {}
    for ours, _ in mot.named_parameters():
        place = layout.published(ours)
        names[ours] = None if place is None or ours == "lm_head.weight" else (place[0].removeprefix(prefix), place[1])
    share(peer, mot, names)
    peer.rotary_emb = rotary(built).to(mot.embed.weight.device)
    _check_whole(peer)
    return Transformers(model=peer.eval(), head=mot.lm_head.weight.detach())


def _diffusers_config(config: MoTConfig) -> dict[str, Any]:
    return {
        "head_dim": config.head_width,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "latent_channel": config.vision_channels,
        "latent_patch_size": config.vision_patch,
        "patch_latent_dim": config.vision_width,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_axes_dim": list(config.rope_axes),
        "action_dim": config.action_width,
        "action_gen": config.action_width is not None,
        "num_embodiment_domains": config.action_domains,
        "sound_dim": config.sound_width,
        "sound_gen": config.sound_width is not None,
        "timestep_scale": config.timestep_scale,
        "vocab_size": config.vocab,
        "hidden_act": {"swiglu": "silu", "relu2": "relu2"}[config.activation],
        "qk_norm_for_text": config.text_qk_norm,
        "use_und_k_norm_for_gen": config.text_key_norm,
    }


def latent_size(segment: Segment, patch: int) -> tuple[int, int]:
    """Height and width of the latents that a vision segment was cut from, without padding.

    Kept by nobody else: from the values of the first row and column of tokens that exist.
    """
    last = segment.valid.unflatten(0, (segment.rows, segment.cols)).unflatten(2, (patch, patch, -1))
    return int(last[:, 0, :, 0, 0].sum()), int(last[0, :, 0, :, 0].sum())


def needed(module: str, extra: str) -> Any:
    """A module of a package that is not among the requirements.

    Raises:
        SettingsError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise SettingsError(
            f"The comparison needs {package}, which cannot be imported here ({error}). "
            f"Install it with: pip install '{extra}'"
        ) from error


def share(peer: nn.Module, mot: MoT, names: Mapping[str, Any]) -> None:
    """Put our parameters in the place of the peer's.

    Args:
        names: our name -> the peer's and its form, or None where the peer has no such parameter.
    """
    for ours, parameter in mot.named_parameters():
        if (place := names[ours]) is None:
            continue
        theirs, form = place
        module, _, leaf = theirs.rpartition(".")
        owner = peer.get_submodule(module)
        shape = published_shape(form, tuple(parameter.shape))
        if shape != tuple(getattr(owner, leaf).shape):
            raise ValueError(f"{theirs} of the peer has another shape than {ours}, {shape}.")
        setattr(owner, leaf, nn.Parameter(parameter.detach().view(shape), requires_grad=False))


def _check_whole(peer: nn.Module) -> None:
    """Every parameter and buffer has its numbers."""
    empty = [name for name, tensor in [*peer.named_parameters(), *peer.named_buffers()] if tensor.is_meta]
    if empty:
        raise ValueError(f"The peer has parameters that ours has not: {', '.join(empty[:8])}.")
