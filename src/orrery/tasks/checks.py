"""Checks of single values that came from outside. Each refuses with one line: what, the value received, what to give.

What the values mean together is decided by `orrery.tasks.request`.
"""

import difflib
import json
import math
from collections.abc import Collection
from pathlib import Path

from orrery.errors import RequestError

Number = int | float

MAX_JSON_DEPTH = 64
MAX_NUMBER_DIGITS = 64


def shown(value: object, limit: int = 60) -> str:
    """`value` for an error line: its repr without line breaks, cut to `limit` characters."""
    if isinstance(value, int) and value.bit_length() > 8 * limit:
        return f"a whole number of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def nearest(name: str, known: Collection[str]) -> str:
    """A sentence that points from a wrong name to the right ones."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."


def text(name: str, value: object, *, max_characters: int = 20_000) -> str:
    """A string that UTF-8 can carry, of at most `max_characters`."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, got {shown(value)}. Give a string.")
    if len(value) > max_characters:
        raise RequestError(f"{name} has {len(value)} characters; at most {max_characters} are taken. Shorten it.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        wrong = shown(value[error.start])
        raise RequestError(
            f"{name} holds the lone surrogate {wrong} at character {error.start}. Give valid Unicode text."
        ) from None
    if "\x00" in value:
        raise RequestError(f"{name} holds a NUL character at {value.index(chr(0))}. Remove it.")
    return value


def choice(name: str, value: object, allowed: Collection[str]) -> str:
    """One of `allowed`, exactly."""
    if not isinstance(value, str) or value not in allowed:
        hint = nearest(value, allowed) if isinstance(value, str) else f"Known: {', '.join(allowed)}."
        raise RequestError(f"{name} cannot be {shown(value)}. {hint}")
    return value


def whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number in [low, high]; true and false are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be a whole number, got {shown(value)}. Give one from {low} to {high}.")
    if not low <= value <= high:
        raise RequestError(f"{name} is out of range, got {shown(value)}. Give a whole number from {low} to {high}.")
    return value


def number(name: str, value: object, low: Number, high: Number, *, above: bool = False) -> float:
    """A finite number in [low, high], or in (low, high] with `above`."""
    bounds = f"{'above' if above else 'from'} {low:g} {'up ' if above else ''}to {high:g}"
    if isinstance(value, bool) or not isinstance(value, Number):
        raise RequestError(f"{name} must be a number, got {shown(value)}. Give one {bounds}.")
    if not low <= value <= high or (above and value == low):
        raise RequestError(f"{name} is out of range, got {shown(value)}. Give a number {bounds}.")
    return float(value)


def file_path(name: str, value: str | Path) -> Path:
    """A path of a local file. Whether the file exists is for the reader of it to say."""
    spelled = text(name, str(value), max_characters=4096)
    if not spelled.strip() or spelled == ".":
        raise RequestError(f"{name} is an empty path, got {shown(spelled)}. Give the path of a file.")
    scheme, colon, _ = spelled.partition(":")
    if colon and len(scheme) > 1 and scheme.isalpha():
        raise RequestError(f"{name} is an address, got {shown(spelled)}. Save the file here and give its path.")
    return Path(value)


def read_json(path: Path, *, max_bytes: int) -> object:
    """The value in a JSON file, read strictly: see `parse_json`."""
    if path.is_dir():
        raise RequestError(f"{path.name!r} is a folder. Give the path of a request file (.json).")
    if not path.is_file():
        raise RequestError(f"There is no file {str(path)!r}. Give the path of a request file (.json).")
    if (size := path.stat().st_size) > max_bytes:
        raise RequestError(f"{path.name!r} has {size} bytes, over the {max_bytes} that are read. Move media to files.")
    try:
        document = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path.name!r} is not UTF-8 text: bad byte at {error.start}. Save it as UTF-8.") from None
    return parse_json(document, source=path.name)


def parse_json(document: str, *, source: str) -> object:
    """The value of a JSON text. Repeated keys, NaN, infinities, endless digits and deep nesting are refused.

    Raises:
        RequestError: with the place in the text where parsing stopped.
    """
    if not document.strip():
        raise RequestError(f"{source!r} is empty. Write a JSON object such as {{'task': 'text_to_image', ...}}.")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        repeated = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
        if repeated:
            raise RequestError(f"{source!r} repeats the key {shown(min(repeated))}. Keep one of them.")
        return dict(pairs)

    def constant(word: str) -> float:
        raise RequestError(f"{source!r} holds {word}, which is not a number. Give finite numbers.")

    def real(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise RequestError(f"{source!r} holds {shown(digits)}, which is beyond 64-bit range. Give finite numbers.")
        return value

    def integer(digits: str) -> int:
        if len(digits) > MAX_NUMBER_DIGITS:
            raise RequestError(f"{source!r} holds a number of {len(digits)} digits. Give at most {MAX_NUMBER_DIGITS}.")
        return int(digits)

    too_deep = f"{source!r} nests deeper than {MAX_JSON_DEPTH} levels. A request needs at most three."
    try:
        value = json.loads(
            document, object_pairs_hook=unique, parse_constant=constant, parse_float=real, parse_int=integer
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise RequestError(f"{source!r} is not JSON: {error.msg} at {place}. Mend it there.") from None
    except RecursionError:
        raise RequestError(too_deep) from None
    level: list[object] = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return value
    raise RequestError(too_deep)
