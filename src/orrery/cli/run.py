"""`orrery run`: carry out one request document. The work is in `runtime`, the document's form in `tasks.request`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from orrery.cli.progress import progress


@dataclass(frozen=True, kw_only=True)
class Run:
    """Generate what a request document asks for: text, images, video, sound or robot actions."""

    request: tyro.conf.Positional[Path]
    """JSON request; paths inside it are relative to it."""
    model: str
    """Checkpoint: a local folder or a hub id."""
    out: Path
    """New folder for the results and their run.json."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the network."""

    def __call__(self) -> None:
        from orrery.tasks.request import Request

        request = Request.from_json(self.request)  # before torch: a document that is wrong is refused at once
        from orrery.runtime.load import load
        from orrery.runtime.run import run

        with progress("Loading") as report:
            model = load(self.model, device=self.device, dtype=self.dtype, report=report)
        with progress("Sampling") as report:
            result = run(model, request, report=report)
        result.write(self.out)
        if result.text is not None:
            print(result.text)
        print(f"Wrote {self.out}: {', '.join(sorted(path.name for path in self.out.iterdir()))}")
