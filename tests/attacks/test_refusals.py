"""What no producer may say is refused on every way in, with field and code, and leaves nothing behind.

Two ways: `postier publish` (and with it the client), and the inbox that programs in other languages push to.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from postier.ledger.inbox import RefusedEvents
from tests.attacks.kit import Yard, bent, rows
from tests.conftest import until

ROWS = rows("refused")
Refusals = dict[str, dict[str, Any]]


def octets(row: dict[str, Any]) -> bytes:
    if "raw" in row:
        return str(row["raw"]).encode("latin-1")
    return json.dumps(bent(row["kind"], {"id": "refused-1", **row["set"]})).encode()


def deliveries(yard: Yard) -> set[bytes]:
    return set(yard.store.redis.scan_iter(match=yard.store.key("delivery:*").replace("[", "\\["), count=10_000))


@pytest.fixture(scope="module")
def by_command(yard: Yard) -> Refusals:
    before, keys = deliveries(yard), set(yard.store.redis.scan_iter(count=10_000))
    answers = yard.publish([octets(row) for row in ROWS], "refused")
    assert deliveries(yard) == before
    new = {key for key in yard.store.redis.scan_iter(count=10_000) if key not in keys}
    assert not [key for key in new if not key.startswith(yard.store.prefix.encode())]
    assert len(answers) == len(ROWS)
    return {row["id"]: answer for row, answer in zip(ROWS, answers, strict=True)}


@pytest.fixture(scope="module")
def by_inbox(yard: Yard) -> Refusals:
    kept = RefusedEvents(yard.store, yard.settings.sealer())
    before, waiting = deliveries(yard), len(kept.find())
    yard.store.redis.rpush(yard.store.key("inbox"), *map(octets, ROWS))
    until(lambda: len(kept.find()) >= waiting + len(ROWS), what="every refusal")
    until(lambda: yard.store.redis.llen(yard.store.key("inbox:taken")) == 0, what="the end of the inbox")
    assert deliveries(yard) == before
    found = {refused.raw: {"error": refused.error} for refused in kept.find()}
    return {row["id"]: found[octets(row)] for row in ROWS}


@pytest.mark.parametrize("threat", sorted({row["threat"] for row in ROWS}))
@pytest.mark.parametrize("way", ["by_command", "by_inbox"])
def test_a_hostile_envelope_is_refused_with_its_field_and_code(
    way: str, threat: str, request: pytest.FixtureRequest
) -> None:
    answers: Refusals = request.getfixturevalue(way)
    wanted = {row["id"]: (row["code"], row["field"]) for row in ROWS if row["threat"] == threat}
    got = {name: (answers[name].get("error", {}).get("code"), answers[name]["error"]["field"]) for name in wanted}
    assert got == wanted


@pytest.mark.parametrize("way", ["by_command", "by_inbox"])
def test_no_refusal_repeats_what_was_refused(way: str, request: pytest.FixtureRequest) -> None:
    answers: Refusals = request.getfixturevalue(way)
    for row in ROWS:
        words = json.dumps(answers[row["id"]]["error"]["reason"])
        for value in (row.get("set") or {"": row.get("raw")}).values():
            if isinstance(value, str) and len(value) > 7 and value.isprintable():
                assert value not in words, row["id"]
        assert all(mark not in words for mark in ("z.example", "q@", "\\u001b", "Traceback", "pydantic"))


def test_nothing_of_it_was_sent_or_logged(yard: Yard, by_command: Refusals, by_inbox: Refusals) -> None:
    assert not [mail for mail in yard.mails() if any("z.example" in recipient for recipient in mail.rcpts)]
    log = yard.log()
    assert "refused-1" not in log
    assert "Traceback" not in log


def test_the_table_is_large_enough() -> None:
    total = sum(len(rows(name)) for name in ("refused", "neutralised", "hosts"))
    assert total >= 1200
    assert len(rows("benign")) >= 200
