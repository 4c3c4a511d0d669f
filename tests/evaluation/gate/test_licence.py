"""Licence expressions, and what installed packages state."""

import importlib.metadata

import pytest

from orrery.evaluation.gate.ledger import Package, installed_packages
from orrery.evaluation.gate.licence import not_allowed, stated_licence

ALLOWED = ("MIT", "Apache-2.0", "BSD-3-Clause")


@pytest.mark.parametrize(
    ("expression", "refused"),
    [
        ("MIT", ()),
        ("mit", ()),
        ("MIT AND Apache-2.0", ()),
        ("GPL-3.0-only", ("GPL-3.0-only",)),
        ("MIT OR GPL-3.0-only", ()),
        ("GPL-3.0-only OR LGPL-3.0-only", ("GPL-3.0-only", "LGPL-3.0-only")),
        ("MIT AND GPL-3.0-only", ("GPL-3.0-only",)),
        # AND binds tighter: the second alternative is MIT with GPL.
        ("BSD-3-Clause OR MIT AND GPL-3.0-only", ()),
        ("(BSD-3-Clause OR MIT) AND GPL-3.0-only", ("GPL-3.0-only",)),
        ("Apache-2.0 WITH LLVM-exception", ("Apache-2.0 WITH LLVM-exception",)),
        # What is no expression is no licence that anybody allowed.
        ("BSD License", ("BSD License",)),
        ("MIT AND", ("MIT AND",)),
        ("(MIT", ("(MIT",)),
        ("MIT)", ("MIT)",)),
        ("", ("",)),
        ("MIT\nGPL-3.0-only", ("MIT\nGPL-3.0-only",)),
    ],
)
def test_what_is_not_allowed_of_an_expression(expression, refused):
    assert not_allowed(expression, ALLOWED) == refused


def install(folder, name, *lines):
    place = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines, ""]))


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT OR Apache-2.0", "Classifier: License :: OSI Approved :: BSD License"],
         "MIT OR Apache-2.0"),
        (["Classifier: License :: OSI Approved :: MIT License", "License: see file"], "MIT"),
        (["Classifier: License :: OSI Approved :: BSD License"], "BSD License"),
        (["Classifier: License :: OSI Approved :: MIT License", "Classifier: License :: OSI Approved :: BSD License"],
         "MIT AND BSD License"),
        (["Classifier: License :: OSI Approved", "License: ISC"], "ISC"),
        (["License: UNKNOWN"], None),
        (["License: Permission is granted\n        to everyone"], None),
        ([], None),
    ],
)  # fmt: skip
def test_a_package_states_its_licence_in_one_of_three_places(tmp_path, monkeypatch, lines, licence):
    install(tmp_path, "stated", *lines)
    monkeypatch.syspath_prepend(tmp_path)
    assert stated_licence(importlib.metadata.distribution("stated")) == licence


def test_packages_are_followed_through_what_they_need_and_no_further(tmp_path, monkeypatch):
    install(
        tmp_path,
        "top-of-all",
        "License: MIT",
        "Requires-Dist: middle-one[fast]>=1,<2",
        "Requires-Dist: gone (>=2)",
        'Requires-Dist: only-elsewhere; sys_platform == "none"',
        'Requires-Dist: for-tests; extra == "test"',
    )
    install(
        tmp_path,
        "middle-one",
        "License: ISC",
        "Requires-Dist: top_of.all",
        "Requires-Dist: quick; extra == 'fast'",
        'Requires-Dist: missing-extra; extra == "fast"',
        'Requires-Dist: slow; extra == "slow"',
    )
    for name in ("quick", "slow", "for-tests"):
        install(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_packages("top-of-all") == (
        Package(name="gone", version=None, licence=None),
        Package(name="middle-one", version="1.0", licence="ISC"),
        Package(name="missing-extra", version=None, licence=None),
        Package(name="quick", version="1.0", licence=None),
        Package(name="top-of-all", version="1.0", licence="MIT"),
    )


def test_the_installed_package_is_found_with_what_it_needs():
    found = {package.name: package for package in installed_packages()}
    assert found["orrery"].licence == "Apache-2.0"
    assert {"torch", "numpy", "safetensors"} <= set(found)
    assert found["numpy"].version == importlib.metadata.version("numpy")
