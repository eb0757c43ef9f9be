"""The engineer's whole way, from failing mail to replayed mail, reduced; `bench/failures.py` tells it in commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def test_failures_of_ten_causes_are_found_fixed_and_replayed_through_the_death_of_a_worker_and_of_redis() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")}
    done = subprocess.run(
        [sys.executable, str(BENCH / "failures.py"), "--deliveries", "240", "--pace", "8", "--quiet", "20", "--json",
         "--off", "0.5", "--harm", "60"],  # what a busy machine can keep: the campaign itself asks for more
        env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip

    assert done.stdout, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["broken"] == []
    assert done.returncode == 0
    assert (figures["groups"], figures["paced"]) == (190, 24)
    assert figures["unknown"] == {"sent": 24, "resent": 24}
