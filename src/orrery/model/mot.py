"""The Mixture-of-Transformers: a text tower that reads, and a generation tower that sees all of the text and of itself.

Two passes. `read` runs the text tower, causally, and keeps every layer's keys and values; they depend on neither noise
nor generated tokens, so one reading serves every sampling step, and text generation too. `forward` runs the generation
tower over the latents of a pack and returns velocities. Loading, sampling and codecs are elsewhere; this file is
single-device code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from orrery.flow.samplers import Latents
from orrery.model.attention import attend, rotary, rotate
from orrery.model.config import MoTConfig
from orrery.model.vision import VisionFeatures
from orrery.packing.pack import Pack, TextPack, spans_of
from orrery.packing.segment import Kind, Segment
from orrery.packing.stack import Stack, Track

Velocity = Callable[[Latents, Tensor], Latents]
"""Latents, one (T, P, C) a segment, and their noise levels (S,) -> the velocity of each."""
Rope = tuple[Float[Tensor, "L 1 E"], Float[Tensor, "L 1 E"]]
STRIDE = 4.0
"""Running sums of actions are divided by it, to be about as large as actions are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerMemory:
    """Text of one layer, samples end to end: what text queries read, and what generation queries read."""

    keys: Float[Tensor, "L K E"]
    keys_for_generation: Float[Tensor, "L K E"]
    values: Float[Tensor, "L K E"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextMemory:
    """What the text tower has read: keys and values of every layer, and the last hidden states."""

    layers: tuple[LayerMemory, ...]
    hidden: Float[Tensor, "L D"]
    """After the final norm; `MoT.logits` turns them into next-token scores."""
    lengths: tuple[int, ...]

    def select(self, samples: Sequence[int]) -> "TextMemory":
        """The memory of some of the samples, in the order asked for; one may be asked for twice."""
        spans = spans_of(self.lengths, samples)
        return TextMemory.join([self._slice(span, self.lengths[i]) for span, i in zip(spans, samples, strict=True)])

    def _slice(self, span: slice, length: int) -> "TextMemory":
        layers = tuple(
            LayerMemory(
                keys=layer.keys[span],
                keys_for_generation=layer.keys_for_generation[span],
                values=layer.values[span],
            )
            for layer in self.layers
        )
        return TextMemory(layers=layers, hidden=self.hidden[span], lengths=(length,))

    @staticmethod
    def join(memories: "Sequence[TextMemory]") -> "TextMemory":
        """Memories of several packs as the memory of one pack with all their samples."""
        if len(memories) == 1:
            return memories[0]
        layers = tuple(
            LayerMemory(
                keys=torch.cat([layer.keys for layer in layers]),
                keys_for_generation=torch.cat([layer.keys_for_generation for layer in layers]),
                values=torch.cat([layer.values for layer in layers]),
            )
            for layers in zip(*(memory.layers for memory in memories), strict=True)
        )
        return TextMemory(
            layers=layers,
            hidden=torch.cat([memory.hidden for memory in memories]),
            lengths=tuple(length for memory in memories for length in memory.lengths),
        )


@runtime_checkable
class LaysOut(Protocol):
    """What sampling asks for velocities: `MoT` as it is, or made fast, or over several devices."""

    def lay_out(self, pack: Pack, memory: TextMemory) -> Velocity:
        """A pack made ready to be asked about again and again.

        Args:
            pack: its latents are of no account.
            memory: what `MoT.read` returned for `pack.text`.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What the generation tower says of a pack: one (T, P, C) a segment, 0 wherever nothing is generated."""

    velocity: Latents
    data: Latents
    """The clean latents that the velocity points at: x - sigma x velocity."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StackPrediction:
    """What the generation tower says of a stack."""

    out: tuple[Float[Tensor, "B _ _ _"], ...]
    """For each track velocity or data, as `config.prediction` says."""
    halfway: Float[Tensor, "B L D"]
    """Tokens after half of the blocks, for what else training asks of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Some of the tokens of a pack."""

    tokens: Int[Tensor, " G"]
    """Where they stand, rising."""
    lengths: list[int]
    """How many of them belong to each sample that takes part."""


class RMSNorm(nn.Module):
    """x / rms(x) x weight, with the mean taken in float32."""

    def __init__(self, width: int, config: MoTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = config.norm_eps
        self.scales_in_float32 = config.norm_scales_in_float32

    def forward(self, x: Float[Tensor, "*L D"]) -> Float[Tensor, "*L D"]:
        normed = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        if self.scales_in_float32:
            return (normed * self.weight.float()).to(x.dtype)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


class MLP(nn.Module):
    """SwiGLU, or squared ReLU without a gate."""

    def __init__(self, config: MoTConfig) -> None:
        super().__init__()
        gated = config.activation == "swiglu"
        self.gate = nn.Linear(config.width, config.ffn_width, bias=False) if gated else None
        self.up = nn.Linear(config.width, config.ffn_width, bias=False)
        self.down = nn.Linear(config.ffn_width, config.width, bias=False)

    def forward(self, x: Float[Tensor, "L D"]) -> Float[Tensor, "L D"]:
        if self.gate is None:
            return self.down(F.relu(self.up(x), inplace=True).square())
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Tower(nn.Module):
    """One tower's share of a block: norms, projections and MLP. Attention joins the towers, so it is in `Block`."""

    def __init__(self, config: MoTConfig, *, qk_norm: bool) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.attention_norm = RMSNorm(config.width, config)
        self.q = nn.Linear(config.width, config.heads * config.head_width, bias=False)
        self.k = nn.Linear(config.width, config.kv_heads * config.head_width, bias=False)
        self.v = nn.Linear(config.width, config.kv_heads * config.head_width, bias=False)
        self.out = nn.Linear(config.heads * config.head_width, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_width, config) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_width, config) if qk_norm else nn.Identity()
        self.mlp_norm = RMSNorm(config.width, config)
        self.mlp = MLP(config)

    def project(self, x: Float[Tensor, "L D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (L, N, E), keys and values (L, K, E), before any norm or rotation."""
        x = self.attention_norm(x)
        q, k, v = (rearrange(y, "l (n e) -> l n e", e=self.head_width) for y in (self.q(x), self.k(x), self.v(x)))
        return q, k, v

    def finish(self, x: Float[Tensor, "L D"], attended: Float[Tensor, "L Q"]) -> Float[Tensor, "L D"]:
        """Add what attention found, then the MLP."""
        x = x + self.out(attended)
        return x + self.mlp(self.mlp_norm(x))


class Block(nn.Module):
    """One layer of both towers."""

    def __init__(self, config: MoTConfig) -> None:
        super().__init__()
        self.text = Tower(config, qk_norm=config.text_qk_norm)
        self.generation = Tower(config, qk_norm=True) if config.generates else None
        reads_otherwise = config.generates and config.text_key_norm
        self.text_key_norm = RMSNorm(config.head_width, config) if reads_otherwise else None

    # Attention joins tokens; the three methods below look at each token alone, so that training can compile them once
    # for any number of tokens.
    def look_at_text(self, x: Float[Tensor, "L D"], rope: Rope) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries (L, N, E), keys as text reads them, keys as generation reads them, values (L, K, E)."""
        q, k, v = self.text.project(x)
        keys = rotate(self.text.k_norm(k), rope)
        # On the raw keys, before the rotation: what generation reads is normalised differently from what text reads.
        for_generation = keys if self.text_key_norm is None else rotate(self.text_key_norm(k), rope)
        return rotate(self.text.q_norm(q), rope), keys, for_generation, v

    def look_at_latents(self, x: Float[Tensor, "L D"], rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (L, N, E), keys and values (L, K, E) of the generation tower."""
        tower = self.generation
        assert tower is not None, "MoT.forward refuses a reasoner"
        q, k, v = tower.project(x)
        return rotate(tower.q_norm(q), rope), rotate(tower.k_norm(k), rope), v

    def finish(
        self, x: Float[Tensor, "L D"], attended: Float[Tensor, "L Q"], *, generation: bool
    ) -> Float[Tensor, "L D"]:
        """The rest of the layer, in one tower or the other."""
        tower = self.generation if generation else self.text
        assert tower is not None
        return tower.finish(x, attended)

    def read(
        self, x: Float[Tensor, "L D"], rope: Rope, lengths: Sequence[int], past: LayerMemory | None
    ) -> tuple[Float[Tensor, "L D"], LayerMemory]:
        """The text tower: each token sees itself and what came before it in its sample."""
        q, keys, for_generation, v = self.look_at_text(x, rope)
        memory = LayerMemory(keys=keys, keys_for_generation=for_generation, values=v)
        if past is not None:
            memory = LayerMemory(
                keys=torch.cat([past.keys, memory.keys]),
                keys_for_generation=torch.cat([past.keys_for_generation, memory.keys_for_generation]),
                values=torch.cat([past.values, memory.values]),
            )
        key_lengths = lengths if past is None else (memory.keys.shape[0],)
        attended = attend(q, memory.keys, memory.values, lengths, key_lengths, causal=True)
        return self.finish(x, attended, generation=False), memory

    def generate(
        self,
        x: Float[Tensor, "L D"],
        rope: Rope,
        lengths: Sequence[int],
        memory: LayerMemory,
        text_lengths: Sequence[int],
        only: Asked | None = None,
    ) -> Float[Tensor, "G D"]:
        """The generation tower: each token sees all of its sample's text and all of its sample's latents.

        Args:
            only: the tokens that come out, where not all of them are needed.
        """
        q, k, v = self.look_at_latents(x, rope)
        if only is not None:
            q, x = q[only.tokens], x[only.tokens]
        attended = attend(
            q,
            interleave(memory.keys_for_generation, k, text_lengths, lengths),
            interleave(memory.values, v, text_lengths, lengths),
            lengths if only is None else only.lengths,
            [text + own for text, own in zip(text_lengths, lengths, strict=True)],
            causal=False,
        )
        return self.finish(x, attended, generation=True)


class DomainLinear(nn.Module):
    """A linear map with one weight (in, out) and bias (out,) for each embodiment domain."""

    def __init__(self, domains: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(domains, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(domains, outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, x: Float[Tensor, "L I"], domain: int) -> Float[Tensor, "L O"]:
        return torch.addmm(self.bias[domain], x, self.weight[domain])


class MoT(nn.Module):
    """Both towers with the projections of every modality; `config` says which of them exist."""

    def __init__(self, config: MoTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Embedding(config.vocab, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.text_norm = RMSNorm(width, config)
        self.lm_head = nn.Linear(width, config.vocab, bias=False)
        if not config.generates:
            return
        self.generation_norm = RMSNorm(width, config)
        self.vision_in = nn.Linear(config.vision_width, width)
        self.vision_out = nn.Linear(width, config.vision_width)
        if config.cameras:
            self.camera_embed = nn.Parameter(torch.zeros(config.cameras, width))
        self.time_embed = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        if config.sound_width is not None:
            self.sound_in = nn.Linear(config.sound_width, width)
            self.sound_out = nn.Linear(width, config.sound_width)
            self.sound_embed = nn.Parameter(torch.zeros(width))
        if config.action_width is not None:
            shown = config.action_width * (2 if config.action_sums else 1)
            self.action_in = DomainLinear(config.action_domains, shown, width)
            self.action_out = DomainLinear(config.action_domains, width, config.action_width)
            self.action_embed = nn.Parameter(torch.zeros(width))

    def read(self, text: TextPack, sights: VisionFeatures | None = None, past: TextMemory | None = None) -> TextMemory:
        """Run the text tower once.

        Args:
            text: L tokens of one or more samples.
            sights: stand in for the embeddings of the tokens at `text.visual`; tap i is added after block i.
            past: what was read before; then `text` continues that one sample.
        """
        x, rope = self.enter_text(text, sights)
        visual = text.visual
        layers = []
        for index, block in enumerate(self._blocks()):
            x, memory = block.read(x, rope, text.lengths, past.layers[index] if past is not None else None)
            layers.append(memory)
            if sights is not None and index < len(sights.taps):
                x = x.index_add(0, visual, sights.taps[index].to(x.dtype))
        lengths = text.lengths if past is None else (past.lengths[0] + text.lengths[0],)
        return TextMemory(layers=tuple(layers), hidden=self.text_norm(x), lengths=lengths)

    def enter_text(self, text: TextPack, sights: VisionFeatures | None) -> tuple[Float[Tensor, "L D"], Rope]:
        """What the first block of the text tower is given: embeddings, and the angles of their positions."""
        x = self.embed(text.token_ids).to(self._compute_dtype())
        if sights is not None:
            x = x.index_copy(0, text.visual, sights.features.to(x.dtype))
        elif text.visual.numel():
            raise ValueError(f"{text.visual.numel()} tokens stand for pictures, but no vision features were given.")
        return x, self.rotary(text.positions)

    def logits(self, hidden: Float[Tensor, "L D"]) -> Float[Tensor, "L V"]:
        """Next-token scores, in float32."""
        return self.lm_head(hidden).float()

    def forward(self, pack: Pack, sigmas: Float[Tensor, " S"], memory: TextMemory | None = None) -> Prediction:
        """Predict the velocity of every segment of a pack.

        Args:
            pack: samples end to end; `pack.latents` is what the model sees.
            sigmas: noise level of each segment, 1 is noise. Frames that are given count as clean whatever it says.
            memory: what `read` returned for `pack.text`; None reads it here, with gradients, as training needs.
        """
        if not self.config.generates:
            raise ValueError("This model only reads and writes text: it was loaded without its generation tower.")
        if memory is None:
            memory = self.read(pack.text)
        x, rope = self.enter(pack, sigmas)
        memory, lengths = among_busy(pack, memory)
        *blocks, last = zip(self._blocks(), memory.layers, strict=True)
        for block, layer in blocks:
            x = block.generate(x, rope, lengths, layer, memory.lengths)
        block, layer = last
        if x.device.type == "cpu":
            # After the last block nobody looks at given frames. To find their tokens a GPU would have to be waited for.
            asked = asked_for(pack)
            made = block.generate(x, rope, lengths, layer, memory.lengths, only=asked)
            x = x.index_copy(0, asked.tokens, made)
        else:
            x = block.generate(x, rope, lengths, layer, memory.lengths)
        return self.leave(pack, x, sigmas)

    def lay_out(self, pack: Pack, memory: TextMemory) -> Velocity:
        """A pack to be asked about again and again: `forward` as `denoiser.Denoiser` offers it."""
        return lambda latents, sigmas: self(pack.with_latents(latents), sigmas, memory).velocity

    def enter(self, pack: Pack, sigmas: Float[Tensor, " S"]) -> tuple[Float[Tensor, "L D"], Rope]:
        """What the first block of the generation tower is given: tokens, and the angles of their positions.

        Tokens of generated frames get the time embedding, given ones nothing.
        """
        dtype = self._compute_dtype()
        times = self._embed_time(sigmas).to(dtype)  # (S, D)
        projected = []
        for segment, latents, time in zip(pack.segments, pack.latents, times, strict=True):
            x = self._project_in(segment, rearrange(self._shown(segment, latents), "t p c -> (t p) c").to(dtype))
            noisy = repeat(~segment.given, "t -> (t p) 1", p=segment.clean.shape[1])
            projected.append(x + noisy * time)
        return torch.cat(projected), self.rotary(pack.positions)

    def leave(self, pack: Pack, x: Float[Tensor, "L D"], sigmas: Float[Tensor, " S"]) -> Prediction:
        """What the tokens after the last block of the generation tower say."""
        velocity, data = [], []
        pieces = self.generation_norm(x).split([segment.tokens for segment in pack.segments])
        for segment, latents, piece, sigma in zip(pack.segments, pack.latents, pieces, sigmas, strict=True):
            out = rearrange(self._project_out(segment, piece).float(), "(t p) c -> t p c", p=latents.shape[1])
            if self.config.prediction == "data":
                out = (latents - out) / sigma.clamp(min=self.config.sigma_floor)
            velocity.append(torch.where(segment.active, out, 0.0))
            data.append(latents - sigma * velocity[-1])
        return Prediction(velocity=velocity, data=data)

    def forward_stack(
        self, stack: Stack, sigmas: Float[Tensor, "B S"], memory: TextMemory | None = None
    ) -> StackPrediction:
        """What the heads put out for samples of one shape; the same numbers as `forward` on the pack of them."""
        if memory is None:
            memory = self.read(stack.text)
        dtype = self._compute_dtype()
        times = rearrange(self._embed_time(rearrange(sigmas, "b s -> (b s)")), "(b s) d -> b s d", b=len(sigmas)).to(
            dtype
        )
        projected = []
        for index, (track, latents) in enumerate(zip(stack.tracks, stack.latents, strict=True)):
            count, frames, tokens, _ = latents.shape
            x = self._project_in(track, rearrange(self._shown(track, latents), "b t p c -> (b t p) c").to(dtype))
            x = rearrange(x, "(b t p) d -> b t p d", b=count, t=frames, p=tokens)
            x = x + ~track.given[:, :, None, None] * times[:, index, None, None]
            projected.append(rearrange(x, "b t p d -> b (t p) d"))
        # No view: what compiles the blocks would treat the first one apart from the others.
        x = rearrange(torch.cat(projected, dim=1), "b l d -> (b l) d").clone()
        count = len(stack.token_ids)
        cos, sin = self.rotary(stack.positions)
        rope = (cos.repeat(count, 1, 1), sin.repeat(count, 1, 1))
        lengths = (stack.positions.shape[1],) * count
        halfway = x
        for index, (block, layer) in enumerate(zip(self._blocks(), memory.layers, strict=True)):
            x = block.generate(x, rope, lengths, layer, memory.lengths)
            if index + 1 == len(self.blocks) // 2:
                halfway = x
        hidden = rearrange(self.generation_norm(x), "(b l) d -> b l d", b=count)
        out = []
        pieces = hidden.split([track.clean.shape[1] * track.clean.shape[2] for track in stack.tracks], dim=1)
        for track, piece in zip(stack.tracks, pieces, strict=True):
            made = self._project_out(track, rearrange(piece, "b l d -> (b l) d")).float()
            out.append(rearrange(made, "(b t p) c -> b t p c", b=count, p=track.clean.shape[2]))
        return StackPrediction(out=tuple(out), halfway=rearrange(halfway, "(b l) d -> b l d", b=count))

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def rotary(self, positions: Float[Tensor, "3 L"]) -> Rope:
        """Angles of positions, in the type that tokens are held in."""
        c = self.config
        return rotary(positions, c.head_width, c.rope_theta, c.rope_axes, self._compute_dtype())

    def _compute_dtype(self) -> torch.dtype:
        """What tokens are held in between layers: that of the weights, or of autocast where it is on."""
        weight = self.embed.weight
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
        return weight.dtype

    def _shown(self, segment: Segment | Track, latents: Float[Tensor, "*B T P C"]) -> Float[Tensor, "*B T P D"]:
        """Latents as the model sees them: actions with their running sums over all rows, given ones too."""
        if segment.kind != "action" or not self.config.action_sums:
            return latents
        return torch.cat([latents, latents.cumsum(-3) / STRIDE], dim=-1)

    def _project_in(self, segment: Segment | Track, x: Float[Tensor, "L C"]) -> Float[Tensor, "L D"]:
        self._require(segment.kind)
        match segment.kind:
            case "vision":
                x = self.vision_in(x)
                return x + self.camera_embed[segment.camera].to(x.dtype) if self.config.cameras else x
            case "sound":
                return self.sound_in(x) + self.sound_embed.to(x.dtype)
            case "action":
                return self.action_in(x, segment.domain) + self.action_embed.to(x.dtype)

    def _project_out(self, segment: Segment | Track, x: Float[Tensor, "L D"]) -> Float[Tensor, "L C"]:
        match segment.kind:
            case "vision":
                return self.vision_out(x)
            case "sound":
                return self.sound_out(x)
            case "action":
                return self.action_out(x, segment.domain)

    def _require(self, kind: Kind) -> None:
        width = {
            "vision": self.config.vision_width,
            "sound": self.config.sound_width,
            "action": self.config.action_width,
        }[kind]
        if width is None:
            raise ValueError(f"This model has no {kind} stream (family {self.config.family}).")

    def _embed_time(self, sigmas: Float[Tensor, " S"]) -> Float[Tensor, "S D"]:
        """Sinusoids of 1000 sigma x timestep_scale, cosine first, through a two-layer MLP; all of it in float32."""
        first, last = cast(nn.Linear, self.time_embed[0]), cast(nn.Linear, self.time_embed[2])
        angles = (sigmas.float() * 1000 * self.config.timestep_scale)[:, None] * _time_frequencies(sigmas.device)
        with torch.autocast(sigmas.device.type, enabled=False):
            x = torch.cat([angles.cos(), angles.sin()], dim=-1)
            x = F.silu(F.linear(x, first.weight.float(), first.bias.float()))
            return F.linear(x, last.weight.float(), last.bias.float())


def among_busy(pack: Pack, memory: TextMemory) -> tuple[TextMemory, list[int]]:
    """The memory of those samples that have generation tokens, and how many; those that only read text take no part."""
    busy = [index for index, length in enumerate(pack.lengths) if length]
    if len(busy) < len(pack.lengths):
        memory = memory.select(busy)
    return memory, [pack.lengths[index] for index in busy]


def asked_for(pack: Pack) -> Asked:
    """Tokens of the frames that are generated."""
    masks = [repeat(~segment.given, "t -> (t p)", p=segment.clean.shape[1]) for segment in pack.segments]
    counts = [0] * len(pack.lengths)
    for owner, mask in zip(pack.owners, masks, strict=True):
        counts[owner] += int(mask.sum())
    busy = [count for count, length in zip(counts, pack.lengths, strict=True) if length]
    return Asked(tokens=torch.cat(masks).nonzero()[:, 0], lengths=busy)


# Kept: training records its calls on the device, where nothing may be copied from the CPU meanwhile.
@cache
def _time_frequencies(device: torch.device) -> Float[Tensor, "128"]:
    return torch.exp(-log(10000.0) * torch.arange(128, dtype=torch.float32) / 128).to(device)


def interleave(
    first: Float[Tensor, "A K E"], second: Float[Tensor, "B K E"], firsts: Sequence[int], seconds: Sequence[int]
) -> Float[Tensor, "A+B K E"]:
    """Join two packed sequences sample by sample: sample i of the first, then sample i of the second."""
    if len(set(firsts)) == len(set(seconds)) == 1:
        both = [rearrange(x, "(b l) k e -> b l k e", b=len(firsts)) for x in (first, second)]
        return rearrange(torch.cat(both, dim=1), "b l k e -> (b l) k e")
    pairs = zip(first.split(list(firsts)), second.split(list(seconds)), strict=True)
    return torch.cat([part for pair in pairs for part in pair])
