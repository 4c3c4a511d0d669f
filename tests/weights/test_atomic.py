"""Replacing files and folders whole, and what a kill between renames leaves."""

import errno

import pytest

from orrery.weights import atomic
from orrery.weights.atomic import new_folder, recover, replace_folder, settled, sweep, write_atomic


def _names(path):
    return [child.name for child in path.iterdir()]


def _folder(path, text):
    path.mkdir()
    (path / "t").write_text(text)
    return path


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    for data in (b"one", b"two"):
        write_atomic(tmp_path / "f", data)
        assert (tmp_path / "f").read_bytes() == data
    assert _names(tmp_path) == ["f"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "f", b"one")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"one"
    assert _names(tmp_path) == ["f"]


@pytest.mark.parametrize("swap", [True, False])
def test_a_folder_is_replaced_and_nothing_is_left_beside_it(swap, tmp_path):
    for text in ("one", "two", "three"):
        with new_folder(tmp_path / "c", swap=swap) as folder:
            (folder / "t").write_text(text)
        assert (tmp_path / "c" / "t").read_text() == text
    assert _names(tmp_path) == ["c"]


def test_an_error_while_writing_leaves_the_old_folder(tmp_path):
    _folder(tmp_path / "c", "one")
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "c") as folder:
        (folder / "none" / "t").write_text("two")
    assert (tmp_path / "c" / "t").read_text() == "one"
    assert _names(tmp_path) == ["c"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_that_cannot_swap_takes_two_renames(code, tmp_path, monkeypatch):
    class Library:
        def renameat2(self, *_):
            atomic.ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: Library())
    replace_folder(_folder(tmp_path / "new", "two"), _folder(tmp_path / "c", "one"))
    assert (tmp_path / "c" / "t").read_text() == "two"
    assert _names(tmp_path) == ["c"]


def test_a_refused_swap_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        atomic._exchange(tmp_path / "none", _folder(tmp_path / "c", "one"))


def test_after_a_kill_between_renames_the_predecessor_is_found_and_put_back(tmp_path):
    _folder(tmp_path / ".c.previous", "one")
    _folder(tmp_path / ".c.saving-00", "two")
    assert settled(tmp_path / "c") == tmp_path / ".c.previous"
    recover(tmp_path / "c")
    assert settled(tmp_path / "c") == tmp_path / "c"
    assert (tmp_path / "c" / "t").read_text() == "one"
    assert sweep(tmp_path / "c") == (tmp_path / ".c.saving-00",)
    assert _names(tmp_path) == ["c"]


def test_after_a_kill_before_the_predecessor_is_removed_the_next_save_removes_it(tmp_path):
    _folder(tmp_path / ".c.previous", "one")
    _folder(tmp_path / "c", "two")
    assert settled(tmp_path / "c") == tmp_path / "c"
    assert sweep(tmp_path / "c") == (tmp_path / ".c.previous",)


def test_only_orphans_of_the_same_name_are_swept(tmp_path):
    for name in ("c", "c2", ".c2.saving-0", ".cc.saving-0", ".c.other", "[c]"):
        _folder(tmp_path / name, "kept")
    (tmp_path / ".c.saving-1").write_text("a file's orphan")
    assert sweep(tmp_path / "c") == (tmp_path / ".c.saving-1",)
    assert len(_names(tmp_path)) == 6
