"""`orrery run`: carry out one request document. The work is in `runtime`, the document's form in `tasks.request`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from orrery.cli.progress import progress
from orrery.errors import SettingsError
from orrery.runtime.speed import Name


@dataclass(frozen=True, kw_only=True)
class Run:
    """Generate what a request document asks for: text, images, video, sound or robot actions.

    Over several GPUs of one host, which share the tokens of each sample:

    torchrun --nproc-per-node 2 -m orrery.cli.main run REQUEST --model MODEL --out OUT --device cuda --dtype bfloat16
    """

    request: tyro.conf.Positional[Path]
    """JSON request, or a list of them to be run in one pack; paths inside are relative to the file."""
    model: str
    """Checkpoint: a local folder, the name of one that comes with the package, or a hub id."""
    out: Path
    """New folder for the results and their run.json; one below it (000, 001, ...) for each request of a list."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """Number format of the network: float32, bfloat16 or float16."""
    speed: Name | None = None
    """How to sample: plain; fast, which is exact to rounding; fp8 or 8bit, which are approximate. Left out, it is fast
    on a GPU in bfloat16 and plain elsewhere."""
    reuse: float | None = None
    """Extrapolate a turn of sampling instead of computing it while the velocity changes by no more than this share,
    such as 0.1: approximate, at a price that is not known beforehand. Every turn is computed if left out."""
    offload: Literal["text", "all"] | None = None
    """Leave the text tower, or all blocks, in CPU memory, and copy them to the device as they are needed: slower, for
    models that do not fit."""
    branches: int = 1
    """Groups that several GPUs form, which take samples apart; 2 for the two branches of guidance."""
    threads: int | None = None
    """CPU threads; as many as there are cores if left out. The same number gives the same bytes."""
    family: str | None = None
    """Model family whose defaults apply; found from the checkpoint if left out."""
    verify: bool = True
    """Check every file of a checkpoint of ours against its hash."""
    envelope: Literal["contract", "none"] | Path = "contract"
    """What the actions of a policy are held to: the training range in the checkpoint's contract, nothing (none), or
    the envelope in a JSON file, such as one cut from the run.json of another run."""

    def __call__(self) -> None:
        from orrery.tasks.envelope import read_envelope
        from orrery.tasks.request_file import read_requests, recorded

        requests = read_requests(self.request)  # before torch: a document that is wrong is refused at once
        envelope = None if self.envelope == "none" else self.envelope
        held_to = read_envelope(envelope) if isinstance(envelope, Path) else envelope
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise SettingsError(f"threads must be from 1 to 1024, got {self.threads}. Leave it out for all cores.")
        import torch

        from orrery.runtime.load import device_named, load
        from orrery.runtime.result import RANDOM_WEIGHTS, check_new, write_all
        from orrery.runtime.run import run
        from orrery.runtime.several import how_many, is_first, several, share

        check_new(self.out)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        alone = not isinstance(requests, list)
        device_named(self.device)
        with several(self.device) as device:
            first, processes = is_first(), how_many()
            with progress("Loading") as tell:
                model = load(
                    self.model,
                    device=str(device),
                    dtype=self.dtype,
                    family=self.family,
                    verify=self.verify,
                    report=tell,
                    speed=self.speed,
                    offload=self.offload,
                )
            if self.reuse is not None:
                model = replace(model, speed=replace(model.speed, reuse=self.reuse))
            if model.price is not None and first:
                price = f"velocities are off by {model.price.to_text()} of their size"
                print(f"Speed {self.speed}: {price}.", file=sys.stderr)
            model = share(model, branches=self.branches)
            with progress("Sampling") as tell:
                made = run(
                    model,
                    requests if isinstance(requests, list) else [requests],
                    report=tell,
                    on_text=_show if alone and first else None,
                    envelope=held_to,
                    trace=True,
                )
        if not first:
            return
        records = recorded(self.request, model=self.model, family=self.family)
        shared = {} if processes == 1 else {"processes": {"count": processes, "branches": self.branches}}
        made = [
            replace(result, manifest={**result.manifest, **shared, "request": row})
            for result, row in zip(made, records, strict=True)
        ]
        written = [made[0].write(self.out)] if alone else write_all(made, self.out)
        if alone and made[0].text is not None:
            print()
        print(f"Wrote {self.out}: {', '.join(_files(self.out))}")
        if any(result.manifest["weights_trained"] is False for result in written):
            print(f"orrery: warning: {RANDOM_WEIGHTS}", file=sys.stderr)


def _show(piece: str) -> None:
    print(piece, end="", flush=True)


def _files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
