"""Processes find their devices; several come together in `runtime/test_several` and `training/test_parallel`."""

from datetime import timedelta

import pytest
import torch

from orrery.errors import SettingsError
from orrery.model.processes import processes, several_started


def test_one_alone_takes_the_device_that_it_is_told():
    assert not several_started()
    with processes("cpu", timedelta(seconds=1)) as place:
        assert place == torch.device("cpu")
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_one_of_several_needs_a_gpu_of_its_own(monkeypatch, device):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "99", "LOCAL_RANK": "98", "RANK": "98"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="Process 98 of this host has no GPU"), processes(device, timedelta(1)):
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not several_started()
