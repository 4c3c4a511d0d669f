"""Values of TOML and JSON documents by key, each of a stated kind. What they mean is left to those who read them."""

import hashlib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from orrery.errors import SettingsError
from orrery.tasks.checks import nearest, shown
from orrery.weights.documents import load_json_object

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of a document. Every method raises SettingsError for a missing entry or one of another kind."""

    where: str
    """How errors call it."""
    content: Mapping[str, Any]
    sha256: str = ""
    """Of the bytes of the document, for its outermost table."""

    def only(self, *keys: str) -> None:
        """Refuse keys beside these."""
        for key in self.content:
            if key not in keys:
                raise SettingsError(f"{self.where} has an unknown entry {shown(key)}. {nearest(key, keys)}")

    def form(self, name: str, version: int) -> None:
        """Refuse documents of another format or version."""
        found = (self.content.get("format"), self.content.get("version"))
        if found != (name, version):
            raise SettingsError(f"{self.where} is {shown(found)}; {name!r} version {version} is read. Write it again.")

    def text(self, key: str) -> str:
        """A text, not empty."""
        value = self.content.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "a text that is not empty")
        return value

    def maybe_text(self, key: str) -> str:
        """A text, empty where the entry is missing."""
        return self.text(key) if self.content.get(key, "") != "" else ""

    def texts(self, key: str, *, least: int = 0) -> tuple[str, ...]:
        """A list of at least so many texts."""
        value = self.content.get(key)
        if not isinstance(value, list) or len(value) < least or not all(isinstance(v, str) and v for v in value):
            raise self._wrong(key, f"a list of at least {least} texts")
        return tuple(value)

    def number(self, key: str, *, most: float = 1e12) -> float:
        """A number above 0, up to `most`."""
        value = self.content.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise self._wrong(key, f"a number above 0, up to {most:g}")
        return float(value)

    def whole(self, key: str) -> int:
        """A whole number from 1 on."""
        value = self.content.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, "a whole number from 1 on")
        return value

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self.content.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def maybe_truth(self, key: str) -> bool | None:
        """True, false, or null for what is not known; the entry itself must be there."""
        if key in self.content and self.content[key] is None:
            return None
        return self.truth(key)

    def choice(self, key: str, allowed: Collection[str]) -> str:
        """One of these words."""
        value = self.content.get(key)
        if not isinstance(value, str) or value not in allowed:
            raise self._wrong(key, f"one of {', '.join(allowed)}")
        return value

    def hash(self, key: str) -> str:
        """A sha256, 64 hexadecimal digits in lower case."""
        value = self.content.get(key)
        if not isinstance(value, str) or not SHA256.fullmatch(value):
            raise self._wrong(key, "a sha256 of 64 hexadecimal digits in lower case")
        return value

    def maybe_hash(self, key: str) -> str | None:
        """As `hash`; None where the entry is missing."""
        return self.hash(key) if key in self.content else None

    def hashes(self, key: str) -> dict[str, str]:
        """File name -> sha256."""
        table = self.table(key)
        return {name: table.hash(name) for name in table.content}

    def day(self, key: str) -> date:
        """A date of TOML, without a time."""
        value = self.content.get(key)
        if type(value) is not date:
            raise self._wrong(key, "a date without quotes, such as 2030-01-31")
        return value

    def table(self, key: str) -> "Table":
        """A table inside this one."""
        value = self.content.get(key)
        if not isinstance(value, Mapping):
            raise self._wrong(key, "a table")
        return Table(where=f"{self.where}, {key}", content=value)

    def tables(self, key: str) -> tuple["Table", ...]:
        """A list of tables."""
        value = self.content.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise self._wrong(key, "a list of tables")
        return tuple(Table(where=f"{self.where}, {key} {index}", content=v) for index, v in enumerate(value))

    def _wrong(self, key: str, kind: str) -> SettingsError:
        if key not in self.content:
            return SettingsError(f"{self.where} lacks {key!r}: {kind}. Add it.")
        return SettingsError(f"{self.where}: {key} must be {kind}, got {shown(self.content[key])}. Mend it.")


def read_toml(path: Path) -> Table:
    """The outermost table of a TOML file.

    Raises:
        SettingsError: no such file, or not TOML.
    """
    data = _read(path)
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} is not valid TOML: {error}. Mend it there.") from None
    return Table(where=path.name, content=content, sha256=hashlib.sha256(data).hexdigest())


def read_json(path: Path) -> Table:
    """The object of a JSON file.

    Raises:
        SettingsError: no such file.
        CheckpointError: not JSON, or not an object.
    """
    data = _read(path)
    return Table(
        where=path.name, content=load_json_object(data, Path(path.name)), sha256=hashlib.sha256(data).hexdigest()
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path.name} cannot be read ({error.strerror}). Give the path of the file.") from None
