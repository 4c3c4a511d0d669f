"""Several processes that share a pack say what one says: its tokens, its samples, or both taken apart."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from makers.own_checkpoint import HEIGHT, WIDTH, tiny_model, write_own
from makers.several_run import MISTAKES, QWEN, Case, cases, plain, ran, random_mot, sampled

from orrery.data.write_media import write_png
from orrery.errors import SettingsError
from orrery.flow.samplers import Latents
from orrery.model.denoiser import Denoiser
from orrery.runtime.several import several, share, spread

SIZES = (2, 4)
"""Processes."""


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size} processes")
def found(request, tmp_path_factory) -> list[dict[str, Latents]]:
    """What each of several processes found."""
    size, out = request.param, tmp_path_factory.mktemp("several")
    tests = Path(__file__).parents[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        environment = os.environ | {
            "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank),
            "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        command = [sys.executable, str(tests / "makers" / "several_run.py"), str(out)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        said = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(said)
    return [torch.load(out / f"{rank}.pt") for rank in range(size)]


@cache
def alone(family: str, pack: str, dtype: torch.dtype) -> Latents:
    return plain(Case(family=family, pack=pack, dtype=dtype))


def test_velocities_are_those_of_one_process(found):
    for name, case in cases(len(found)).items():
        expected = alone(case.family, case.pack, torch.float32)
        assert max(x.abs().max() for x in expected) > 0.1, name
        if case.dtype == torch.float32:
            for a, b in zip(found[0][name], expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
            continue
        # As far from the numbers of float32 as one process is in bfloat16.
        rounded = alone(case.family, case.pack, case.dtype)
        assert _error(found[0][name], expected) < 1.2 * _error(rounded, expected), name
        assert _error(found[0][name], rounded) < 1.2 * _error(rounded, expected), name


def test_every_process_has_all_of_the_same_numbers(found):
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, velocities in other.items():
            assert all(torch.equal(a, b) for a, b in zip(velocities, found[0][name], strict=True)), name


def test_sampling_comes_to_the_same_end(found):
    expected = sampled(None)
    for name in ("sampled, 1 groups", "sampled, 2 groups"):
        for a, b in zip(found[0][name], expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_request_comes_to_the_same_end(found):
    torch.testing.assert_close(found[0]["ran"], ran(None), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(found, mistake):
    assert _error(found[0][mistake], alone("qwen", "ragged", torch.float32)) > 0.01


def _error(found: Latents, expected: Latents) -> float:
    """Of all values together, relative."""
    a, b = (torch.cat([x.flatten() for x in values]) for values in (found, expected))
    return float((a - b).norm() / b.norm())


def test_one_process_alone_keeps_its_denoiser():
    denoiser = Denoiser(random_mot(QWEN, torch.float32), compiled=False)
    fast = replace(tiny_model(), denoiser=denoiser)
    with several("cpu") as device:
        assert device == torch.device("cpu")
        assert spread(denoiser) is denoiser
        assert share(fast).denoiser is denoiser
        with pytest.raises(SettingsError, match="1 processes cannot be divided into 2 groups"):
            spread(denoiser, branches=2)


def test_a_model_on_the_plain_path_is_not_shared():
    with pytest.raises(SettingsError, match=r"got speed denoiser plain.* Load it with speed 'fast'"):
        share(tiny_model(), branches=2)


def test_the_command_over_two_processes_writes_what_one_does(tmp_path):
    write_own(tmp_path / "own")
    request = {"task": "policy", "prompt": "push it", "vision": "frame.png", "steps": 2, "seed": 3}
    (tmp_path / "request.json").write_text(json.dumps(request))
    write_png(tmp_path / "frame.png", np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    command = [
        "run",
        str(tmp_path / "request.json"),
        "--model",
        str(tmp_path / "own"),
        "--speed",
        "fast",
        "--threads",
        "1",
    ]
    alone = [sys.executable, "-m", "orrery.cli.main", *command, "--envelope", "none", "--out", str(tmp_path / "alone")]
    subprocess.run(alone, check=True, capture_output=True)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        *alone[1:-1],
        str(tmp_path / "two"),
    ]
    subprocess.run(torchrun, check=True, capture_output=True, timeout=200)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )
    one, two = (json.loads((tmp_path / name / "actions.json").read_text()) for name in ("alone", "two"))
    assert np.allclose(one["actions"], two["actions"], atol=1e-3)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == {"count": 2, "branches": 1}
