"""The generation tower made ready for sampling: the numbers of `MoT.forward` up to rounding, as fast as the device can.

Projections that read the same tokens are joined into one matrix, what looks at each token alone is compiled, attention
takes the fastest kernel for its shape, and the forward pass over a small layout is recorded once as a CUDA graph. The
text comes in as the keys and values that `MoT.read` found.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from orrery.flow.samplers import Latents
from orrery.model.attention import rotate
from orrery.model.attention_kernels import Kernel, exact
from orrery.model.config import MoTConfig
from orrery.model.matrix import Linears, Matrix, matrix, multiply
from orrery.model.mot import Block, MoT, RMSNorm, Rope, TextMemory, Tower, Velocity, among_busy
from orrery.model.recording import cuda_graph
from orrery.packing.apart import put_together, taken_apart
from orrery.packing.pack import Pack

TOKENS_AT_ONCE = 16384
"""Up to this many tokens samples share a pass, and it is recorded. Above, a pass of two takes as long as two passes and
more memory, and launching takes no time beside the work."""
GRAPHS_KEPT = 8


class Layer(NamedTuple):
    """One block of the generation tower, joined."""

    attention_norm: Tensor
    qkv: Matrix
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Matrix
    mlp_norm: Tensor
    up: Matrix
    """With a gate its rows come first."""
    down: Matrix


class Shape(NamedTuple):
    """What the compiled functions need to know of a configuration."""

    head_width: int
    gated: bool
    eps: float
    scales_in_float32: bool


TextOfLayer = tuple[Float[Tensor, "L K E"], Float[Tensor, "L K E"]]
"""Keys and values of all samples' text, end to end."""
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values of a layer's latents, keys and values of its text -> what the queries found (L, Q)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Samples as they stand in one pass, and their text."""

    pack: Pack
    text: tuple[TextOfLayer, ...]
    lengths: tuple[int, ...]
    text_lengths: tuple[int, ...]

    @property
    def alike(self) -> bool:
        """Whether all samples have as many tokens, and as much text."""
        return len(set(self.lengths)) == len(set(self.text_lengths)) == 1


@dataclass(kw_only=True, eq=False)
class Recorded:
    """One shape's graph and the memory that it reads and writes."""

    replay: Callable[[], None]
    inputs: list[Tensor]
    """Those of the layout, then the latents and the noise levels."""
    velocity: Latents
    layout: Layout | None
    """Whose numbers lie in the inputs."""


class Denoiser:
    """A model made fast. It shares the weights of the model, whose matrices become parts of the joined ones."""

    @torch.no_grad()
    def __init__(
        self,
        mot: MoT,
        *,
        linears: Linears = "exact",
        kernel: Kernel = exact,
        compiled: bool = True,
        recorded: bool | None = None,
    ) -> None:
        """Join the matrices.

        Args:
            linears: arithmetic of the projections.
            kernel: what attention runs on.
            compiled: whether what looks at each token alone is compiled.
            recorded: whether small layouts become CUDA graphs; None: on a GPU.

        Raises:
            ValueError: the model has no generation tower.
        """
        if not mot.config.generates:
            raise ValueError("This model only reads and writes text: it was loaded without its generation tower.")
        self.mot, self.kernel = mot, kernel
        self.recorded = mot.embed.weight.is_cuda if recorded is None else recorded
        towers = [cast(Block, block).generation for block in mot.blocks]
        self._layers = [joined(tower, linears) for tower in towers if tower is not None]
        self._shape = shape_of(mot.config)
        self._before = torch.compile(before_attention, dynamic=True) if compiled else before_attention
        self._before_alike = torch.compile(before_attention_alike, dynamic=True) if compiled else before_attention_alike
        self._after = torch.compile(after_attention, dynamic=True) if compiled else after_attention
        self._inside = torch.compile(inside_mlp, dynamic=True) if compiled else inside_mlp
        self._graphs: OrderedDict[Any, Recorded] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    def attending_by(self, kernel: Kernel) -> "Denoiser":
        """The same on another kernel of attention. Weights are shared, and nothing is recorded."""
        other = copy(self)
        other.kernel, other.recorded, other._graphs = kernel, False, OrderedDict()
        return other

    def lay_out(self, pack: Pack, memory: TextMemory) -> Velocity:
        """A pack made ready to be asked about again and again.

        Args:
            pack: as `MoT.forward`; its latents are of no account.
            memory: what `MoT.read` returned for `pack.text`.

        Returns:
            The velocity under it. What a call returns stays as it is when the next one is made.
        """
        turns = in_turns(pack.lengths, TOKENS_AT_ONCE)
        if len(turns) > 1:
            return self._one_by_one(pack, memory, turns)
        layout = layout_of(pack, memory)
        if self.recorded and sum(layout.lengths) <= TOKENS_AT_ONCE:
            return self._replayed(layout)

        def velocity(latents: Latents, sigmas: Tensor) -> Latents:
            return self._work(layout, latents, sigmas)

        return velocity

    def _one_by_one(self, pack: Pack, memory: TextMemory, turns: Sequence[Sequence[int]]) -> Velocity:
        """A pass for each turn of samples: together they would take more memory and no less time."""
        segments = [
            [place for sample in turn for place in range(len(pack.segments))[pack.of(sample)]] for turn in turns
        ]
        parts = [self.lay_out(pack.select(turn), memory.select(turn)) for turn in turns]

        def velocity(latents: Latents, sigmas: Tensor) -> Latents:
            found: dict[int, Tensor] = {}
            for places, part in zip(segments, parts, strict=True):
                some = part([latents[place] for place in places], torch.stack([sigmas[place] for place in places]))
                found |= zip(places, some, strict=True)
            return [found[place] for place in range(len(latents))]

        return velocity

    @torch.no_grad()
    def _work(self, layout: Layout, latents: Latents, sigmas: Tensor) -> Latents:
        pack = layout.pack.with_latents(latents)
        x, rope = self.mot.enter(pack, sigmas)
        if layout.alike:
            x = self._through_alike(x, rope, layout)
        else:
            x = self.through(x, rope, layout, partial(self.attend, layout))
        return self.mot.leave(pack, x, sigmas).velocity

    def _through_alike(self, x: Float[Tensor, "L D"], rope: Rope, layout: Layout) -> Float[Tensor, "L D"]:
        """Samples that are alike through all layers; keys and values are made where attention wants them."""
        samples = (len(layout.lengths), -1)
        cos, sin = (angle.unflatten(0, samples) for angle in rope)
        for layer, text in zip(self._layers, layout.text, strict=True):
            keys, values = (y.unflatten(0, samples) for y in text)
            q, k, v = self._before_alike(x.unflatten(0, samples), cos, sin, keys, values, layer, self._shape)
            x = self.after(x, rearrange(self.kernel(q, k, v), "b l n e -> (b l) (n e)"), layer)
        return x

    def after(self, x: Float[Tensor, "L D"], attended: Float[Tensor, "L Q"], layer: Layer) -> Float[Tensor, "L D"]:
        """The rest of a layer; x may be written over."""
        if layer.out.eight is not None:
            return self._after(x, attended, layer, self._shape)
        # Products that add to x where it lies spare a copy of it, which the compiler would make.
        x.addmm_(attended, layer.out.weight.T)
        return x.addmm_(self._inside(x, layer, self._shape), layer.down.weight.T)

    def through(self, x: Float[Tensor, "L D"], rope: Rope, layout: Layout, attend: Attend) -> Float[Tensor, "L D"]:
        """Tokens, all or some of them, through all layers; `attend` alone looks at several at a time."""
        for layer, (text_keys, text_values) in zip(self._layers, layout.text, strict=True):
            q, k, v = self._before(x, *rope, layer, self._shape)
            x = self.after(x, attend(q, k, v, text_keys, text_values), layer)
        return x

    def attend(
        self, layout: Layout, q: Tensor, k: Tensor, v: Tensor, text_keys: Tensor, text_values: Tensor
    ) -> Float[Tensor, "L Q"]:
        """Each sample's queries over its text and its own latents, one sample after the other."""
        texts, owns = layout.text_lengths, layout.lengths
        pieces = zip(
            q.split(owns), k.split(owns), v.split(owns), text_keys.split(texts), text_values.split(texts), strict=True
        )
        attended = [
            self.kernel(q[None], torch.cat([text_k, k])[None], torch.cat([text_v, v])[None])[0]
            for q, k, v, text_k, text_v in pieces
        ]
        return rearrange(attended[0] if len(attended) == 1 else torch.cat(attended), "l n e -> l (n e)")

    def _replayed(self, layout: Layout) -> Velocity:
        """The same as a recorded graph; what was recorded for the same shape before serves again."""
        pack = layout.pack
        sigmas = torch.zeros(len(pack.segments), device=pack.positions.device)
        tensors: list[Tensor] = []
        of_layout = taken_apart(layout, tensors)
        # Apart, since segments of several samples may be the same tensors, and their latents are not.
        fixed = len(tensors)
        key = (of_layout, taken_apart((pack.latents, sigmas), tensors))
        if key not in self._graphs:
            self._graphs[key] = self._record((layout, pack.latents, sigmas), tensors)
        self._graphs.move_to_end(key)
        while len(self._graphs) > GRAPHS_KEPT:
            self._graphs.popitem(last=False)
        known = self._graphs[key]

        def velocity(latents: Latents, sigmas: Tensor) -> Latents:
            if known.layout is not layout:
                # Another layout of the same shape was asked about in between.
                torch._foreach_copy_(known.inputs[:fixed], tensors[:fixed])
                known.layout = layout
            torch._foreach_copy_(known.inputs[fixed:], [*latents, sigmas])
            known.replay()
            return [x.clone() for x in known.velocity]

        return velocity

    def _record(self, asked: tuple[Layout, Latents, Tensor], tensors: Sequence[Tensor]) -> Recorded:
        inputs = [tensor.clone() for tensor in tensors]

        def work() -> Latents:
            # Put together anew each time: segments keep what they have worked out, and it has to be in the recording.
            return self._work(*put_together(asked, iter(inputs)))

        replay, velocity = cuda_graph(work, self._pool)
        return Recorded(replay=replay, inputs=inputs, velocity=velocity, layout=None)


def in_turns(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Samples with generation tokens, in their order, in turns of at most so many tokens; a longer one is alone."""
    turns: list[list[int]] = []
    tokens = 0
    for sample, length in enumerate(lengths):
        if length == 0:
            continue
        if not turns or tokens + length > most:
            turns.append([])
            tokens = 0
        turns[-1].append(sample)
        tokens += length
    return turns


def layout_of(pack: Pack, memory: TextMemory) -> Layout:
    """A pack with the text of those of its samples that have generation tokens."""
    memory, lengths = among_busy(pack, memory)
    return Layout(
        pack=pack,
        text=tuple((layer.keys_for_generation, layer.values) for layer in memory.layers),
        lengths=tuple(lengths),
        text_lengths=memory.lengths,
    )


def joined(tower: Tower, linears: Linears) -> Layer:
    """One tower of a block with matrices that read the same tokens made one.

    The tower's own matrices become parts of the joined ones, so that nothing is held twice.
    """
    ups = [tower.mlp.up] if tower.mlp.gate is None else [tower.mlp.gate, tower.mlp.up]
    return Layer(
        attention_norm=tower.attention_norm.weight,
        qkv=matrix(_join([tower.q, tower.k, tower.v]), linears),
        q_norm=tower.q_norm.weight if isinstance(tower.q_norm, RMSNorm) else None,
        k_norm=tower.k_norm.weight if isinstance(tower.k_norm, RMSNorm) else None,
        out=matrix(tower.out.weight, linears),
        mlp_norm=tower.mlp_norm.weight,
        up=matrix(_join(ups), linears),
        down=matrix(tower.mlp.down.weight, linears),
    )


def _join(parts: Sequence[nn.Linear]) -> Tensor:
    weights = [part.weight.detach() for part in parts]
    ends = [weight.data_ptr() + weight.nbytes for weight in weights]
    if ends[:-1] == [weight.data_ptr() for weight in weights[1:]] and _of_one_storage(weights):
        # Joined before, for another way to compute: both hold the same matrix.
        return weights[0].as_strided((sum(map(len, weights)), weights[0].shape[1]), weights[0].stride())
    whole = torch.cat(weights)
    for part, piece in zip(parts, whole.split([len(part.weight) for part in parts]), strict=True):
        part.weight.data = piece
    return whole


def _of_one_storage(tensors: Sequence[Tensor]) -> bool:
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


# The functions below look at each token alone, so that they are compiled once for any number of tokens and for all
# layers. Attention, between them, calls its kernels as they are.
def before_attention(
    x: Float[Tensor, "L D"], cos: Float[Tensor, "L 1 E"], sin: Float[Tensor, "L 1 E"], layer: Layer, shape: Shape
) -> tuple[Float[Tensor, "L N E"], Float[Tensor, "L K E"], Float[Tensor, "L K E"]]:
    """Queries, keys and values, normalised and turned."""
    assert layer.q_norm is not None
    assert layer.k_norm is not None
    q, k, v = heads_of(x, layer, shape)
    q, k = normed(q, layer.q_norm, shape), normed(k, layer.k_norm, shape)
    return rotate(q, (cos, sin)), rotate(k, (cos, sin)), v


def heads_of(
    x: Float[Tensor, "L D"], layer: Layer, shape: Shape
) -> tuple[Float[Tensor, "L N E"], Float[Tensor, "L K E"], Float[Tensor, "L K E"]]:
    """Queries, keys and values, before any norm or rotation."""
    projected = multiply(normed(x, layer.attention_norm, shape), layer.qkv)
    # From the weights, which are constants to the compiler; the whole numbers of `shape` are unknowns to it.
    of_queries = layer.out.weight.shape[1]
    of_keys = (layer.qkv.weight.shape[0] - of_queries) // 2
    head_width = shape.head_width if layer.q_norm is None else layer.q_norm.shape[0]
    q, k, v = (y.unflatten(-1, (-1, head_width)) for y in projected.split([of_queries, of_keys, of_keys], dim=-1))
    return q, k, v


def before_attention_alike(
    x: Float[Tensor, "B l D"],
    cos: Float[Tensor, "B l 1 E"],
    sin: Float[Tensor, "B l 1 E"],
    text_keys: Float[Tensor, "B m K E"],
    text_values: Float[Tensor, "B m K E"],
    layer: Layer,
    shape: Shape,
) -> tuple[Float[Tensor, "B l N E"], Float[Tensor, "B ml K E"], Float[Tensor, "B ml K E"]]:
    """The same of samples that are alike, with the keys and values of their text in front, where they are needed."""
    # Cut into samples by the caller: the compiler loses itself in lengths that are quotients.
    q, k, v = before_attention(x.flatten(0, 1), cos.flatten(0, 1), sin.flatten(0, 1), layer, shape)
    q, k, v = (y.unflatten(0, x.shape[:2]) for y in (q, k, v))
    return q, torch.cat([text_keys, k], dim=1), torch.cat([text_values, v], dim=1)


def after_attention(
    x: Float[Tensor, "L D"], attended: Float[Tensor, "L Q"], layer: Layer, shape: Shape
) -> Float[Tensor, "L D"]:
    """Add what attention found, then the MLP."""
    x = x + multiply(attended, layer.out)
    return x + multiply(inside_mlp(x, layer, shape), layer.down)


def inside_mlp(x: Float[Tensor, "L D"], layer: Layer, shape: Shape) -> Float[Tensor, "L F"]:
    """The MLP up to what its last matrix is given."""
    y = multiply(normed(x, layer.mlp_norm, shape), layer.up)
    if not shape.gated:
        return F.relu(y).square()
    gate, y = y.chunk(2, dim=-1)
    return F.silu(gate) * y


def normed(x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """As `mot.RMSNorm`."""
    normed = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + shape.eps)
    if shape.scales_in_float32:
        return (normed * weight.float()).to(x.dtype)
    return normed.to(x.dtype) * weight.to(x.dtype)


def shape_of(config: MoTConfig) -> Shape:
    """What the compiled functions need to know of a configuration."""
    return Shape(
        config.head_width,
        config.activation == "swiglu",
        config.norm_eps,
        config.norm_scales_in_float32,
    )
