"""Values that hold tensors, taken apart into what they are and the numbers in them: what a recorded call is kept by."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


def taken_apart(value: Any, tensors: list[Tensor]) -> Any:
    """Everything about a value but the numbers in its tensors, hashable; the tensors are appended in order."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return ("tensor", tuple(value.shape), value.dtype)
    if is_dataclass(value) and not isinstance(value, type):
        return (
            type(value).__name__,
            tuple(taken_apart(getattr(value, field.name), tensors) for field in fields(value)),
        )
    if isinstance(value, tuple | list):
        return (type(value).__name__, *(taken_apart(item, tensors) for item in value))
    return value


def put_together(value: T, tensors: Iterator[Tensor]) -> T:
    """The same value with other tensors, in the order of `taken_apart`."""

    def rebuilt(value: Any) -> Any:
        if isinstance(value, Tensor):
            return next(tensors)
        if is_dataclass(value) and not isinstance(value, type):
            return type(value)(**{field.name: rebuilt(getattr(value, field.name)) for field in fields(value)})
        if isinstance(value, tuple | list):
            return type(value)(rebuilt(item) for item in value)
        return value

    found: T = rebuilt(value)
    return found
