"""From what a user types (a folder, a hub id, a name of ours) to a local folder, offline first.

What the folder holds is read elsewhere.
"""

import importlib.util
import os
import re
from pathlib import Path

from orrery.errors import CheckpointError
from orrery.weights.atomic import settled

_HUB_ID = re.compile(
    r"(?P<owner>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w][\w./-]*))?", re.ASCII
)
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_PACKAGE = Path(__file__).parent.parent
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = ("1", "ON", "YES", "TRUE")
_NOT_FETCHED = ("*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl", "*.pickle", "*.distcp", ".metadata")


def resolve(path_or_hub_id: str | Path) -> Path:
    """Find the folder of a checkpoint.

    A local folder wins, then a checkpoint of that name that comes with the package. Otherwise `owner/name` or
    `owner/name@revision` is looked up in the Hugging Face cache, and only if it is not there, downloaded through
    `huggingface_hub`, without pickles. A revision is a branch, a tag or a commit; `main` if it is not given. With
    HF_HUB_OFFLINE set, nothing is downloaded.

    Raises:
        CheckpointError: there is no such folder and it is no name or hub id, or the hub id cannot be had.
    """
    local = settled(Path(path_or_hub_id).expanduser())
    if local.is_dir():
        return local
    if local.exists():
        raise CheckpointError(f"{local} is a file. Give the folder that holds the checkpoint.")
    if (ours := shipped(str(path_or_hub_id))) is not None:
        return ours
    found = _HUB_ID.fullmatch(str(path_or_hub_id))
    if found is None or ".." in str(path_or_hub_id):
        names = ", ".join(repr(path.name) for place in _places() if place.is_dir() for path in sorted(place.iterdir()))
        raise CheckpointError(
            f"There is no folder {local}. Give an existing folder, a hub id such as owner/name, or a checkpoint that "
            f"comes with the package ({names or 'none does here'})."
        )
    hub_id, revision = f"{found['owner']}/{found['name']}", found["revision"] or "main"
    cached = _cached(hub_id, revision)
    if cached is not None:
        return cached
    missing = f"{hub_id} at revision {revision} is neither a folder nor in the cache {_cache()}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        raise CheckpointError(f"{missing}, and HF_HUB_OFFLINE is set. Unset it to download, or give a folder.")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointError(f"{missing}. To download it, install huggingface_hub; or give a folder.")
    return _download(hub_id, revision)


def shipped(name: str) -> Path | None:
    """The folder of a checkpoint that comes with the package: inside it, or beside its source; None without one."""
    if not _NAME.fullmatch(name):
        return None
    return next((place / name for place in _places() if (place / name / "manifest.json").is_file()), None)


def shadowing(path_or_hub_id: str | Path) -> str | None:
    """What to tell a user whose local folder is taken for a name of ours; None where nothing is in its way."""
    name = str(path_or_hub_id)
    local, ours = settled(Path(name)), shipped(name)
    if ours is None or not local.is_dir() or local.resolve() == ours.resolve():
        return None
    return f"The folder {local.resolve()} was taken, not the checkpoint {name!r} that comes with the package."


def _places() -> tuple[Path, ...]:
    """Where checkpoints of ours may lie: in the installed package, and at the root of a checkout."""
    checkout = (_PACKAGE.parent.parent / "checkpoints",) if _PACKAGE.parent.name == "src" else ()
    return (_PACKAGE / "checkpoints", *checkout)


def _cache() -> Path:
    """Where Hugging Face programs keep what they download, by the same environment variables."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    return Path(home).expanduser() / "hub"


def _cached(hub_id: str, revision: str) -> Path | None:
    folder = _cache() / f"models--{hub_id.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    return snapshot if _COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def _download(hub_id: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, ignore_patterns=list(_NOT_FETCHED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{hub_id} at revision {revision} could not be downloaded ({reason}). "
            "Check the name, the network and HF_TOKEN, or give a folder."
        ) from error
