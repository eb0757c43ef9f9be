"""What `postier doctor` says of accounts kept in the ledger, on a ledger where each of them really is wrong."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from postier.ledger.account_store import AccountStore, Put
from postier.ledger.store import Store
from postier.schemas.account import Account, Tenant
from postier.settings.seal import Sealer
from tests.accounts.kit import SECRET, MakeBook, account, tenant
from tests.console.helpers import Run

Row = dict[str, str]


def stored(book: AccountStore, *entries: Account | Tenant) -> AccountStore:
    book.put(*(Put(entry) for entry in entries))
    return book


def findings(postier: Run, *, code: int = 1) -> list[Row]:
    answer = postier("doctor", "--json")
    assert answer.code == code, answer.out
    assert SECRET not in answer.out
    return [check for check in answer.json["checks"] if check["name"] == "accounts"]


def only(found: Sequence[Row], result: str = "fail") -> Row:
    (one,) = [check for check in found if check["result"] == result]
    return one


def test_sound_accounts_are_counted(postier: Run, make_book: MakeBook) -> None:
    stored(make_book(), tenant(), account(), account("spare", tenant="school"))

    (found,) = findings(postier, code=0)

    assert found["result"] == "ok"
    assert found["words"] == "2 accounts, 1 tenants in the ledger; options are valid and secrets open"


def test_a_ledger_without_accounts_says_what_to_do(postier: Run, store: Store) -> None:
    (found,) = findings(postier, code=0)

    assert (found["result"], found["words"]) == ("warn", "there is no account")
    assert "postier accounts add" in found["advice"]


@pytest.mark.parametrize(
    ("change", "field", "problem", "fix"),
    [
        ({"hosst": "x"}, "hosst", "did you mean", "-o hosst="),
        ({"port": 70_000}, "port", "65535", "postier accounts edit office -o port=VALUE"),
        ({"security": "ssl"}, "security", "'starttls'", "postier accounts edit office -o security=VALUE"),
        ({"password": None}, "password", "missing", "postier accounts edit office --secret password"),
    ],
)
def test_an_option_that_its_driver_does_not_take_any_more_is_named_with_the_fix(
    postier: Run, make_book: MakeBook, change: dict[str, Any], field: str, problem: str, fix: str
) -> None:
    sound = account()
    options = {key: value for key, value in {**sound.options, **change}.items() if value is not None}
    stored(make_book(), tenant(), sound.model_copy(update={"options": options}), account("spare"))

    wrong = only(findings(postier))

    assert wrong["words"].startswith(f"accounts.office.options.{field}: ")
    assert problem in wrong["words"]
    assert fix in wrong["advice"]


def test_a_secret_that_no_key_opens_any_more_is_named_and_a_new_one_mends_it(
    postier: Run, make_book: MakeBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(make_book(), tenant(), account())
    monkeypatch.setenv("POSTIER_SEAL_KEYS", Sealer.new_key())

    wrong = only(findings(postier))

    assert wrong["words"].startswith("accounts.office.options.password: no configured seal key opens this secret")
    assert "POSTIER_SEAL_KEYS" in wrong["advice"]
    assert "`postier accounts edit office --secret password`" in wrong["advice"]
    monkeypatch.setattr("sys.stdin", io.StringIO("another secret\n"))
    answer = postier("accounts", "edit", "office", "--secret-stdin", "password", "--untested")
    assert answer.code == 0, answer.err
    assert only(findings(postier, code=0), "ok")


def test_a_driver_that_is_gone_is_named(postier: Run, make_book: MakeBook) -> None:
    stored(make_book(), tenant(), account(driver="acmemail"))

    wrong = only(findings(postier))

    assert wrong["words"].startswith("accounts.office.driver: no driver is named 'acmemail'")
    assert "postier accounts edit office" in wrong["advice"]


FILE = """
[accounts.relay]
driver = "null"
sender = { address = "relay@example.org" }
[tenants.school]
allowed_hosts = ["school.example"]
"""


def test_what_the_accounts_file_no_longer_has_is_missed_by_whoever_named_it(
    postier: Run, make_book: MakeBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = tmp_path / "accounts.toml"
    accounts.write_text(FILE)
    monkeypatch.setenv("POSTIER_ACCOUNTS_FILE", str(accounts))
    answers = [
        postier("accounts", "add", "office", "--driver", "null", "--sender", "o@school.example", "--untested",
                "--fallback", "relay"),
        postier("accounts", "add", "own", "--driver", "null", "--sender", "o@school.example", "--untested",
                "--tenant", "school"),
        postier("tenants", "set", "shop", "--allowed-host", "shop.example"),
        postier("accounts", "rules", "shop", "reset_link=relay"),
        postier("accounts", "default", "relay", "--tenant", "shop"),
        postier("tenants", "set", "club", "--allowed-host", "club.example", "--default-account", "relay"),
        postier("accounts", "default", "relay"),
    ]  # fmt: skip
    assert [answer.code for answer in answers] == [0] * len(answers), [answer.err for answer in answers]
    assert only(findings(postier, code=0)[-1:], "ok")
    accounts.write_text('[accounts.other]\ndriver = "null"\nsender = { address = "other@example.org" }\n')

    told = {row["words"]: row["advice"] for row in findings(postier) if row["result"] == "fail"}

    assert {words: advice.split("`")[1] for words, advice in told.items()} == {
        "accounts.office.fallback: no account is named 'relay'": "postier accounts edit office --fallback OTHER",
        "accounts.own.tenant: no tenant is named 'school'": "postier tenants set",
        "tenants.shop.rules.reset_link: no account is named 'relay'": "postier accounts rules shop reset_link=ACCOUNT",
        "tenants.shop.default_account: no account is named 'relay'": "postier accounts default ACCOUNT --tenant shop",
        "tenants.club.default_account: no account is named 'relay'": "postier accounts default ACCOUNT --tenant club",
        "default_account: account 'relay' does not exist": "postier accounts default NAME",
    }


TODAY = date(2026, 12, 31)


class Frozen(datetime):
    """It is noon of that day."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=tz)


def entra(days: int | None) -> Account:
    ends = TODAY + timedelta(days=days) if days is not None else None
    options = {
        "mailbox": "office@contoso.example", "tenant_id": "contoso.example", "client_id": "app-0815",
        "client_secret": SECRET, **({"secret_expires_on": ends.isoformat()} if ends else {}),
    }  # fmt: skip
    return account(driver="microsoft", options=options)


@pytest.mark.parametrize(
    ("days", "said"), [(31, ""), (30, "ends in 30 days"), (12, "ends in 12 days"), (-1, "ended on"), (None, "")]
)
def test_a_client_secret_that_ends_within_30_days_is_a_warning(
    postier: Run, make_book: MakeBook, days: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postier.drivers.microsoft_options.datetime", Frozen)
    stored(make_book(), tenant(), entra(days))

    found = findings(postier, code=0)

    warned = [row for row in found if row["result"] == "warn"]
    assert len(warned) == bool(said)
    for row in warned:
        assert row["words"].startswith(f"accounts.office: The client secret {said}")
        assert "`postier accounts edit office`" in row["advice"]


def test_an_entry_that_cannot_be_read_is_told_with_what_waits(postier: Run, make_book: MakeBook, store: Store) -> None:
    stored(make_book(), tenant(), account(), account("spare"))
    store.redis.hset(store.key("book"), "a:office", '{"data": {"driver": "smtp"}}')

    wrong = only(findings(postier))

    assert wrong["words"].startswith("accounts.office: sender: ")
    assert wrong["advice"].startswith("Its mail waits: `postier accounts remove office`")


def test_a_worker_is_healthy_whatever_is_wrong_with_an_account(
    postier: Run, make_book: MakeBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(make_book(), tenant(), account(driver="acmemail"))
    assert only(findings(postier))

    answer = postier("doctor", "--health", "--json")

    assert answer.code == 0
    assert [(check["name"], check["result"]) for check in answer.json["checks"]] == [
        ("settings", "ok"), ("seal keys", "ok"), ("redis", "ok"),
    ]  # fmt: skip
    monkeypatch.setenv("POSTIER_REDIS_URL", "redis://127.0.0.1:1")
    assert postier("doctor", "--health").code == 1


def test_a_platform_full_of_broken_accounts_gets_a_screen_and_the_number_of_the_rest(
    postier: Run, make_book: MakeBook
) -> None:
    broken = [account(f"a{n}", options={"host": "mail.school.example", "old": "1"}) for n in range(50)]
    stored(make_book(), tenant(), *broken)

    found = findings(postier)

    assert len(found) == 21
    assert found[-1]["words"] == "and 30 findings more"
