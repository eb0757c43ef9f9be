"""What a microsoft account may say, the clouds, the warnings, the check, and the driver kit's suite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from postier.drivers.base import Driver, Ports
from postier.drivers.microsoft import DEFAULT_LIMITS, SMTP_DEFAULT_LIMITS, MicrosoftDriver, MicrosoftOptions
from postier.drivers.testing import Behaviour, DriverContract, Scene
from postier.schemas.email import Mailbox
from postier.schemas.errors import ConfigurationError
from tests.drivers.conftest import Certificates
from tests.drivers.kit import Peer, ScriptedServer, polite
from tests.drivers.oauth.certificates import app_proof
from tests.drivers.oauth.services import CLIENT, MAILBOX, SECRET, SENDER, TENANT, Microsoft, entra_error, graph_error
from tests.drivers.oauth.web import cut, json_reply, silence

PROOF = app_proof(days=20)
OTHER = app_proof()
PLAIN: dict[str, Any] = {"mailbox": MAILBOX, "tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET}
SIGNED: dict[str, Any] = {"client_secret": None, "private_key": PROOF.key_pem, "certificate": PROOF.certificate_pem}


def options(**changes: Any) -> MicrosoftOptions:
    given = {name: value for name, value in (PLAIN | changes).items() if value is not None}
    return MicrosoftOptions.model_validate(given)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        SIGNED,
        {"client_secret": None, "private_key": PROOF.key_pem, "thumbprint": PROOF.thumbprint},
        {"client_secret": None, "client_id": None, "managed_identity": "system"},
        {"client_secret": None, "delegated": True, "tenant_id": "organizations"},
        {"tenant_id": "Contoso.onmicrosoft.com"},
        {"authority": "https://login.cloud.example:8443/"},
    ],
)
def test_these_accounts_are_whole(changes: dict[str, Any]) -> None:
    assert options(**changes).mode == "graph"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mailbox": "office"}, "mailbox"),
        ({"mailbox": "a@b@c.example"}, "mailbox"),
        ({"mailbox": "a@b.example\r\nX: y"}, "mailbox"),
        ({"mailbox": None}, "mailbox"),
        ({"tenant_id": "../../other"}, "tenant_id"),
        ({"tenant_id": "a/b?c"}, "tenant_id"),
        ({"tenant_id": "common"}, "tenant_id"),
        ({"tenant_id": None}, "tenant_id"),
        ({"client_id": None}, "client_id"),
        ({"client_id": "a b"}, "client_id"),
        ({"client_secret": None}, "exactly one"),
        ({"delegated": True}, "exactly one"),
        ({"managed_identity": "system"}, "client_secret: does not go with managed_identity"),
        (SIGNED | {"certificate": None}, "certificate"),
        ({"certificate": PROOF.certificate_pem}, "private_key"),
        (SIGNED | {"private_key": "no key"}, "private_key"),
        (SIGNED | {"private_key": PROOF.encrypted("one"), "private_key_password": "two"}, "private_key_password"),
        (SIGNED | {"certificate": "no certificate"}, "certificate"),
        (SIGNED | {"certificate": OTHER.certificate_pem}, "another private_key"),
        (SIGNED | {"certificate": None, "thumbprint": "12"}, "thumbprint"),
        ({"authority": "mars"}, "authority"),
        ({"authority": "http://login.example.test"}, "authority"),
        ({"authority": "https://user:pw@login.example.test"}, "authority"),
        ({"authority": "https://login.example.test/a/b"}, "authority"),
        ({"authority": "https://login.example.test:x"}, "authority"),
        ({"graph_url": "http://graph.example.test"}, "graph_url"),
        ({"graph_url": "https://graph.example.test?x"}, "graph_url"),
        ({"mode": "imap"}, "mode"),
        ({"secret_expires_on": "soon"}, "secret_expires_on"),
        ({"timeout_ms": 1}, "timeout_ms"),
    ],
)
def test_a_wrong_option_is_named_without_its_secrets(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        options(**changes)

    assert word in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


def test_a_ca_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigurationError, match="ca_file"):
        MicrosoftDriver(options(ca_file="/nowhere"), sender=SENDER)


@pytest.mark.parametrize(
    ("changes", "authority", "graph", "smtp", "scope"),
    [
        (
            {},
            "https://login.microsoftonline.com",
            "https://graph.microsoft.com",
            "smtp.office365.com",
            "https://graph.microsoft.com/.default",
        ),
        (
            {"authority": "usgov", "mode": "smtp"},
            "https://login.microsoftonline.us",
            "https://graph.microsoft.us",
            "smtp.office365.us",
            "https://outlook.office365.us/.default",
        ),
        (
            {"authority": "china"},
            "https://login.partner.microsoftonline.cn",
            "https://microsoftgraph.chinacloudapi.cn",
            "smtp.partner.outlook.cn",
            "https://microsoftgraph.chinacloudapi.cn/.default",
        ),
        (
            {"authority": "https://login.cloud.example/", "mode": "smtp", "client_secret": None, "delegated": True},
            "https://login.cloud.example",
            "https://graph.microsoft.com",
            "smtp.office365.com",
            "https://outlook.office.com/SMTP.Send",
        ),
        (
            {"client_secret": None, "delegated": True, "graph_url": "https://dod-graph.microsoft.us"},
            "https://login.microsoftonline.com",
            "https://dod-graph.microsoft.us",
            "smtp.office365.com",
            "https://dod-graph.microsoft.us/Mail.Send",
        ),
    ],
)
def test_each_cloud_has_its_addresses_and_scopes(
    changes: dict[str, Any], authority: str, graph: str, smtp: str, scope: str
) -> None:
    chosen = options(**changes)

    assert (chosen.cloud.authority, chosen.cloud.graph, chosen.cloud.smtp_host) == (authority, graph, smtp)
    assert chosen.scope == scope


def test_the_limits_of_a_mailbox_are_the_defaults() -> None:
    assert (DEFAULT_LIMITS.max_connections, DEFAULT_LIMITS.per_minute) == (4, 30)
    assert (DEFAULT_LIMITS.per_day, DEFAULT_LIMITS.counts) == (10_000, "recipients")
    assert SMTP_DEFAULT_LIMITS.max_connections == 2


@pytest.mark.parametrize(
    ("days", "words"), [(31, None), (30, "ends in 30 days"), (0, "ends in 0 days"), (-1, "ended on"), (None, None)]
)
def test_a_secrets_end_is_said_thirty_days_ahead(days: int | None, words: str | None) -> None:
    today = date(2026, 11, 22)
    end = today + timedelta(days=days) if days is not None else None

    said = MicrosoftDriver(options(secret_expires_on=end), sender=SENDER).warnings(today)

    assert (words is None) == (said == [])
    assert all(words and words in sentence and "client secret" in sentence for sentence in said)


def test_a_certificates_end_is_read_from_it() -> None:
    (sentence,) = options(**SIGNED).warnings()

    assert "certificate ends in" in sentence
    assert options(**SIGNED).warnings(datetime.now(UTC).date() - timedelta(days=60)) == []


# --- check


def test_a_good_account_passes_with_a_test_mail(microsoft: Microsoft) -> None:
    driver = microsoft.driver(secret_expires_on=datetime.now(UTC).date() + timedelta(days=1))
    driver.tokens()

    steps = list(driver.check(test_recipient="someone@example.com"))

    assert [(step.name, step.ok) for step in steps] == [
        (name, True) for name in ("options", "login", "sender", "test_mail")
    ]
    assert re.search("client secret ends in [01] days", steps[0].words)  # midnight may pass
    assert len(microsoft.entra.forms) == 2  # the cached token was not used
    assert microsoft.graph.tokens == ["canary-token-2"] * 2
    (mail,) = microsoft.graph.mails
    assert b"To: someone@example.com\r\n" in mail
    assert b"From: office@contoso.example\r\n" in mail


def test_a_check_sends_nothing_unless_asked_to(microsoft: Microsoft) -> None:
    assert all(step.ok for step in microsoft.driver().check())
    assert not microsoft.graph.mails


@pytest.mark.parametrize(
    ("where", "reply", "failed", "words"),
    [
        ("entra", entra_error(7000215, "invalid_client", 401), "login", "copy the secret's value"),
        ("entra", json_reply({}, 503), "login", "try again"),
        ("graph", graph_error(403, "ErrorAccessDenied"), "sender", "Mail.Send"),
        ("graph", graph_error(404, "ErrorInvalidUser"), "sender", "mailbox's spelling"),
        ("graph", graph_error(401, "InvalidAuthenticationToken"), "sender", "Mail.Send"),
        ("graph", graph_error(429, "ApplicationThrottled"), "sender", "Mail.Send"),
        ("graph", cut(), "sender", "Mail.Send"),
    ],
)
def test_a_check_stops_where_it_fails_and_says_what_to_do(
    microsoft: Microsoft, where: str, reply: Any, failed: str, words: str
) -> None:
    getattr(microsoft, where).always = reply

    steps = list(microsoft.driver().check(test_recipient="someone@example.com"))

    assert (steps[-1].name, steps[-1].ok) == (failed, False)
    assert all(step.ok for step in steps[:-1])
    assert words in steps[-1].advice
    assert steps[-1].words
    assert SECRET not in repr(steps)


# --- the driver kit's suite, over both ways


class MicrosoftContract(DriverContract):
    driver = MicrosoftDriver
    secrets = (SECRET, "canary-token")
    wrong_options = (
        ({"mailbox": "office"}, "mailbox"),
        ({"tenant_id": "a/b"}, "tenant_id"),
        ({"authority": "http://x.example"}, "authority"),
        ({"delegated": True}, "exactly one"),
        ({"ca_file": "/nowhere"}, "ca_file"),
    )

    @pytest.fixture(autouse=True)
    def _authority(self, certificates: Certificates) -> None:
        self.certificates = certificates

    def make(self, scene: Scene) -> Driver[Any]:
        checked = MicrosoftOptions.model_validate(dict(scene.options))
        return MicrosoftDriver(checked, sender=Mailbox("no-reply@example.org", "Example"), ports=Ports())


class TestGraph(MicrosoftContract):
    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        with Microsoft(self.certificates.good, self.certificates.ca_file).running() as microsoft:
            graph, entra = microsoft.graph, microsoft.entra
            if behaviour == "refuses_login":
                entra.always = entra_error(7000215, "invalid_client", 401)
            elif behaviour == "cuts_before_handover":
                graph.web.accepting = False
            else:
                graph.always = {
                    "refuses_recipient": graph_error(400, "ErrorInvalidRecipients"),
                    "busy": graph_error(503, "serviceNotAvailable"),
                    "throttles": graph_error(429, "ApplicationThrottled", Retry_After="5"),
                    "silent": silence(),
                    "cuts_after_handover": cut(),
                }.get(behaviour)
            yield Scene(
                microsoft.settings(**({"final_timeout": 0.3} if behaviour == "silent" else {})),
                taken=lambda: len(graph.mails),
                attempts=lambda: graph.web.connections or len(entra.forms),
            )


def leave(peer: Peer, line: str) -> None:
    peer.leave()


class TestSmtp(MicrosoftContract):
    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        answers: dict[str, Any] = {
            "refuses_recipient": {"RCPT": "550 5.1.1 no such user"},
            "busy": {"MAIL": "451 4.3.2 try again later"},
            "throttles": {"MAIL": "450 4.7.1 too many messages, slow down"},
            "cuts_before_handover": {"RCPT": leave},
            "cuts_after_handover": {"DOT": leave},
            "refuses_login": {"AUTH": lambda peer, line: f"535 5.7.3 no: {line}"},
        }
        offered = ("PIPELINING", "8BITMIME", "AUTH XOAUTH2")
        script = polite(extensions=offered, **({"AUTH": "235 2.7.0 welcome"} | answers.get(behaviour, {})))
        with (
            Microsoft(self.certificates.good, self.certificates.ca_file).running() as microsoft,
            ScriptedServer(Peer.wait_until_gone if behaviour == "silent" else script) as server,
        ):
            settings = microsoft.settings(
                mode="smtp",
                smtp_host="127.0.0.1",
                smtp_port=server.port,
                smtp_security="none",
                **({"timeout_ms": 300} if behaviour == "silent" else {}),
            )
            yield Scene(settings, taken=lambda: len(server.bodies), attempts=lambda: server.connections)
