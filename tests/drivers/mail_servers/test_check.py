"""The check of an account against servers that others wrote: each mistake people make, and the sentence about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postier.drivers.base import CheckStep
from tests.drivers.conftest import Certificates, Files, Server
from tests.drivers.kit import opened
from tests.drivers.mail_servers.kit import LOGIN, MailServer

pytestmark = pytest.mark.xdist_group("mail servers")

SILENT = {"timeout_ms": 150}  # a server that waits for TLS says nothing; a person waits longer


def last_step(**options: Any) -> CheckStep:
    with opened(**options) as driver:
        *passed, last = driver.check()
    assert all(step.ok for step in passed)
    return last


def test_a_sound_account_passes_every_step(server: MailServer, files: Files) -> None:
    for security in ("starttls", "tls"):
        with opened(**server.options(security, files.ca_file)) as driver:
            steps = list(driver.check(test_recipient="someone@example.com"))

        assert all(step.ok for step in steps), steps
        assert len(steps) == 7


@pytest.mark.parametrize(
    ("port", "security", "more", "step", "advice"),
    [
        ("starttls", "tls", {}, "tls", "usually begins in clear: set security to 'starttls', or use port 465."),
        ("tls", "starttls", SILENT, "tls", "set security to 'tls', or use port 587 with 'starttls'."),
        ("tls", "none", SILENT, "greeting", "set security to 'tls', or use port 587 with 'starttls'."),
        ("starttls", "starttls", {"auth": "xoauth2"}, "login", "Set auth to 'auto', or to a login that the server"),
        ("tls", "tls", {"ca_file": None}, "tls", "No known authority signed the certificate: set ca_file"),
    ],
)
def test_each_mistake_has_its_sentence_at_every_server(
    server: MailServer, files: Files, port: str, security: str, more: dict[str, Any], step: str, advice: str
) -> None:
    options = {**server.options(security, files.ca_file), "port": getattr(server, port), "allow_plain_login": True}

    failed = last_step(**options | more)

    assert (failed.name, failed.ok) == (step, False)
    assert advice in failed.advice
    assert failed.words


@pytest.mark.parametrize("name", ["postfix", "exim", "aiosmtpd"])
def test_a_login_in_clear_is_sent_to_starttls_where_the_server_takes_none(
    started: Callable[[str], MailServer], name: str, files: Files
) -> None:
    options = started(name).options("starttls", files.ca_file, allow_plain_login=True)

    failed = last_step(**options | {"security": "none"})

    assert (failed.name, failed.ok) == ("login", False)
    assert failed.advice == "The server lets people log in under TLS alone: set security to 'starttls'."


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(
    ("which", "words", "advice"),
    [
        ("other_name", "certificate: other name: ", "belongs to another host: use the name it was made for"),
        ("expired", "certificate: expired: ", "has run out: its owner has to renew it."),
        ("self_signed", "certificate: ", "No known authority signed the certificate: set ca_file"),
    ],
)
def test_a_certificate_that_cannot_be_trusted_is_explained(
    aiosmtpd: Callable[..., Server], certificates: Certificates, security: str, which: str, words: str, advice: str
) -> None:
    context = getattr(certificates, which)
    server = aiosmtpd(**{"tls_context" if security == "starttls" else "ssl_context": context})

    failed = last_step(port=server.port, host="localhost", security=security, ca_file=certificates.ca_file, **LOGIN)

    assert (failed.name, failed.ok) == ("tls", False)
    assert failed.words.startswith(words)
    assert advice in failed.advice
    assert not server.inbox.logins


@pytest.mark.parametrize(
    ("security", "advice"),
    [
        ("starttls", "The server cannot do TLS on this port: try port 465 with security 'tls', or ask its owner."),
        ("none", "No login is taken on this port: use port 587 or 465, or leave username and password out."),
    ],
)
def test_a_server_that_knows_neither_tls_nor_logins_is_explained(
    aiosmtpd: Callable[..., Server], security: str, advice: str
) -> None:
    failed = last_step(port=aiosmtpd().port, security=security, allow_plain_login=True, **LOGIN)

    assert failed.advice == advice
