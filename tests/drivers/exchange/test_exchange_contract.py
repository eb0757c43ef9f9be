"""The driver kit over Exchange, by either login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from postier.drivers.exchange import ExchangeDriver
from postier.drivers.testing import Behaviour, DriverContract, Scene
from tests.drivers.exchange.ews import TAKEN, Exchange, fault, refusal, usual
from tests.drivers.http.fake import SECRET, Act, Reply, Request, hang_up, silence

ANSWERS: dict[Behaviour, Reply | Act] = {
    "accepts": TAKEN,
    "refuses_recipient": refusal("ErrorInvalidRecipients", "At least one recipient is not valid."),
    "busy": refusal("ErrorMailboxStoreUnavailable", "The mailbox database is temporarily unavailable."),
    "throttles": fault("ErrorServerBusy", "The server cannot service this request right now.", back_off=4_000),
    "cuts_after_handover": hang_up,
}


class TestNtlm(DriverContract):
    driver = ExchangeDriver
    secrets = (SECRET,)
    auth: ClassVar[str] = "ntlm"
    wrong_options = (
        ({"url": "mail.contoso.example"}, "url"),
        ({"url": "http://mail.contoso.example/EWS/Exchange.asmx"}, "url"),
        ({"url": "https://user:word@mail.contoso.example"}, "url"),
        ({"auth": "digest"}, "auth"),
        ({"username": "svc-mail"}, "username"),
        ({"username": "CONTOSO\x0bsvc-mail"}, "single quotes"),
        ({"password": ""}, "password"),
        ({"password": f"{SECRET}\n"}, "password"),
        ({"mailbox": "office"}, "mailbox"),
        ({"access": "owner"}, "access"),
        ({"version": "newest"}, "version"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file"),
        ({"allow_hosts": ("a b",)}, "allow_hosts"),
    )

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        def play(request: Request) -> Reply | Act:
            if behaviour == "silent":
                return silence
            return ANSWERS[behaviour] if b"<m:CreateItem" in request.body else usual(request)

        wrong = {"nt_hash": bytes(16)} if behaviour == "refuses_login" else {}
        with Exchange(play, before_tls=behaviour == "cuts_before_handover", **wrong) as server:
            owns = behaviour in ("accepts", "cuts_after_handover")
            changes: dict[str, Any] = {"auth": self.auth}
            if behaviour == "silent":
                changes["final_timeout"] = 0.15
            yield Scene(
                server.options | changes,
                taken=lambda: len(server.mails()) if owns else 0,
                attempts=lambda: server.connections,
            )


class TestBasic(TestNtlm):
    auth = "basic"
