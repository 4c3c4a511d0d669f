"""The decisions of bootstrap.py; what it installs is seen by running it."""

import ast
import dataclasses
import importlib.util
import itertools
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def load_bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()


def test_it_needs_only_the_standard_library():
    tree = ast.parse((ROOT / "bootstrap.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_an_old_interpreter_can_read_it_far_enough_to_say_so():
    ast.parse((ROOT / "bootstrap.py").read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_a_supported_python_is_used_as_it_is(version):
    assert bootstrap.find_python(version, which=lambda name: pytest.fail(name)) is None


@pytest.mark.parametrize("version", [(3, 8), (3, 10), (3, 14), (4, 0)])
def test_another_python_hands_over_to_the_newest_supported_one(version):
    present = {"python3.11": "/a/python3.11", "python3.12": "/b/python3.12", "python3.14": "/c/python3.14"}
    assert bootstrap.find_python(version, which=present.get) == "/b/python3.12"


def test_without_a_supported_python_the_message_names_both_versions():
    with pytest.raises(bootstrap.SetupError, match=r"needs Python 3\.11 to 3\.13; this is 3\.9"):
        bootstrap.find_python((3, 9), which=lambda name: None)


def test_the_supported_versions_are_those_of_the_project():
    assert re.search(r'requires-python = ">=3\.11,<3\.14"', (ROOT / "pyproject.toml").read_text())
    assert (bootstrap.OLDEST, bootstrap.NEWEST) == ((3, 11), (3, 13))


PLAIN, CPU = bootstrap.TORCH, bootstrap.TORCH + "+cpu"


@pytest.mark.parametrize(
    ("choice", "gpu", "cpu_index", "expected"),
    [
        ("", False, "", [(CPU, ""), (PLAIN, "")]),
        ("", True, "", [(PLAIN, "")]),
        ("cpu", True, "", [(CPU, ""), (PLAIN, "")]),
        ("cuda", False, "", [(PLAIN, "")]),
        ("torch==2.12.0", True, "", [("torch==2.12.0", "")]),
        ("", False, "file:///index", [(CPU, ""), (PLAIN, "file:///index"), (PLAIN, "")]),
        ("", True, "file:///index", [(PLAIN, "")]),
    ],
)
def test_torch_is_chosen_by_wish_then_by_gpu(choice, gpu, cpu_index, expected):
    assert bootstrap.torch_attempts(choice, gpu, cpu_index) == expected


def test_an_index_of_cpu_builds_is_the_only_place_that_is_searched():
    installer = bootstrap.Installer("uv", ["uv"], ["--default-index", "file:///main"], {})
    assert installer.call(["torch"], "file:///cpu") == ["uv", "--index-url", "file:///cpu", "--no-deps", "torch"]
    assert installer.call(["torch"]) == ["uv", "--default-index", "file:///main", "torch"]


def test_pips_settings_are_read_with_the_environment_on_top():
    listing = "\n".join(
        [
            ":env:.find-links='/from/environment'",
            "global.extra-index-url='file:///one\\nfile:///two'",
            "global.find-links='/from/file'",
            "install.no-index='true'",
            "global.no-index='false'",
            "download.find-links='/not/for/install'",
        ]
    )
    assert bootstrap.pip_settings(listing) == {
        "find-links": "/from/environment",
        "extra-index-url": "file:///one\nfile:///two",
        "no-index": "true",
    }


def test_uv_is_told_to_look_where_pip_looks():
    settings = {
        "index-url": "file:///main",
        "extra-index-url": "file:///one file:///two",
        "find-links": "/wheels",
        "trusted-host": "cache",
        "no-index": "0",
    }
    expected = "--default-index file:///main --index file:///one --index file:///two --index-strategy unsafe-best-match"
    expected += " --find-links /wheels --allow-insecure-host cache"
    assert bootstrap.uv_options(settings) == expected.split()
    assert bootstrap.uv_options({"no-index": "1"}) == ["--no-index"]
    assert bootstrap.uv_options({}) == []


@dataclasses.dataclass
class Environment:
    """A finished environment: its stamp file, its interpreter and the digest it was made for."""

    stamp: Path
    python: Path
    wanted: str


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "python").write_text("")
    (tmp_path / "stamp").write_text('{"digest": "d", "extras": ["cosmos", "test"]}')
    return Environment(tmp_path / "stamp", tmp_path / "python", "d")


def test_a_finished_environment_is_used_for_all_jobs_it_has_the_extras_of(environment):
    for extras in ([], ["test"], ["cosmos", "test"]):
        assert bootstrap.ready(environment.stamp, environment.python, environment.wanted, extras)
    assert not bootstrap.ready(environment.stamp, environment.python, environment.wanted, ["other"])


def test_another_digest_a_lost_stamp_or_a_lost_interpreter_means_setting_up(environment):
    assert not bootstrap.ready(environment.stamp, environment.python, "e", [])
    assert not bootstrap.ready(environment.stamp.with_name("none"), environment.python, "d", [])
    environment.python.unlink()
    assert not bootstrap.ready(environment.stamp, environment.python, "d", [])


def test_the_digest_changes_with_each_thing_that_decides_what_is_installed(tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("a==1")
    first = bootstrap.digest([file], (3, 11), "", tmp_path)
    assert bootstrap.digest([file], (3, 11), "", tmp_path) == first
    others = [
        bootstrap.digest([file], (3, 12), "", tmp_path),
        bootstrap.digest([file], (3, 11), "cuda", tmp_path),
        bootstrap.digest([file], (3, 11), "", tmp_path / "moved"),
    ]
    file.write_text("a==2")
    others.append(bootstrap.digest([file], (3, 11), "", tmp_path))
    assert len({first, *others}) == 5


@pytest.mark.parametrize("arguments", [["demo"], ["demo", "--out", "x"], ["test"], ["lint"], ["run", "pytest", "-x"]])
def test_the_documented_command_lines_are_understood(arguments):
    assert bootstrap.understood(arguments)


@pytest.mark.parametrize("arguments", [[], ["tests"], ["test", "-x"], ["lint", "src"], ["run"], ["--help"]])
def test_any_other_command_line_prints_the_usage_and_exits_with_2(arguments, capsys):
    assert bootstrap.main(arguments) == 2
    assert "usage: python3 bootstrap.py demo" in capsys.readouterr().err


def test_every_constraint_is_one_exact_version_and_every_dependency_has_one():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; python_full_version .+)?", line)] == []
    pinned = {line.split("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = itertools.chain.from_iterable(project["project"]["optional-dependencies"].values())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"], *extras]
    assert {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in needed} <= pinned
    assert bootstrap.TORCH in lines
