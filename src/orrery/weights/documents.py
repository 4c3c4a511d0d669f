"""JSON as checkpoints store it: strict in reading, one spelling in writing. What it means is left to its readers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from orrery.errors import CheckpointError


def dump_json(document: object) -> bytes:
    """The one spelling of a document: sorted keys, two spaces, UTF-8, a last newline.

    Raises:
        ValueError: the document holds NaN or an infinity.
        TypeError: it holds something that is not JSON.
    """
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def load_json(data: bytes, source: Path) -> Any:
    """Read one JSON document; `source` is only named in errors.

    Raises:
        CheckpointError: not UTF-8, not JSON, nested too deeply, a key given twice, NaN or an infinity.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is not a readable JSON document ({error}). Fetch the file again.") from None


def load_json_object(data: bytes, source: Path) -> dict[str, Any]:
    """As `load_json`, for a document that must be an object.

    Raises:
        CheckpointError: as `load_json`, or the document is a list, a text or a number.
    """
    document = load_json(data, source)
    if not isinstance(document, dict):
        raise CheckpointError(f"{source} holds a JSON {type(document).__name__}, not an object. Fetch the file again.")
    return document


def exact_fields(kind: type[Any], document: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The values of a document that holds every field of a dataclass and nothing else.

    Args:
        what: how errors call the document, such as "Model configuration".

    Raises:
        CheckpointError: missing or unknown keys, by name.
    """
    names = {field.name for field in fields(kind)}
    if set(document) != names:
        missing, unknown = sorted(names - set(document)), sorted(set(document) - names)
        raise CheckpointError(f"{what}: missing keys {missing}, unknown keys {unknown}.")
    return dict(document)


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Names for an error line, the first `limit` of them and the number left out."""
    every = sorted(names)
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + rest


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key given twice: {listed({key for key in keys if keys.count(key) > 1})}")
    return document


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
