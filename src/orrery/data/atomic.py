"""Write a file aside and put it in place in one step, for libraries that write by name. Folders are left to others."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `path`; on leaving, its bytes are on disk and it is `path`.

    On an error the temporary file is removed and whatever was at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk: a rename may otherwise overtake the bytes it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
