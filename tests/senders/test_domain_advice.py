"""What `postier senders advise` says of domains, asked of a DNS server on the loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.conftest import PATIENCE
from tests.console.helpers import Run

Zone = dict[str, list[str]]


class NameServer:
    """Answers TXT questions over UDP from a zone that a test may change; counts them."""

    def __init__(self) -> None:
        self.zone: Zone = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            wire, peer = self._socket.recvfrom(4096)
            if wire == b"stop":
                return
            with contextlib.suppress(Exception):
                self._socket.sendto(self._answer(wire), peer)

    def _answer(self, wire: bytes) -> bytes:
        question = dns.message.from_wire(wire)
        name = question.question[0].name
        self.asked.append(name.to_text(omit_final_dot=True))
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.AA
        texts = self.zone.get(name.to_text(omit_final_dot=True))
        if texts is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif texts:
            quoted = [" ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200)) for text in texts]
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *quoted))
        return answer.to_wire()

    def close(self) -> None:
        self._socket.sendto(b"stop", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    monkeypatch.setattr("postier.console.domain_advice._PATIENCE", PATIENCE)
    server = NameServer()
    yield server
    server.close()


GOOD: Zone = {
    "shop.example": ["unrelated", "v=spf1 include:sendgrid.net include:_spf.google.com ~all"],
    "sendgrid.net": ["v=spf1 ip4:192.0.2.0/24 ~all"],
    "s1._domainkey.shop.example": ["v=DKIM1; k=rsa; p=" + "A" * 392],
    "_dmarc.shop.example": ["v=DMARC1; p=reject; rua=mailto:d@shop.example"],
}


def findings(postier: Run, names: NameServer, *more: str, domain: str = "shop.example") -> dict[str, tuple[str, str]]:
    answer = postier("senders", "advise", domain, "--nameserver", names.address, "--json", *more)
    found = {row["name"]: (row["result"], row["advice"]) for row in answer.json["findings"]}
    assert answer.code == int(any(result == "fail" for result, _ in found.values()))
    return found


def test_a_domain_that_is_in_order_needs_nothing(postier: Run, names: NameServer) -> None:
    names.zone = GOOD

    assert findings(postier, names, "--preset", "sendgrid", "--include", "_spf.google.com") == {
        "spf": ("ok", ""), "dkim": ("ok", ""), "dmarc": ("ok", ""),
    }  # fmt: skip


def test_a_bare_domain_is_told_what_to_publish(postier: Run, names: NameServer) -> None:
    found = findings(postier, names, "--preset", "mailgun_us")

    assert found["spf"] == ("fail", 'Publish TXT shop.example "v=spf1 include:mailgun.org ~all".')
    assert found["dkim"][0] == "warn"
    assert found["dmarc"][1].startswith('Publish TXT _dmarc.shop.example "v=DMARC1; p=none; rua=mailto:')


@pytest.mark.parametrize(
    ("preset", "include", "selectors"),
    [
        ("google_workspace", "_spf.google.com", {"google"}),
        ("office365", "spf.protection.outlook.com", {"selector1", "selector2"}),
        ("mailgun_eu", "mailgun.org", {"pdk1", "pdk2"}),
        ("mailjet", "spf.mailjet.com", {"mailjet"}),
        ("scaleway_tem", "_spf.tem.scaleway.com", set()),
        ("ses", None, set()),
        ("sendgrid", None, {"s1", "s2"}),
    ],
)
def test_each_provider_is_advised_as_its_documentation_says(
    postier: Run, names: NameServer, preset: str, include: str | None, selectors: set[str]
) -> None:
    bare = findings(postier, names, "--preset", preset)["spf"]
    names.zone = {"shop.example": ["v=spf1 mx -all"]}
    other = findings(postier, names, "--preset", preset)["spf"]

    if include is not None:
        assert bare == ("fail", f'Publish TXT shop.example "v=spf1 include:{include} ~all".')
        assert other[0] == "warn"
        assert f"Add include:{include}" in other[1]
    else:  # its return path is not the sender's domain
        assert bare[0] == "warn"
        assert "DKIM has to pass" in bare[1]
        assert other == ("ok", "")
    asked = {name.partition("._domainkey.")[0] for name in names.asked if "._domainkey." in name}
    assert selectors <= asked
    assert asked.isdisjoint({"mg", "pic", "smtp", "mailo"})  # nobody documents these


@pytest.mark.parametrize(
    ("zone", "flags", "name", "result", "words"),
    [
        ({"shop.example": ["v=spf1 mx ~all", "v=spf1 a ~all"]}, (), "spf", "fail", "Merge them"),
        ({"shop.example": ["v=spf1 +all"]}, (), "spf", "fail", "lets everybody send"),
        ({"shop.example": ["v=spf1 mx -all"]}, ("--include", "spf.x.example"), "spf", "fail", "include:spf.x.example"),
        ({"shop.example": ["v=spf1 mx -all"]}, ("--preset", "mailgun_us"), "spf", "warn", "include:mailgun.org"),
        ({"shop.example": ["v=spf10 mx -all"]}, (), "spf", "fail", "Publish TXT"),
        ({"shop.example": ["V=SPF1 MX -ALL"]}, (), "spf", "ok", ""),
        ({"k1._domainkey.shop.example": ["v=DKIM1; p="]}, (), "dkim", "fail", "new key"),
        ({"own._domainkey.shop.example": ["k=rsa; p=AAAA"]}, ("--selector", "own"), "dkim", "ok", ""),
        ({"_dmarc.shop.example": ["v=DMARC1; p=none"]}, (), "dmarc", "warn", "p=quarantine"),
        ({"_dmarc.shop.example": ["v=DMARC1; p=rejekt"]}, (), "dmarc", "fail", "receivers ignore it"),
        ({"_dmarc.shop.example": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]}, (), "dmarc", "fail", "Keep one"),
    ],
)
def test_each_mistake_has_its_sentence(
    postier: Run, names: NameServer, zone: Zone, flags: tuple[str, ...], name: str, result: str, words: str
) -> None:
    names.zone = zone

    found = findings(postier, names, *flags)[name]

    assert found[0] == result
    assert words in found[1]


def test_a_subdomain_follows_its_parent_s_dmarc_policy(postier: Run, names: NameServer) -> None:
    names.zone = {"_dmarc.shop.example": ["v=DMARC1; p=reject; sp=none"]}

    assert findings(postier, names, domain="mail.shop.example")["dmarc"][0] == "warn"


def test_an_endless_chain_of_includes_is_called_too_long_after_few_questions(postier: Run, names: NameServer) -> None:
    names.zone = {
        f"n{n}.example": [f"v=spf1 include:n{n + 1}.example include:n{n + 2}.example ~all"] for n in range(99)
    }
    names.zone["shop.example"] = ["v=spf1 include:n0.example ~all"]
    names.zone["loop.example"] = ["v=spf1 include:loop.example ~all"]

    assert "more than 10 look-ups" in findings(postier, names)["spf"][1]
    assert len(names.asked) < 60
    assert findings(postier, names, domain="loop.example")["spf"][0] == "ok"


@pytest.mark.parametrize("domain", ["", "shop", "shop..example", "x-.example", "a b.example", "x" * 300 + ".example"])
def test_what_is_no_domain_is_refused(postier: Run, names: NameServer, domain: str) -> None:
    answer = postier("senders", "advise", domain, "--nameserver", names.address)

    assert answer.code == 2
    assert "give a domain name" in answer.err
    assert names.asked == []
