"""What each answer of Exchange means, as Microsoft documents it, and what no answer means."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postier.drivers.base import Ports
from postier.drivers.exchange_errors import ADVICE, EXCHANGE_ERRORS
from postier.drivers.http_wire import Stream
from postier.drivers.testing import sample_email
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
    Unreachable,
)
from tests.conftest import PATIENCE
from tests.drivers.exchange import ntlm
from tests.drivers.exchange.ews import FOUND, MAILBOX, TAKEN, Exchange, M, S, always, fault, made, parts, refusal
from tests.drivers.http.fake import SECRET, Act, Handler, Reply, Request, authority, failure, hang_up, mail, silence

# learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode
CODES: list[tuple[str, type[DeliveryError]]] = [
    ("ErrorAccessDenied", SenderRefused),
    ("ErrorAccountDisabled", SenderRefused),
    ("ErrorADOperation", TemporaryError),
    ("ErrorADUnavailable", TemporaryError),
    ("ErrorCallerIsInvalidADAccount", AuthenticationFailed),
    ("ErrorConnectionFailed", TemporaryError),
    ("ErrorContentConversionFailed", EmailRefused),
    ("ErrorCreateItemAccessDenied", SenderRefused),
    ("ErrorDataSizeLimitExceeded", EmailRefused),
    ("ErrorExceededConnectionCount", RateLimited),
    ("ErrorFolderNotFound", SenderRefused),
    ("ErrorImpersonateUserDenied", SenderRefused),
    ("ErrorImpersonationDenied", SenderRefused),
    ("ErrorImpersonationFailed", SenderRefused),
    ("ErrorInsufficientResources", TemporaryError),
    ("ErrorInternalServerError", TemporaryError),
    ("ErrorInternalServerTransientError", TemporaryError),
    ("ErrorInvalidRecipients", RecipientRefused),
    ("ErrorInvalidRequest", SenderRefused),
    ("ErrorInvalidServerVersion", SenderRefused),
    ("ErrorInvalidSmtpAddress", RecipientRefused),
    ("ErrorMailboxFailover", TemporaryError),
    ("ErrorMailboxMoveInProgress", TemporaryError),
    ("ErrorMailboxStoreUnavailable", TemporaryError),
    ("ErrorMailRecipientNotFound", RecipientRefused),
    ("ErrorMessageSizeExceeded", EmailRefused),
    ("ErrorMimeContentInvalid", EmailRefused),
    ("ErrorMimeContentInvalidBase64String", EmailRefused),
    ("ErrorMissingEmailAddress", SenderRefused),
    ("ErrorNonExistentMailbox", SenderRefused),
    ("ErrorNonPrimarySmtpAddress", SenderRefused),
    ("ErrorNotEnoughMemory", TemporaryError),
    ("ErrorPasswordChangeRequired", AuthenticationFailed),
    ("ErrorPasswordExpired", AuthenticationFailed),
    ("ErrorQuotaExceeded", SenderRefused),
    ("ErrorSavedItemFolderNotFound", SenderRefused),
    ("ErrorSchemaValidation", SenderRefused),
    ("ErrorSendAsDenied", SenderRefused),
    ("ErrorServerBusy", RateLimited),
    ("ErrorSubmissionQuotaExceeded", QuotaExhausted),
    ("ErrorTimeoutExpired", OutcomeUnknown),
    ("ErrorTooManyObjectsOpened", RateLimited),
    ("ErrorVirusDetected", EmailRefused),
    ("ErrorSomethingNewInAnUpdate", TemporaryError),
]


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_every_documented_code_blames_what_is_broken_and_is_tried_once(code: str, kind: type[DeliveryError]) -> None:
    with Exchange() as server:
        for tries, answer in enumerate((refusal(code, f"No, {SECRET} for {MAILBOX}."), fault(code, "No.")), 1):
            server.answer = always(answer)
            error = failure(made(server))

            assert type(error) is kind
            assert error.text.startswith(code)
            assert (error.code, error.stage) == (answer.status, "http")
            assert SECRET not in f"{error!r}{vars(error)}"
            assert MAILBOX not in error.text
            assert len(server.mails()) == tries


def test_every_code_of_the_table_is_one_that_exchangelib_knows() -> None:
    from exchangelib import errors

    known = {name.lower() for name in vars(errors)}

    assert {row.code for row in EXCHANGE_ERRORS if row.code} <= known
    assert {name.lower() for name in ADVICE} <= known


@pytest.mark.parametrize("answer", [fault("ErrorServerBusy", "Later.", back_off=297_749)])
def test_the_wait_that_exchange_asks_for_is_passed_on(answer: Reply) -> None:
    with Exchange(always(answer)) as server:
        error = failure(made(server))

    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(297.749)


def test_an_internal_error_means_the_code_inside_it() -> None:
    with Exchange(always(refusal("ErrorInternalServerError", inner="ErrorSendAsDenied"))) as server:
        error = failure(made(server))

    assert type(error) is SenderRefused
    assert error.text.startswith("ErrorSendAsDenied")


def test_too_many_recipients_ask_for_smaller_packets() -> None:
    with Exchange(always(refusal("ErrorInvalidRecipients", "Too many recipients."))) as server:
        error = failure(made(server))

    assert isinstance(error, RateLimited)
    assert error.too_many_recipients


# IIS, and what stands before it
STATUSES: list[tuple[Reply, type[DeliveryError]]] = [
    (Reply(302, b"", {"Location": "https://elsewhere.example/owa"}), SenderRefused),
    (Reply(307, b"", {"Location": "/EWS/Other.asmx"}), SenderRefused),
    (Reply(403, b"<html>Forbidden</html>"), SenderRefused),
    (Reply(404, b"<html>Not found</html>"), SenderRefused),
    (Reply(405), SenderRefused),
    (Reply(413), EmailRefused),
    (Reply(429, b"", {"Retry-After": "7"}), RateLimited),
    (Reply(503, b"<html>Service Unavailable</html>", {"Retry-After": "7"}), TemporaryError),
    (Reply(500, b"<html>Runtime Error</html>"), OutcomeUnknown),
    (Reply(502, b"<html>Bad gateway</html>"), OutcomeUnknown),
    (Reply(504), OutcomeUnknown),
    (Reply(200, b""), OutcomeUnknown),
    (Reply(200, b"<html>Sign in to continue</html>"), OutcomeUnknown),
    (Reply(200, TAKEN.octets()[:-20]), OutcomeUnknown),
    (Reply(200, FOUND.octets().replace(b"NoError", b"")), OutcomeUnknown),
    (Reply(202, b""), OutcomeUnknown),
    (refusal("NoError", kind="Warning"), OutcomeUnknown),
]


@pytest.mark.parametrize(("answer", "kind"), STATUSES, ids=[f"{row[0].status}-{n}" for n, row in enumerate(STATUSES)])
def test_an_answer_without_exchanges_word_is_judged_by_its_status(answer: Reply, kind: type[DeliveryError]) -> None:
    with Exchange(always(answer)) as server:
        error = failure(made(server))

    assert type(error) is kind
    assert error.code == answer.status
    assert "<html>" not in error.text
    assert len(server.mails()) == 1
    if "Retry-After" in answer.headers:
        assert isinstance(error, TemporaryError)
        assert error.retry_after == 7


def test_a_success_that_is_only_a_warning_was_not_sent() -> None:
    with Exchange(always(refusal("ErrorBatchProcessingStopped", kind="Warning"))) as server:
        assert type(failure(made(server))) is TemporaryError


def test_an_answer_that_bites_is_an_unknown_outcome() -> None:
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    endless = b"<a>" * 40_000
    for body in (bomb, endless):
        with Exchange(always(Reply(200, body))) as server:
            assert isinstance(failure(made(server)), OutcomeUnknown)


def test_an_answer_without_end_is_left_at_64_kilobytes() -> None:
    def pour(handler: Handler, request: Request) -> None:
        handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b" " * 70_000)
        handler.server.stopping.wait(60)
        handler.leave()

    with Exchange(always(pour)) as server:
        began = time.monotonic()
        assert isinstance(failure(made(server, final_timeout=60.0)), OutcomeUnknown)
        assert time.monotonic() - began < 30


def drip(handler: Handler, request: Request) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.stopping.wait(0.05):
        handler.raw(b"x")
    handler.leave()


@pytest.mark.parametrize("act", [hang_up, silence, drip], ids=["cut", "silence", "octet by octet"])
def test_no_answer_after_the_mail_is_an_unknown_outcome_in_time(act: Act) -> None:
    with Exchange(always(act)) as server:
        error = failure(made(server, final_timeout=0.3))

    assert isinstance(error, OutcomeUnknown)
    assert error.evidence["octets"] > 0


@pytest.mark.parametrize("act", [hang_up, silence, drip], ids=["cut", "silence", "octet by octet"])
def test_a_login_that_comes_to_nothing_is_safe_to_try_again(act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    shake_hands, gone = Stream.start_tls, [0.0]

    def and_then_hurry(stream: Stream, **given: Any) -> Stream:
        """Once the connection stands, all but half a second of the time for the login is gone."""
        try:
            return shake_hands(stream, **given)
        finally:
            gone[0] = PATIENCE - 0.5

    monkeypatch.setattr(Stream, "start_tls", and_then_hurry)
    with Exchange() as server:
        server.at_opening = act
        hurried = made(server, ports=Ports(clock=lambda: time.monotonic() + gone[0]))
        error = failure(hurried, mail(handing_over=lambda: told.append(1)))

    assert isinstance(error, TemporaryError)
    assert error.stage == "auth"
    assert not told
    assert not server.mails()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Reply(302, b"", {"Location": "https://elsewhere.example"}), SenderRefused),
        (Reply(403), SenderRefused),
        (Reply(404), SenderRefused),
        (Reply(500), TemporaryError),
        (Reply(503, b"", {"Retry-After": "9"}), TemporaryError),
        (Reply(401, b"", {"WWW-Authenticate": "Negotiate"}), AuthenticationFailed),
        (Reply(401, b"", {"WWW-Authenticate": "NTLM"}), AuthenticationFailed),
        (Reply(401, b"", {"WWW-Authenticate": "NTLM ***"}), TemporaryError),
        (Reply(401, b"", {"WWW-Authenticate": "NTLM TlRMTVNTUAACAAAA"}), TemporaryError),
    ],
)
def test_whatever_answers_the_login_no_mail_has_left(answer: Reply, kind: type[DeliveryError]) -> None:
    with Exchange() as server:
        server.at_opening = answer
        error = failure(made(server))

    assert type(error) is kind
    assert error.stage == "auth"
    assert SECRET not in repr(vars(error))
    assert not server.mails()
    assert server.logins == 0


@pytest.mark.parametrize(("page", "more"), [(b"x" * 70_000, {}), (b"", {"Connection": "close"})])
def test_a_challenge_on_a_connection_that_cannot_go_on_is_not_answered_elsewhere(
    page: bytes, more: dict[str, str]
) -> None:
    offer = "NTLM " + base64.b64encode(ntlm.challenge()).decode()
    with Exchange() as server:
        server.at_opening = Reply(401, page, {"WWW-Authenticate": offer, **more})
        error = failure(made(server))

    assert type(error) is TemporaryError
    assert "between the messages of NTLM" in error.text
    assert (server.connections, server.logins) == (1, 0)


def test_a_login_that_is_not_offered_is_named_with_those_that_are() -> None:
    with Exchange(offers=("Negotiate", 'Basic realm="x"')) as server:
        error = failure(made(server))
    assert error.text == "the server does not offer the login ntlm; it offers: Negotiate, Basic"


def test_nothing_is_handed_over_to_a_closed_port_or_a_forbidden_host() -> None:
    told: list[int] = []
    email = mail(handing_over=lambda: told.append(1))
    with Exchange() as server:
        guarded = failure(made(server, allow_hosts=()), email)
        assert server.connections == 0
        closed = failure(made(server, url="https://localhost:1/EWS/Exchange.asmx"), email)

    assert isinstance(guarded, SenderRefused)
    assert "egress" in guarded.text
    assert isinstance(closed, Unreachable)
    assert not told


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[tuple[str, int]]:
        asked.append((host, port))
        return [("127.0.0.1", server.port)]

    with Exchange() as server:
        driver = made(server, ports=Ports(resolve=resolve), url="https://localhost:1/EWS/Exchange.asmx")
        assert driver.send(mail()).code == 200
        driver.close()

    assert asked == [("localhost", 1)]


def test_a_stranger_with_another_authority_gets_no_login() -> None:
    with Exchange() as server:
        error = failure(made(server, ca_file=authority()[0]))

    assert type(error) is AccountError
    assert error.text.startswith("certificate: ")
    assert not server.requests


def steps(server: Exchange, **options: Any) -> list[tuple[str, bool]]:
    driver = made(server, **options)
    found = list(driver.check(test_recipient="someone@example.com"))
    driver.close()
    return [(step.name, step.ok) for step in found]


def test_the_check_ends_with_the_mailbox_and_a_test_mail() -> None:
    with Exchange() as server:
        names = ["resolve", "connect", "tls", "login", "sender", "test_mail"]
        assert steps(server) == [(name, True) for name in names]

    assert len(server.mails()) == 1


@pytest.mark.parametrize(
    ("answer", "step", "advice"),
    [
        (refusal("ErrorPasswordExpired", name="GetFolder"), "login", "run out"),
        (refusal("ErrorNonExistentMailbox", name="GetFolder"), "sender", "Check mailbox"),
        (refusal("ErrorAccessDenied", name="GetFolder"), "sender", "full access"),
        (fault("ErrorImpersonateUserDenied"), "sender", "ApplicationImpersonation"),
        (fault("ErrorInvalidServerVersion"), "sender", "set version"),
        (refusal("ErrorItemNotFound", name="GetFolder"), "sender", "full access"),
        (Reply(302, b"", {"Location": "/owa"}), "login", "set url"),
        (Reply(403), "login", "switched on"),
    ],
)
def test_a_failed_check_says_in_one_sentence_what_to_do(answer: Reply, step: str, advice: str) -> None:
    with Exchange(lambda request: answer) as server:
        last = list(made(server, access="impersonation").check())[-1]

    assert (last.name, last.ok) == (step, False)
    assert advice in last.advice
    assert re.fullmatch(r"[A-Z][^.]*\.", last.advice)


@pytest.mark.parametrize(
    ("changes", "operation", "name"),
    [
        ({}, "ResolveNames", f"smtp:{MAILBOX}"),
        ({"save_copy": True}, "GetFolder", "sentitems"),
        ({"access": "impersonation"}, "GetFolder", "sentitems"),
    ],
)
def test_the_check_asks_for_no_more_rights_than_a_mail_needs(
    changes: dict[str, Any], operation: str, name: str
) -> None:
    with Exchange() as server:
        assert all(step.ok for step in made(server, **changes).check())

    for request in server.asked:
        (asked,) = parts(request).findall(f"{S}Body/*")
        assert asked.tag == f"{M}{operation}"
        assert name in request.body.decode()


@pytest.mark.parametrize("code", ["ErrorNameResolutionNoResults", "ErrorNameResolutionNoMailbox"])
def test_a_mailbox_the_directory_does_not_know_fails_the_check(code: str) -> None:
    with Exchange(lambda request: refusal(code, name="ResolveNames")) as server:
        last = list(made(server).check())[-1]

    assert (last.name, last.ok) == ("sender", False)
    assert last.advice == ADVICE[code]


def test_the_check_of_a_sender_that_may_not_be_sent_as_says_so() -> None:
    with Exchange(always(refusal("ErrorSendAsDenied", "The user has no right to send as this."))) as server:
        last = list(made(server).check(test_recipient="someone@example.com"))[-1]

    assert (last.name, last.ok) == ("test_mail", False)
    assert "Send As" in last.advice


def test_the_check_names_a_login_that_is_not_offered_and_a_strangers_certificate() -> None:
    with Exchange(offers=("Negotiate",)) as server:
        login = list(made(server, auth="basic").check())[-1]
    with Exchange() as server:
        tls = list(made(server, ca_file=authority()[0]).check())[-1]

    assert (login.name, "Set auth" in login.advice) == ("login", True)
    assert (tls.name, "ca_file" in tls.advice) == ("tls", True)


WITHOUT = """
import sys
sys.modules["{module}"] = None  # as if it were not installed
from postier.drivers.registry import load_driver
from postier.schemas.email import Mailbox
from postier.schemas.errors import ConfigurationError
driver = load_driver("exchange")
options = driver.Options.model_validate({{
    "url": "https://mail.contoso.example", "username": "svc@contoso.example", "password": "x",
    "mailbox": "office@contoso.example",
}})
try:
    driver(options, sender=Mailbox("office@contoso.example"))
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize("module", ["exchangelib", "spnego"])
def test_without_the_extra_the_account_says_how_to_install_it(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(module=module)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "driver: 'exchange' needs more packages: pip install 'postier[exchange]'", done.stderr


def test_the_message_id_is_kept_over_all_attempts() -> None:
    email = replace(sample_email(), message_id="<kept@example.org>")
    with Exchange(always(refusal("ErrorServerBusy"))) as server:
        failure(made(server), email)
        failure(made(server), email)

    assert [request.body.count(b"&lt;kept@example.org&gt;") for request in server.mails()] == [1, 1]


def test_the_check_command_tries_an_account_of_the_accounts_file(tmp_path: Path) -> None:
    """`postier accounts check`, for real, without a ledger."""
    with Exchange() as server:
        options = {key: value for key, value in server.options.items() if key not in ("password", "username")}
        options["allow_hosts"] = list(options["allow_hosts"])
        lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
        accounts = tmp_path / "accounts.toml"
        accounts.write_text(
            'default_account = "office"\n[accounts.office]\ndriver = "exchange"\n'
            'sender = { address = "office@example.org" }\n[accounts.office.options]\n'
            "username = 'CONTOSO\\svc-mail'\npassword = \"env:EWS_WORD\"\n" + "\n".join(lines) + "\n"
        )
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "EWS_WORD": SECRET}
        environment |= {"POSTIER_ACCOUNTS_FILE": str(accounts), "POSTIER_REDIS_URL": "redis://127.0.0.1:1/0"}
        command = [sys.executable, "-m", "postier.console", "accounts", "check", "office", "--to", "ana@example.com"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"ok +(\w+)", done.stdout) == ["resolve", "connect", "tls", "login", "sender", "test_mail"]
    assert SECRET not in done.stdout + done.stderr
    assert len(server.mails()) == 1
