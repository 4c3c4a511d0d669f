"""Between frozen dataclasses of settings and plain JSON, both ways and strictly: types follow from the annotations.

A key that is missing or unknown, or a value of another type, is an error that names its place. No class paths are
stored, so modules may move. What values mean together is checked by the dataclasses themselves.
"""

import difflib
import math
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from orrery.errors import SettingsError

Settings = TypeVar("Settings")


def settings_to_json(value: Any) -> Any:
    """Plain dicts, lists, numbers, texts, booleans and None."""
    if is_dataclass(value):
        return {field.name: settings_to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [settings_to_json(item) for item in value]
    return value


def settings_from_json(kind: type[Settings], document: object, place: str) -> Settings:
    """Inverse of `settings_to_json`.

    Args:
        kind: the dataclass to make.
        document: its JSON object.
        place: what the document is, for errors.

    Raises:
        SettingsError: a key is missing or unknown, a value has another type or is out of range.
    """
    return cast(Settings, _read(kind, document, place))


def _read(kind: Any, value: object, place: str) -> Any:
    if is_dataclass(kind):
        return _read_object(kind, value, place)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _read(inner, value, place)
    if origin is tuple:
        return _read_tuple(arguments, value, place)
    if origin is Literal:
        if value not in arguments:
            raise SettingsError(f"{place} must be one of {', '.join(map(str, arguments))}, got {value!r}.")
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is float or type(value) is not kind:
        raise SettingsError(f"{place} must be a {_WORDS[kind]}, got {value!r}.")
    return value


_WORDS = {bool: "true or false", int: "whole number", float: "finite number", str: "text"}


def _read_object(kind: Any, value: object, place: str) -> Any:
    if not isinstance(value, dict):
        raise SettingsError(f"{place} must be an object, got {value!r}.")
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    for name in value:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
            raise SettingsError(f"{place} has no setting {name!r}. {hint}")
    if missing := [name for name in names if name not in value]:
        raise SettingsError(f"{place} lacks {', '.join(missing)}. Saved settings name every value.")
    return kind(**{name: _read(hints[name], value[name], f"{place}.{name}") for name in names})


def _read_tuple(arguments: tuple[Any, ...], value: object, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"{place} must be a list, got {value!r}.")
    kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(value) != len(kinds):
        raise SettingsError(f"{place} must have {len(kinds)} values, got {value!r}.")
    items = zip(kinds, value, strict=True)
    return tuple(_read(kind, item, f"{place}[{index}]") for index, (kind, item) in enumerate(items))
