"""How many descriptors a worker takes: as many as it may have without asking anybody."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from postier.workers.main import most_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(most_descriptors(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard"), [(200, 300), (300, 300)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int) -> None:
    command = [sys.executable, "-c", SCRIPT.format(soft=soft, hard=hard)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["300", "300", "300"]
