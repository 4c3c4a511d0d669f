"""Set the project up in `.venv` and do one job: `python3 bootstrap.py demo|test|lint|run COMMAND...`.

Standard library only. Idempotent: a stamp in `.venv` says what was installed from which files, and while it fits no
installer is started, so a second run needs no network. The file must parse under Python 3.7, so that an old interpreter
gets a message and not a SyntaxError. What the jobs do inside the environment belongs to the package and its tests.

Environment variables: ORRERY_TORCH is "cpu", "cuda" or a requirement, against the choice by the GPU that is seen;
TORCH_CPU_INDEX names a package index with CPU builds of torch (off by default).
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "orrery-stamp.json"
CONSTRAINTS = ROOT / "constraints.txt"
DEMO = "examples/pico/demo.py"

OLDEST, NEWEST = (3, 11), (3, 13)
UV = "uv==0.13.9"
TORCH = "torch==2.13.0"

DEVELOPER = ["cosmos", "test", "train", "worlds"]
JOBS: dict[str, list[str]] = {"demo": ["worlds"], "test": DEVELOPER, "lint": DEVELOPER, "run": DEVELOPER}
"""Job -> the extras of pyproject.toml it needs."""

LINT = [
    ("ruff check", ["-m", "ruff", "check", "."]),
    ("ruff format", ["-m", "ruff", "format", "--check", "."]),
    ("mypy", ["-m", "mypy"]),
]
TEST = [*LINT, ("pytest", ["-m", "pytest", "-q", "-n", "2"])]


class Installer(NamedTuple):
    """How to call one installer: uv, or pip where there is no uv."""

    name: str
    command: list[str]
    places: list[str]
    """Options that say where to look for packages."""
    environment: dict[str, str]

    def call(self, requirements: list[str], only_index: str = "") -> list[str]:
        """Command line that installs `requirements`; with `only_index`, from it alone and without dependencies."""
        # uv would search an index among `places` before --index-url, and take a CUDA build there, so they are left out.
        where = ["--index-url", only_index, "--no-deps"] if only_index else self.places
        return [*self.command, *where, *requirements]


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def supported(version: tuple[int, int]) -> bool:
    """Whether (major, minor) is a Python that the project runs on."""
    return OLDEST <= version <= NEWEST


def find_python(version: tuple[int, int], which: Callable[[str], str | None] = shutil.which) -> str | None:
    """None when the running interpreter, of (major, minor) `version`, will do; else the path of one that does."""
    if supported(version):
        return None
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        path = which(f"python3.{minor}")
        if path:
            return path
    raise SetupError(
        f"Orrery needs Python 3.{OLDEST[1]} to 3.{NEWEST[1]}; this is {version[0]}.{version[1]} and PATH has no other. "
        f"Install one, or start it by its path: /path/to/python3.{NEWEST[1]} bootstrap.py test"
    )


def digest(files: list[Path], version: tuple[int, int], torch_choice: str, root: Path) -> str:
    """Hash of all that decides what is installed; `root` is in it because an environment cannot be moved."""
    total = hashlib.sha256(repr((tuple(version), torch_choice, str(root))).encode())
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def ready(stamp: Path, python: Path, wanted: str, extras: list[str]) -> bool:
    """Whether the environment at `python` was made from what `wanted` (a digest) names and has all `extras`."""
    if not stamp.is_file() or not python.exists():
        return False
    found = json.loads(stamp.read_text())
    return found["digest"] == wanted and set(extras) <= set(found["extras"])


def pip_settings(listing: str) -> dict[str, str]:
    """The effective settings in the output of `pip config list`: environment over [install] over [global]."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in sections:
            sections[section][key] = ast.literal_eval(value)
    return {**sections["global"], **sections["install"], **sections[":env:"]}


def uv_options(settings: dict[str, str]) -> list[str]:
    """What uv must be told to look where pip was configured to look; uv does not read pip's configuration."""
    options: list[str] = []
    if settings.get("index-url"):
        options += ["--default-index", settings["index-url"]]
    extra = settings.get("extra-index-url", "").split()
    for url in extra:
        options += ["--index", url]
    if extra:  # uv stops at the first index that knows a name; pip, for which these were configured, looks in all.
        options += ["--index-strategy", "unsafe-best-match"]
    for place in settings.get("find-links", "").split():
        options += ["--find-links", place]
    for host in settings.get("trusted-host", "").split():
        options += ["--allow-insecure-host", host]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options += ["--no-index"]
    return options


def torch_attempts(choice: str, gpu: bool, cpu_index: str) -> list[tuple[str, str]]:
    """(requirement, the only index to look in, or "" for the usual places) pairs to try in turn.

    Args:
        choice: ORRERY_TORCH: "" decides by `gpu`, "cpu", "cuda", or any requirement such as "torch==2.12.0" or a wheel.
        gpu: whether a GPU was seen.
        cpu_index: TORCH_CPU_INDEX, a package index that holds CPU builds; "" is none.
    """
    if choice not in ("", "cpu", "cuda"):
        return [(choice, "")]
    if choice == "cuda" or (choice == "" and gpu):
        return [(TORCH, "")]
    return [(TORCH + "+cpu", ""), *([(TORCH, cpu_index)] if cpu_index else []), (TORCH, "")]


def gpu_seen() -> bool:
    """Whether `nvidia-smi -L` names a GPU."""
    if not shutil.which("nvidia-smi"):
        return False
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return listing.returncode == 0 and "GPU" in listing.stdout


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def make_environment(version: tuple[int, int]) -> None:
    """A new `.venv`, unless the present one is whole and of the same Python."""
    config = VENV / "pyvenv.cfg"
    same = config.is_file() and f"version = {version[0]}.{version[1]}." in config.read_text()
    if same and PYTHON.exists() and (VENV / "bin" / "pip").exists():
        return
    if VENV.exists():
        shutil.rmtree(VENV)
    if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode:
        raise SetupError(
            "This Python has no ensurepip, so it cannot make an environment with pip in it. On Debian or Ubuntu: "
            f"sudo apt install python{version[0]}.{version[1]}-venv. Or start bootstrap.py with another Python."
        )
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
        raise SetupError(f"`{sys.executable} -m venv {VENV}` failed; see above.")


def constraints_for(choice: str) -> Path:
    """The constraints file; without what belongs to the pinned torch when `choice` is a torch of the caller's own."""
    if choice in ("", "cpu", "cuda"):
        return CONSTRAINTS
    lines = CONSTRAINTS.read_text().splitlines(keepends=True)
    loosened = VENV / "constraints.txt"
    loosened.write_text("".join(x for x in lines if not x.startswith(("torch==", "triton==", "nvidia-", "cuda-"))))
    return loosened


def installers(settings: dict[str, str], constraints: Path) -> list[Installer]:
    """The usable ones, the preferred one first. Both hold build requirements to `constraints` as well."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH")}
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    found = [Installer("pip", pip, [], {**environment, "PIP_CONSTRAINT": str(constraints)})]
    if subprocess.run([*pip, "-q", UV], env=environment).returncode:
        say(f"{UV} cannot be installed here; using pip, which is slower.")
        return found
    held = ["--constraints", str(constraints), "--build-constraints", str(constraints)]
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "--python", str(PYTHON), *held]
    certificates = {"SSL_CERT_FILE": settings["cert"]} if settings.get("cert") else {}
    return [Installer("uv", uv, uv_options(settings), {**certificates, **environment}), *found]


def install_torch(installer: Installer, attempts: list[tuple[str, str]]) -> bool:
    """Try the attempts in turn; whether one succeeded."""
    for requirement, only_index in attempts:
        command = installer.call([requirement], only_index)
        last = (requirement, only_index) == attempts[-1]
        if last and len(attempts) > 1:
            say(
                f"found no CPU build of torch; taking {TORCH} as it comes. On x86 Linux that may be the CUDA build, "
                "about 3 GB. To avoid it, set TORCH_CPU_INDEX to a package index that has CPU builds."
            )
        # A dry run tells a missing build from a failing download, and keeps the complaint off the screen.
        probe = [*command, "--dry-run"] if installer.name == "uv" and not last else []
        if probe and subprocess.run(probe, env=installer.environment, capture_output=True).returncode:
            continue
        if not subprocess.run(command, env=installer.environment).returncode:
            return True
    return False


def set_up(job: str, version: tuple[int, int]) -> None:
    """Make `.venv` fit for `job`; nothing is started when the stamp says that it is."""
    extras = JOBS[job]
    choice = os.environ.get("ORRERY_TORCH", "")
    wanted = digest([ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__).resolve()], version, choice, ROOT)
    if ready(STAMP, PYTHON, wanted, extras):
        return
    begin = time.monotonic()
    say(f"setting up .venv with Python {version[0]}.{version[1]}; later runs skip this.")
    if STAMP.exists():  # an interrupted set-up must not look finished, but extras installed before are kept
        extras = sorted({*extras, *json.loads(STAMP.read_text())["extras"]})
        STAMP.unlink()
    make_environment(version)
    listing = subprocess.run([str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    attempts = torch_attempts(choice, gpu_seen(), os.environ.get("TORCH_CPU_INDEX", ""))
    suffix = f"[{','.join(extras)}]" if extras else ""
    for installer in installers(pip_settings(listing.stdout), constraints_for(choice)):
        say(f"installing torch, then orrery{suffix}, with {installer.name}.")
        if not install_torch(installer, attempts):
            continue
        if not subprocess.run(installer.call(["-e", f"{ROOT}{suffix}"]), env=installer.environment).returncode:
            break
    else:
        raise SetupError("Installation failed; see above. It needs the network, or a package index that pip knows.")
    STAMP.write_text(json.dumps({"digest": wanted, "extras": extras}))
    say(f"ready in {time.monotonic() - begin:.1f} s.")


def environment_for_jobs() -> dict[str, str]:
    """The caller's environment with `.venv/bin` first."""
    path = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "VIRTUAL_ENV": str(VENV)}


def check(steps: list[tuple[str, list[str]]], begin: float) -> int:
    """Run every step, print what each took and the total since `begin`; the exit code of the first that failed.

    pytest exits with 5 when it finds no tests, which fails here like any other code.
    """
    # One thread a worker: two workers on two cores fight otherwise. Tests must not reach for the network.
    environment = {**environment_for_jobs(), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    rows = []
    for name, arguments in steps:
        start = time.monotonic()
        code = subprocess.run([str(PYTHON), *arguments], cwd=str(ROOT), env=environment).returncode
        rows.append((name, code, time.monotonic() - start))
    for name, code, seconds in rows:
        outcome = f"FAILED ({code})" if code else "ok"
        print(f"{name:12} {outcome:12} {seconds:6.1f} s")
    print(f"{'total, with set-up':25} {time.monotonic() - begin:6.1f} s", flush=True)
    return next((code for _, code, _ in rows if code), 0)


def understood(arguments: list[str]) -> bool:
    """Whether the command line is one of the usage line's."""
    job, count = (arguments or [""])[0], len(arguments)
    return job == "demo" or (job in ("test", "lint") and count == 1) or (job == "run" and count > 1)


def main(arguments: list[str]) -> int:
    begin = time.monotonic()
    version = sys.version_info[:2]
    if not understood(arguments):
        print("usage: python3 bootstrap.py demo [OPTION...] | test | lint | run COMMAND...", file=sys.stderr)
        return 2
    job, rest = arguments[0], arguments[1:]
    try:
        other = find_python(version)
        if other:
            os.execv(other, [other, str(Path(__file__).resolve()), *arguments])
        if job == "demo" and not (ROOT / DEMO).is_file():
            raise SetupError(f"{DEMO} is missing from this checkout.")
        set_up(job, version)
        if job in ("test", "lint"):
            return check(TEST if job == "test" else LINT, begin)
        command = [str(PYTHON), str(ROOT / DEMO), *rest] if job == "demo" else rest
        path = environment_for_jobs()["PATH"]
        program = shutil.which(command[0], path=path)
        if program is None:
            raise SetupError(f"No command {command[0]!r} in .venv or on PATH.")
        return subprocess.run([program, *command[1:]], env=environment_for_jobs()).returncode
    except SetupError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
