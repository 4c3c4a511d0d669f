"""Orrery: one world model for language, images, video, sound and robot actions.

`load`, `run`, `Request` and `Envelope` are the whole public surface for use from Python. They are looked up on first
use, so that `import orrery` stays light and does not load torch.
"""

import importlib
import importlib.metadata
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orrery.runtime.load import load
    from orrery.runtime.run import run
    from orrery.tasks.envelope import Envelope
    from orrery.tasks.request import Request

    __version__: str

# torch's threads (GNU OpenMP, which reads this when torch is imported) wait for each other by spinning. Beside another
# busy process they then take the core from the very thread that they wait for, and all is several times slower
# (benchmarks/threads.py).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__all__ = ["Envelope", "Request", "__version__", "load", "run"]

_HOMES = {
    "Envelope": "orrery.tasks.envelope",
    "Request": "orrery.tasks.request",
    "load": "orrery.runtime.load",
    "run": "orrery.runtime.run",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.metadata.version("orrery")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'orrery' has no attribute {name!r}; it has {', '.join(__all__)}")
