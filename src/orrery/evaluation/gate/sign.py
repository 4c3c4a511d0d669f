"""Keys, and the folder of a decision: written whole, signed with Ed25519, and checked against a public key.

Source: RFC 8032 (Ed25519), as in the package cryptography. What is signed are the bytes of decision.json.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from orrery.errors import OrreryError, SettingsError
from orrery.evaluation.entries import Table
from orrery.weights.atomic import new_folder, replacing
from orrery.weights.documents import dump_json, load_json_object
from orrery.weights.folder import write_file

FORMAT, VERSION = "orrery.decision", 1
DECISION, SIGNATURE, PUBLIC_KEY = "decision.json", "decision.sig", "public_key.pem"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a look at a decision folder found. Nothing of `decision` is to be believed unless `signed`."""

    signed: bool
    decision: str | None
    sha256: str
    """Of decision.json."""
    expires_at: datetime | None
    limits: tuple[str, ...]
    problems: tuple[str, ...]
    """Why the decision does not hold now; empty where it does."""


def make_key(path: Path) -> Path:
    """Make a key pair: the private key at `path`, for its owner's eyes only, and the public key beside it as .pub.

    Returns:
        The path of the public key.

    Raises:
        SettingsError: one of the two files exists, or `path` itself ends in .pub.
        OSError: as for any write.
    """
    public = path.with_suffix(".pub")
    if path.suffix == ".pub":
        raise SettingsError(f"{path} is how the public key would be called. Give a name such as key.pem.")
    if taken := next((file for file in (path, public) if file.exists()), None):
        raise SettingsError(f"{taken} exists, and no key is overwritten. Give a new name.")
    key = Ed25519PrivateKey.generate()
    with replacing(path) as temporary, open(temporary, "xb", opener=_for_the_owner) as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with replacing(public) as temporary:
        temporary.write_bytes(_pem(key.public_key()))
    return public


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        SettingsError: no such file, not a private Ed25519 key in PEM form, or one under a password.
    """
    data = _bytes(path)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise SettingsError(f"{path} is under a password, which is not asked for. Give a key without one.") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path} is no private Ed25519 key in PEM form. Make one with --new-key.")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        SettingsError: no such file, or not a public Ed25519 key in PEM form.
    """
    data = _bytes(path)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"{path} is no public Ed25519 key in PEM form. Give the .pub file of the key.")
    return key


def write_decision(
    folder: Path, document: Mapping[str, object], key: Ed25519PrivateKey, reviews: Mapping[str, str]
) -> str:
    """Write a decision, its signature, the public key and the reviews: all of them, or nothing.

    Args:
        document: the record of the decision, as `decide` makes it.
        reviews: file name -> Markdown, for review/.

    Returns:
        sha256 of decision.json, which a later policy gives as its `rollback`.

    Raises:
        OSError: as for any write.
    """
    data = dump_json(dict(document))
    with new_folder(folder) as aside:
        write_file(aside / DECISION, data)
        write_file(aside / SIGNATURE, base64.b64encode(key.sign(data)) + b"\n")
        write_file(aside / PUBLIC_KEY, _pem(key.public_key()))
        for name, text in reviews.items():
            write_file(aside / "review" / name, text.encode())
    return hashlib.sha256(data).hexdigest()


def check_decision(folder: Path, public_key: Ed25519PublicKey, now: datetime) -> Checked:
    """Look whether a decision is signed with the key, unchanged, not expired, and not a refusal.

    Args:
        now: with a time zone.

    Raises:
        SettingsError: the folder has no decision.json.
    """
    data = _bytes(folder / DECISION)
    sha256 = hashlib.sha256(data).hexdigest()
    if problem := _signature_problem(folder, data, public_key):
        return Checked(signed=False, decision=None, sha256=sha256, expires_at=None, limits=(), problems=(problem,))
    table = Table(where=DECISION, content=load_json_object(data, folder / DECISION))
    table.form(FORMAT, VERSION)
    decision, expires_at = table.text("decision"), datetime.fromisoformat(table.text("expires_at"))
    problems = []
    if now >= expires_at:
        problems.append(f"The decision expired at {expires_at.isoformat()}. Decide again on fresh evidence.")
    if decision not in ("allow", "allow with limits"):
        problems += ["The decision is to refuse.", *table.texts("reasons")]
    return Checked(
        signed=True,
        decision=decision,
        sha256=sha256,
        expires_at=expires_at,
        limits=table.texts("limits"),
        problems=tuple(problems),
    )


def _signature_problem(folder: Path, data: bytes, public_key: Ed25519PublicKey) -> str | None:
    try:
        signature = base64.b64decode((folder / SIGNATURE).read_bytes().strip(), validate=True)
    except (OSError, binascii.Error):
        return f"{SIGNATURE} is missing or is not base64, so nothing vouches for {DECISION}."
    if _fits(public_key, signature, data):
        return None
    try:
        theirs = read_public_key(folder / PUBLIC_KEY)
    except OrreryError:
        theirs = public_key
    if _fits(theirs, signature, data):
        return f"{DECISION} was signed with another key than the one given. Do not rely on it unless you know that key."
    return f"The signature does not fit: {DECISION} or {SIGNATURE} was changed after it was signed."


def _fits(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _for_the_owner(path: str, flags: int) -> int:
    """Open a file that was never readable by others, not for a moment."""
    return os.open(path, flags, 0o600)


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}). Give the path of the file.") from None
