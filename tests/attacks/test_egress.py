"""T15, T16: where an account's host name may lead. Only the platform opens doors; a tenant's account opens none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from postier.drivers.base import Ports
from postier.drivers.egress import public_only_resolver
from postier.drivers.smtp import SmtpDriver, SmtpOptions
from postier.ledger.account_store import AccountStore, Put
from postier.schemas.account import Account, Registry
from postier.schemas.errors import ConfigurationError, SenderRefused, Unreachable
from postier.workers.route import Roster, build_driver, doors_of
from tests.attacks.inner_net import ADDRESSES
from tests.attacks.kit import Yard, bent, rows
from tests.conftest import until
from tests.drivers.kit import SENDER, ScriptedServer, failure, mail, polite
from tests.drivers.test_egress import Names

WORDS = "the egress guard does not let mail leave to this host and port"


def account(options: dict[str, Any], name: str = "inner", driver: str = "smtp") -> Account:
    return Account.model_validate(
        {"name": name, "driver": driver, "sender": {"address": "a@school.example"}, "options": options}
    )


def loopback(port: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "security": "none", "auth": "none", "allow_hosts": ["127.0.0.1"]}


@pytest.mark.parametrize(("trusted", "egress_allow", "connections"), [
    (False, (), 0), (True, (), 1), (False, ("127.0.0.1",), 1), (False, ("10.0.0.0/8", "localhost"), 0),
])  # fmt: skip
def test_an_accounts_own_doors_count_only_when_the_platform_wrote_it(
    trusted: bool, egress_allow: tuple[str, ...], connections: int
) -> None:
    with ScriptedServer(polite()) as server:
        inner = account(loopback(server.port))
        driver = build_driver(inner, doors=doors_of(inner, trusted=trusted, egress_allow=egress_allow))
        ((_, result),) = driver.converse((mail(),))
        driver.close()
        assert server.connections == connections
        assert isinstance(result, SenderRefused) == (connections == 0), result


def test_without_a_word_about_doors_there_are_none() -> None:
    with ScriptedServer(polite()) as server:
        driver = build_driver(account(loopback(server.port)))
        ((_, result),) = driver.converse((mail(),))
        assert str(result) == WORDS
        assert server.connections == 0


def test_a_stored_account_opens_no_door_whoever_stored_it(yard: Yard) -> None:
    with ScriptedServer(polite()) as server:
        files = yard.settings.registry()
        stored = AccountStore(yard.store, files, who="somebody", sealer=yard.settings.sealer())
        stored.put(Put(account(loopback(server.port), "stored-inner")))
        until(lambda: b"stored-inner" in yard.store.redis.smembers(yard.store.key("accounts")))
        given = bent("contact_form", {}, id="stored-1", account="stored-inner")
        (identity,) = yard.publish([given], "stored")[0]["deliveries"]
        until(lambda: yard.queries.accounts()["stored-inner"]["state"] == "parked")
        assert yard.queries.accounts()["stored-inner"]["words"] == WORDS
        until(lambda: yard.status(identity).state == "waiting")  # its account is parked first
        assert server.connections == 0


def test_an_account_keeps_no_open_door_when_it_moves_from_the_file_to_the_ledger() -> None:
    with ScriptedServer(polite()) as server:
        inner = account(loopback(server.port))
        in_file = True
        roster = Roster(lambda: Registry(accounts={"inner": inner}), trusted=lambda _: in_file)
        first = failure_of(roster)
        in_file = False
        assert roster.refresh()
        assert first is None
        assert isinstance(failure_of(roster), SenderRefused)
        assert server.connections == 1
        roster.close()


def failure_of(roster: Roster) -> BaseException | None:
    ((_, result),) = roster.way("inner").driver.converse((mail(),))
    return result if isinstance(result, BaseException) else None


@pytest.mark.parametrize("doors", [["what is this"], ["10.0.0.0/99"], ["host:0"], [7], "127.0.0.1", {"a": 1}], ids=repr)
def test_doors_that_cannot_be_read_are_a_fault_of_the_configuration(doors: Any) -> None:
    inner = account({"host": "mail.example.com", "allow_hosts": doors})
    with pytest.raises(ConfigurationError, match=r"accounts\.inner\.options"):
        build_driver(inner, doors=doors_of(inner, trusted=True))


def test_a_name_that_changes_its_address_between_two_mails_is_looked_at_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:10.0.0.1"])
    dialled: list[Any] = []

    def record(options: Any, ports: Any, addresses: Any, context: Any) -> Any:
        dialled.append(addresses)
        raise Unreachable("nobody is there", stage="connect")

    monkeypatch.setattr("postier.drivers.smtp.dial", record)
    driver = SmtpDriver(
        SmtpOptions(host="rebind.example.com"), sender=SENDER, ports=Ports(resolve=public_only_resolver(lookup=names))
    )
    assert isinstance(failure(driver, mail()), Unreachable)
    for _ in range(3):
        assert str(failure(driver, mail())) == WORDS
    assert dialled == [[("8.8.8.8", 587)]]  # the address that was checked, not the name to look up anew
    assert names.asked == ["rebind.example.com"] * 4


@pytest.mark.parametrize("row", rows("hosts"), ids=lambda row: str(row["id"]))
def test_a_host_in_any_notation_leads_nowhere_inside(row: dict[str, Any]) -> None:
    names = Names(*([row["answers"]] * 4 if row.get("answers") else []))
    try:
        options = SmtpOptions.model_validate({"host": row["host"], "port": row.get("port", 587), "security": "none"})
    except ValueError:
        return
    resolve = public_only_resolver(lookup=names)
    with pytest.raises((SenderRefused, Unreachable)) as caught:
        resolve(options.host, options.port)
    assert row["host"] not in str(caught.value)
    if "answers" not in row:
        assert str(caught.value) == WORDS
        assert names.asked == []  # not even the name server learns of it


def test_nothing_inside_gets_so_much_as_a_knock() -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("this machine makes no network namespaces")
    root = Path(__file__).parents[2]
    hosts = [row["host"] for row in rows("hosts") if "answers" not in row]
    hosts += [*ADDRESSES, *(f"[{address}]" for address in ADDRESSES if ":" in address), "localhost"]
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "tests.attacks.inner_net", json.dumps(hosts)],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["listening"] >= 12 * 6
    assert counted["tried"] >= 200
    assert (counted["came"], counted["with_a_door"]) == (0, 1)
