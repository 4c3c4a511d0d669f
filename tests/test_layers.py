"""Modules import only from layers to their left, also inside functions, and never in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "orrery"

# Left to right; names in one group do not import each other. "orrery" is the package's own __init__.py.
LAYERS = [
    {"errors"},
    {"tasks", "weights", "flow"},
    {"packing", "data"},
    {"tokenizers", "model", "worlds"},
    {"runtime", "training"},
    {"evaluation", "serving"},
    {"planning"},
    {"orrery"},
    {"cli"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def module_name(path: Path, source: Path) -> str:
    parts = ("orrery", *path.relative_to(source).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "orrery"


def read_imports(source: Path) -> dict[str, set[str]]:
    """Module -> the project's modules that it imports anywhere in its text."""
    paths = {module_name(path, source): path for path in source.rglob("*.py")}
    imports: dict[str, set[str]] = {module: set() for module in paths}
    for module, path in paths.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imports[module] |= {alias.name for alias in node.names if alias.name.split(".")[0] == "orrery"}
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                home = ".".join([*base, *([node.module] if node.module else [])])
                if home.split(".")[0] == "orrery":
                    named = {f"{home}.{alias.name}" for alias in node.names}
                    # `from orrery.flow import schedule` names a module, `from orrery.errors import X` something in one.
                    imports[module] |= {name if name in paths else home for name in named}
    return imports


def uphill(imports: dict[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {target}"
        for module, targets in sorted(imports.items())
        for target in sorted(targets)
        if layer(target) != layer(module) and RANK[layer(target)] >= RANK[layer(module)]
    ]


def test_every_package_has_a_layer():
    assert {layer(module) for module in read_imports(SOURCE)} <= set(RANK)


def test_modules_import_only_from_layers_to_their_left():
    assert uphill(read_imports(SOURCE)) == []


def test_no_import_goes_in_a_circle():
    imports = read_imports(SOURCE)
    circle = None
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert circle is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from orrery.model import mot", "orrery.model"),
        ("def f():\n    import orrery.runtime.run", "orrery.runtime.run"),
        ("from orrery.packing.pack import pack", "orrery.packing.pack"),
        ("from ..data import clips", "orrery.data"),
        ("from orrery import load", "orrery"),
    ],
)
def test_an_import_to_the_right_is_found_wherever_it_stands(tmp_path, text, found):
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "schedule.py").write_text(text)
    assert uphill(read_imports(tmp_path)) == [f"orrery.flow.schedule imports {found}"]


def test_imports_to_the_left_and_within_a_package_are_allowed(tmp_path):
    (tmp_path / "model").mkdir()
    text = (
        "import torch\nfrom orrery.errors import OrreryError\nfrom . import config\nfrom orrery.model.config import A"
    )
    (tmp_path / "model" / "mot.py").write_text(text)
    (tmp_path / "model" / "config.py").write_text("")
    (tmp_path / "model" / "__init__.py").write_text("")
    found = read_imports(tmp_path)
    assert found["orrery.model.mot"] == {"orrery.errors", "orrery.model.config"}
    assert uphill(found) == []
