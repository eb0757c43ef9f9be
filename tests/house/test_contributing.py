"""CONTRIBUTING.md's walks, followed to the letter in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "settings", "drivers", "ledger", "client", "workers", "console")
WALKS = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(?:python\n# |jinja\n\{# )(\S+?)(?: #\})?\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rooms and tests with every file of the walks written into them."""
    tree = tmp_path_factory.mktemp("walk")
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    for folder in (*ROOMS, "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", tree)
    (tree / "postier").mkdir()
    for room in ROOMS:
        (tree / "postier" / room).symlink_to(tree / room)
    blocks = BLOCK.findall(WALKS)
    assert len(blocks) == 9
    for name, text in blocks:
        (tree / name).write_text(text, encoding="utf-8")
    return tree


def follow(tree: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_driver_of_the_walk_passes_its_test_and_is_found_by_its_name(tree: Path) -> None:
    said = follow(
        tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/drivers/http/test_acme.py"
    )
    assert re.search(r"\d+ passed", said)
    found = "from postier.drivers.registry import load_driver; print(load_driver('acme').__name__)"
    assert follow(tree, "-c", found).strip() == "AcmeDriver"


def test_the_kind_of_the_walk_renders_in_both_languages(tree: Path) -> None:
    follow(tree, "-m", "postier.workers.compile_templates")
    follow(tree, "-m", "postier.schemas.json_schema")
    # Not its looks in a browser: a window takes as long as all of these.
    said = follow(
        tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/render/test_templates.py",
        "tests/render/test_headers.py", "tests/render/test_mime.py", "tests/schemas", "-k",
        "invoice_ready or test_kinds",
    )  # fmt: skip
    assert int(re.findall(r"(\d+) passed", said)[-1]) > 20


def test_what_the_walks_write_passes_the_checks_of_style(tree: Path) -> None:
    written = [name for name, _ in BLOCK.findall(WALKS) if name.endswith(".py")]
    follow(tree, "-m", "ruff", "check", *written)
    follow(tree, "-m", "ruff", "format", "--check", *written)
