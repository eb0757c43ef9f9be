"""How much work a text makes, in the only measure that a busy machine does not spoil: that of another text."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

PLAIN = ("the quick brown fox jumps over the lazy dog and " * 42)[:2_000]  # as much of a text as counts
MOST = 6  # times; what is measured lies below two and a half, and a rule that goes astray at hundreds


def assert_read_like_plain_words(read: Callable[[str], object], text: str) -> None:
    """`text`, however long, costs at most MOST times what 2,000 characters of plain words do: the best of some."""
    odd, usual = [], []
    for _ in range(5):
        odd.append(_spent(partial(read, text)))
        usual.append(_spent(partial(read, PLAIN)))
        if min(odd) < MOST * min(usual):
            return
    raise AssertionError(f"{min(odd):.4f} s for this text, {min(usual):.4f} s for plain words")


def _spent(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
