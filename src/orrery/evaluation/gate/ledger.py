"""The asset ledger: everything that a deployment is made of, where it came from, and who approved of its licence.

Weights, datasets and tokenizers are listed by hand in assets.toml. Python packages are found as they are installed; one
that states no licence, or not the right one, is listed by hand as well.
"""

import importlib.metadata
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orrery.errors import SettingsError
from orrery.evaluation.entries import Table, read_toml
from orrery.evaluation.gate.licence import not_allowed, stated_licence
from orrery.weights.folder import sha256_of_file

FORMAT, VERSION = "orrery.assets", 1
KINDS = ("weights", "dataset", "tokenizer", "dependency")
BLANK = "[to be filled in"
"""What begins a blank of a template; a value that holds one was not filled in."""

_REQUIREMENT = re.compile(r"\s*(?P<name>[A-Za-z0-9][\w.-]*)\s*(\[(?P<extras>[^\]]*)\])?[^;]*(;(?P<marker>.*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One entry of assets.toml; empty where it says nothing, which refuses."""

    name: str
    kind: str
    licence: str
    """SPDX expression."""
    origin: str
    files: Mapping[str, str]
    """Path relative to the ledger -> sha256; empty for what is not a file here."""
    obligations: tuple[str, ...] | None
    """What the licence asks for; None: not looked at."""
    approved_by: str


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """assets.toml as read, and the sha256 of every file it names as it is now (None: it is not there)."""

    assets: tuple[Asset, ...]
    sha256: str
    now: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed Python package. `version` None: it is needed and not installed; `licence` None: it states none."""

    name: str
    version: str | None
    licence: str | None


def read_ledger(path: Path) -> Ledger:
    """Read assets.toml and every file that it names.

    Raises:
        SettingsError: not such a file, or an entry of another kind than it should be.
    """
    table = read_toml(path)
    table.form(FORMAT, VERSION)
    table.only("format", "version", "asset")
    assets = tuple(_asset(entry) for entry in table.tables("asset"))
    if repeated := {asset.name for asset in assets if [other.name for other in assets].count(asset.name) > 1}:
        raise SettingsError(f"{path.name} lists {', '.join(sorted(repeated))} more than once. Keep one entry.")
    now: dict[str, str | None] = {}
    for file in (file for asset in assets for file in asset.files):
        now[file] = sha256_of_file(path.parent / file) if (path.parent / file).is_file() else None
    return Ledger(assets=assets, sha256=table.sha256, now=now)


def _asset(entry: Table) -> Asset:
    entry.only("name", "kind", "licence", "origin", "files", "obligations", "approved_by")
    return Asset(
        name=entry.text("name"),
        kind=entry.choice("kind", KINDS),
        licence=entry.maybe_text("licence"),
        origin=entry.maybe_text("origin"),
        files=entry.hashes("files") if "files" in entry.content else {},
        obligations=entry.texts("obligations") if "obligations" in entry.content else None,
        approved_by=entry.maybe_text("approved_by"),
    )


def installed_packages(root: str = "orrery") -> tuple[Package, ...]:
    """A package and all that it needs, and what those need, as installed in this environment; sorted by name.

    Extras are followed where a requirement asks for them. A requirement under a condition (another system or Python)
    is left out where it is not installed.
    """
    found: dict[str, Package] = {}
    followed: set[tuple[str, str]] = set()
    waiting = [(root, "", False)]
    while waiting:
        name, extra, conditional = waiting.pop()
        key = normalised(name)
        if (key, extra) in followed:
            continue
        followed.add((key, extra))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if not conditional:
                found[key] = Package(name=key, version=None, licence=None)
            continue
        found[key] = Package(name=key, version=distribution.version, licence=stated_licence(distribution))
        waiting += _requirements(distribution.requires or [], extra)
    return tuple(found[key] for key in sorted(found))


def _requirements(lines: Iterable[str], extra: str) -> list[tuple[str, str, bool]]:
    """Name, extra and whether under a condition, of what a package needs for one of its extras ("" for none)."""
    needed = []
    for line in lines:
        parts = _REQUIREMENT.fullmatch(line)
        assert parts is not None, f"{line!r} is not a requirement"
        marker = parts["marker"] or ""
        asked = _EXTRA.findall(marker)
        if asked and extra not in asked:
            continue
        extras = [word.strip() for word in (parts["extras"] or "").split(",") if word.strip()]
        conditional = bool(_EXTRA.sub("", marker).strip(" ()"))
        needed += [(parts["name"], word, conditional) for word in ["", *extras]]
    return needed


def normalised(name: str) -> str:
    """The one spelling of a package's name, as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def ledger_reasons(
    ledger: Ledger, packages: Sequence[Package], allowed: Collection[str], weights: Mapping[str, str]
) -> list[str]:
    """Why the assets do not allow a deployment; empty where they do.

    Args:
        allowed: SPDX ids.
        weights: file name in the checkpoint -> sha256; the ledger must hold every one of them.
    """
    reasons = [reason for asset in ledger.assets for reason in _asset_reasons(asset, ledger.now, allowed)]
    listed = {digest for asset in ledger.assets for digest in asset.files.values()}
    reasons += [
        f"{name} of the checkpoint is not in the asset ledger (sha256 {digest}). List it with its licence and origin."
        for name, digest in weights.items()
        if digest not in listed
    ]
    by_hand = {normalised(asset.name) for asset in ledger.assets if asset.kind == "dependency"}
    for package in packages:
        label = f"Python package {package.name} {package.version or ''}".strip()
        if package.version is None:
            reasons.append(f"{label} is needed and not installed. Install it.")
        elif package.name in by_hand:
            continue
        elif package.licence is None:
            reasons.append(f"{label} states no licence. List it in the asset ledger with the licence that it has.")
        elif refused := not_allowed(package.licence, allowed):
            reasons.append(
                f"{label}: licence {' and '.join(refused)} is not allowed by the policy. Do without the package, allow "
                "the licence, or list the package in the asset ledger with the licence that it has."
            )
    return reasons


def _asset_reasons(asset: Asset, now: Mapping[str, str | None], allowed: Collection[str]) -> list[str]:
    label, reasons = f"Asset {asset.name!r}", []
    if not filled(asset.licence):
        reasons.append(f"{label} has no licence. Find out under which licence it may be used, or do without it.")
    elif refused := not_allowed(asset.licence, allowed):
        reasons.append(
            f"{label}: licence {' and '.join(refused)} is not allowed by the policy. Do without it, or allow it."
        )
    if not filled(asset.origin):
        reasons.append(f"{label} has no origin. Say where it was got.")
    if asset.obligations is None:
        reasons.append(f"{label} does not say what its licence obliges to. List the obligations; [] for none.")
    if not filled(asset.approved_by):
        reasons.append(f"{label} was approved by nobody. Whoever approves of its use enters a name.")
    for file, digest in asset.files.items():
        if now[file] is None:
            reasons.append(f"{label}: there is no file {file}. Correct the path, or fetch the file.")
        elif now[file] != digest:
            reasons.append(f"{label}: {file} has sha256 {now[file]}, the ledger says {digest}. Fetch the file again.")
    return reasons


def filled(value: str) -> bool:
    """Whether something was entered and no blank of a template is left in it."""
    return bool(value.strip()) and BLANK not in value
