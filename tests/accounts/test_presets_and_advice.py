"""Every preset makes a valid account, and the check has one sentence for the mistakes people make."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from postier.drivers.presets import presets
from postier.schemas.account import Account
from postier.schemas.errors import ConfigurationError
from postier.workers.route import build_driver
from tests.console.helpers import Run
from tests.drivers.kit import PIPELINING, Answer, Gone, Peer, Script, ScriptedServer, polite


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_makes_a_valid_account_of_what_it_needs(name: str) -> None:
    needs = presets()[name].needs
    given = {"username": "me@example.org", "password": "sample", "region": "eu-west-1"}
    options = {"preset": name, **{key: given[key] for key in needs if key in given}}
    if presets()[name].auth_kinds == ("oauth2",):
        options["password"] = "sample-access-token"
    row = {"name": "main", "driver": "provider", "sender": {"address": "no-reply@example.org"}, "options": options}

    driver = build_driver(Account.model_validate(row))

    assert driver.options.smtp_options().host  # type: ignore[attr-defined]
    driver.close()


def wrong(driver: str, options: dict[str, Any]) -> str:
    row = {"name": "main", "driver": driver, "sender": {"address": "no-reply@example.org"}, "options": options}
    with pytest.raises(ConfigurationError) as caught:
        build_driver(Account.model_validate(row)).close()
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(presets()))
def test_each_thing_a_preset_needs_is_asked_for_alone_when_it_is_missing(name: str) -> None:
    given = {"username": "me@example.org", "password": "canary-sesame", "region": "eu-west-1"}
    needs = [key for key in presets()[name].needs if key in given]

    for missing in needs:
        words = wrong("provider", {"preset": name, **{key: given[key] for key in needs if key != missing}})

        assert words.startswith(f"accounts.main.options.{missing}: ")
        reason = words.partition(": ")[2]
        assert reason.startswith((f"{name} needs one", "missing, though a password is set"))
        assert "canary" not in words
        assert "\n" not in words


ENTRA = {"mailbox": "a@b.example", "tenant_id": "b.example", "client_id": "app", "client_secret": "canary-sesame"}
HOST = {"host": "mail.example.org"}


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("smtp", {}, "host: missing: set it"),
        ("smtp", HOST | {"hots": "x"}, "hots: there is no such setting; did you mean host?"),
        ("smtp", HOST | {"port": "submission"}, "port: must be a whole number"),
        ("smtp", {"host": "mail.example.org:587"}, "host: must not carry the port: put it into 'port'"),
        ("smtp", HOST | {"security": "ssl"}, "security: must be one of 'starttls', 'tls' or 'none'"),
        ("smtp", HOST | {"username": "me"}, "password: missing for this username"),
        ("smtp", HOST | {"password": "canary-sesame"}, "username: missing, though a password is set"),
        ("smtp", HOST | {"username": "me", "password": "env:NOT_SET_HERE"}, "password: the environment variable"),
        ("smtp", HOST | {"ca_file": "/nowhere.pem"}, "ca_file: no certificates can be read from it"),
        ("provider", {"preset": "sendgird"}, "preset: no provider is named 'sendgird'; did you mean sendgrid"),
        ("provider", {"preset": "google_workspace_relay", "password": "canary-sesame"}, "username: missing, though"),
        ("microsoft", {**ENTRA, "client_secret": None}, "client_secret: missing: give exactly one of"),
        ("microsoft", ENTRA | {"delegated": True}, "client_secret: does not go with delegated: give exactly one of"),
        ("microsoft", ENTRA | {"secret_expires_on": "soon"}, "secret_expires_on: must be a date, like 2027-05-31"),
        ("sendgrid", {}, "api_key: missing: set it"),
    ],
)
def test_a_wrong_or_partial_account_gives_one_error_with_field_problem_and_fix(
    driver: str, options: dict[str, Any], words: str
) -> None:
    said = wrong(driver, {key: value for key, value in options.items() if value is not None})

    assert said.startswith(f"accounts.main.options.{words}")
    assert "canary" not in said
    assert "\n" not in said


def test_a_driver_that_does_not_exist_is_the_accounts_error() -> None:
    assert wrong("smpt", {}) == "accounts.main.driver: no driver is named 'smpt'; did you mean smtp?"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def with_starttls(authority: trustme.CA, name: str = "127.0.0.1", **answers: Answer) -> Script:
    """A server that takes everything after STARTTLS, with a certificate for `name`."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)

    def start(peer: Peer, line: str) -> None:
        peer.say("220 2.0.0 go ahead")
        try:
            peer.sock = tls.wrap_socket(peer.sock, server_side=True)
        except OSError:
            raise Gone from None

    script = polite(extensions=(*PIPELINING, "STARTTLS", "AUTH PLAIN LOGIN"), STAR=start, **answers)

    def serve(peer: Peer) -> None:
        try:
            script(peer)
        finally:
            peer.sock.close()

    return serve


def advice_of(postier: Run, tmp_path: Path, authority: trustme.CA, script: Script, *flags: str) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "password").write_text("sample")
    with ScriptedServer(script) as server:
        answer = postier(
            "accounts", "check", "x", "--driver", "smtp", "--sender", "a@school.example", "-o", "host=127.0.0.1",
            "-o", f"port={server.port}", "-o", f"ca_file={tmp_path}/ca.pem", "-o", "username=me",
            "-o", f"password=file:{tmp_path}/password", "-o", "timeout_ms=20000", "--json", *flags,
        )  # fmt: skip
    assert answer.code == 1, answer.out
    return str(answer.lines[-1]["advice"])


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            "534 5.7.9 Application-specific password required. For more information, go to support.google.com",
            "create an app password",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.",
            "SMTP AUTH is off for this mailbox",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
            "off for the whole Microsoft 365 organisation",
        ),
        ("535 5.7.8 Username and Password not accepted. BadCredentials", "User name or password are wrong"),
    ],
)
def test_a_refused_login_is_explained(
    postier: Run, tmp_path: Path, authority: trustme.CA, reply: str, words: str
) -> None:
    assert words in advice_of(postier, tmp_path, authority, with_starttls(authority, AUTH=reply))


def test_a_certificate_for_another_name_is_explained(postier: Run, tmp_path: Path, authority: trustme.CA) -> None:
    script = with_starttls(authority, "mail.other.example")

    assert "belongs to another host" in advice_of(postier, tmp_path, authority, script)


def test_a_server_without_starttls_is_explained(postier: Run, tmp_path: Path, authority: trustme.CA) -> None:
    assert "cannot do TLS on this port" in advice_of(postier, tmp_path, authority, polite(extensions=PIPELINING))


def test_the_wrong_port_for_the_security_mode_is_explained(postier: Run, tmp_path: Path, authority: trustme.CA) -> None:
    def plain(peer: Peer) -> None:
        peer.say("220 scripted ESMTP")
        peer.wait_until_gone()

    found = advice_of(postier, tmp_path, authority, plain, "-o", "security=tls")

    assert "set security to 'starttls', or use port 465" in found


@pytest.mark.parametrize("name", ["office365", "outlook_com"])
def test_a_preset_that_takes_oauth2_alone_names_the_driver_for_it(postier: Run, name: str) -> None:
    flags = ("--preset", name, "--sender", "a@b.example", "-o", "username=a@b.example")

    answer = postier("accounts", "add", "x", *flags, "--untested")

    assert answer.code == 2
    assert f"preset: {name} takes OAuth2 alone: use the driver microsoft" in answer.err
