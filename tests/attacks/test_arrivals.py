"""Hostile values that are lawful text arrive as that text and nothing more; what only looks odd arrives unchanged.

Each row travels the whole path: `postier publish`, the ledger, a worker process, SMTP, a server; then the mail is taken
apart as a reader's program does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from postier.schemas.events import KINDS
from tests.attacks.kit import Mail, Yard, bent, rows
from tests.attacks.reader import bodies, faults, flat, message_of, name_in, shape, turns_what_follows

pytestmark = pytest.mark.xdist_group("arrivals")  # one run is enough
HOSTILE, BENIGN = rows("neutralised"), rows("benign")
THREATS = sorted({row["threat"] for row in HOSTILE})
# Fields that a kind's text part shows; the others are looked for where they stand.
_SHOWN_IN_HEADERS = {"data.visitor.name", "data.subject", "data.recipient.name"}


@dataclass(frozen=True)
class Journey:
    """One row, the ids of its deliveries, and the mails that came of it."""

    row: dict[str, Any]
    given: dict[str, Any]
    deliveries: list[str]
    mails: list[Mail]


@pytest.fixture(scope="module")
def journeys(yard: Yard) -> dict[str, Journey]:
    """Every row of both tables, sent; and one plain event of each kind, whose id is the kind."""
    plain = [{"id": kind, "kind": kind, "set": {}} for kind in KINDS]
    table = [*plain, *HOSTILE, *BENIGN]
    given = []
    for number, row in enumerate(table):
        changes = dict(row["set"])
        if row["kind"] in ("reset_link", "account_validation"):
            changes.setdefault("data.recipient.address", f"reader-{number}@example.org")
        given.append(bent(row["kind"], changes, id=f"arrival-{number}"))
    answers = yard.publish(given, "arrivals")
    refused = [(row["id"], answer["error"]) for row, answer in zip(table, answers, strict=True) if "error" in answer]
    assert not refused, refused
    ids = [identity for answer in answers for identity in answer["deliveries"]]
    ends = yard.wait_for_the_end(ids)
    assert set(ends.values()) == {"sent"}, Counter(ends.values())
    came: dict[str, list[Mail]] = {}
    for mail in yard.mails():
        came.setdefault(mail.delivery, []).append(mail)
    return {
        row["id"]: Journey(row, event, answer["deliveries"], [m for i in answer["deliveries"] for m in came.get(i, ())])
        for row, event, answer in zip(table, given, answers, strict=True)
    }


def wrong_with(journey: Journey, plain: Journey) -> Iterator[str]:
    """What is not as it was meant: structure, addressees, links, or a text that came out as another text."""
    row, kind = journey.row, journey.row["kind"]
    if len(journey.mails) != len(journey.deliveries):
        yield f"{len(journey.mails)} mails for {len(journey.deliveries)} deliveries"
        return
    plain_html = shape(bodies(plain.mails[0])[1])
    for mail in journey.mails:
        yield from faults(mail, kind)
        if len(mail.rcpts) != 1:
            yield f"recipients {mail.rcpts}"
        text, html = bodies(mail)
        seen = shape(html)
        if seen.tags - plain_html.tags or seen.comments - plain_html.comments:
            yield f"markup came in: {seen.tags - plain_html.tags or seen.comments}"
        for line in f"{text}\n{''.join(seen.words)}".split("\n"):
            old, arrow, _ = line.partition("→")
            if kind == "data_change" and arrow and turns_what_follows(old):
                yield f"an old value turns the new one round: {line!r}"
        lawful = {value for path, value in row["set"].items() if path.endswith("url")} | plain_html.links
        lawful |= {f"mailto:{row['set'].get('data.visitor.address', '')}"}
        if any(link.startswith(("http", "java", "data")) for link in seen.links - lawful):
            yield f"links came in: {seen.links - lawful}"
        yield from _told_otherwise(mail, row, text, flat("".join(seen.words)))


def _told_otherwise(mail: Mail, row: dict[str, Any], text: str, html: str) -> Iterator[str]:
    shown, subject = flat(text), flat(message_of(mail)["subject"])
    for path, value in row["set"].items():
        for said in _texts(value):
            wanted = flat(said)
            if path == "data.visitor.name" and wanted not in flat(name_in(mail, "From")):
                yield f"From shows another name: {name_in(mail, 'From')!r}"
            if path == "data.recipient.name" and flat(name_in(mail, "To")) != wanted:
                yield f"To shows another name: {name_in(mail, 'To')!r}"
            if path == "data.subject" and wanted not in subject:
                yield f"another subject: {subject!r}"
            if path in ("data.form_id", "data.recipient.address"):
                continue
            if wanted not in shown and path != "data.message":  # that one has a test of its own
                yield f"the text part tells {path} otherwise"
            if wanted not in html and "url" not in path:
                yield f"the HTML part tells {path} otherwise"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts([one["label"], one["old"], one["new"]] if isinstance(one, dict) else one)


@pytest.mark.parametrize("threat", THREATS)
def test_a_hostile_text_arrives_as_text_and_changes_nothing_else(threat: str, journeys: dict[str, Journey]) -> None:
    wrong = {
        row["id"]: found
        for row in HOSTILE
        if row["threat"] == threat and (found := list(wrong_with(journeys[row["id"]], journeys[row["kind"]])))
    }
    assert not wrong


def test_what_only_looks_odd_arrives_unchanged(journeys: dict[str, Journey]) -> None:
    wrong = {
        row["id"]: found for row in BENIGN if (found := list(wrong_with(journeys[row["id"]], journeys[row["kind"]])))
    }
    assert not wrong
    assert len(BENIGN) >= 60


def test_a_message_arrives_byte_for_byte(journeys: dict[str, Journey]) -> None:
    for row in (*HOSTILE, *BENIGN):
        message = row["set"].get("data.message")
        if message is None:
            continue
        quoted = "\n".join(f"> {line}".rstrip() for line in message.replace("\r\n", "\n").split("\n"))
        for mail in journeys[row["id"]].mails:
            assert f"\n{quoted}\n" in bodies(mail)[0], row["id"]


def test_the_careless_server_took_one_mail_for_each_that_was_sent_and_no_command_of_a_message(
    yard: Yard, journeys: dict[str, Journey]
) -> None:
    meant = {d for j in journeys.values() if j.row["set"].get("data.form_id") == "lax" for d in j.deliveries}
    assert len(yard.lax.taken) == len(meant) >= 50
    assert {command[:4].upper() for command in yard.lax.commands()} <= {b"EHLO", b"MAIL", b"RCPT", b"DATA", b"QUIT"}
    assert not any(b"z.example" in command for command in yard.lax.commands())
    for one in yard.lax.conversations:
        octets = bytes(one.octets)
        assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
        assert b"\0" not in octets
