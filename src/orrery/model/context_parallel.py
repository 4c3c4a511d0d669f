"""The generation tower over several devices, each with a share of the tokens of every sample: long sequences, faster.

What looks at each token alone runs on the share. Around attention processes exchange tokens for heads, so that each
attends over all tokens with some of the heads, and back again. Shares may differ in length; nothing is padded. All
processes are given the same latents, and all are given the whole velocity.

Source: Ulysses, arXiv:2309.14509, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import gcd

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from orrery.errors import SettingsError
from orrery.flow.samplers import Latents
from orrery.model.denoiser import Denoiser, Layout, layout_of
from orrery.model.mot import TextMemory, Velocity
from orrery.packing.pack import Pack


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """Which tokens of a pack each process holds: of every sample a stretch."""

    lengths: tuple[int, ...]
    """Tokens of each process."""
    dealt: Int[Tensor, " L"]
    """Where the tokens stand in the pack, process by process."""
    collected: Int[Tensor, " L"]
    """Its inverse: where the tokens of the pack stand among those that are dealt."""
    in_order: bool
    """Whether the two orders are one, as with a single sample."""

    def mine(self, rank: int) -> Int[Tensor, " l"]:
        """Where the tokens of a process stand in the pack."""
        return self.dealt.split(self.lengths)[rank]

    def deal(self, x: Float[Tensor, "L *rest"]) -> Float[Tensor, "L *rest"]:
        """From the order of the pack to process by process."""
        return x if self.in_order else x.index_select(0, self.dealt)

    def collect(self, x: Float[Tensor, "L *rest"]) -> Float[Tensor, "L *rest"]:
        """From process by process to the order of the pack."""
        return x if self.in_order else x.index_select(0, self.collected)


def shares_of(lengths: Sequence[int], processes: int, device: torch.device) -> Shares:
    """Samples of so many tokens, each cut into stretches that are as equal as can be."""
    starts = [0, *accumulate(lengths)]
    held = [
        torch.cat(
            [
                torch.arange(start + length * rank // processes, start + length * (rank + 1) // processes)
                for start, length in zip(starts, lengths, strict=False)
            ]
        )
        for rank in range(processes)
    ]
    dealt = torch.cat(held)
    return Shares(
        lengths=tuple(len(places) for places in held),
        dealt=dealt.to(device),
        collected=dealt.argsort().to(device),
        in_order=bool((dealt.diff() == 1).all()),
    )


class ContextParallel:
    """A `Denoiser` in each of the processes of a group, which together work on each pack."""

    def __init__(self, denoiser: Denoiser, group: dist.ProcessGroup) -> None:
        """Join a group.

        Args:
            denoiser: with the same weights in every process. Nothing is recorded.
            group: processes whose devices are alike.

        Raises:
            SettingsError: heads cannot be dealt evenly.
        """
        config, self.size = denoiser.mot.config, dist.get_world_size(group)
        if config.heads % self.size or config.kv_heads % self.size:
            most = gcd(config.heads, config.kv_heads)
            raise SettingsError(
                f"Attention with heads = {config.heads} and kv_heads = {config.kv_heads} cannot be dealt evenly to "
                f"{self.size} processes. Take a number that divides {most}; further GPUs can share the branches of "
                "guidance: runtime.several.spread, branches=2."
            )
        self.denoiser, self.group, self.rank = denoiser, group, dist.get_rank(group)

    def lay_out(self, pack: Pack, memory: TextMemory) -> Velocity:
        """As `Denoiser.lay_out`; all processes must ask, for the same, and call what is returned together."""
        layout = layout_of(pack, memory)
        text = tuple((self.some_heads(keys), self.some_heads(values)) for keys, values in layout.text)
        layout = replace(layout, text=text)
        shares = shares_of(layout.lengths, self.size, pack.positions.device)

        def velocity(latents: Latents, sigmas: Tensor) -> Latents:
            return self._work(layout, shares, latents, sigmas)

        return velocity

    @torch.no_grad()
    def _work(self, layout: Layout, shares: Shares, latents: Latents, sigmas: Tensor) -> Latents:
        pack, mot = layout.pack.with_latents(latents), self.denoiser.mot
        x, (cos, sin) = mot.enter(pack, sigmas)
        mine = shares.mine(self.rank)
        rope = (cos.index_select(0, mine), sin.index_select(0, mine))

        def attend(q: Tensor, k: Tensor, v: Tensor, text_keys: Tensor, text_values: Tensor) -> Tensor:
            q, k, v = self.tokens_for_heads(q, k, v, shares)
            return self.heads_for_tokens(self.denoiser.attend(layout, q, k, v, text_keys, text_values), shares)

        x = self.denoiser.through(x.index_select(0, mine), rope, layout, attend)
        return mot.leave(pack, self.whole(x, shares), sigmas).velocity

    def some_heads(self, x: Float[Tensor, "L N E"]) -> Float[Tensor, "L n E"]:
        """The heads of this process."""
        return x.chunk(self.size, dim=1)[self.rank].contiguous()

    def tokens_for_heads(
        self, q: Float[Tensor, "l N E"], k: Float[Tensor, "l K E"], v: Float[Tensor, "l K E"], shares: Shares
    ) -> tuple[Float[Tensor, "L n E"], Float[Tensor, "L k E"], Float[Tensor, "L k E"]]:
        """Give away the other heads of the tokens held here, for the other tokens of the heads of this process."""
        mine = shares.lengths[self.rank]
        # One exchange for all three: what goes to a process lies together.
        parts = [rearrange(x, "l (r n) e -> r l n e", r=self.size) for x in (q, k, v)]
        sent = rearrange(torch.cat(parts, dim=2), "r l n e -> (r l) n e")
        found = sent.new_empty(sum(shares.lengths), *sent.shape[1:])
        dist.all_to_all_single(found, sent, list(shares.lengths), [mine] * self.size, group=self.group)
        q, k, v = shares.collect(found).split([part.shape[2] for part in parts], dim=1)
        return q, k, v

    def heads_for_tokens(self, x: Float[Tensor, "L q"], shares: Shares) -> Float[Tensor, "l Q"]:
        """The way back, with what the queries found."""
        mine = shares.lengths[self.rank]
        sent = shares.deal(x).contiguous()
        found = sent.new_empty(self.size * mine, sent.shape[1])
        dist.all_to_all_single(found, sent, [mine] * self.size, list(shares.lengths), group=self.group)
        return rearrange(found, "(r l) q -> l (r q)", r=self.size)

    def whole(self, x: Float[Tensor, "l D"], shares: Shares) -> Float[Tensor, "L D"]:
        """The tokens of all processes, in every process, in the order of the pack."""
        found = x.new_empty(sum(shares.lengths), x.shape[1])
        parts = found.split(shares.lengths)
        parts[self.rank].copy_(x)
        # A broadcast each, since gloo gathers only what is of one length.
        for process, part in enumerate(parts):
            if len(part):
                dist.broadcast(part, group=self.group, group_src=process)
        return shares.collect(found)
