"""What the benchmarks reckon with."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield
    for name in (set(sys.modules) - before) & {"stage", "peers", "throughput", "timing"}:
        del sys.modules[name]


def burn(seconds: float) -> float:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return 1.0


def test_looking_at_the_sink_is_not_the_publishers_work() -> None:
    from stage import Stage

    play = Stage.__new__(Stage)
    play._looking, play.workers = 0.0, []
    play.redis = SimpleNamespace(pid=os.getpid())
    play.sink = SimpleNamespace(took=lambda count, seconds: burn(1.0))
    before = play.cpu()["publisher"]

    play.took(1, 1)

    assert play.cpu()["publisher"] - before < 0.5


def test_a_round_ends_with_the_last_mail_and_not_when_somebody_looked() -> None:
    from stage import SinkProcess

    sink = SinkProcess.__new__(SinkProcess)
    looks = iter([1, 3])
    sink.count = lambda: next(looks)
    sink.log = lambda: [(10.0, "", "a"), (11.0, "", "b"), (12.0, "", "c")]

    assert sink.took(2, 5) == 11.0


def test_a_peer_is_compared_so_that_more_is_better_for_postier() -> None:
    from peers import compared

    ours = {"load": 1.0, "per_second": 2000.0, "cpu_s_per_1000": 0.5, "accepted_ms_p50": 3.0}
    theirs = {"load": 2.0, "per_second": 500.0, "cpu_s_per_1000": 2.0, "accepted_ms_p50": 6.0}

    assert compared(theirs, ours) == {
        **theirs, "per_second_ratio": 4.0, "cpu_s_per_1000_ratio": 4.0, "accepted_ms_p50_ratio": 2.0,
    }  # fmt: skip


def test_welchs_test_finds_what_differs_and_nothing_else() -> None:
    from timing import differs, welch

    dice = random.Random(5)
    one, same, slower = ([dice.gauss(mean, 10) for _ in range(5000)] for mean in (100, 100, 101))

    assert welch(one, same)[1] > 0.01
    assert welch(one, slower)[1] < 0.01
    assert differs({"t": 4.0, "p": 0.001}, {"t": 3.0, "p": 0.003})
    assert not differs({"t": 4.0, "p": 0.001}, {"t": -3.0, "p": 0.003})
    assert not differs({"t": 4.0, "p": 0.001}, {"t": 1.0, "p": 0.3})
