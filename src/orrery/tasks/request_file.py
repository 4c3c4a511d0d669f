"""A file of one request, or of a list of requests to be carried out together."""

from pathlib import Path
from typing import Any

from orrery.errors import OrreryError, RequestError
from orrery.tasks.checks import file_path, read_json
from orrery.tasks.request import MAX_DOCUMENT_BYTES, Request

MAX_REQUESTS = 256


def read_requests(path: Path) -> Request | list[Request]:
    """Read a JSON object as one request, or a JSON list as several; relative paths start from the file's folder.

    Raises:
        RequestError, TaskError: anything wrong with the document; in a list, naming the place of the request.
    """
    document = read_json(file_path("request", path), max_bytes=MAX_DOCUMENT_BYTES)
    if not isinstance(document, list):
        return Request.from_json(document, path.parent)
    if not 1 <= len(document) <= MAX_REQUESTS:
        raise RequestError(f"{path.name!r} lists {len(document)} requests. Give from 1 to {MAX_REQUESTS}.")
    requests = []
    for index, item in enumerate(document):
        try:
            requests.append(Request.from_json(item, path.parent))
        except OrreryError as error:
            raise type(error)(f"Request {index} of the list: {error}") from None
    return requests


def recorded(path: Path, *, model: str, family: str | None) -> list[dict[str, Any]]:
    """What a record of a run keeps of each request of a file, so that it can be carried out again.

    The document as it was written, the folder that its paths start from, how many requests share its pack, and where
    the checkpoint lies.

    Raises:
        RequestError: as `read_requests`.
    """
    document = read_json(file_path("request", path), max_bytes=MAX_DOCUMENT_BYTES)
    rows = document if isinstance(document, list) else [document]
    chosen = {
        "folder": str(path.parent.resolve()),
        "packed": len(rows),
        "model": str(Path(model).resolve()) if Path(model).exists() else model,
        "family": family,
    }
    return [{"document": row, **chosen} for row in rows]
