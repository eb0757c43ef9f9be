"""Resolve pyproject.toml into the hashed locks: the same versions for every platform and Python that we run on."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.checkout import PYTHON, ROOT, SetupError, set_up, watch

AS_TESTED = ["--constraint", "requirements/checkout.lock"]
LOCKS = {
    # the checkout: run, test, check
    "checkout.lock": ["pyproject.toml", "--all-extras"],
    # the container image: no test tools; `postier metrics` runs in it too
    "image.lock": ["pyproject.toml", "--extra", "metrics", *AS_TESTED],
    # what turns the source into a wheel, on the way to the image
    "build.lock": ["requirements/build.in", *AS_TESTED],
}


def lock(arguments: list[str]) -> int:
    """Write requirements/*.lock. Versions already locked stay, unless the arguments say `--upgrade`."""
    uv = find_uv()
    for name, choice in LOCKS.items():
        command = [uv, "pip", "compile", *choice, "--universal", "--python-version", "3.11"]
        # neither annotations nor index addresses: a lock says what, never from where
        shape = ["--generate-hashes", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        header = ["--custom-compile-command", "python3 run.py lock", "--quiet", "-o", f"requirements/{name}"]
        watch([*command, *shape, *header, *arguments], f"resolving requirements/{name}", folder=ROOT)
    return 0


def find_uv() -> str | Path:
    """uv from PATH, else one installed under build/ for this purpose alone."""
    own = ROOT / "build" / "uv"
    if found := shutil.which("uv"):
        return found
    if not (own / "bin" / "uv").exists():
        set_up()
        watch([PYTHON, "-m", "pip", "install", "--target", own, "uv"], "fetching uv into build/uv")
    if not (own / "bin" / "uv").exists():
        raise SetupError("uv did not arrive in build/uv/bin: install it by hand and put it on PATH")
    return own / "bin" / "uv"
