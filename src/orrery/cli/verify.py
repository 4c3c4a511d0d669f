"""`orrery verify`: is a world model right, and would we notice if it were not? The work is in
`evaluation.verification`."""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from orrery.errors import SettingsError
from orrery.runtime.speed import Name
from orrery.tasks.checks import nearest, shown

if TYPE_CHECKING:
    from orrery.evaluation.verification.interfaces import Actor


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Climb the ladder: action following, fidelity by horizon, policy evaluation, exploitability, calibration and twin
    gap, with controls that must fail; write verification.json and verification.html.
    """

    checkpoint: tyro.conf.Positional[str]
    """A local folder, a name of ours or a hub id; its contract must be that of the world."""
    out: Path
    """Folder for the report."""
    world: Literal["factory"] = "factory"
    """What it is verified against."""
    size: Literal["quick", "standard", "full"] = "standard"
    """How many cases: a look in two minutes, a report in a quarter of an hour on two cores, or an hour and more."""
    rungs: tuple[str, ...] = ()
    """Rungs by name; all if left out."""
    policies: tuple[str, ...] = ()
    """Further checkpoints whose policies are tried beside the checkpoint's own, in the simulator and in imagination."""
    thresholds: Path | None = None
    """A TOML file of what is asked; the shipped one if left out."""
    probes: Path | None = None
    """Folder of the probes that judge pictures; those that are shipped if left out."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """Number format of the network: float32, bfloat16 or float16."""
    speed: Name | None = None
    """How to sample: plain; fast, which is exact to rounding; fp8 or 8bit, which are approximate. Left out, it is fast
    on a GPU in bfloat16 and plain elsewhere."""
    threads: int | None = None
    """CPU threads; as many as there are cores if left out."""
    seed: int = 0
    """Of test episodes and of all generation."""

    def __call__(self) -> None:
        from orrery.evaluation.verification.ladder import CLIMBS, THRESHOLDS, Setting, read_thresholds

        try:
            from orrery.evaluation.verification.factory_world import FactoryWorld
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"{error.name} is not installed. Install the extra: pip install 'orrery[worlds]'."
            ) from None
        import torch

        from orrery.evaluation.factory.ask import can, check_model
        from orrery.evaluation.factory.probe import load_probes
        from orrery.evaluation.verification.actors import ModelPolicy, actors_of
        from orrery.evaluation.verification.imaginers import ModelImaginer
        from orrery.evaluation.verification.verify import RUNGS, document, verify, write_report
        from orrery.runtime.bench import machine
        from orrery.runtime.load import load
        from orrery.worlds.factory.cell import EMBODIMENT

        for name in self.rungs:
            if name not in RUNGS:
                raise SettingsError(f"There is no rung {shown(name)}. {nearest(name, RUNGS)}")
        setting = Setting(
            climb=CLIMBS[self.size], seed=self.seed, thresholds=read_thresholds(self.thresholds or THRESHOLDS)
        )
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        began = time.monotonic()
        model = load(self.checkpoint, device=self.device, dtype=self.dtype, speed=self.speed)
        check_model(model)
        world = FactoryWorld(reader=load_probes(self.probes, device=self.device))
        batch = 8 if self.device == "cpu" else 64
        imaginer = ModelImaginer(
            model=model, embodiment=EMBODIMENT, name=model.origin.path.name, batch=batch, steps=setting.climb.steps
        )
        actors: list[Actor] = []
        for source in (self.checkpoint, *self.policies):
            other = model
            if source != self.checkpoint:
                other = load(source, device=self.device, dtype=self.dtype, speed=self.speed)
            check_model(other)
            if can(other, "policy_no_video"):
                own = ModelPolicy(model=other, embodiment=EMBODIMENT, name=f"policy of {source}", batch=batch)
                actors += actors_of(own, world.limits)[: setting.climb.actors]
        rungs, controls = verify(
            imaginer,
            world,
            setting,
            actors=actors,
            rungs=self.rungs or RUNGS,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
        report = document(
            rungs,
            controls,
            setting,
            world,
            {
                "name": model.origin.path.name,
                "files": dict(model.origin.weights),
                "trained": model.origin.trained,
            },
            command=self._command(),
            machine=machine(torch.device(self.device)),
            seconds=time.monotonic() - began,
        )
        write_report(self.out, report, rungs)
        print(f"{report['verdict']}. Wrote {self.out}: verification.json, verification.html")

    def _command(self) -> str:
        """What makes the report again; the rungs are added to it."""
        words = ["orrery", "verify", self.checkpoint, "--world", self.world, "--size", self.size]
        words += ["--seed", str(self.seed), "--out", str(self.out), "--device", self.device, "--dtype", self.dtype]
        for name, value in (
            ("--thresholds", self.thresholds),
            ("--probes", self.probes),
            ("--threads", self.threads),
            ("--speed", self.speed),
        ):
            if value is not None:
                words += [name, str(value)]
        if self.policies:
            words += ["--policies", *self.policies]
        return shlex.join(words)
