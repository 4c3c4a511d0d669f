"""Our own checkpoint folder: what is saved opens and is equal, and what is not as it was saved is refused."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch

from orrery.errors import CheckpointError
from orrery.weights.documents import dump_json
from orrery.weights.folder import open_folder, save_folder
from orrery.weights.reader import load_into
from orrery.weights.shard import read_tensors


def _names(path):
    return [child.name for child in path.iterdir()]


def _save(path, **changes):
    given = {
        "tensors": {"model.safetensors": {"a": torch.arange(6.0).reshape(2, 3)}},
        "documents": {"config.json": {"layers": 2, "name": "σ"}, "tokenizer/tokenizer.json": b"{}"},
        "metadata": {"trained": False, "licence": None},
    }
    return save_folder(path, **(given | changes))


def test_what_is_saved_opens_and_is_equal(tmp_path):
    saved = _save(tmp_path / "c")
    opened = open_folder(tmp_path / "c")
    assert opened == saved
    assert opened.metadata == {"trained": False, "licence": None}
    assert opened.document("config.json") == {"layers": 2, "name": "σ"}
    assert opened.file("tokenizer/tokenizer.json").read_bytes() == b"{}"
    assert opened.matching("*.safetensors") == (tmp_path / "c" / "model.safetensors",)
    assert torch.equal(read_tensors(opened.file("model.safetensors"))["a"], torch.arange(6.0).reshape(2, 3))
    assert _names(tmp_path) == ["c"]
    with pytest.raises(CheckpointError, match=r"holds no 'other.json'"):
        opened.document("other.json")


def test_the_same_content_has_the_same_name_and_other_content_another(tmp_path):
    one, two = _save(tmp_path / "one"), _save(tmp_path / "two")
    assert one.sha256 == two.sha256
    assert _save(tmp_path / "two", metadata={"trained": True}).sha256 != one.sha256


def test_a_model_in_several_files_loads_bit_equal(make_small, make_empty, tmp_path):
    module, empty = make_small(), make_empty()
    state = {name: tensor.bfloat16() for name, tensor in module.state_dict().items()}
    tensors = {f"model-{k}.safetensors": {name: state[name] for name in sorted(state)[k::3]} for k in range(3)}
    folder = save_folder(tmp_path / "c", tensors=tensors, documents={}, metadata={})
    load_into(empty, folder.matching("model-*.safetensors"), None)
    assert all(torch.equal(tensor, empty.state_dict()[name]) for name, tensor in state.items())


def test_progress_counts_every_byte(tmp_path):
    _save(tmp_path / "c")
    calls = []
    folder = open_folder(tmp_path / "c", progress=lambda done, total: calls.append((done, total)))
    total = sum(record.size for record in folder.files.values())
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def _edit(path, **changes):
    """Change the manifest and make it vouch for itself again."""
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    del manifest["sha256"]
    (path / "manifest.json").write_bytes(
        dump_json(manifest | {"sha256": hashlib.sha256(dump_json(manifest)).hexdigest()})
    )


def _append_space(path):
    (path / "manifest.json").write_bytes((path / "manifest.json").read_bytes() + b" ")


def _change_metadata(path):
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"trained": false', '"trained": true'))


def _same_size(path):
    (path / "config.json").write_bytes((path / "config.json").read_bytes().replace(b"2", b"3"))


def _longer(path):
    (path / "config.json").write_bytes((path / "config.json").read_bytes() + b"\n")


REFUSED = {
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json cannot be read"),
    "another format": (lambda path: _edit(path, format="other"), "of format 'other'"),
    "another version": (lambda path: _edit(path, version=2), "of version 2, and this program reads version 1"),
    "a file outside": (
        lambda path: _edit(path, files={"../x": {"sha256": "0" * 64, "size": 1}}),
        "manifest.json is damaged",
    ),
    "files a list": (lambda path: _edit(path, files=[]), "manifest.json is damaged"),
    "a space more": (_append_space, "manifest.json is damaged"),
    "metadata changed": (_change_metadata, "manifest.json is damaged"),
    "a file missing": (lambda path: (path / "tokenizer" / "tokenizer.json").unlink(), "lacks tokenizer/tokenizer.json"),
    "a file more": (
        lambda path: (path / "tokenizer" / "x.safetensors").touch(),
        "holds tokenizer/x.safetensors, unknown",
    ),
    "other contents": (_same_size, "config.json is not what its manifest says"),
    "another size": (_longer, "config.json has .* bytes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_is_not_as_it_was_saved_is_refused(kind, tmp_path):
    damage, message = REFUSED[kind]
    _save(tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_folder(tmp_path / "c")
    assert "\n" not in str(caught.value)


def test_without_verification_names_and_sizes_are_still_checked(tmp_path):
    _save(tmp_path / "c")
    _same_size(tmp_path / "c")
    open_folder(tmp_path / "c", verify=False)
    _longer(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"config.json has"):
        open_folder(tmp_path / "c", verify=False)


def test_hidden_files_are_overlooked(tmp_path):
    _save(tmp_path / "c")
    (tmp_path / "c" / ".gitattributes").touch()
    (tmp_path / "c" / ".cache").mkdir()
    (tmp_path / "c" / ".cache" / "x").touch()
    open_folder(tmp_path / "c")


def test_a_save_that_cannot_be_leaves_the_old_checkpoint(tmp_path):
    saved = _save(tmp_path / "c")
    bad = {"model.safetensors": {"a": torch.tensor(float("nan"))}}
    with pytest.raises(CheckpointError, match="'a' holds NaN"):
        _save(tmp_path / "c", tensors=bad)
    for documents in ({"x.json": float("nan")}, {"x.json": object()}):
        with pytest.raises((ValueError, TypeError)):
            _save(tmp_path / "c", documents=documents)
    assert open_folder(tmp_path / "c") == saved
    assert _names(tmp_path) == ["c"]


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a//x", ".hidden", "a/.x", "", "manifest.json", "a\\x", "a\nb"]
)
def test_names_that_leave_the_folder_or_hide_are_refused(name, tmp_path):
    with pytest.raises(CheckpointError, match="cannot name files"):
        _save(tmp_path / "c", documents={name: b""})
    assert not _names(tmp_path)


def test_one_name_for_two_contents_and_tensors_under_another_ending_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"'model.safetensors' cannot name"):
        _save(tmp_path / "c", documents={"model.safetensors": b""})
    with pytest.raises(CheckpointError, match=r"not in model.bin"):
        _save(tmp_path / "c", tensors={"model.bin": {}})


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    _save(tmp_path / "mine")  # an empty folder holds nothing to lose
    (tmp_path / "mine" / ".notes").write_text("keep")
    with pytest.raises(CheckpointError, match=r"would lose \.notes"):
        _save(tmp_path / "mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="not an Orrery checkpoint"):
        _save(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"would lose thesis\.txt"):
        _save(tmp_path / "other" / "thesis.txt")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "keep"


def test_after_a_kill_between_renames_the_predecessor_opens(tmp_path):
    saved = _save(tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / ".c.previous")
    assert open_folder(tmp_path / "c").sha256 == saved.sha256


def test_opening_a_folder_needs_no_torch(tmp_path):
    _save(tmp_path / "c")
    code = "import sys; from pathlib import Path; from orrery.weights.folder import open_folder, save_folder; "
    code += "open_folder(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], check=True)
