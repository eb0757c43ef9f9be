"""The egress guard lets mail out to public addresses and nowhere else."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from postier.drivers.base import Ports
from postier.drivers.egress import is_public, public_only_resolver
from postier.schemas.errors import SenderRefused, Unreachable
from tests.drivers.kit import ScriptedServer, driver_for, failure, mail, polite

WORDS = "the egress guard does not let mail leave to this host and port"


class Names:
    """A look-up that answers from a table and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.answers.pop(0)]


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:7f00:1::",
    "2001:0:808:808:0:0:80ff:fffe",
    "2001:db8::1",
    "fe80::1",
    "fc00::1",
    "fd12::1",
    "fec0::1",
    "ff02::1",
    "100::1",
    "2607:f8b0::5efe:10.0.0.1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_inner_address_is_refused_in_every_form(address: str) -> None:
    names = Names([address], ["8.8.8.8", address])

    with pytest.raises(SenderRefused, match=WORDS):
        public_only_resolver(lookup=names)("mail.example.com", 587)
    with pytest.raises(SenderRefused, match=WORDS):  # one bad address among good ones is enough
        public_only_resolver(lookup=names)("mail.example.com", 587)
    with pytest.raises(SenderRefused, match=WORDS):
        public_only_resolver(lookup=names)(address, 587)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2607:f8b0:4001::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
)
def test_a_public_address_passes_and_is_the_one_that_was_checked(address: str) -> None:
    names = Names([address, address])

    assert is_public(ipaddress.ip_address(address))
    assert public_only_resolver(lookup=names)("mail.example.com", 25) == [(str(ipaddress.ip_address(address)), 25)]
    assert names.asked == ["mail.example.com"]  # once: there is no second answer to be fooled by


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "0177.0.0.01",
        "00.0.0.0",
        "①②⑦.⓪.⓪.①",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::1]",
        "::1%lo",
        "fe80::1%eth0",
        "mail example.com",
        "mail.example.com:25",
        "user@mail.example.com",
        "mail.example.com/x",
        "",
        ".",
        "-",
        "a" * 64 + ".example.com",
        "ｍail.example",
    ],
)
def test_odd_notations_are_refused_before_any_look_up(host: str) -> None:
    names = Names()

    with pytest.raises(SenderRefused, match=WORDS):
        public_only_resolver(lookup=names)(host, 587)
    assert names.asked == []


@pytest.mark.parametrize("port", [22, 80, 6379, 11, 2526, 8025])
def test_other_ports_are_refused_without_a_look_up(port: int) -> None:
    names = Names()

    with pytest.raises(SenderRefused, match=WORDS):
        public_only_resolver(lookup=names)("mail.example.com", port)
    assert names.asked == []


@pytest.mark.parametrize(
    ("allow", "host", "port", "answer"),
    [
        (["relay.internal.example"], "relay.internal.example", 2500, ["10.0.0.9"]),
        (["relay.internal.example:25"], "RELAY.internal.example.", 25, ["10.0.0.9"]),
        (["10.0.0.0/8"], "relay.internal.example", 25, ["10.0.0.9"]),
        (["10.0.0.9:2500"], "relay.internal.example", 2500, ["10.0.0.9"]),
        (["[fd00::1]:2500"], "relay.internal.example", 2500, ["fd00::1"]),
        (["127.0.0.1"], "127.0.0.1", 40123, []),
    ],
)
def test_the_allow_list_opens_what_it_names(allow: list[str], host: str, port: int, answer: list[str]) -> None:
    assert public_only_resolver(allow, lookup=Names(answer))(host, port)


@pytest.mark.parametrize(
    ("allow", "host", "port", "answer"),
    [
        (["relay.internal.example:25"], "relay.internal.example", 587, ["10.0.0.9"]),
        (["10.0.0.0/8"], "relay.internal.example", 25, ["10.0.0.9", "192.168.0.1"]),
        (["10.0.0.9:2500"], "relay.internal.example", 25, ["10.0.0.9"]),
        (["10.0.0.0/8"], "mail.example.com", 6379, ["8.8.8.8"]),
        (["other.example"], "relay.internal.example", 25, ["10.0.0.9"]),
    ],
)
def test_the_allow_list_opens_nothing_else(allow: list[str], host: str, port: int, answer: list[str]) -> None:
    with pytest.raises(SenderRefused, match=WORDS):
        public_only_resolver(allow, lookup=Names(answer))(host, port)


@pytest.mark.parametrize("entry", ["a b", "10.0.0.0/40", "host:99999", "host:x", "", "https://x"])
def test_an_allow_list_entry_that_makes_no_sense_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="allow_hosts"):
        public_only_resolver([entry])


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    def nothing(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(Unreachable):
        public_only_resolver(lookup=nothing)("nowhere.example", 25)


def test_open_and_closed_ports_inside_get_the_same_words_and_no_connection() -> None:
    with ScriptedServer(polite()) as server:
        open_, closed = (failure(driver_for(port, allow_hosts=()), mail()) for port in (server.port, 1))

    assert isinstance(open_, SenderRefused)
    assert isinstance(closed, SenderRefused)
    assert (open_.text, open_.stage, open_.code) == (closed.text, closed.stage, closed.code) == (WORDS, "connect", None)
    assert server.connections == 0


def test_an_account_cannot_open_the_instances_own_guard() -> None:
    ports = Ports(resolve=public_only_resolver())
    with ScriptedServer(polite()) as server:
        error = failure(driver_for(server.port, ports=ports, allow_hosts=("127.0.0.1",)), mail())

    assert isinstance(error, SenderRefused)
    assert server.connections == 0
