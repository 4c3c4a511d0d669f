"""The benchmark of several GPUs says how it is started; what is shared right is in `runtime/test_several`."""

import importlib
import sys
from pathlib import Path

import pytest

from orrery.errors import SettingsError


def test_one_process_alone_is_told_how_to_start():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
        several_gpus = importlib.import_module("several_gpus")
        sys.modules.pop("several_gpus")
    with pytest.raises(SettingsError, match="torchrun --nproc-per-node 2"):
        several_gpus.main(several_gpus.SeveralGpus(device="cpu", family="tiny"))
