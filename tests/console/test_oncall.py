"""The commands of the person on call: groups, previews, paces, verdicts, corrections, removal, and who did it."""

import contextlib
import io
import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from postier.console.replay import pace_in_words, read_pace
from postier.console.top import _drawn, _pressed, rows_of
from postier.console.words import advice, group_advice
from postier.ledger.accounts import configure
from postier.ledger.claims import Claims
from postier.ledger.entries import Reply, end, free, history, mark
from postier.ledger.groups import Group
from postier.ledger.queries import ENDS, Queries, Status
from postier.ledger.store import Store
from postier.ledger.watch import Picture
from postier.settings.config import read_registry
from tests.console.helpers import Run, end_all, publish, reset_link, wait_until


def fail_many(postier: Run, store: Store, tmp_path: Path, count: int, **envelope: object) -> list[str]:
    """Publish so many reset links to different people and let them fail."""
    links = (
        reset_link(f"u{number}@example.org", id=f"e{time.time_ns()}-{number}", **envelope) for number in range(count)
    )
    ids = publish(postier, tmp_path, *links)
    end_all(store)
    return ids


def contact_form() -> dict[str, object]:
    data = {
        "form_id": "contact",
        "visitor": {"name": "Ada", "address": "ada@example.com"},
        "subject": "Hello",
        "message": "A question",
        "submitted_at": "2026-01-01T00:00:00Z",
    }
    return {"kind": "contact_form", "tenant": "school", "data": data}


def give_the_school_a_form(store: Store, environment: dict[str, str]) -> None:
    accounts = Path(environment["POSTIER_ACCOUNTS_FILE"])
    accounts.write_text(
        accounts.read_text() + '[tenants.school.forms.contact]\nrecipients = ["office@school.example"]\n'
    )
    configure(store, read_registry(accounts))


def lose_one(store: Store) -> str:
    """A provider that has the whole mail and then says nothing."""
    claims = Claims(store, "tester", lease=15, crash_limit=3, keep_sent=600)
    (conversation,) = claims.claim(1, 1)[1]
    (held,) = conversation.deliveries
    claims.settle([mark(held)])
    evidence = {"bytes": "812", "stage": "body", "last_reply": "354 go ahead"}
    line = history("unknown", attempt=1, account="office", cause="outcome_unknown", stage="body", evidence=evidence)
    lost = end(held, Reply(), state="unknown", cause="outcome_unknown", timeline=line)
    claims.settle([lost, free(conversation.name, conversation.account, "good")])
    return held.id


def test_failed_shows_groups_with_a_sentence_of_cause_and_advice_and_the_runbook(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    fail_many(postier, store, tmp_path, 3)

    (group,) = postier("failed", "--json").lines
    assert (group["count"], group["cause"], group["account"], group["kind"]) == (
        3, "recipient_refused", "office", "reset_link",
    )  # fmt: skip
    shown = postier("failed").out
    assert "the recipient's address takes no mail — 550 5.1.1 no such user here" in shown
    assert "check the address" in shown.lower()
    assert f"postier runbook {group['runbook']}" in shown
    assert postier("runbook", group["runbook"]).out.startswith("# ")
    assert len(postier("failed", "list", "--group", group["id"], "--json").lines) == 3
    listed = postier("failed", "list").out
    assert "ended" in listed.splitlines()[0]
    assert "takes no mail — 550 5.1.1 no such user here" in listed.splitlines()[1]
    assert postier("failed", "--class", "render").out == "nothing that fits waits for a person\n"
    assert postier("failed", "--state", "unknown").out == "nothing that fits waits for a person\n"
    assert postier("failed", "--text", "NO SUCH", "--json").lines[0]["count"] == 3


def test_whole_addresses_are_shown_only_on_demand_which_the_audit_remembers(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    (one,) = fail_many(postier, store, tmp_path, 1)

    assert "u0@example.org" not in postier("failed", "list", "--json").out
    assert "u0@example.org" in postier("failed", "list", "--reveal", "--by", "ann", "--json").out
    (line,) = postier("audit", "list", "--json").lines
    assert (line["who"], line["what"], line["subject"], line["count"]) == ("ann", "recipients.revealed", one, 1)
    assert "u0@example.org" not in postier("audit", "export").out


def test_a_dry_run_changes_nothing_and_more_than_a_hundred_want_their_number(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    fail_many(postier, store, tmp_path, 101)

    assert postier("failed", "replay", "--all", "--dry-run", "--json").json["starts"] == 101
    told = postier("failed", "replay", "--all", "--yes")
    assert (told.code, "for --confirm: say --confirm 101 to replay 101" in told.err) == (2, True)
    refused = postier("failed", "replay", "--all", "--confirm", "100")
    assert (refused.code, "it would be 101" in refused.err) == (1, True)
    assert Queries(store).counts()["failed"] == 101
    answer = postier("failed", "replay", "--all", "--confirm", "101", "--pace", "10/s", "--json")
    assert answer.json["replayed"] == 101
    assert "at 10/s the last one" in answer.err
    shown = postier("replays", "show", answer.json["replay"], "--json").json
    assert (shown["total"], shown["left"], shown["pace"]) == (101, 101, 10.0)
    assert postier("replays", "stop", answer.json["replay"], "--json").json["taken_back"] == 101
    assert Queries(store).counts()["failed"] == 101
    assert postier("replays", "list", "--json").lines[0]["stopped_at"]


@pytest.mark.parametrize("pace", ["fast", "0/s", "5/year", "-1/s", "nan/s", "inf/s"])
def test_a_pace_that_is_none_is_a_usage_error(postier: Run, store: Store, pace: str) -> None:
    assert postier("failed", "replay", "--all", f"--pace={pace}").code == 2


def test_a_file_of_ids_is_replayed_once_however_often_it_is_given(postier: Run, store: Store, tmp_path: Path) -> None:
    ids = fail_many(postier, store, tmp_path, 3)
    (tmp_path / "ids").write_text(f"{ids[0]}\n\n{json.dumps({'id': ids[1]})}\nnobody\n{ids[0]}\n")

    first = postier("failed", "replay", "--file", str(tmp_path / "ids"), "--yes", "--json").json
    again = postier("failed", "replay", "--file", str(tmp_path / "ids"), "--yes", "--json").json

    assert (first["replayed"], again["replayed"]) == (2, 0)
    assert len(end_all(store)) == 2
    assert postier("failed", "replay", "--file", "/nowhere", "--yes").code == 2


def test_a_replay_by_another_account_leaves_by_that_one(postier: Run, store: Store, tmp_path: Path) -> None:
    (one,) = fail_many(postier, store, tmp_path, 1)

    assert postier("failed", "replay", one, "--account", "nobody").code == 2
    assert postier("failed", "replay", one, "--account", "spare").code == 0
    assert postier("status", one, "--json").lines[0]["account"] == "spare"


def test_unknown_mail_is_listed_with_evidence_and_judged_by_a_person(
    postier: Run, store: Store, tmp_path: Path, environment: dict[str, str]
) -> None:
    give_the_school_a_form(store, environment)
    first, second = publish(postier, tmp_path, contact_form(), contact_form() | {"id": "second"})
    lost = [lose_one(store), lose_one(store)]
    assert sorted(lost) == sorted([first, second])

    shown = postier("unknown", "list").out
    (one, _) = postier("unknown", "list", "--json").lines
    assert one["evidence"]["evidence"] == {"bytes": "812", "stage": "body", "last_reply": "354 go ahead"}
    assert one["evidence"]["message_id"] in shown
    assert "bytes 812" in shown
    assert "354 go ahead" in postier("status", first).out
    refused = postier("failed", "replay", first)
    assert (refused.code, "may have left already" in refused.err) == (1, True)
    assert postier("unknown", "resolve", first).code == 2
    assert postier("unknown", "resolve", first, "--sent", "--by", "ann").out == "1 resolved\n"
    assert postier("unknown", "resolve", second, "--resend").out == "1 sent again\n"
    assert (Queries(store).counts()["sent"], Queries(store).counts()["unknown"]) == (1, 0)
    assert "resolved by ann" in postier("status", first).out
    assert postier("unknown", "resolve", first, "--sent").code == 1


def test_a_correction_is_a_new_delivery_past_the_same_edge_and_keeps_the_old_one(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    (old,) = fail_many(postier, store, tmp_path, 1)
    data = dict(reset_link("right@example.org")["data"])  # type: ignore[call-overload]
    corrected = tmp_path / "corrected.json"

    corrected.write_text(json.dumps(data | {"action_url": "https://evil.example/"}))
    assert postier("failed", "replay", old, "--edit", str(corrected)).code == 2
    assert Queries(store).counts()["failed"] == 1
    corrected.write_text(json.dumps(data))
    first = postier("failed", "replay", old, "--edit", str(corrected), "--json").json
    again = postier("failed", "replay", old, "--edit", str(corrected), "--json").json

    assert (first["id"], first["duplicate"], again["duplicate"]) == (again["id"], False, True)
    (status,) = postier("status", old, "--json").lines
    assert (status["state"], status["cause"], status["replaced_by"]) == ("discarded", "corrected", first["id"])
    assert postier("status", first["id"], "--json").lines[0]["corrects"] == old
    assert store.redis.exists(store.key(f"payload:{old}")) == 1
    assert [one.id for one in end_all(store)] == [first["id"]]
    corrected.write_text(json.dumps(data | {"ip": "192.0.2.7"}))
    assert postier("failed", "replay", old, "--edit", str(corrected)).code == 2  # it is corrected already


def test_a_correction_leaves_by_the_account_of_the_old_one_unless_another_is_named(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    one, other = fail_many(postier, store, tmp_path, 2, account="spare")
    corrected = tmp_path / "corrected.json"
    corrected.write_text(json.dumps(reset_link("right@example.org")["data"]))

    new = postier("failed", "replay", one, "--edit", str(corrected), "--json").json["id"]
    named = postier("failed", "replay", other, "--edit", str(corrected), "--account", "office", "--json").json["id"]

    assert postier("status", new, "--json").lines[0]["account"] == "spare"
    assert postier("status", named, "--json").lines[0]["account"] == "office"


@pytest.mark.parametrize("pace", ["5/s", "100/min", "500/h", "1/h", "90/min", "7/s"])
def test_a_pace_is_shown_as_it_was_given(pace: str) -> None:
    assert pace_in_words(read_pace(pace) or 0) == pace


def found_group(state: str, cause: str, words: str) -> Group:
    return Group("0", state, cause, "office", "reset_link", count=1, code=550, enhanced="5.0.0", words=words)


def test_the_advice_blames_what_the_cause_blames() -> None:
    # Said of a recipient; by themselves these words would be about us.
    assert (
        group_advice(found_group("failed", "recipient_refused", "not taken"))
        == "This address cannot receive mail: check it with the recipient."
    )
    assert group_advice(found_group("failed", "sender_refused", "not taken")).startswith("The server refuses us")
    assert "There is no such mailbox" in group_advice(found_group("failed", "recipient_refused", "no such user here"))


@pytest.mark.parametrize(("cause", "words", "advised"), [
    ("unknown_kind", "kind: there is no such kind; there are contact_form, reset_link", "Start workers that know this"),
    ("unknown_version", "schema_version: 9 is not known here", "Update the workers"),
    ("render", "contact_form.en.txt: the user is unknown", "Read the reason, mend the template"),
    ("no_smtputf8", "no_smtputf8: the server takes no internationalised mail", "Send by an account whose server"),
])  # fmt: skip
def test_our_own_words_are_not_read_as_a_servers(cause: str, words: str, advised: str) -> None:
    group = Group("0", "failed", cause, "office", "reset_link", count=1, words=words)
    assert group_advice(group).startswith(advised)


@pytest.mark.parametrize("cause", ["outcome_unknown", "worker_died"])
def test_nobody_is_sent_to_resolve_what_is_over(cause: str) -> None:
    over = Status("d1", "expired", "office", "reset_link", "school", "e1", 3, "a***@e***.org", 0.0, cause=cause)
    assert "resolve" not in group_advice(found_group("expired", cause, "the server closed the connection"))
    assert "for it may have arrived; then postier failed replay or failed discard d1" in advice(over, {})
    assert "resolve" in group_advice(found_group("unknown", cause, "the server closed the connection"))


def test_export_then_purge_removes_what_is_old_enough_and_nothing_else(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    ids = fail_many(postier, store, tmp_path, 3)
    file = tmp_path / "old.jsonl"

    assert postier("export", str(file)).code == 0
    assert postier("export", str(file)).code == 2  # nothing is overwritten
    assert sorted(json.loads(line)["id"] for line in file.read_text().splitlines()) == sorted(ids)
    assert "example.org" not in file.read_text().replace("s***@e***", "")
    kept = postier("purge", str(file), "--yes")
    assert (kept.out, "3 ended within their time" in kept.err) == ("0 removed\n", True)
    assert postier("purge", str(file), "--early", "--yes", "--by", "ann").out == "3 removed\n"
    assert Queries(store).counts()["failed"] == 0
    assert postier("failed").out == "nothing waits for a person\n"
    whats = [line["what"] for line in postier("audit", "export").lines]
    assert whats == ["records.exported", "records.purged"]


def test_erase_wants_a_yes_and_removes_a_recipient(postier: Run, store: Store, tmp_path: Path) -> None:
    (one,) = fail_many(postier, store, tmp_path, 1)

    assert postier("erase", "u0@example.org", "--tenant", "school").code == 2
    assert postier("erase", "u0 at example.org", "--tenant", "school", "--yes").code == 2
    assert postier("erase", "U0@example.org", "--tenant", "school", "--yes", "--json").json["erased"] == 1
    (status,) = postier("status", one, "--json").lines
    assert (status["state"], status["cause"], status["recipient"]) == ("discarded", "erased", "(erased)")


def test_erase_finds_a_visitor_in_the_content_of_mail_to_others(
    postier: Run, store: Store, tmp_path: Path, environment: dict[str, str]
) -> None:
    give_the_school_a_form(store, environment)
    (one,) = publish(postier, tmp_path, contact_form())
    end_all(store)

    told = postier("erase", "Ada@example.com", "--tenant", "school", "--yes")

    assert told.out == "0 erased, and 1 to others that named the person; 0 from the inbox\n"
    assert "BGREWRITEAOF" in told.err
    (status,) = postier("status", one, "--json").lines
    assert (status["state"], status["cause"]) == ("discarded", "erased")


def test_top_shows_accounts_in_words_and_failures_for_scripts_too(postier: Run, store: Store, tmp_path: Path) -> None:
    fail_many(postier, store, tmp_path, 2)
    publish(postier, tmp_path, reset_link("late@example.org", id="late"))
    postier("accounts", "pause", "office")

    seen = postier("top", "--once", "--json").json
    shown = postier("top", "--once").out

    assert seen["failures"] == {"recipient_refused": 2}
    assert seen["accounts"]["office"]["last_error"].startswith("recipient_refused ")
    office = seen["accounts"]["office"]
    assert (office["state"], office["waiting_urgent"], office["oldest"] >= 0) == ("paused", 1, True)
    assert "paused by" in shown
    assert "recipient_refused 2" in shown


def test_the_live_view_says_a_cause_once() -> None:
    def last(error: str) -> str:
        facts = {"waiting_urgent": 0, "waiting_bulk": 0, "conversations": 0, "last_error": error}
        return rows_of(Picture(at=0.0, counts=dict.fromkeys(ENDS, 0), accounts={"office": facts}))[0][-1]

    assert last("protocol protocol: the answer is not an SMTP reply") == "protocol: the answer is not an SMTP reply"
    assert last("recipient_refused 5.1.1 no such user") == "recipient_refused 5.1.1 no such user"


def test_the_live_view_never_cuts_an_account_s_name_or_state() -> None:
    facts = {
        "state": "parked",
        "until": 1_800_000_000.0,
        "waiting_urgent": 12,
        "waiting_bulk": 3456,
        "conversations": 2,
    }
    facts |= {"last_error": "authentication_failed " + "and so on " * 20}
    picture = Picture(0.0, dict.fromkeys((*ENDS, "waiting", "in_hand"), 0), {"newsletter-of-the-school": facts})

    for width in (80, 110, 200):
        console = Console(width=width, height=24, file=io.StringIO(), record=True)
        console.print(_drawn(picture, rows_of(picture), 0, "", 24))
        lines = console.export_text().splitlines()
        (row,) = (line for line in lines if "newsletter" in line)
        assert row.split()[:8] == [
            "newsletter-of-the-school", "parked", "until", "08:00:00", "0/s", "12", "3456", "2",
        ]  # fmt: skip


def test_the_doctor_finds_and_mends_a_lost_index(postier: Run, store: Store, tmp_path: Path) -> None:
    ids = publish(postier, tmp_path, reset_link())
    store.redis.delete(store.key("lane:office:u"))

    def indexes(*options: str) -> dict[str, str]:
        found = {check["name"]: check for check in postier("doctor", "--json", *options).json["checks"]}
        return dict(found["indexes"])

    assert indexes("--indexes")["result"] == "fail"
    assert "mended: 1 in no lane" in indexes("--repair")["words"]
    assert indexes("--indexes")["result"] == "ok"
    assert [one.id for one in end_all(store)] == ids


def test_the_timeline_is_complete_the_newest_first(postier: Run, store: Store, tmp_path: Path) -> None:
    (one,) = fail_many(postier, store, tmp_path, 1)
    postier("failed", "replay", one, "--by", "ann", "--account", "spare")

    (status,) = postier("status", one, "--json").lines
    assert [step["what"] for step in status["timeline"]] == ["replayed", "failed", "accepted"]
    assert status["timeline"][0]["by"] == "ann"
    assert "replayed account spare by ann" in postier("status", one).out
    assert [step["account"] for step in status["timeline"] if step["what"] == "accepted"] == ["office"]
    (other,) = publish(postier, tmp_path, reset_link("late@example.org", id="late"))
    end_all(store)
    postier("failed", "replay", other, "--at", f"{time.gmtime().tm_year + 2}-01-01T00:00:00Z")
    assert postier("status", other, "--json").lines[0]["in_words"].startswith("waiting: replayed, attempt 1 in ")
    for name in (status["message_id"], status["event"]):
        assert postier("status", name, "--json").lines[0]["id"] == one


def test_keys_that_come_together_are_each_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as keyboard, os.fdopen(writer, "wb", 0) as hand:
        monkeypatch.setattr(sys, "stdin", keyboard)
        hand.write(b"j\x1b[B\x1bOAp")

        assert _pressed(0) == "jBAp"
        assert _pressed(0) == ""


def test_a_key_in_the_live_view_pauses_the_account_and_another_resumes_it(
    store: Store, environment: dict[str, str]
) -> None:
    # Whatever is paused moves to the top, and stays the one that the keys are about.
    command = [sys.executable, "-m", "postier.console", "top", "--every", "0.2"]
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, command, {**os.environ, **environment, "TERM": "xterm", "LINES": "30"})
    seen = b""

    def spare() -> bytes:
        nonlocal seen
        while select.select([terminal], [], [], 0.05)[0]:
            seen += os.read(terminal, 65_536)
        return bytes(store.redis.hget(store.key("account:spare"), "state"))

    try:
        wait_until(lambda: spare() and b"office" in seen and b"q end" in seen)
        os.write(terminal, b"jp")  # quicker than a picture is drawn
        wait_until(lambda: spare() == b"paused")
        seen = b""
        wait_until(lambda: spare() and b"spare paused" in seen)
        os.write(terminal, b"r")
        wait_until(lambda: spare() == b"ready")
        os.write(terminal, b"q")
        assert os.waitpid(child, 0)[1] == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.close(terminal)
