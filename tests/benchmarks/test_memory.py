"""The benchmark of memory runs at tiny size, and says that its weights are random."""

import importlib
import sys
from pathlib import Path

import pytest

from orrery.errors import SettingsError
from orrery.runtime.result import RANDOM_WEIGHTS


@pytest.fixture
def memory():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
        yield importlib.import_module("memory")
        sys.modules.pop("memory")


@pytest.mark.parametrize(("offload", "path"), [("text", "fast"), ("all", "plain"), ("none", "fast")])
def test_a_tiny_family_is_sampled(memory, capsys, offload, path):
    memory.main(memory.Memory(family="tiny", rows=("policy-17",), steps=2, offload=offload))
    said = capsys.readouterr().out
    assert RANDOM_WEIGHTS in said
    assert f"offload {offload}" in said
    assert f"denoiser {path}" in said
    assert said.splitlines()[-1].startswith("policy-17")


def test_rows_that_do_not_exist_are_refused(memory):
    with pytest.raises(SettingsError, match="policy-18"):
        memory.main(memory.Memory(rows=("policy-18",)))
    with pytest.raises(SettingsError, match="got 1"):
        memory.main(memory.Memory(steps=1))
