"""Events that another language pushed and the hard edge refused: seen, understood, put back or thrown away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from postier.ledger.accounts import configure
from postier.ledger.inbox import Inbox
from postier.ledger.publish import Publisher
from postier.ledger.queries import Queries
from postier.ledger.store import Store
from postier.settings.config import load_settings, read_registry
from tests.console.helpers import Run, reset_link

HOSTILE = b'{"kind": "\\u001b[31m", "tenant": "school", "data": {"recipient": "ana@example.com\\nBcc: q@z.example"}}'


def push(store: Store, *raws: bytes) -> None:
    """Push these as any program does, and let a worker's intake look at them."""
    settings = load_settings()
    sealer = settings.sealer()
    store.redis.rpush(store.key("inbox"), *raws)
    Inbox(store, sealer, Publisher(store, sealer)).take(settings.registry(), wait=1.0)


def elsewhere(**envelope: object) -> bytes:
    """An event whose link leads where its tenant's must not."""
    event = reset_link("ana@example.org", **envelope)
    return json.dumps(event).replace("school.example", "shop.example").encode()


def test_what_was_refused_is_listed_with_field_and_reason_and_without_its_content(postier: Run, store: Store) -> None:
    assert "nothing refused is kept" in postier("inbox", "list").out
    push(store, elsewhere(id="evt-17"), HOSTILE)

    hostile, lost = postier("inbox", "list", "--json").lines
    assert (lost["event"], lost["kind"], lost["tenant"]) == ("evt-17", "reset_link", "school")
    assert (lost["field"], lost["code"]) == ("data.action_url", "link_not_allowed")
    assert hostile["kind"] is None
    shown = postier("inbox", "list").out
    assert lost["id"] in shown
    assert "data.action_url" in shown
    assert "ana@" not in shown
    assert postier("inbox", "list", "--json", "--code", "link_not_allowed").lines == [lost]
    assert postier("inbox", "list", "--json", "--kind", "contact_form").lines == []


def test_the_doctor_counts_what_was_refused(postier: Run, store: Store) -> None:
    def inbox() -> dict[str, str]:
        (answer,) = postier("doctor", "--json").lines
        (found,) = (check for check in answer["checks"] if check["name"] == "inbox")
        return dict(found)

    assert inbox()["result"] == "ok"
    push(store, HOSTILE)
    assert (inbox()["result"], "1 were refused" in inbox()["words"]) == ("warn", True)


def test_one_is_shown_whole_and_the_look_is_in_the_audit(postier: Run, store: Store) -> None:
    push(store, HOSTILE)
    (row,) = postier("inbox", "list", "--json").lines

    shown = postier("inbox", "show", row["id"])
    assert "ana@example.com" in shown.out
    assert "\x1b" not in shown.out
    assert json.loads(postier("inbox", "show", row["id"], "--json", "--by", "ada").lines[0]["content"])
    look = postier("audit", "list", "--json").lines[0]
    assert (look["who"], look["what"], look["subject"]) == ("ada", "inbox.revealed", row["id"])
    missing = postier("inbox", "show", "0123456789ab")
    assert (missing.code, "is none of the refused" in missing.err) == (1, True)


def test_what_was_refused_is_accepted_once_its_reason_is_gone(
    postier: Run, store: Store, environment: dict[str, str]
) -> None:
    push(store, elsewhere(id="evt-17"))
    accounts = Path(environment["POSTIER_ACCOUNTS_FILE"])
    accounts.write_text(accounts.read_text().replace("school.example", "shop.example"))
    configure(store, read_registry(accounts))

    asked = postier("inbox", "retry", "--all")
    assert (asked.code, "--yes" in asked.err) == (2, True)
    assert postier("inbox", "retry", "--all", "--yes").out == "1 retried\n"
    assert "1 wait to be taken" in postier("inbox", "list").err
    push(store, b"broken")
    assert len(Queries(store).deliveries_of("school", "evt-17")) == 1
    assert [one["what"] for one in postier("audit", "list", "--json").lines] == ["inbox.retried"]


def test_what_nobody_wants_is_discarded_by_id_or_by_filter(postier: Run, store: Store) -> None:
    push(store, b"one", b"two", elsewhere())
    lost, second, _ = postier("inbox", "list", "--json").lines

    assert postier("inbox", "discard", second["id"], "--json").lines == [{"id": second["id"], "result": "discarded"}]
    again = postier("inbox", "discard", second["id"])
    assert (again.code, "is none of the refused" in again.err) == (1, True)
    assert postier("inbox", "discard", "--code", second["code"], "--confirm", "1").code == 0
    assert postier("inbox", "list", "--json").lines == [lost]


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_nothing_is_changed_without_saying_what(command: str, postier: Run, store: Store) -> None:
    push(store, b"one")
    assert postier("inbox", command).code == 2
    assert postier("inbox", command, "0123456789ab", "--all").code == 2
    assert len(postier("inbox", "list", "--json").lines) == 1
