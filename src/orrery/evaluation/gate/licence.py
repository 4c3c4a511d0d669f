"""SPDX licence expressions: which of their licences a list does not allow, and what an installed package states."""

import re
from collections.abc import Collection, Sequence
from importlib.metadata import Distribution

_TOKEN = re.compile(r"[()]|[^\s()]+")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:-]*")
_WORDS = ("AND", "OR", "WITH")
# Trove classifiers that name one licence; others, such as "BSD License", leave open which.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}


def not_allowed(expression: str, allowed: Collection[str]) -> tuple[str, ...]:
    """The licences in an expression that keep it from being allowed; empty where nothing does.

    Of alternatives (OR) one is enough. A licence WITH an exception is allowed only where the list holds it as a whole.
    What is not an expression is itself not allowed.

    Source: SPDX specification 2.3, annex D; AND binds tighter than OR, WITH tighter than both.
    """
    known = {licence.casefold() for licence in allowed}
    tokens = _TOKEN.findall(expression)[::-1]  # read from the end
    try:
        refused = _either(tokens, known)
    except ValueError:
        return (expression,)
    return tuple(dict.fromkeys(refused)) if not tokens else (expression,)


def _either(tokens: list[str], known: Collection[str]) -> list[str]:
    options = [_every(tokens, known)]
    while _take(tokens, "OR"):
        options.append(_every(tokens, known))
    return [] if not all(options) else [licence for option in options for licence in option]


def _every(tokens: list[str], known: Collection[str]) -> list[str]:
    refused = _one(tokens, known)
    while _take(tokens, "AND"):
        refused = refused + _one(tokens, known)
    return refused


def _one(tokens: list[str], known: Collection[str]) -> list[str]:
    if _take(tokens, "("):
        refused = _either(tokens, known)
        if not _take(tokens, ")"):
            raise ValueError("a bracket is not closed")
        return refused
    licence = _identifier(tokens)
    if _take(tokens, "WITH"):
        licence = f"{licence} WITH {_identifier(tokens)}"
    return [] if licence.casefold() in known else [licence]


def _identifier(tokens: list[str]) -> str:
    if not tokens or not _ID.fullmatch(tokens[-1]) or tokens[-1].upper() in _WORDS:
        raise ValueError("a licence is missing")
    return tokens.pop()


def _take(tokens: list[str], word: str) -> bool:
    if tokens and tokens[-1].upper() == word:
        tokens.pop()
        return True
    return False


def stated_licence(package: Distribution) -> str | None:
    """What a package says of its licence, as an SPDX expression where it can be told; None where it says nothing.

    License-Expression goes first, then the classifiers, then a License field of one line (some hold the whole text).
    """
    if expression := _field(package, "License-Expression"):
        return expression
    classifiers: Sequence[str] = package.metadata.get_all("Classifier") or []
    names = [entry.rsplit(" :: ", 1)[1] for entry in classifiers if entry.startswith("License :: ")]
    if names := [name for name in names if name != "OSI Approved"]:
        return " AND ".join(_CLASSIFIERS.get(name, name) for name in names)
    line = _field(package, "License")
    return line if line and "\n" not in line and len(line) <= 100 else None


def _field(package: Distribution, name: str) -> str:
    value = package.metadata[name].strip() if name in package.metadata else ""
    return "" if value.upper() == "UNKNOWN" else value
