"""`orrery reproduce`: carry out a recorded run again, and say where it parts. The work is in `runtime.reproduce`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from orrery.errors import SettingsError
from orrery.runtime.speed import Name


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Carry out a recorded run again: bit-equal, within tolerance, or different, and at which stage.

    The exit code is 1 where it is different.
    """

    record: tyro.conf.Positional[Path]
    """The run.json beside a result."""
    model: str | None = None
    """Where the checkpoint lies now; where it lay then if left out."""
    device: str | None = None
    """Where to compute; as then if left out."""
    dtype: str | None = None
    """Number format of the network; as then if left out."""
    speed: Name | None = None
    """How to sample; as then if left out."""
    threads: int | None = None
    """CPU threads; as many as then if left out."""
    out: Path | None = None
    """JSON file to write the verdict to; nothing is overwritten."""

    def __call__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise SettingsError(
                f"threads must be from 1 to 1024, got {self.threads}. Leave it out for as many as then."
            )
        if self.out is not None and self.out.exists():
            raise SettingsError(f"{self.out} exists, and nothing is overwritten. Give a new name.")
        from orrery.runtime.reproduce import read_manifest, reproduce
        from orrery.weights.atomic import write_atomic
        from orrery.weights.documents import dump_json

        manifest = read_manifest(self.record)
        found = reproduce(
            manifest,
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            speed=self.speed,
        )
        if self.out is not None:
            write_atomic(self.out, dump_json(found.to_json()))
        print(found.to_text())
        if found.verdict == "different":
            raise SystemExit(1)
