"""Several processes do what one does: the same losses, the same weights, the same files."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from makers import world_run
from makers.world_run import EYES, MODEL, RECIPE, RUN, fit_noting, full_bank, records, sketched, write_ground

from orrery.errors import SettingsError
from orrery.training import parallel
from orrery.training.fit import fit
from orrery.training.loop import LOG, STATE
from orrery.training.parallel import ALONE, Rows, Team, some, team_of
from orrery.training.stacks import Asking, draw_stacks
from orrery.training.world_model import WorldModel
from orrery.weights.folder import open_folder
from orrery.weights.shard import read_tensors
from orrery.worlds.factory.shards import write_shard

RUNS = 2
"""Processes."""


@pytest.fixture(autouse=True)
def pictures() -> Iterator[None]:
    with sketched():
        yield


def launched(*arguments: Path) -> list[subprocess.Popen[str]]:
    """Processes that think torchrun started them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tests = Path(__file__).parents[1]
    found = []
    for rank in range(RUNS):
        environment = os.environ | {
            "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank),
            "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RUNS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        command = [sys.executable, str(tests / "makers" / "world_run.py"), *map(str, arguments)]
        found.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    return found


def test_two_processes_find_the_losses_and_the_weights_of_one(tmp_path):
    # Two of them are stopped once, by a signal to the one that does not lead, and go on from their files.
    shard = tmp_path / "shard.npz"
    write_shard(shard, records())
    ground = tmp_path / "ground"
    write_ground(ground)
    processes = launched(tmp_path / "two", shard, ground)
    fit_noting(RECIPE, tmp_path / "one", shard, ground)
    try:
        said = [process.communicate(timeout=350)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * RUNS, "\n".join(said)
    assert not any("arning" in words for words in said), said

    one, two = (
        [json.loads(line) for line in (tmp_path / name / "costs.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [row["step"] for row in two] == list(range(RUN.steps))
    for mine, theirs in zip(two, one, strict=True):
        assert mine.keys() == theirs.keys()
        for name, cost in theirs.items():
            assert mine[name] == pytest.approx(cost, rel=1e-6, abs=1e-6), name

    folders = [open_folder(tmp_path / name / STATE) for name in ("one", "two")]
    assert folders[0].files.keys() == folders[1].files.keys()
    for file in ("weights.safetensors", "optimiser.safetensors"):
        whole, parts = (read_tensors(folder.file(file)) for folder in folders)
        assert whole.keys() == parts.keys()
        for name, tensor in whole.items():
            torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-5, msg=name)
    documents = [folder.document("training.json") for folder in folders]
    assert documents[0].keys() == documents[1].keys()
    assert documents[0]["optimiser"] == documents[1]["optimiser"]
    # One process wrote, and only once.
    logs = [(tmp_path / name / LOG).read_text().splitlines() for name in ("one", "two")]
    assert [json.loads(line)["step"] for line in logs[0]] == [json.loads(line)["step"] for line in logs[1]]
    assert json.loads((tmp_path / "two" / "facts.json").read_text())["processes"] == RUNS


@pytest.mark.parametrize("size", [1, 2, 5])
@torch.no_grad()
def test_parts_of_a_stack_add_up_to_the_whole(size):
    model = WorldModel(MODEL, EYES, 0)
    for name, parameter in model.mot.named_parameters():
        if name.split(".")[0].endswith(("_out", "_head")):
            parameter.normal_(std=0.05)
    for stack in draw_stacks(full_bank(), RUN, RECIPE.emphasis, 0):
        whole = model.losses(stack, RUN.loss_weights)
        sums = dict.fromkeys(whole.parts, 0.0)
        total = 0.0
        for rank in range(size):
            mine, share = Team(rank=rank, size=size).part(stack)
            losses = model.losses(mine, RUN.loss_weights)
            total += float(losses.total * share)
            for name, part in losses.parts.items():
                sums[name] += float(part * share)
        assert total == pytest.approx(float(whole.total), rel=1e-6)
        assert sums == pytest.approx({name: float(part) for name, part in whole.parts.items()}, rel=1e-6)


def test_some_questions_are_what_they_are_among_others():
    stack = next(
        one for one in draw_stacks(full_bank(), RUN, RECIPE.emphasis, 0) if isinstance(one, Asking) and one.count > 1
    )
    again = [some(stack, index, index + 1) for index in range(stack.count)]
    assert torch.equal(torch.cat([one.labels for one in again]), stack.labels)
    assert torch.equal(torch.cat([one.patches for one in again]), stack.patches)
    assert torch.equal(torch.cat([one.text.token_ids for one in again]), stack.text.token_ids)
    for one in again[1:]:
        assert torch.equal(one.text.visual, again[0].text.visual)
        assert torch.equal(one.text.positions, again[0].text.positions)


@pytest.mark.parametrize(("rows", "size"), [(6, 2), (5, 2), (5, 4), (2, 3)])
def test_rows_of_a_process_are_those_that_torch_gives_it(rows, size):
    matrices = torch.arange(2.0 * rows * 3).reshape(2, rows, 3)
    expected = [list(chunk.unbind()) for chunk in matrices.chunk(size, dim=1)]
    for rank in range(size):
        found = Rows(team=Team(rank=rank, size=size)).rows(matrices)
        if rank < len(expected):
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected[rank], strict=True))
        else:
            assert [mine.shape for mine in found] == [(0, 3), (0, 3)]


def test_one_process_alone_has_everything(monkeypatch):
    with team_of("cpu") as (team, place):
        assert (team, place) == (ALONE, world_run.CPU)
    assert ALONE.leads
    assert [ALONE.any(flag) for flag in (False, True)] == [False, True]
    assert ALONE.clock() <= ALONE.clock()
    tensors = {"a": torch.ones(2)}
    assert ALONE.gather(tensors) is tensors
    assert ALONE.total({"a": torch.tensor(2.0)}) == {"a": 2.0}
    assert ALONE.total({}) == {}
    assert not Team(rank=1, size=2).leads
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "9", "RANK": "9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="has no GPU of its own"), team_of("cuda"):
        pass
    monkeypatch.setattr(parallel.torch, "__version__", "2.12.1")
    with pytest.raises(SettingsError, match=r"torch 2\.13 or newer"), team_of("cpu"):
        pass


def test_several_processes_do_not_simulate(monkeypatch, tmp_path):
    two = nullcontext((Team(rank=0, size=2), world_run.CPU))
    monkeypatch.setattr("orrery.training.fit.team_of", lambda device: two)
    with pytest.raises(SettingsError, match="orrery episodes"):
        fit(RECIPE, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
