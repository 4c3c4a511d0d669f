"""`orrery run`: carry out one request document. The work is in `runtime`, the document's form in `tasks.request`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Run:
    """Generate what a request document asks for: text, images, video, sound or robot actions."""

    request: tyro.conf.Positional[Path]
    """JSON request; paths inside it are relative to it."""
    model: str
    """Checkpoint: a local folder or a hub id."""
    out: Path
    """Folder for the results and their run.json."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights."""

    def __call__(self) -> None:
        from orrery.runtime.load import load
        from orrery.runtime.run import run, write
        from orrery.tasks.request import Request

        request = Request.from_json(self.request, base=self.request.parent)
        result = run(load(self.model, device=self.device, dtype=self.dtype), request)
        for path in write(result, self.out):
            print(path)
