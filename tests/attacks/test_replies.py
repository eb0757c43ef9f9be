"""T26, T27, T28: a malicious server's words reach logs, records and terminals harmless, masked and bounded."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest

from postier.drivers.smtp_reply import Reply
from postier.drivers.smtp_words import refusal
from tests.attacks.kit import Yard, bent, rows
from tests.conftest import until

ROWS = rows("replies")
Answered = dict[str, str]


@pytest.fixture(scope="module")
def answered(yard: Yard) -> Answered:
    """The delivery that got each row's reply."""
    given = [
        bent("reset_link", {"data.recipient": f"reply-{n}@example.org"}, id=f"reply-{n}", account="words")
        for n in range(len(ROWS))
    ]
    ids = [answer["deliveries"][0] for answer in yard.publish(given, "replies")]
    until(lambda: all(yard.status(i).attempt or yard.status(i).state == "sent" for i in ids), what="every reply")
    later = [i for i, row in zip(ids, ROWS, strict=True) if row["id"].startswith("later-")]
    until(lambda: all(yard.status(i).words for i in later), what="the words of those that wait")
    until(lambda: all(put_off(yard, i) for i in later), what="that nobody tries those again")
    yard.wait_for_the_end([i for i in ids if i not in later])
    return {row["id"]: identity for row, identity in zip(ROWS, ids, strict=True)}


def put_off(yard: Yard, identity: str) -> bool:
    """Let a waiting retry come due never, so that the tests find it waiting; False while it is under way."""
    far = 9e15
    yard.store.redis.zadd(yard.store.key("scheduled"), {identity: far}, xx=True)
    return yard.store.redis.zscore(yard.store.key("scheduled"), identity) == far


def harmful(text: str) -> Iterator[str]:
    """Characters of one line that move, hide, colour or reverse something."""
    for character in text:
        if not character.isprintable() or unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs"):
            yield repr(character)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_a_servers_words_are_harmless_wherever_they_are_shown(
    row: dict[str, Any], yard: Yard, answered: Answered
) -> None:
    status = yard.status(answered[row["id"]])
    wanted = {"451": "waiting", "250": "sent"}.get(row["lines"][0][:3], "failed")
    assert status.state == wanted
    assert len(status.words) <= 300
    assert not list(harmful(status.words))
    assert "someone.private" not in status.words
    assert "d.e@f.example" not in status.words
    answer = yard.run("status", answered[row["id"]], *(("--json",) if len(row["id"]) % 3 == 0 else ()))
    lines = answer.out.splitlines()
    assert not [line for line in lines if list(harmful(line))]
    assert "someone.private" not in answer.out
    assert answer.err == ""
    assert len(lines) < 40
    assert answer.out.count("\n") == len(lines), "a character that some terminal takes for a line end"


def test_lists_stay_lists(yard: Yard, answered: Answered) -> None:
    for words in (("failed", "list"), ("deliveries", "list", "--limit", "1000"), ("failed", "list", "--json")):
        answer = yard.run(*words)
        assert answer.code == 0, answer.err
        assert not [line for line in answer.out.splitlines() if list(harmful(line))], words
    as_json = yard.run("failed", "list", "--account", "words", "--limit", "1000", "--json").lines
    refused = {answered[row["id"]] for row in ROWS if row["lines"][0].startswith("550")}
    assert {one["id"] for one in as_json if "id" in one} >= refused


def test_no_reply_forges_a_line_of_the_log(yard: Yard, answered: Answered) -> None:
    refused = {answered[row["id"]] for row in ROWS if row["lines"][0][:3] in ("550", "451")}

    def told() -> set[str]:
        said = [json.loads(line) for line in yard.log().split("\n") if line.startswith("{")]  # a whole object a line
        return {one["delivery"] for one in said if one["event"] in ("delivery.failed", "delivery.retried")}

    until(lambda: refused <= told(), what="the log, which is written behind the ledger")
    lines = yard.log().split("\n")
    assert not [line for line in lines if list(harmful(line))]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    sent = {one["delivery"] for one in events if one["event"] == "delivery.sent"}
    assert not sent & refused
    assert "someone.private" not in yard.log()


@pytest.mark.parametrize("row", [row for row in ROWS if row["threat"] == "T26"], ids=lambda row: str(row["id"]))
def test_no_reply_costs_more_than_100_ms(row: dict[str, Any]) -> None:
    text = "\n".join(line[4:] for line in row["lines"])
    refusal(Reply(550, "warm up"), "rcpt")

    def cost(stage: str) -> float:
        started = time.thread_time()
        refusal(Reply(550, text), stage, ["secret"])
        refusal(Reply(451, text), stage, ["secret"])
        return time.thread_time() - started

    for stage in ("connect", "ehlo", "auth", "mail", "rcpt", "data", "body"):
        # The least of a few: a collection of garbage may fall into one, and caches are shared with neighbours.
        assert min(cost(stage) for _ in range(5)) < 0.1, stage
