"""Accounts kept in the ledger: versioned, sealed, whole, and no harm to the accounts of files."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postier.ledger.account_store import Put, may_check
from postier.ledger.audit import Audit
from postier.ledger.book import Book, ChangedMeanwhile
from postier.ledger.merged import RegistrySource, merge, merged_registry
from postier.ledger.store import Store
from postier.schemas.account import Account, Registry
from postier.schemas.errors import ConfigurationError, LedgerUnavailable
from postier.settings.config import read_registry
from postier.settings.seal import Sealer
from postier.settings.sealed_options import open_options
from tests.accounts.kit import SECRET, MakeBook, account, tenant


def everything_in(store: Store) -> bytes:
    found = b""
    for key in store.redis.scan_iter(match=store.key("*")):
        found += key + (store.redis.dump(key) or b"")
        kind = store.redis.type(key)
        if kind == b"hash":
            found += b"".join(a + b for a, b in store.redis.hgetall(key).items())
        elif kind == b"list":
            found += b"".join(store.redis.lrange(key, 0, -1))
        elif kind == b"stream":
            found += repr(store.redis.xrange(key)).encode()
    return found


def test_a_stored_account_is_part_of_the_registry_and_opens_with_its_secret(
    make_book: MakeBook, store: Store, sealer: Sealer
) -> None:
    make_book().put(Put(tenant()), Put(account(tenant="school")))

    registry = merged_registry(Registry(), store)

    found = registry.accounts["office"]
    assert found.sender.address == "office@school.example"
    assert open_options(sealer, found) == account().options


def test_no_secret_is_in_the_ledger_in_any_form(make_book: MakeBook, store: Store) -> None:
    book = make_book()
    nested = {"through": "x", "options": {"host": "h", "api_key": SECRET}}
    book.put(Put(account()), Put(account("second", options={"pin": SECRET}), secret=frozenset({"pin"})))
    book.put(Put(account("third", options=nested)))
    book.put(Put(account(locale="fr"), seen=1))

    assert len(book.merged().registry.accounts) == 3
    assert SECRET.encode() not in everything_in(store)


def test_a_secret_sealed_for_one_account_does_not_open_in_another(make_book: MakeBook, sealer: Sealer) -> None:
    book = make_book()
    sealed = book.put(Put(account())).registry.accounts["office"].options["password"]

    with pytest.raises(ConfigurationError, match=r"accounts\.spy\.options\.password: no configured seal key"):
        book.put(Put(account("spy", options={"host": "evil.example", "username": "x", "password": sealed})))
    moved = Account.model_validate({**account().model_dump(), "options": {"token": sealed}})
    with pytest.raises(ConfigurationError, match=r"accounts\.office\.options\.token"):
        open_options(sealer, moved)


def test_references_to_secrets_stay_references(make_book: MakeBook) -> None:
    options = {"host": "mail.example.org", "username": "x", "password": "env:OFFICE_PASSWORD"}

    merged = make_book().put(Put(account(options=options)))

    assert merged.registry.accounts["office"].options == options


def test_the_second_of_two_editors_is_told_and_overwrites_nothing(make_book: MakeBook) -> None:
    anna, ben = make_book(who="anna"), make_book(who="ben")
    anna.put(Put(account()))
    seen_by_both = anna.version("a:office")
    anna.put(Put(account(locale="fr"), seen=seen_by_both))

    with pytest.raises(ChangedMeanwhile, match="at version 2, you saw 1"):
        ben.put(Put(account(fallback=None, overflow="never"), seen=seen_by_both))

    now = ben.merged().registry.accounts["office"]
    assert (now.locale, now.overflow) == ("fr", "parked")


def test_of_many_editors_at_once_exactly_one_wins_and_no_other_account_is_lost(make_book: MakeBook) -> None:
    make_book().put(Put(account()))
    barrier = threading.Barrier(8)

    def edit(number: int) -> bool:
        book = make_book(who=f"editor {number}")
        barrier.wait()
        book.put(Put(account(f"other-{number}")))
        try:
            book.put(Put(account(brand={"name": f"brand {number}"}), seen=1))
        except ChangedMeanwhile:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(edit, range(8)))

    merged = make_book().merged()
    assert won.count(True) == 1
    assert merged.registry.accounts["office"].brand.name == f"brand {won.index(True)}"
    assert set(merged.registry.accounts) == {"office", *(f"other-{number}" for number in range(8))}


def test_every_change_keeps_who_when_and_what_without_secrets(make_book: MakeBook, store: Store) -> None:
    book = make_book()
    book.put(Put(account()))
    changed = account(options={**account().options, "port": 465, "password": "another " + SECRET})
    make_book(who="ben").put(Put(changed, seen=1))
    make_book(who="carl").remove("a:office")

    first, second, third = book.history("a:office")
    assert (first["who"], first["what"], first["version"]) == ("anna", "account.added", 1)
    assert (second["who"], second["version"]) == ("ben", 2)
    assert second["changes"]["options.port"] == [None, 465]
    assert second["changes"]["options.password"][1] == "•••••• (new)"
    assert (third["who"], third["what"]) == ("carl", "account.removed")
    assert [(e.who, e.what, e.subject) for e in Audit(store).entries()] == [
        ("carl", "account.removed", "office"), ("ben", "account.edited", "office"), ("anna", "account.added", "office"),
    ]  # fmt: skip
    assert first["at"] <= second["at"] <= third["at"]


def test_accounts_and_tenants_of_files_win_and_are_read_only(make_book: MakeBook, store: Store) -> None:
    files = Registry(accounts={"office": account(locale="fr")}, tenants={"school": tenant()})
    make_book().put(Put(account(locale="en")), Put(tenant(contact_per_hour=1)))
    book = make_book(files)

    merged = book.merged()

    assert merged.registry.accounts["office"].locale == "fr"
    assert merged.registry.tenants["school"].contact_per_hour == 300
    assert merged.stored_accounts == frozenset()
    for refused in (lambda: book.put(Put(account())), lambda: book.remove("a:office"), lambda: book.remove("t:school")):
        with pytest.raises(ConfigurationError, match="is written in the accounts file: it is read-only here"):
            refused()


@pytest.mark.parametrize(
    ("puts", "words"),
    [
        ([Put(account(tenant="nobody"))], r"accounts\.office\.tenant: no tenant is named 'nobody'"),
        ([Put(account(fallback="nothing"))], r"accounts\.office\.fallback: no account is named 'nothing'"),
        ([Put(account(fallback="office"))], r"accounts\.office\.fallback: the fallbacks form a loop"),
        ([Put(tenant(default_account="ghost"))], r"tenants\.school\.default_account: no account is named 'ghost'"),
        (
            [Put(tenant()), Put(tenant("shop", rules={"reset_link": "office"})), Put(account(tenant="school"))],
            r"tenants\.shop\.rules\.reset_link: account 'office' belongs to another tenant",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_field_and_nothing_is_written(
    make_book: MakeBook, store: Store, puts: list[Put], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_book().put(*puts)

    assert Book(store).read().raw == {}
    assert Audit(store).entries() == []


def test_an_account_that_somebody_routes_to_cannot_be_removed(make_book: MakeBook) -> None:
    book = make_book()
    book.put(Put(account()), Put(tenant(rules={"reset_link": "office"})))

    with pytest.raises(ConfigurationError, match=r"tenants\.school\.rules\.reset_link: no account is named 'office'"):
        book.remove("a:office")


def test_an_unreadable_account_keeps_its_mail_and_takes_no_other_down(make_book: MakeBook, store: Store) -> None:
    book = make_book()
    book.put(Put(account()), Put(account("good")), Put(tenant(default_account="office")))
    book.set_default("good")
    store.redis.hset(store.key("book"), "a:office", '{"version": 1, "data": {"driver": 7}}')
    store.redis.hset(store.key("book"), "a:junk", "no json at all")
    store.redis.hincrby(store.key("book"), "version", 1)

    merged = book.merged()

    assert set(merged.problems) == {"accounts.office", "accounts.junk"}
    assert merged.registry.accounts["good"].driver == "smtp"
    # Not the instance's default: the tenant's mail waits for its own account.
    assert merged.registry.route(tenant="school", kind="reset_link").name == "office"
    assert merged.registry.accounts["office"].driver == "unreadable"


def test_a_tenant_that_points_to_another_s_account_is_left_out_rather_than_sent_elsewhere(store: Store) -> None:
    files = Registry(
        accounts={"office": account(tenant="shop"), "main": account("main")},
        tenants={"shop": tenant("shop")},
        default_account="main",
    )
    book = Book(store)
    book.change("anna", lambda page: _change({"t:school": {"default_account": "office"}}))

    merged = merge(files, book.read())

    assert "school" not in merged.registry.tenants
    assert merged.problems == {"tenants.school.default_account": "account 'office' belongs to another tenant"}


def _change(put: dict[str, dict[str, object] | None]):  # type: ignore[no-untyped-def]
    from postier.ledger.book import Change

    return Change(put, "test.changed", "")


def test_export_leaves_secrets_out_and_sealed_ones_come_back(make_book: MakeBook, store: Store, sealer: Sealer) -> None:
    book = make_book()
    book.put(Put(tenant(default_account=None)), Put(account(tenant="school")))
    book.set_default(None)

    bare, sealed = book.export(), book.export(sealed=True)

    assert "password" not in bare["accounts"]["office"]["options"]
    assert SECRET not in str(sealed)
    book.remove("a:office")
    again = Account.model_validate({"name": "office", **sealed["accounts"]["office"]})
    book.put(Put(again))
    assert open_options(sealer, book.merged().registry.accounts["office"])["password"] == SECRET


def test_after_resealing_an_older_key_can_go(store: Store) -> None:
    from postier.ledger.account_store import AccountStore

    old, new = Sealer.new_key("old"), Sealer.new_key("new")
    AccountStore(store, Registry(), who="anna", sealer=Sealer.from_text(old)).put(Put(account()))
    rotated = AccountStore(store, Registry(), who="anna", sealer=Sealer.from_text(f"{new},{old}"))

    assert rotated.reseal() == 1

    found = rotated.merged().registry.accounts["office"]
    assert open_options(Sealer.from_text(new), found)["password"] == SECRET
    with pytest.raises(ConfigurationError, match=r"accounts\.office\.options\.password: no configured seal key"):
        open_options(Sealer.from_text(old), found)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"options": {"host": "x.example", "username": "a", "password": "file:/etc/passwd"}}, r"options\.password"),
        ({"options": {"host": "x.example", "deep": {"er": ["env:HOME"]}}}, r"options\.deep"),
        ({"options": {"host": "10.0.0.1", "allow_hosts": ["10.0.0.0/8"]}}, r"options\.allow_hosts"),
        ({"driver": "os:system"}, r"driver"),
    ],
)
def test_who_acts_for_a_tenant_cannot_reach_files_inner_hosts_or_code(
    make_book: MakeBook, more: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"accounts\.office\.{words}"):
        make_book(trusted=False).put(Put(account(**more)))


def test_five_checks_a_minute_are_allowed_and_invented_names_share_one_count(make_book: MakeBook, store: Store) -> None:
    known = make_book().put(Put(account()), Put(tenant())).registry

    assert [may_check(store, known, account()) for _ in range(5)] == [0.0] * 5
    assert 50 < may_check(store, known, account()) <= 60
    invented = [may_check(store, known, account(f"name-{number}", tenant="school")) for number in range(6)]
    assert invented[:5] == [0.0] * 5
    assert invented[5] > 0


def test_the_workers_source_follows_the_book_and_outlives_an_absent_ledger(make_book: MakeBook, store: Store) -> None:
    source = RegistrySource(Registry, store)
    assert source().accounts == {}
    make_book().put(Put(account()))
    assert set(source().accounts) == {"office"}

    away = RegistrySource(Registry, Store("redis://127.0.0.1:1/0", timeout=0.2))
    assert away().accounts == {}
    assert not away.known
    with pytest.raises(LedgerUnavailable):
        Book(Store("redis://127.0.0.1:1/0", timeout=0.2)).read()


def test_an_accounts_file_that_is_suddenly_empty_is_not_believed(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "accounts.toml"
    text = '[accounts.office]\ndriver = "null"\nsender = { address = "a@school.example" }\n'
    file.write_text(text)
    source = RegistrySource(lambda: read_registry(file), store)
    assert set(source().accounts) == {"office"}
    for broken in ("", "# half written", "[", "a = " + "[" * 100_000, "a = 1" + "0" * 10_000):
        file.write_text(broken)
        with pytest.raises(ConfigurationError):
            source()
        assert set(source.files.accounts) == {"office"}
    file.write_text(text.replace("office", "desk"))
    assert set(source().accounts) == {"desk"}
