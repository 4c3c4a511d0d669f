"""Our own checkpoint folder: tensors and documents under a manifest that vouches for every byte.

`manifest.json` names each file with its size and SHA-256, and carries a SHA-256 of itself. Tensors are safetensors, the
rest is JSON or bytes such as a tokenizer's; nothing is ever unpickled. How a folder is replaced whole is in `atomic`.
This module loads without torch, so that a checkpoint can be inspected at once.
"""

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orrery.errors import CheckpointError
from orrery.weights.atomic import new_folder, settled
from orrery.weights.documents import dump_json, listed, load_json, load_json_object

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "orrery checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 22
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Write = Callable[[bytes | memoryview], object]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What the manifest says of one file."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A checkpoint folder whose manifest has been checked."""

    path: Path
    metadata: Mapping[str, Any]
    files: Mapping[str, FileRecord]
    sha256: str
    """Of the manifest, and through it of everything in the folder: the name of these weights in records."""

    def file(self, name: str) -> Path:
        """The path of a file that the manifest names.

        Raises:
            CheckpointError: it names no such file.
        """
        if name not in self.files:
            raise CheckpointError(f"{self.path} holds no {name!r}. It holds {listed(self.files)}.")
        return self.path / name

    def document(self, name: str) -> Any:
        """Read one JSON document.

        Raises:
            CheckpointError: there is no such file, or it is not JSON.
        """
        return load_json(self.file(name).read_bytes(), self.path / name)

    def matching(self, pattern: str) -> tuple[Path, ...]:
        """The files whose names fit a pattern such as `model*.safetensors`, sorted."""
        return tuple(self.path / name for name in fnmatch.filter(sorted(self.files), pattern))


def save_folder(
    path: Path,
    *,
    tensors: Mapping[str, Mapping[str, "Tensor"]],
    documents: Mapping[str, object],
    metadata: Mapping[str, object],
    swap: bool = True,
) -> Folder:
    """Write a checkpoint folder whole, replacing the one at `path` only when the new one is on disk.

    Args:
        tensors: file name ending in .safetensors -> tensor name -> tensor on any device, written one at a time.
        documents: file name -> bytes to store as they are, or a value to store as JSON. Names may hold folders.
        metadata: JSON for the manifest itself: what a listing shows without opening another file.
        swap: as `atomic.replace_folder`.

    Raises:
        CheckpointError: a tensor is not finite, a file name is not allowed, or what lies at `path` is not a checkpoint
            of ours and would be lost. What was at `path` is then unchanged.
        OSError: the disk is full or not writable; likewise.
    """
    names = [*tensors, *documents]
    if wrong := [name for name in names if not _NAME.fullmatch(name) or name == MANIFEST or names.count(name) > 1]:
        raise CheckpointError(f"{listed(map(repr, wrong))} cannot name files of a checkpoint. Rename them.")
    if strange := [name for name in tensors if not name.endswith(".safetensors")]:
        raise CheckpointError(f"Tensors are stored in .safetensors files, not in {listed(strange)}. Rename them.")
    _refuse_to_lose(settled(path))
    with new_folder(path, swap=swap) as folder:
        records = {}
        for name, document in documents.items():
            data = document if isinstance(document, bytes) else dump_json(document)
            records[name] = write_file(folder / name, data)
        for name, table in tensors.items():
            from orrery.weights.shard import write_tensors  # brings torch, which a folder of documents does without

            records[name] = write_file(folder / name, partial(write_tensors, tensors=table))
        write_file(folder / MANIFEST, _seal(dict(metadata), records))
    return open_folder(path, verify=False)


def open_folder(path: Path, *, verify: bool = True, progress: Callable[[int, int], None] | None = None) -> Folder:
    """Check a checkpoint folder against its manifest, every byte of it, and return what it holds.

    If a save was killed at the wrong moment on a file system that cannot swap names, the predecessor is opened.

    Args:
        verify: whether to read every file for its hash, at the speed of the disk; names and sizes are always checked.
        progress: called with the bytes read and the bytes to read.

    Raises:
        CheckpointError: there is no checkpoint, it is of another version, or a file is missing, unknown, of another
            size or of other contents. The message names the file. Files whose names start with a dot are overlooked.
    """
    path = settled(path)
    folder = _read_manifest(path)
    present = {name for name in _present(path) if not any(part.startswith(".") for part in name.split("/"))}
    if missing := folder.files.keys() - present:
        raise CheckpointError(f"{path} lacks {listed(missing)}, which its manifest names. Fetch the checkpoint again.")
    if extra := present - folder.files.keys() - {MANIFEST}:
        raise CheckpointError(f"{path} holds {listed(extra)}, unknown to its manifest. Move what does not belong away.")
    total = sum(record.size for record in folder.files.values())
    done = 0
    for name, record in folder.files.items():
        size = (path / name).stat().st_size
        if size != record.size:
            raise CheckpointError(
                f"{path / name} has {size} bytes, its manifest says {record.size}. Fetch the file again."
            )
        if verify:
            digest = hashlib.sha256()
            with (path / name).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
            if digest.hexdigest() != record.sha256:
                raise CheckpointError(f"{path / name} is not what its manifest says (SHA-256). Fetch the file again.")
    return folder


def write_file(path: Path, content: bytes | Callable[[Write], object]) -> FileRecord:
    """Write a new file through to the disk, and say what was written.

    Args:
        content: the bytes, or a function that is given one to write bytes with.

    Raises:
        OSError: the file exists or cannot be written.
    """
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:

        def write(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        if isinstance(content, bytes):
            write(content)
        else:
            content(write)
        file.flush()
        os.fsync(file.fileno())
        return FileRecord(sha256=digest.hexdigest(), size=file.tell())


def _seal(metadata: Mapping[str, object], records: Mapping[str, FileRecord]) -> bytes:
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "metadata": metadata,
        "files": {name: asdict(record) for name, record in records.items()},
    }
    return dump_json(manifest | {"sha256": hashlib.sha256(dump_json(manifest)).hexdigest()})


def _read_manifest(path: Path) -> Folder:
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} is not an Orrery checkpoint: {MANIFEST} cannot be read ({error.strerror}). Check the path."
        ) from None
    match load_json_object(data, path / MANIFEST):
        case {"format": str(name)} if name != FORMAT:
            raise CheckpointError(f"{path / MANIFEST} is of format {name!r}, not {FORMAT!r}. Check the path.")
        case {"version": version} if version != VERSION:
            raise CheckpointError(
                f"{path} is a checkpoint of version {version!r}, and this program reads version {VERSION}. Update it."
            )
        case {"format": _, "version": _, "metadata": dict(metadata), "files": dict(files), "sha256": str(digest)}:
            records = {name: record for name, value in files.items() if (record := _record(name, value))}
            # Comparing the bytes catches what a hash of the parsed values would not, such as a changed space.
            if _seal(metadata, records) == data:
                return Folder(path=path, metadata=metadata, files=records, sha256=digest)
    raise CheckpointError(f"{path / MANIFEST} is damaged: it does not match its own hash. Fetch the file again.")


def _record(name: str, value: object) -> FileRecord | None:
    match value:
        case {"sha256": str(sha256), "size": int(size)} if _NAME.fullmatch(name) and _SHA256.fullmatch(sha256):
            return FileRecord(sha256=sha256, size=size)
    return None


def _present(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}


def _refuse_to_lose(path: Path) -> None:
    """Raise if replacing the folder would lose anything but a checkpoint of ours."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        lost = _present(path) - _read_manifest(path).files.keys() - {MANIFEST} if path.is_dir() else {path.name}
        if lost:
            raise CheckpointError(f"Saving to {path} would lose {listed(lost)}. Move it away or save elsewhere.")


def sha256_of_file(path: Path) -> str:
    """Of the bytes, read in pieces; OSError where there is no such file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
