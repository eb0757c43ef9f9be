"""What a release consists of: a wheel that anybody can build again to the octet, its components, and their sums.

    python3 run.py release FOLDER

Built from the last commit, not from the working tree; times are the commit's, modes the same everywhere.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"


def build_wheel(tree: Path, folder: Path, *, epoch: int) -> Path:
    """The wheel of a tree, whose modes it evens out; `epoch` (seconds since 1970) dates every file in it."""
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-c", _BUILD, str(folder.resolve())]
    done = subprocess.run(command, cwd=tree, env=environment, umask=0o022, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return folder / done.stdout.splitlines()[-1]


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python3 run.py release FOLDER\n")
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(ROOT)]
    epoch = int(subprocess.run([*git, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True).stdout)
    source = subprocess.run([*git, "archive", "HEAD"], capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="postier-release-") as made:
        tree = Path(made)
        with tarfile.open(fileobj=io.BytesIO(source)) as archive:
            archive.extractall(tree, filter="data")
        wheel = build_wheel(tree, folder, epoch=epoch)
    components = wheel.with_suffix(".cdx.json")
    list_them = [sys.executable, str(ROOT / "tools" / "components.py"), str(components)]
    subprocess.run(list_them, cwd=ROOT, check=True)
    sums = "".join(f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in (wheel, components))
    (folder / "SHA256SUMS").write_text(sums, "utf-8")
    sys.stdout.write(sums)
    return 0


if __name__ == "__main__":
    sys.exit(main())
