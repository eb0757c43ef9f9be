"""What goes over the wire to Exchange: the request whole, the recipients exactly, the login bound to its connection."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_bytes
from email.policy import SMTP

import pytest

from postier.drivers.base import Ports
from postier.drivers.exchange import ExchangeOptions
from postier.drivers.testing import sample_email
from postier.schemas.email import Email
from postier.schemas.errors import AuthenticationFailed, EmailRefused, OutcomeUnknown, RecipientRefused
from tests.conftest import PATIENCE
from tests.drivers.exchange.ews import MAILBOX, TAKEN, USER, Exchange, M, S, T, always, hidden, made, mime, parts
from tests.drivers.http.fake import SECRET, Handler, Request, failure, mail, receipt, silence
from tests.drivers.kit import wait_for


def packet(*recipients: str) -> Email:
    """A mail to several who do not see each other: To says the sender."""
    visible = sample_email().mime.replace(b"To: someone@example.com", b"To: The office <office@example.org>")
    return replace(sample_email(), recipients=recipients, mime=visible)


def test_a_mail_is_one_create_item_with_the_ready_made_message() -> None:
    email = sample_email()
    with Exchange() as server:
        told = receipt(made(server), email)

    assert (told.status, told.provider_id, told.code) == ("queued", "7f5c-0001", 200)
    (request,) = server.asked
    assert (request.method, request.path) == ("POST", "/EWS/Exchange.asmx")
    assert request.headers["host"] == f"localhost:{server.port}"
    assert request.headers["content-type"] == "text/xml; charset=utf-8"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["x-anchormailbox"] == MAILBOX
    content = base64.b64encode(email.mime).decode()
    assert request.body.decode() == (
        "<?xml version='1.0' encoding='utf-8'?>\n"
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages" '
        'xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types">'
        '<s:Header><t:RequestServerVersion Version="Exchange2013_SP1"/></s:Header>'
        '<s:Body><m:CreateItem MessageDisposition="SendOnly" SendMeetingInvitations="SendToNone"><m:Items><t:Message>'
        f"<t:MimeContent>{content}</t:MimeContent><t:Sensitivity>Normal</t:Sensitivity>"
        "<t:Importance>Normal</t:Importance><t:ReminderIsSet>0</t:ReminderIsSet>"
        "<t:ReminderMinutesBeforeStart>0</t:ReminderMinutesBeforeStart>"
        "<t:IsReadReceiptRequested>0</t:IsReadReceiptRequested>"
        "<t:IsDeliveryReceiptRequested>0</t:IsDeliveryReceiptRequested>"
        "<t:InternetMessageId>&lt;sample-1@example.org&gt;</t:InternetMessageId><t:IsRead>0</t:IsRead>"
        "<t:IsResponseRequested>0</t:IsResponseRequested></t:Message></m:Items></m:CreateItem></s:Body></s:Envelope>"
    )
    assert SECRET.encode() not in request.body


def test_hidden_recipients_are_bcc_elements_and_nobody_sees_them() -> None:
    recipients = tuple(f"reader{number}@example.com" for number in range(40))
    with Exchange() as server:
        receipt(made(server), packet(*recipients))

    (request,) = server.asked
    assert hidden(request) == list(recipients)
    message = message_from_bytes(mime(request), policy=SMTP)
    assert message["Bcc"] is None
    assert not message["To"].addresses
    assert b"reader" not in mime(request)
    assert b"office@example.org" not in mime(request)
    order = [node.tag for node in parts(request).find(f".//{T}Message") or ()]
    assert order.index(f"{T}MimeContent") < order.index(f"{T}BccRecipients")  # the schema is a sequence


def test_a_shown_recipient_is_not_named_twice_and_a_bcc_in_the_message_is_not_passed_on() -> None:
    written = sample_email().mime.replace(b"Subject:", b"Bcc: stranger@example.com\r\nCc: else@example.com\r\nSubject:")
    email = replace(sample_email(), mime=written, recipients=("Someone@example.com", "other@example.com"))
    with Exchange() as server:
        receipt(made(server), email)

    (request,) = server.asked
    assert hidden(request) == ["other@example.com"]
    assert str(message_from_bytes(mime(request), policy=SMTP)["To"]) == "someone@example.com"
    assert b"stranger" not in mime(request)
    assert b"else@" not in mime(request)


def test_impersonation_names_the_mailbox_that_is_acted_as() -> None:
    with Exchange() as server:
        receipt(made(server, access="impersonation"))

    header = parts(server.asked[0]).find(f"{S}Header/{T}ExchangeImpersonation/{T}ConnectingSID")
    assert header is not None
    assert [(node.tag, node.text) for node in header] == [(f"{T}PrimarySmtpAddress", MAILBOX)]


def test_a_copy_is_kept_in_the_sent_items_of_the_mailbox_that_sends() -> None:
    with Exchange() as server:
        receipt(made(server, save_copy=True, mailbox="shared@example.org"))

    item = parts(server.asked[0]).find(f"{S}Body/{M}CreateItem")
    assert item is not None
    assert item.get("MessageDisposition") == "SendAndSaveCopy"
    folder = item.find(f"{M}SavedItemFolderId/{T}DistinguishedFolderId")
    assert folder is not None
    assert folder.get("Id") == "sentitems"
    assert folder.findtext(f"{T}Mailbox/{T}EmailAddress") == "shared@example.org"


@pytest.mark.parametrize("version", ["Exchange2010_SP2", "Exchange2013", "Exchange2013_SP1", "Exchange2016"])
def test_the_version_is_the_one_that_was_said(version: str) -> None:
    with Exchange() as server:
        receipt(made(server, version=version))

    said = parts(server.asked[0]).find(f"{S}Header/{T}RequestServerVersion")
    assert said is not None
    assert said.get("Version") == version


def test_ntlm_proves_the_password_once_and_the_mail_leaves_once() -> None:
    with Exchange() as server:
        receipt(made(server))

    assert (server.connections, server.logins) == (1, 1)
    opening, proof = server.requests
    assert opening.body == b""
    assert proof.headers["authorization"].startswith("NTLM ")
    assert len(proof.body) > 0


def test_a_wrong_password_is_offered_once() -> None:
    with Exchange(nt_hash=bytes(16)) as server:
        error = failure(made(server))

    assert isinstance(error, AuthenticationFailed)
    assert server.logins == 1
    assert not server.asked


def test_the_proof_covers_the_name_of_the_user() -> None:
    with Exchange() as server:
        assert isinstance(failure(made(server, username="svc-mail@contoso.example")), AuthenticationFailed)


def test_basic_sends_the_login_with_each_request_and_no_other_time() -> None:
    with Exchange() as server:
        driver = made(server, auth="basic")
        driver.send(mail())
        driver.send(mail())
        driver.close()

    expected = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    assert [request.headers["authorization"] for request in server.requests] == [expected, expected]
    assert server.connections == 1


def test_a_connection_that_is_logged_in_carries_many_mails() -> None:
    with Exchange() as server:
        driver = made(server)
        for _ in range(5):
            driver.send(mail())
        driver.close()

    assert (server.connections, server.logins, len(server.mails())) == (1, 1, 5)
    assert all("authorization" not in request.headers for request in server.requests[2:])


def test_a_login_that_has_run_out_is_renewed_once_and_the_handover_announced_once() -> None:
    told: list[int] = []
    with Exchange() as server:
        driver = made(server)
        driver.send(mail())
        server.logged_out = True
        driver.send(mail(handing_over=lambda: told.append(len(server.mails()))))
        wait_for(lambda: len(server.open_sockets) == 1)  # the one that was logged out is not kept
        driver.close()

    assert (server.logins, len(server.mails()), told) == (2, 2, [1])


def test_a_basic_login_that_is_refused_later_is_not_tried_twice() -> None:
    with Exchange() as server:
        driver = made(server, auth="basic")
        driver.send(mail())
        server.nt_hash = bytes(16)
        error = failure(driver)

    assert isinstance(error, AuthenticationFailed)
    assert len(server.requests) == 2


def test_a_changed_password_never_rides_on_the_old_ones_connection() -> None:
    with Exchange() as server:
        good = made(server)
        good.send(mail())
        wrong = failure(made(server, password="another-word"))
        good.send(mail())
        good.close()

    assert isinstance(wrong, AuthenticationFailed)
    assert (server.logins, len(server.mails())) == (2, 2)


def test_a_connection_that_rested_too_long_or_was_closed_is_not_used_again() -> None:
    now = [0.0]
    with Exchange() as server:
        driver = made(server, ports=Ports(clock=lambda: now[0]), idle_seconds=5.0, allow_hosts=("localhost",))
        driver.send(mail())
        now[0] += 6.0
        driver.send(mail())
        driver.close()

    assert (server.connections, server.logins) == (2, 2)


def test_threads_have_a_connection_each() -> None:
    together = threading.Barrier(4, timeout=PATIENCE)

    def answer(request: Request) -> object:
        together.wait()
        return TAKEN

    with Exchange(answer) as server:  # type: ignore[arg-type]
        driver = made(server)
        threads = [threading.Thread(target=driver.send, args=(mail(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        driver.close()

    assert (server.connections, len(server.mails())) == (4, 4)


def test_each_new_login_asks_the_gate_and_a_used_connection_does_not() -> None:
    seen: list[str] = []

    @contextmanager
    def gate() -> Iterator[None]:
        seen.append("in")
        try:
            yield
        except AuthenticationFailed:
            seen.append("refused")
            raise

    with Exchange() as server:
        driver = made(server, ports=Ports(logins=gate, resolve=lambda host, port: [("127.0.0.1", port)]))
        driver.send(mail())
        driver.send(mail())
        driver.close()
    with Exchange(nt_hash=bytes(16)) as server:
        failure(made(server, ports=Ports(logins=gate, resolve=lambda host, port: [("127.0.0.1", port)])))

    assert seen == ["in", "in", "refused"]


def test_what_is_no_address_or_no_clean_message_never_leaves() -> None:
    with Exchange() as server:
        assert isinstance(failure(made(server), mail("<x>@example.com")), RecipientRefused)
        assert isinstance(failure(made(server), replace(sample_email(), mime=b"Subject: x\n\nbare")), EmailRefused)
        assert server.connections == 0


def test_the_verdict_has_a_time_of_its_own() -> None:
    now = [0.0]

    def slow(handler: Handler, request: Request) -> None:
        now[0] += 40.0
        handler.reply(TAKEN)

    with Exchange(always(slow)) as server:
        ports = Ports(clock=lambda: now[0])
        assert receipt(made(server, ports=ports, timeout_ms=30_000, final_timeout=60.0)).code == 200
        server.answer = always(silence)
        error = failure(made(server, final_timeout=0.2))

    assert isinstance(error, OutcomeUnknown)
    assert error.evidence["octets"] > 0


def test_a_host_alone_means_exchanges_usual_path() -> None:
    made_from = {"url": "https://mail.contoso.example/", "username": USER, "password": "x", "mailbox": MAILBOX}

    options = ExchangeOptions.model_validate(made_from)

    assert options.url == "https://mail.contoso.example/EWS/Exchange.asmx"
