"""T24, T26, G12: a small part of `bench/fuzz.py`, the same inputs every time."""

from __future__ import annotations

import pytest

from bench.fuzz import TARGETS, run
from postier.drivers.http_answers import wanted_wait
from postier.drivers.mailgun import _until

COUNT = {"envelope": 1500, "address": 3000, "link": 3000, "smtp": 1500, "http": 800}


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_inputs_end_in_an_answer_or_in_an_error_of_ours(target: str) -> None:
    found = run(target, count=COUNT[target], seed=20_261_122)
    assert found.faults == []
    assert found.inputs == COUNT[target]
    assert len(found.outcomes) >= 2, "everything ended alike: the inputs do not reach far"


@pytest.mark.parametrize("moment", [
    "Fri, 31 Dec 202799999999999 23:59:59 GMT", "Fri, 31 Dec 99999999999999999999 23:59:59 GMT",
    "Fri, 31 Dec 0 23:59:59 GMT",
    "nan", "inf", "-inf", "1e999", "-1", "9" * 400, "Fri, 99 Dec 2027 99:99:99 +9999", "Fri", "0x10", "",
])  # fmt: skip
def test_a_time_that_a_provider_writes_is_a_bounded_wait_or_none(moment: str) -> None:
    """Found by fuzzing: a year of many digits ended in an OverflowError, and with it the driver."""
    waits = (wanted_wait({"retry-after": moment}), _until(f"limit exceeded, try again after {moment}"))
    assert all(wait is None or 0 <= wait <= 86_400 for wait in waits)
