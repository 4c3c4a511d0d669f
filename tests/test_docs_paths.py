"""What the documents name is there: paths, links, and the commands a reader is told to type."""

import re
from pathlib import Path

import pytest

from orrery.cli.main import COMMANDS
from orrery.tasks.task import TASKS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "orrery"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

CODE = re.compile(r"```[^\n]*\n(.*?)```|`([^`\n]+)`|\n\n((?:    [^\n]+\n)+)", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
# A path of ours: ends in a file type we keep, or in a slash, and has only plain characters (no <name>, *, {x}).
PATH = re.compile(r"(?<![\w./<-])((?:\.?[\w-]+/)*\.?[\w-]+(?:\.(?:py|md|toml|txt|json|html)|/))(?![\w/*<{])")
# What the reader or a command makes is not in the repository.
MADE_ELSEWHERE = re.compile(r"(out|\.venv)/|run\.json|request\.json")
COMMAND = re.compile(r"\b(make|orrery|bootstrap\.py) ([a-z][\w-]*)")


def code_in(text: str) -> list[str]:
    return [fenced or span or indented for fenced, span, indented in CODE.findall(text)]


def missing_paths(text: str, folder: Path) -> list[str]:
    """Paths in code and links of `text`, a document in `folder`, that lead nowhere."""
    named = [path for code in code_in(text) for path in PATH.findall(code) if not MADE_ELSEWHERE.match(path)]
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    return [path for path in named if not any((base / path).exists() for base in (ROOT, PACKAGE, folder))] + [
        link for link in links if not (folder / link).exists()
    ]


def known_commands() -> dict[str, set[str]]:
    usage = re.search(r"usage: python3 bootstrap\.py ([^\"]*)", (ROOT / "bootstrap.py").read_text())
    return {
        "make": set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)),
        "orrery": set(COMMANDS),
        "bootstrap.py": set(re.findall(r"\b[a-z]+\b", usage[1])),
    }


def missing_commands(text: str) -> list[str]:
    known = known_commands()
    named = [found for code in code_in(text) for found in COMMAND.findall(code)]
    return [f"{program} {word}" for program, word in named if word not in known[program]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_what_exists(document):
    text = document.read_text()
    assert missing_paths(text, document.parent) == []
    assert missing_commands(text) == []


def test_the_required_documents_are_looked_at():
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert names >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/log.md"}


def test_a_wrong_path_link_or_command_is_found():
    text = "See `errors.py`, `model/none.py`, [this](LICENSE) and [that](none.md)."
    block = "\n```\nmake test\nmake tost\norrery run x\n```\nOr:\n\n    orrery rum x\n"
    assert missing_paths(text + block, ROOT) == ["model/none.py", "none.md"]
    assert missing_commands(text + block + "`python3 bootstrap.py tset`") == [
        "make tost",
        "orrery rum",
        "bootstrap.py tset",
    ]


def test_the_readmes_table_of_modes_is_the_tasks():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows == list(TASKS)
