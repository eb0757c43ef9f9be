"""`run.py check`, on small houses that are right or wrong in one place."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# stands for postier's command line: two kinds, one schema each
KINDS = """\
#!/bin/sh
case "$*" in
  *"kinds --json") echo '{"kinds": [{"kind": "reset_link"}, {"kind": "contact_form"}]}' ;;
  *"--schema reset_link") echo '{"title": "ResetLink"}' ;;
  *"--schema contact_form") echo '{"title": "ContactForm"}' ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in ("schemas", "settings", "drivers", "ledger", "client", "workers", "console"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return tmp_path


def ask(checkout: Path, expression: str) -> subprocess.CompletedProcess[str]:
    """Exit code 0 when the check passes."""
    command = f"import sys; from tools import checks; sys.exit(not ({expression}))"
    return subprocess.run(
        [sys.executable, "-c", command], cwd=checkout, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_links_for_type_checkers_follow_the_rooms(checkout: Path) -> None:
    links = checkout / "build" / "types" / "postier"
    links.mkdir(parents=True)
    (links / "gone").symlink_to("../../../gone")

    ask(checkout, "checks.link_rooms()")

    assert {link.name for link in links.iterdir()} == {
        "schemas", "settings", "drivers", "ledger", "client", "workers", "console",
    }  # fmt: skip
    assert all(link.is_symlink() and (link / "__init__.py").exists() for link in links.iterdir())


def test_a_committed_schema_that_is_current_passes(checkout: Path) -> None:
    commit_schemas(checkout, reset_link={"title": "ResetLink"}, contact_form={"title": "ContactForm"})

    assert ask(checkout, "checks.schemas()").returncode == 0


def test_a_schema_that_drifted_is_named_with_the_command_to_compare(checkout: Path) -> None:
    commit_schemas(checkout, reset_link={"title": "Older"}, contact_form={"title": "ContactForm"})

    answer = ask(checkout, "checks.schemas()")

    assert answer.returncode == 1
    assert "schemas/json/reset_link.json" in answer.stderr
    assert "contact_form" not in answer.stderr


def test_a_kind_without_a_committed_schema_is_named(checkout: Path) -> None:
    commit_schemas(checkout, reset_link={"title": "ResetLink"})

    answer = ask(checkout, "checks.schemas()")

    assert answer.returncode == 1
    assert "contact_form" in answer.stderr


def commit_schemas(checkout: Path, **schemas: dict[str, str]) -> None:
    folder = checkout / "schemas" / "json"
    folder.mkdir()
    for kind, schema in schemas.items():
        (folder / f"{kind}.json").write_text(json.dumps(schema))
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text(KINDS)
    python.chmod(0o755)
