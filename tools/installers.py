"""How pip gets into a fresh `.venv`: from whichever installer this machine has, at the locked version and hash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

Command = Sequence[str | Path]
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.14", "python")

NO_INSTALLER = """nothing here can install packages: no ensurepip in this Python, neither pip nor uv on PATH. One of:
    Debian, Ubuntu   apt-get install python3-venv
    Fedora           dnf install python3-pip
    Alpine           apk add py3-pip
    anywhere         install uv (docs.astral.sh/uv), one file
  then say python3 run.py again."""


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


class CommandFailed(SetupError):
    """A command of the set-up failed; the message ends with its own last words."""


def say(text: str) -> None:
    """One line of progress, on stderr so that stdout stays the command's."""
    sys.stderr.write(f"run.py: {text}\n")
    sys.stderr.flush()


def bootstrap_pip(python: Path, lock: Path) -> None:
    """Put pip into the venv of `python`. Raises SetupError when nothing on this machine can."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder, "pip.lock")
        pinned.write_text(locked(lock, "pip"), encoding="utf-8")
        if any(attempt(command) for command in routes(python, pinned)):
            return
        from tools.servers import apt_install, may_install

        if may_install():
            apt_install("python3-venv", "python3-pip")
            if any(attempt(command) for command in routes(python, pinned)):
                return
    raise SetupError(NO_INSTALLER)


def routes(python: Path, pinned: Path) -> list[Command]:
    """Every command that may put pip there, best first: its own ensurepip, any pip of 22.3 or later, uv."""
    install: list[str | Path] = ["install", "--require-hashes", "--no-deps", "-r", pinned]
    found: list[Command] = [[python, "-m", "ensurepip", "--default-pip"]]
    folders = os.environ.get("PATH", "").split(os.pathsep)
    others = [path for folder in folders for name in PYTHONS if (path := shutil.which(name, path=folder))]
    for own in dict.fromkeys([sys.executable, *others]):
        found.append([own, "-m", "pip", "--python", python, *install])
    for name in ("pip3", "pip"):
        found.append([name, "--python", python, *install])
    uv = shutil.which("uv") or Path.home() / ".local" / "bin" / "uv"
    found.append([uv, "pip", "install", "--python", python, *install[1:]])
    return found


def attempt(command: Command) -> bool:
    """Run a command that is allowed to fail."""
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, env=clean_environment(), check=False
        )
        return done.returncode == 0
    except OSError:
        return False


def clean_environment() -> dict[str, str]:
    """The environment without what would bend an install: a user site, a target folder, a PYTHONPATH."""
    bending = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    kept = {key: value for key, value in os.environ.items() if key not in bending}
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off"}


def locked(lock: Path, name: str) -> str:
    """The lines of one package in a lock: its version and its hashes."""
    lines: list[str] = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}==") or lines:
            lines.append(line)
            if not line.endswith("\\"):
                return "\n".join(lines) + "\n"
    raise SetupError(f"{lock} does not lock {name}: run python3 run.py lock")


def watch(command: Command, what: str, total: int = 0, folder: Path | None = None) -> None:
    """Run a quiet command, with a sign of life every ten seconds. Raises CommandFailed with its last lines."""
    say(what)
    tail: deque[str] = deque(maxlen=25)
    seen, spoke = 0, time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=clean_environment(),
            cwd=folder,
        )
    except OSError as error:
        raise CommandFailed(f"{what}: {error}") from error
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not line.startswith(("WARNING: Location", "  WARNING: Location")):
                    tail.append(line.rstrip())
                seen += line.startswith(("Collecting ", "Requirement already satisfied"))
                if total and time.monotonic() - spoke > 10:
                    spoke = time.monotonic()
                    say(f"  {min(seen, total)} of {total} fetched" if seen < total else "  unpacking")
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise CommandFailed(f"{what}: failed ({process.returncode}). Its last words:\n    " + "\n    ".join(tail))
