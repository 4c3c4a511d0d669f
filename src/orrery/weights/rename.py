"""What a table of tensor names can do, from published names to ours and back. The tables are in `layouts`.

A layout is rows of data. `{i}` in a row stands for a block index and `{wb}` for `weight` or `bias`; the same row serves
model families that lack the tensor (Edge has no `gate_proj`), because what must be present is the model's to say. Names
on our side are relative to the module that holds them: the Mixture-of-Transformers, or the vision encoder (`eyes`).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

Part = Literal["text", "generation", "vision", "sound", "action", "eyes"]
"""What a tensor serves. "text" is the reasoner's tower; "generation" the second tower and the noise-level embedding."""

Form = Literal["same", "domains", "patches"]
"""How the published shape differs; the order of values never does. "domains": (d, in * out) for our (d, in, out).
"patches": the kernel of a convolution over 2 frames of p by p pixels, 3 channels, for our matrix of flattened rows."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published name, or family of names, and ours."""

    part: Part
    published: str
    ours: str
    form: Form = "same"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Our name of one published tensor, and how its shape differs."""

    ours: str
    form: Form = "same"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where every published name of a checkpoint goes: to one of ours, to nowhere for a reason, or nobody knows."""

    places: Mapping[str, Place]
    """Published name -> ours."""
    ignored: Mapping[str, str]
    """Published name -> why it is left unread."""
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A naming that checkpoints are published in."""

    name: str
    rows: tuple[Row, ...]
    unused: Mapping[str, str] = field(default_factory=dict)
    """Name pattern -> why it is left unread. A name ending in `*` stands for all that follows."""
    copies: tuple[str, ...] = ("",)
    """Prefixes under which whole copies of the model may lie, the preferred one first; the others are left unread."""

    def only(self, *parts: Part) -> "Layout":
        """The same naming, where the tensors of every other part are known but left unread."""
        left_out = {row.published: f"belongs to {row.part}, which was not asked for" for row in self.rows}
        kept = tuple(row for row in self.rows if row.part in parts)
        for row in kept:
            del left_out[row.published]
        return replace(self, rows=kept, unused={**self.unused, **left_out})

    def place(self, names: Iterable[str]) -> Placement:
        """Sort published names into read, left unread with a reason, and unknown."""
        every = list(names)
        prefix = next((copy for copy in self.copies if any(name.startswith(copy) for name in every)), "")
        places: dict[str, Place] = {}
        ignored: dict[str, str] = {}
        unknown: list[str] = []
        for name in every:
            other = next((copy for copy in self.copies if copy and copy != prefix and name.startswith(copy)), None)
            if other is not None:
                ignored[name] = f"a copy under {other}, where {prefix} is preferred"
            elif not name.startswith(prefix):
                unknown.append(name)
            elif place := _place(self.rows, name.removeprefix(prefix)):
                places[name] = place
            elif reason := _reason(self.unused, name.removeprefix(prefix)):
                ignored[name] = reason
            else:
                unknown.append(name)
        return Placement(places=places, ignored=ignored, unknown=tuple(unknown))

    def published(self, ours: str) -> tuple[str, Form] | None:
        """The name that one of ours is published under and its form; None where this layout has no place for it."""
        for row in self.rows:
            if found := _pattern(row.ours).fullmatch(ours):
                return _fill(row.published, found), row.form
        return None


def published_shape(form: Form, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a tensor of our `shape` is published.

    Raises:
        ValueError: `shape` cannot have that form.
    """
    match form, shape:
        case "same", _:
            return shape
        case "domains", (domains, width_in, width_out):
            return (domains, width_in * width_out)
        case "patches", (width, values):
            side = math.isqrt(values // 6)
            if values == 6 * side * side:
                return (width, 3, 2, side, side)
    raise ValueError(f"a tensor of shape {shape} cannot be published as {form}")


def _place(rows: tuple[Row, ...], name: str) -> Place | None:
    for row in rows:
        if found := _pattern(row.published).fullmatch(name):
            return Place(ours=_fill(row.ours, found), form=row.form)
    return None


def _reason(unused: Mapping[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in unused.items() if _pattern(pattern).fullmatch(name)), None)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    text = re.escape(template.removesuffix("*"))
    text = text.replace(r"\{i\}", "(?P<i>0|[1-9][0-9]{0,3})").replace(r"\{wb\}", "(?P<wb>weight|bias)")
    return re.compile(text + (".*" if template.endswith("*") else ""))


def _fill(template: str, found: re.Match[str]) -> str:
    return template.format(**found.groupdict())
