"""What importing a module loads, seen in a fresh interpreter: light parts stay free of torch, the model stays small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"


def modules_of(package: str) -> list[str]:
    """The dotted names of `package` and of all modules in it."""
    folder = SOURCE.joinpath(*package.split("."))
    return [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(folder.rglob("*.py"))
    ]


def loaded_by(*modules: str) -> set[str]:
    """Names in sys.modules after importing `modules` in a new interpreter."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_orrery_loads_nothing_but_itself():
    loaded = loaded_by("orrery")
    assert {name for name in loaded if name.startswith("orrery")} == {"orrery"}
    assert not loaded & {"torch", "numpy", "pyarrow", "av", "PIL", "tokenizers"}


@pytest.mark.parametrize(("before", "after"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_hardly_spin_unless_the_user_says_so(before, after):
    bare = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    code = "import os, orrery; print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare | before)
    assert done.stdout.split() == [after]


@pytest.mark.parametrize("package", ["orrery.cli", "orrery.tasks", "orrery.data", "orrery.worlds"])
def test_light_packages_do_not_load_torch(package):
    assert "torch" not in loaded_by(*modules_of(package))


def test_the_command_line_loads_nothing_heavy_before_a_command_runs():
    heavy = {"torch", "numpy", "pyarrow", "av", "PIL", "tokenizers", "rich.progress"}
    assert not loaded_by("orrery.cli.main") & heavy


def test_the_model_stays_readable_few_modules_of_ours_are_loaded():
    ours = {name for name in loaded_by("orrery.model.mot") if name.split(".")[0] == "orrery"}
    assert len(ours) <= 30, sorted(ours)
