"""A decision is whole, signed, and of no use once it was changed or has expired."""

import stat
from datetime import UTC, datetime, timedelta

import pytest

from orrery.errors import SettingsError
from orrery.evaluation.gate.sign import (
    FORMAT,
    VERSION,
    check_decision,
    make_key,
    read_key,
    read_public_key,
    write_decision,
)

NOW = datetime(2030, 5, 17, 12, tzinfo=UTC)


def document(decision: str = "allow") -> dict[str, object]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "decision": decision,
        "reasons": ["Rung x failed."] if decision == "refuse" else [],
        "limits": [],
        "expires_at": (NOW + timedelta(days=30)).isoformat(),
    }


@pytest.fixture
def keys(tmp_path):
    public = make_key(tmp_path / "key.pem")
    return read_key(tmp_path / "key.pem"), read_public_key(public)


@pytest.fixture
def folder(tmp_path, keys):
    write_decision(tmp_path / "decided", document(), keys[0], {"cost.md": "# Cost\n"})
    return tmp_path / "decided"


def test_what_was_written_holds_for_the_key_until_it_expires(folder, keys):
    found = check_decision(folder, keys[1], NOW)
    assert (found.signed, found.decision, found.problems) == (True, "allow", ())
    assert found.expires_at == NOW + timedelta(days=30)
    assert {path.name for path in folder.iterdir()} == {"decision.json", "decision.sig", "public_key.pem", "review"}
    late = check_decision(folder, keys[1], NOW + timedelta(days=30))
    assert late.signed
    assert "expired at 2030-06-16" in late.problems[0]


def test_every_changed_byte_of_the_decision_is_found(folder, keys):
    path = folder / "decision.json"
    data = path.read_bytes()
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1
        path.write_bytes(changed)
        found = check_decision(folder, keys[1], NOW)
        assert not found.signed
        assert found.decision is None
        assert "changed after it was signed" in found.problems[0]


@pytest.mark.parametrize("signature", [b"", b"AAAA", b"not base64!", b"A" * 88, None])
def test_a_signature_that_is_none_is_found(folder, keys, signature):
    path = folder / "decision.sig"
    path.unlink()
    if signature is not None:
        path.write_bytes(signature)
    found = check_decision(folder, keys[1], NOW)
    assert not found.signed
    assert len(found.problems) == 1


def test_a_wrong_key_is_found_and_told_from_a_change(folder, tmp_path):
    other = read_public_key(make_key(tmp_path / "other.pem"))
    found = check_decision(folder, other, NOW)
    assert not found.signed
    assert "signed with another key" in found.problems[0]


def test_a_decision_under_a_strangers_key_does_not_hold_though_the_folder_is_consistent(folder, keys, tmp_path):
    make_key(tmp_path / "stranger.pem")
    write_decision(tmp_path / "forged", document(), read_key(tmp_path / "stranger.pem"), {})
    assert not check_decision(tmp_path / "forged", keys[1], NOW).signed


def test_a_signed_refusal_does_not_hold_and_gives_its_reasons(tmp_path, keys):
    write_decision(tmp_path / "refused", document("refuse"), keys[0], {})
    found = check_decision(tmp_path / "refused", keys[1], NOW)
    assert found.signed
    assert found.problems == ("The decision is to refuse.", "Rung x failed.")


def test_a_decision_is_whole_or_absent(tmp_path, keys, monkeypatch):
    from orrery.evaluation.gate import sign

    written = []

    def fail_at_the_third(path, content):
        written.append(path.name)
        if len(written) == 3:
            raise OSError("No space left on device")
        return write_file(path, content)

    write_file = sign.write_file
    monkeypatch.setattr(sign, "write_file", fail_at_the_third)
    with pytest.raises(OSError, match="No space"):
        write_decision(tmp_path / "decided", document(), keys[0], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem", "key.pub"]


def test_a_private_key_is_for_its_owner_and_never_overwritten(tmp_path):
    public = make_key(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(SettingsError, match="no key is overwritten"):
        make_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before
    with pytest.raises(SettingsError, match="public key would be called"):
        make_key(tmp_path / "other.pub")


def test_what_is_no_key_is_said_to_be_none(tmp_path):
    public = make_key(tmp_path / "key.pem")
    with pytest.raises(SettingsError, match="no private Ed25519 key"):
        read_key(public)
    with pytest.raises(SettingsError, match="no public Ed25519 key"):
        read_public_key(tmp_path / "key.pem")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_key(tmp_path / "none.pem")
