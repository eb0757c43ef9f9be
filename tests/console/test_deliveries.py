"""`postier status`, `deliveries list` and `failed …`."""

import time
from pathlib import Path

import pytest

from postier.ledger.queries import Queries
from postier.ledger.store import Store
from tests.console.helpers import Run, end_all, publish, reset_link, try_in_vain


def test_status_tells_what_happened_the_latest_first_and_what_to_do(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())
    end_all(store)
    postier("failed", "replay", delivery)
    end_all(store, words="still nobody")

    answer = postier("status", delivery)

    assert answer.code == 0
    assert "failed: the recipient's address takes no mail" in answer.out
    assert f"postier failed replay {delivery}" in answer.out
    assert "550 5.1.1 still nobody" in answer.out
    assert answer.out.index("replayed by") < answer.out.index("no such user here")
    assert "sam@example.org" not in answer.out


def test_status_finds_an_event_by_its_id_in_any_tenant(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link(id="reset-7"))

    assert [one["id"] for one in postier("status", "reset-7", "--json").lines] == [delivery]
    assert postier("status", "reset-7", "--tenant", "school", "--json").lines[0]["state"] == "waiting"
    assert postier("status", "reset-7", "--tenant", "other").code == 1


def test_status_of_an_unknown_id_is_a_negative_answer(postier: Run, store: Store) -> None:
    answer = postier("status", "nobody\x1b[2J")

    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "postier: no delivery and no event is known as nobody\\x1b[2J\n"


def test_a_server_s_words_cannot_act_on_the_terminal(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())
    end_all(store, words="no\x1b]0;owned\x07 [red]user[/red] \u202egnp\x9b2J")

    for command in (
        ("status", delivery),
        ("failed", "list"),
        ("status", delivery, "--json"),
        ("failed", "list", "--json"),
    ):
        answer = postier(*command)

        assert answer.code == 0
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(answer.out)
    assert "[red]user[/red]" in postier("status", delivery).out


def test_waiting_mail_of_a_paused_account_says_who_paused_it(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())
    assert postier("accounts", "pause", "office").code == 0

    assert "account office is paused by" in postier("status", delivery).out
    assert "accounts resume office" in postier("status", delivery).out

    assert postier("accounts", "resume", "office", "--json").json == {"account": "office", "state": "ready"}
    assert "waiting for its turn" in postier("status", delivery).out


def test_deliveries_are_filtered_by_state_account_kind_tenant_and_time(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    (old,) = publish(postier, tmp_path, reset_link())
    end_all(store)
    (young,) = publish(postier, tmp_path, reset_link("ann@example.org", account="spare"))

    def ids(*filters: str) -> list[str]:
        return [one["id"] for one in postier("deliveries", "list", "--json", *filters).lines]

    assert ids() == [young, old]
    assert ids("--limit", "1") == [young]
    assert ids("--state", "failed") == [old]
    assert ids("--state", "failed", "--state", "waiting") == [young, old]
    assert ids("--account", "spare") == [young]
    assert ids("--kind", "contact_form") == []
    assert ids("--tenant", "school") == [young, old]
    assert ids("--tenant", "other") == []
    assert ids("--since", "2h") == [young, old]
    assert ids("--until", "2h") == []
    assert ids("--since", "2098-01-01") == []
    assert ids("--until", "2098-01-01T00:00:00+01:00") == [young, old]


def test_a_wrong_state_or_time_is_a_usage_error(postier: Run, store: Store) -> None:
    assert postier("deliveries", "list", "--state", "lost").code == 2
    answer = postier("deliveries", "list", "--since", "yesterday")

    assert answer.code == 2
    assert "2h" in answer.err
    assert "Traceback" not in answer.err


def test_the_table_of_deliveries_has_one_line_each_with_the_whole_id(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())

    head, row = postier("deliveries", "list").out.splitlines()

    assert head.split()[:3] == ["delivery", "state", "kind"]
    assert row.split()[:4] == [delivery, "waiting", "reset_link", "office"]


def test_failed_deliveries_are_listed_shown_and_replayed(postier: Run, store: Store, tmp_path: Path) -> None:
    failed, unknown = publish(postier, tmp_path, reset_link(), reset_link("ann@example.org"))
    (one, other) = end_all(store)
    assert {one.id, other.id} == {failed, unknown}

    assert {line["id"] for line in postier("failed", "list", "--json").lines} == {failed, unknown}
    assert postier("failed", "show", failed, "--json").lines[0]["history"][0]["code"] == 550
    answer = postier("failed", "replay", failed, "nobody", "--json")

    assert answer.code == 1
    assert answer.lines == [{"id": "nobody", "result": "unknown_id"}, {"id": failed, "result": "replayed"}]
    assert postier("failed", "show", failed).code == 1
    status = Queries(store).status(failed)
    assert status is not None
    assert status.state == "waiting"
    assert status.facts["deadline"] > time.time() + 3600
    assert [delivery.id for delivery in end_all(store)] == [failed]


def test_replaying_twice_answers_that_it_waits_already(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())
    end_all(store)

    assert postier("failed", "replay", delivery).out == "1 replayed\n"
    answer = postier("failed", "replay", delivery)

    assert answer.code == 1
    assert "is not failed, unknown or expired any more" in answer.err


def test_a_link_that_no_longer_opens_is_not_replayed(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())
    end_all(store)
    over = {"deadline": int((time.time() - 1) * 1e6), "accepted_at": int((time.time() - 3600) * 1e6)}
    store.redis.hset(store.key(f"delivery:{delivery}"), mapping=over)

    answer = postier("failed", "replay", delivery)

    assert answer.code == 1
    assert "publish a new event" in answer.err


def test_all_needs_yes_where_nobody_can_be_asked(
    postier: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(postier, tmp_path, reset_link(), reset_link("ann@example.org"))
    end_all(store)

    assert postier("failed", "replay", "--all").code == 2
    assert postier("failed", "replay").code == 2
    assert postier("failed", "replay", "--all", "--of-account", "spare", "--yes").out == "0 replayed\n"
    assert postier("failed", "replay", "--all", "--yes").out == "2 replayed\n"


def test_discard_wants_a_reason_and_keeps_it(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())
    end_all(store)

    assert postier("failed", "discard", delivery).code == 2
    assert postier("failed", "discard", delivery, "--reason", " ").code == 2
    assert postier("failed", "discard", delivery, "--reason", "asked by phone").out == "1 discarded\n"

    assert "given up: asked by phone" in postier("status", delivery).out
    assert store.redis.exists(store.key(f"payload:{delivery}")) == 0
    assert postier("failed", "list", "--json").out == ""


def test_what_waits_for_its_next_attempt_is_tried_now(postier: Run, store: Store, tmp_path: Path) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())
    try_in_vain(store)
    told = postier("status", delivery)
    assert f"you can      postier deliveries retry {delivery}" in told.out

    answer = postier("deliveries", "retry", "--account", "office", "--by", "anna")

    assert (answer.code, answer.out) == (0, "1 due now\n")
    told = postier("status", delivery)
    assert "hurried by anna" in told.out
    assert "you can" not in told.out
    assert postier("deliveries", "retry", delivery, "--json").lines == [{"id": delivery, "result": "due now"}]
    assert postier("deliveries", "retry", "--all").out == "1 due now\n"


def test_what_waits_for_no_attempt_is_said_and_nothing_has_to_be_guessed(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    (delivery,) = publish(postier, tmp_path, reset_link())

    answer = postier("deliveries", "retry", delivery, "nobody")

    assert (answer.code, answer.out) == (1, "0 due now, 2 not\n")
    assert answer.err == f"{delivery} waits for no next attempt\nnobody is not known\n"
    assert (postier("deliveries", "retry").code, postier("deliveries", "retry", "--all", delivery).code) == (2, 2)
    answer = postier("deliveries", "retry", "--account", "elsewhere")
    assert (answer.code, answer.err) == (1, "postier: no account is named elsewhere\n")
    assert postier("deliveries", "retry", "--all").out == "0 due now\n"
