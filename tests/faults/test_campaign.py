"""A few rows of the fault campaign with fixed seeds; `python bench/faults.py` runs them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "faults.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.parametrize("row", ["F12", "F19", "F32", "F44"])
def test_a_row_of_the_fault_matrix_holds(row: str) -> None:
    done = campaign("--rows", row, "--json")
    (result,) = json.loads(done.stdout)["results"]
    assert result["failed"] == []
    assert result["passed"]
    assert result["lost"] == 0


def test_a_row_that_the_matrix_does_not_have_is_refused() -> None:
    done = campaign("--rows", "F99")
    assert done.returncode == 2
    assert "no such row: F99" in done.stderr
