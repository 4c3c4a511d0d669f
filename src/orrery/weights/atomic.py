"""Files and folders that are replaced whole or not at all, whenever the process is killed. No torch, no formats.

A new folder is made beside its final place, flushed to disk, and put there in one of two ways. Where the file system
can swap two names at once (Linux on its local file systems), it does: there is a whole folder under the final name at
every moment. Elsewhere the old folder is first renamed to `.NAME.previous`; between the two renames nothing is under
the final name, and `settled` finds the old folder until the next save puts it back. What killed processes left is
removed by the next save. One process at a time saves to one name; a second one makes the first fail, and the folder
stays whole.
"""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h: paths are as given
_CANNOT_SWAP = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `path`; on leaving, its bytes are on disk and it is `path`.

    On an error the temporary file is removed and whatever was at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.saving-{secrets.token_hex(4)}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old bytes or the new ones, also after a power cut.

    Raises:
        OSError: as for any write; the old file is then unchanged.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def new_folder(final: Path, *, swap: bool = True) -> Iterator[Path]:
    """An empty folder to write in, put in place of `final` when the block ends without an error.

    Files are flushed by whoever writes them. Orphans of earlier saves to the same name are removed first.

    Args:
        swap: as `replace_folder`.

    Raises:
        OSError: as for any write; what was at `final` is then still there.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    recover(final)
    sweep(final)
    temporary = final.with_name(f".{final.name}.saving-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        for folder in sorted((path for path in temporary.rglob("*") if path.is_dir()), reverse=True):
            sync(folder)
        sync(temporary)
        replace_folder(temporary, final, swap=swap)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary: Path, final: Path, *, swap: bool = True) -> None:
    """Put a finished folder in the place of `final`, which need not exist; both in one parent.

    Args:
        swap: exchange the two names at once where the file system can; `temporary` then holds the old folder.

    Raises:
        OSError: the folders cannot be renamed.
    """
    previous = _previous(final)
    if not final.exists():
        temporary.rename(final)
    elif not (swap and _exchange(temporary, final)):
        final.rename(previous)
        temporary.rename(final)
    sync(final.parent)
    shutil.rmtree(previous, ignore_errors=True)


def settled(final: Path) -> Path:
    """Where the last whole folder of that name is: `final`, or its predecessor if a save was killed between renames."""
    previous = _previous(final)
    return previous if not final.exists() and previous.exists() else final


def recover(final: Path) -> None:
    """Put the predecessor back under its name if a save was killed between renames."""
    if settled(final) != final:
        _previous(final).rename(final)
        sync(final.parent)


def sweep(final: Path) -> tuple[Path, ...]:
    """Remove what killed saves of `final` left behind, and return it."""
    orphans = [path for path in final.parent.iterdir() if path.name.startswith(f".{final.name}.saving-")]
    if final.exists() and _previous(final).exists():
        orphans.append(_previous(final))
    for path in orphans:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return tuple(orphans)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names inside a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _previous(final: Path) -> Path:
    return final.with_name(f".{final.name}.previous")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names at once; False where the system or the file system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_SWAP:
        return False
    raise OSError(code, os.strerror(code), str(other))
