"""The text tower made ready for reading prompts and for writing on, one token at a time, as fast as the device can.

`read` gives what `MoT.read` gives. To write on, what was read is copied into a cache of fixed size, and taking in one
token is recorded once as a CUDA graph: it reads every weight once and waits for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from orrery.model.attention import attend, rotate
from orrery.model.denoiser import Layer, Shape, after_attention, heads_of, joined, normed, shape_of
from orrery.model.matrix import Linears
from orrery.model.mot import Block, LayerMemory, MoT, TextMemory
from orrery.model.recording import cuda_graph
from orrery.model.vision import VisionFeatures
from orrery.packing.pack import TextPack

LEAST_ROOM = 1024
"""Tokens of the smallest cache; further ones are twice as large, each."""


class TextLayer(NamedTuple):
    """One block of the text tower, joined."""

    layer: Layer
    key_norm: Tensor | None
    """Of the keys as the generation tower reads them, where that is a norm of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cache:
    """Room for the text of one sample, and what the recorded step reads and writes."""

    keys: tuple[Float[Tensor, "K S E"], ...]
    values: tuple[Float[Tensor, "K S E"], ...]
    token_id: Tensor
    position: Float[Tensor, "3 1"]
    place: Tensor
    """(1,), where the token stands in the cache."""
    replay: Callable[[], None] | None
    """None where nothing was recorded."""
    logits: Float[Tensor, " V"]
    """Of the recorded step."""


class Reader:
    """A text tower made fast. It shares the weights of the model, whose matrices become parts of the joined ones."""

    @torch.no_grad()
    def __init__(
        self, mot: MoT, *, linears: Linears = "exact", compiled: bool = True, recorded: bool | None = None
    ) -> None:
        """Join the matrices; arguments as for `Denoiser`."""
        self.mot = mot
        self.recorded = mot.embed.weight.is_cuda if recorded is None else recorded
        config = mot.config
        self._layers = [_joined(cast(Block, block), linears) for block in mot.blocks]
        self._shape = shape_of(config)
        self._look = torch.compile(look, dynamic=True) if compiled else look
        self._after = torch.compile(after_attention, dynamic=True) if compiled else after_attention
        self._step = torch.compile(step, dynamic=False) if compiled else step
        self._caches: dict[int, Cache] = {}

    @torch.no_grad()
    def read(self, text: TextPack, sights: VisionFeatures | None = None) -> TextMemory:
        """As `MoT.read`, without a past."""
        x, rope = self.mot.enter_text(text, sights)
        memories = []
        for index, (layer, key_norm) in enumerate(self._layers):
            q, keys, for_generation, v = self._look(x, *rope, layer, key_norm, self._shape)
            memories.append(LayerMemory(keys=keys, keys_for_generation=for_generation, values=v))
            attended = attend(q, keys, v, text.lengths, text.lengths, causal=True)
            x = self._after(x, attended, layer, self._shape)
            if sights is not None and index < len(sights.taps):
                x = x.index_add(0, text.visual, sights.taps[index].to(x.dtype))
        return TextMemory(layers=tuple(memories), hidden=self.mot.text_norm(x), lengths=text.lengths)

    @torch.no_grad()
    def begin(self, memory: TextMemory, room: int) -> "Writer":
        """Go on from what was read of one sample, for at most `room` tokens.

        Only the latest writer of a cache size may write: the next one takes its cache.
        """
        (length,) = memory.lengths
        size = LEAST_ROOM
        while size < length + room:
            size *= 2
        if size not in self._caches:
            self._caches[size] = self._record(self._empty(size))
        cache = self._caches[size]
        for keys, values, layer in zip(cache.keys, cache.values, memory.layers, strict=True):
            keys[:, :length].copy_(rearrange(layer.keys, "l k e -> k l e"))
            values[:, :length].copy_(rearrange(layer.values, "l k e -> k l e"))
        return Writer(self, cache, length, length + room)

    def _empty(self, size: int) -> Cache:
        config, weight = self.mot.config, self.mot.embed.weight
        shape = (config.kv_heads, size, config.head_width)
        return Cache(
            keys=tuple(weight.new_zeros(shape) for _ in self._layers),
            values=tuple(weight.new_zeros(shape) for _ in self._layers),
            token_id=torch.zeros(1, dtype=torch.long, device=weight.device),
            position=torch.zeros(3, 1, device=weight.device),
            place=torch.zeros(1, dtype=torch.long, device=weight.device),
            replay=None,
            logits=torch.zeros(config.vocab, device=weight.device),
        )

    def _record(self, cache: Cache) -> Cache:
        if not self.recorded:
            return cache
        replay, logits = cuda_graph(lambda: self.take_in(cache), None)
        return Cache(**{**vars(cache), "replay": replay, "logits": logits})

    def take_in(self, cache: Cache) -> Float[Tensor, " V"]:
        """One token at its place in the cache; the logits of the next one."""
        mot = self.mot
        x = mot.embed(cache.token_id)
        rope = mot.rotary(cache.position)
        for (layer, _), keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            x = self._step(x, *rope, keys, values, cache.place, layer, self._shape)
        return mot.logits(mot.text_norm(x))[0]


class Writer:
    """One sample's text, written on."""

    def __init__(self, reader: Reader, cache: Cache, length: int, end: int) -> None:
        self._reader, self._cache, self._length, self._end = reader, cache, length, end
        self.written = 0
        """Tokens taken in."""

    @torch.no_grad()
    def take_in(self, token_id: int, position: float) -> Float[Tensor, " V"]:
        """Logits after one more token.

        Args:
            token_id: the token.
            position: where it stands, on all three axes.

        Raises:
            ValueError: the room that was asked for is used up.
        """
        if self._length == self._end:
            raise ValueError(f"The cache has room for {self._end} tokens, and all are written. Begin with more room.")
        cache = self._cache
        cache.token_id.fill_(token_id)
        cache.position.fill_(position)
        cache.place.fill_(self._length)
        self._length += 1
        self.written += 1
        if cache.replay is None:
            return self._reader.take_in(cache)
        cache.replay()
        return cache.logits


def _joined(block: Block, linears: Linears) -> TextLayer:
    key_norm = None if block.text_key_norm is None else block.text_key_norm.weight
    return TextLayer(joined(block.text, linears), key_norm)


def look(
    x: Float[Tensor, "L D"],
    cos: Float[Tensor, "L 1 E"],
    sin: Float[Tensor, "L 1 E"],
    layer: Layer,
    key_norm: Tensor | None,
    shape: Shape,
) -> tuple[Float[Tensor, "L N E"], Float[Tensor, "L K E"], Float[Tensor, "L K E"], Float[Tensor, "L K E"]]:
    """As `Block.look_at_text`: queries, keys as text reads them, keys as generation reads them, values."""
    q, k, v = heads_of(x, layer, shape)
    keys = rotate(k if layer.k_norm is None else normed(k, layer.k_norm, shape), (cos, sin))
    for_generation = keys if key_norm is None else rotate(normed(k, key_norm, shape), (cos, sin))
    q = q if layer.q_norm is None else normed(q, layer.q_norm, shape)
    return rotate(q, (cos, sin)), keys, for_generation, v


def step(
    x: Float[Tensor, "1 D"],
    cos: Float[Tensor, "1 1 E"],
    sin: Float[Tensor, "1 1 E"],
    keys: Float[Tensor, "K S E"],
    values: Float[Tensor, "K S E"],
    place: Tensor,
    layer: Layer,
    shape: Shape,
) -> Float[Tensor, "1 D"]:
    """One block for one token, which is put into the cache."""
    q, k, _, v = look(x, cos, sin, layer, None, shape)
    keys.index_copy_(1, place, rearrange(k, "1 k e -> k 1 e"))
    values.index_copy_(1, place, rearrange(v, "1 k e -> k 1 e"))
    q = rearrange(q, "1 (k g) e -> k g e", k=keys.shape[0])
    scores = (q @ keys.mT).float() * keys.shape[2] ** -0.5
    unseen = torch.arange(keys.shape[1], device=keys.device) > place
    weights = scores.masked_fill(unseen, float("-inf")).softmax(dim=-1).to(x.dtype)
    return after_attention(x, rearrange(weights @ values, "k g e -> 1 (k g e)"), layer, shape)
