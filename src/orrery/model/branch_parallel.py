"""The samples of a pack over several devices: the two branches of guidance at once, or jobs beside each other.

Samples do not see each other, so that all there is to exchange is their velocities, once a step.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from orrery.flow.samplers import Latents
from orrery.model.mot import LaysOut, TextMemory, Velocity
from orrery.packing.pack import Pack


class BranchParallel:
    """Something that gives velocities in each of the processes of a group, asked about some of the samples.

    Each process may itself be one of several that work together: then it is a `ContextParallel`, and the group has one
    process of each of them.
    """

    def __init__(self, inner: LaysOut, group: dist.ProcessGroup) -> None:
        self.inner, self.group = inner, group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)

    def lay_out(self, pack: Pack, memory: TextMemory) -> Velocity:
        """As `Denoiser.lay_out`; all processes must ask, for the same, and call what is returned together.

        A process that gets no sample waits for the others.
        """
        dealt = deal(pack.lengths, self.size)
        segments = [[place for sample in samples for place in _segments(pack, sample)] for samples in dealt]
        mine = torch.tensor(segments[self.rank], dtype=torch.long).to(pack.positions.device)
        inner = None
        if dealt[self.rank]:
            inner = self.inner.lay_out(pack.select(dealt[self.rank]), memory.select(dealt[self.rank]))

        @torch.no_grad()
        def velocity(latents: Latents, sigmas: Tensor) -> Latents:
            found = (
                [] if inner is None else inner([latents[i] for i in segments[self.rank]], sigmas.index_select(0, mine))
            )
            return self._exchanged(found, segments, latents)

        return velocity

    def _exchanged(self, found: Latents, segments: Sequence[Sequence[int]], latents: Latents) -> Latents:
        """Velocities of all segments, of which this process found some; each process sends its own as one vector."""
        velocities = dict[int, Tensor]()
        for process, places in enumerate(segments):
            if not places:
                continue
            sizes = [latents[place].numel() for place in places]
            if process == self.rank:
                sent = torch.cat([x.flatten() for x in found])
                assert sent.dtype == torch.float32, "MoT.leave answers in float32"
            else:
                sent = torch.empty(sum(sizes), device=latents[0].device)
            dist.broadcast(sent, group=self.group, group_src=process)
            for place, piece in zip(places, sent.split(sizes), strict=True):
                velocities[place] = piece.reshape(latents[place].shape)
        return [velocities[place] for place in range(len(latents))]


def deal(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Which samples each process takes, so that all have about as many tokens; samples without any are left out."""
    dealt: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for sample in sorted(range(len(lengths)), key=lambda sample: -lengths[sample]):
        if lengths[sample]:
            least = tokens.index(min(tokens))
            dealt[least].append(sample)
            tokens[least] += lengths[sample]
    return [sorted(samples) for samples in dealt]


def _segments(pack: Pack, sample: int) -> range:
    place = pack.of(sample)
    return range(place.start, place.stop)
