"""`orrery eval`: measure a checkpoint on a suite. The work is in `evaluation.factory`."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from orrery.errors import SettingsError
from orrery.runtime.speed import Name


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure what a checkpoint can do, every figure beside its baselines, and write results.json and results.html."""

    checkpoint: tyro.conf.Positional[str]
    """A local folder, a name of ours or a hub id; its contract must be that of the suite."""
    out: Path
    """Folder for the results."""
    suite: Literal["factory"] = "factory"
    """What is measured."""
    rows: tuple[str, ...] = ()
    """Rows of the table by name; all if left out."""
    size: Literal["quick", "standard", "full"] = "standard"
    """How many cases: a look in a minute, a table in a quarter of an hour on two cores, or what claims rest on."""
    trials: int | None = None
    """Of the policy for each task, instead of what the size says."""
    execute: int = 8
    """Actions of a chunk that are executed before the policy is asked again."""
    policy_task: Literal["policy_no_video", "policy"] = "policy_no_video"
    """Whether the policy imagines the future beside its actions."""
    policy_only: str | None = None
    """Another checkpoint, as a baseline of the policy."""
    probes: Path | None = None
    """Folder of the probes; those that are shipped if left out."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """Number format of the network: float32, bfloat16 or float16."""
    speed: Name | None = None
    """How to sample: plain; fast, which is exact to rounding; fp8 or 8bit, which are approximate. Left out, it is fast
    on a GPU in bfloat16 and plain elsewhere."""
    threads: int | None = None
    """CPU threads; as many as there are cores if left out."""
    workers: int = 1
    """Processes that simulate and draw."""
    batch: int | None = None
    """Requests in one pack; 8 on a CPU and 64 elsewhere if left out."""
    seed: int = 0
    """Of test episodes and of all generation."""

    def __call__(self) -> None:
        try:
            from orrery.evaluation.factory.table import chosen_rows
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"{error.name} is not installed. Install the extra: pip install 'orrery[worlds]'."
            ) from None
        import torch

        from orrery.errors import CheckpointError
        from orrery.evaluation.factory.figure import SIZES, Suite
        from orrery.evaluation.factory.probe import load_probes
        from orrery.evaluation.factory.table import Tools, evaluate, write_table
        from orrery.runtime.load import load

        chosen_rows(self.rows)  # before anything heavy: a wrong name is refused at once
        if self.trials is not None and self.trials < 1:
            raise SettingsError(f"trials must be 1 or more, got {self.trials}.")
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        size = SIZES[self.size]
        if self.trials is not None:
            size = replace(size, trials=self.trials, unseen_trials=-(-self.trials // 2), steps=None)
        model = load(self.checkpoint, device=self.device, dtype=self.dtype, speed=self.speed)
        policy_only = None
        if self.policy_only is not None:
            policy_only = load(self.policy_only, device=self.device, dtype=self.dtype, speed=self.speed)
        try:
            reader = load_probes(self.probes, device=self.device)
        except CheckpointError:
            if self.probes is not None:
                raise
            reader = None
        result = evaluate(
            model,
            Suite(
                size=size,
                seed=self.seed,
                workers=self.workers,
                batch=self.batch or (8 if self.device == "cpu" else 64),
                policy_task=self.policy_task,
                execute=self.execute,
                policy_only=self.policy_only,
                tell=_say,
            ),
            Tools(reader=reader, policy_only=policy_only),
            self.rows,
            command=self._command(),
        )
        write_table(self.out, result)
        print(f"Wrote {self.out}: results.json, results.html")

    def _command(self) -> str:
        """What makes the results again; the rows are added to it."""
        words = [
            "orrery",
            "eval",
            self.checkpoint,
            "--suite",
            self.suite,
            "--size",
            self.size,
            "--seed",
            str(self.seed),
        ]
        words += ["--out", str(self.out), "--execute", str(self.execute), "--policy-task", self.policy_task]
        words += ["--device", self.device, "--dtype", self.dtype]
        if self.speed is not None:
            words += ["--speed", self.speed]
        if self.trials is not None:
            words += ["--trials", str(self.trials)]
        if self.policy_only is not None:
            words += ["--policy-only", self.policy_only]
        return shlex.join(words)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
