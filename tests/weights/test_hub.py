"""From a folder or a hub id to a local folder, with a cache made here and no network."""

from pathlib import Path

import pytest

from orrery.errors import CheckpointError
from orrery.weights import hub
from orrery.weights.hub import resolve, shadowing, shipped

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds nvidia/Small at main and at the branch bf16/old, offline."""
    for name in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "home" / "hub" / "models--nvidia--Small"
    for revision, commit in (("main", COMMIT), ("bf16/old", COMMIT[::-1])):
        (model / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (model / "refs" / revision).write_text(commit)
        (model / "snapshots" / commit).mkdir(parents=True)
    return model


def test_a_hub_id_is_found_in_the_cache_by_branch_and_by_commit(cache):
    assert resolve("nvidia/Small") == cache / "snapshots" / COMMIT
    assert resolve("nvidia/Small@main") == cache / "snapshots" / COMMIT
    assert resolve("nvidia/Small@bf16/old") == cache / "snapshots" / COMMIT[::-1]
    assert resolve(f"nvidia/Small@{COMMIT}") == cache / "snapshots" / COMMIT


def test_the_cache_is_where_the_usual_variables_say(cache, tmp_path, monkeypatch):
    caches = cache.parent
    monkeypatch.setenv("HF_HUB_CACHE", str(caches))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert resolve("nvidia/Small") == cache / "snapshots" / COMMIT
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "huggingface").mkdir(parents=True)
    caches.rename(tmp_path / "xdg" / "huggingface" / "hub")
    assert resolve("nvidia/Small").parents[2] == tmp_path / "xdg" / "huggingface" / "hub"


def test_a_local_folder_wins(cache, tmp_path):
    (tmp_path / "nvidia" / "Small").mkdir(parents=True)
    assert resolve("nvidia/Small").resolve() == tmp_path / "nvidia" / "Small"
    assert resolve(tmp_path / "nvidia") == tmp_path / "nvidia"


def test_a_folder_whose_save_was_killed_between_renames_is_found(tmp_path):
    (tmp_path / ".c.previous").mkdir()
    assert resolve(tmp_path / "c") == tmp_path / ".c.previous"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nvidia/Other", "nvidia/Other at revision main is neither a folder nor in the cache .*HF_HUB_OFFLINE is set"),
        ("nvidia/Small@fp8", "nvidia/Small at revision fp8 is neither"),
        ("nowhere", "no folder nowhere"),
        ("a/b/c", "no folder a/b/c"),
        ("../x", r"no folder \.\./x"),
        ("nvidia/Small@../../x", "no folder"),
        ("nothing here", "no folder nothing here"),
    ],
)
def test_what_cannot_be_found_is_refused_in_one_line(name, message, cache):
    with pytest.raises(CheckpointError, match=message) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(tmp_path / "w.safetensors")


def test_a_damaged_reference_is_not_followed(cache):
    (cache / "refs" / "main").write_text("../../..")
    with pytest.raises(CheckpointError, match="neither a folder nor in the cache"):
        resolve("nvidia/Small")


def test_online_it_is_downloaded_without_pickles(cache, tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(hub_id, *, revision, ignore_patterns):
        asked.update(hub_id=hub_id, revision=revision, ignore_patterns=ignore_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert resolve("nvidia/Other@v1") == tmp_path
    assert (asked["hub_id"], asked["revision"]) == ("nvidia/Other", "v1")
    assert {"*.pt", "*.pth", "*.bin", "*.distcp"} <= set(asked["ignore_patterns"])


def test_a_failed_download_is_one_clear_line(cache, monkeypatch):
    def snapshot_download(*_, **__):
        raise OSError("no route to host\nand a long traceback")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(CheckpointError, match=r"could not be downloaded \(no route to host\)") as caught:
        resolve("nvidia/Other")
    assert "\n" not in str(caught.value)


def test_without_the_hub_package_the_next_step_is_named(cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match="install huggingface_hub"):
        resolve("nvidia/Other")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package without checkpoints; the working folder is another one."""
    inside = tmp_path / "site-packages" / "orrery"
    inside.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(hub, "_PACKAGE", inside)
    return inside


def ship(folder):
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def test_a_checkpoint_that_comes_with_the_package_is_found_by_its_name(package):
    pico = ship(package / "checkpoints" / "pico")
    assert resolve("pico") == pico
    assert shadowing("pico") is None
    with pytest.raises(CheckpointError, match="'pico'"):
        resolve("pica")


def test_in_a_checkout_it_lies_beside_the_source(tmp_path, monkeypatch, package):
    monkeypatch.setattr(hub, "_PACKAGE", tmp_path / "repo" / "src" / "orrery")
    pico = ship(tmp_path / "repo" / "checkpoints" / "pico")
    assert resolve("pico") == pico


def test_nothing_beside_an_installed_package_is_taken(tmp_path, package):
    ship(tmp_path / "checkpoints" / "pico")
    with pytest.raises(CheckpointError, match="none does here"):
        resolve("pico")


def test_a_local_folder_goes_before_the_name_and_that_is_said(package):
    ours, mine = ship(package / "checkpoints" / "pico"), ship(Path("pico"))
    assert resolve("pico") == mine
    assert str(mine.resolve()) in shadowing("pico")
    assert shadowing("./pico") is None
    assert shadowing(ours) is None


@pytest.mark.parametrize("name", ["../pico", "pico/../pico", "Pico", ".pico", ""])
def test_names_do_not_lead_out_of_the_package(package, name):
    ship(package / "checkpoints" / "pico")
    assert shipped(name) is None


def test_the_note_is_part_of_the_model_and_of_the_report(package):
    from makers.pico_checkpoint import write_pico

    from orrery.runtime.load import load
    from orrery.runtime.report import report

    write_pico(package / "checkpoints" / "pico")
    assert load("pico").origin.notes == ()
    write_pico(Path("pico"))
    for notes in (load("pico").origin.notes, report("pico").facts["notes"]):
        assert any("comes with the package" in note for note in notes)
