"""How tokens are dealt to processes, and heads that cannot be; `runtime/test_several` has what they find together."""

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from orrery.errors import SettingsError
from orrery.model.config import TINY
from orrery.model.context_parallel import ContextParallel, shares_of
from orrery.model.denoiser import Denoiser
from orrery.model.mot import MoT

CPU = torch.device("cpu")


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("lengths", [(17,), (4, 9, 1), (2, 2)])
def test_every_token_is_dealt_once_and_samples_are_shared_evenly(lengths, processes):
    shares = shares_of(lengths, processes, CPU)
    x = torch.arange(float(sum(lengths)))
    owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    parts = [shares.mine(rank) for rank in range(processes)]
    assert torch.equal(torch.cat(parts).sort().values, x.long())
    assert [len(part) for part in parts] == list(shares.lengths)
    for sample, length in enumerate(lengths):
        held = [part[owners[part] == sample] for part in parts]
        assert {len(places) for places in held} <= {length // processes, -(-length // processes)}
        assert all((places.diff() == 1).all() for places in held)
    assert torch.equal(shares.deal(x).long(), torch.cat(parts))
    assert torch.equal(shares.collect(shares.deal(x)), x)
    assert shares.in_order == (len(lengths) == 1 or processes == 1)


def test_heads_that_cannot_be_dealt_evenly_are_refused():
    denoiser = Denoiser(MoT(TINY), compiled=False)
    dist.init_process_group("fake", rank=1, world_size=4, store=FakeStore())
    try:
        with pytest.raises(SettingsError, match=r"heads = 4 and kv_heads = 2 cannot .* 4 processes.* divides 2"):
            ContextParallel(denoiser, dist.group.WORLD)
    finally:
        dist.destroy_process_group()
