"""The `outlook` driver: Outlook on a Windows desktop, by automation. Needs `postier[outlook]`, Windows, and a person
logged in with Outlook open: Microsoft supports its object model neither in services nor unattended
(learn.microsoft.com/outlook/troubleshoot/user-interface/outlook-object-model-unsuitable-to-run-in-windows-service).

A complete sample account:

    [accounts.desk]
    driver = "outlook"
    sender = { address = "office@example.org", name = "The office" }
    limits = { max_connections = 1 }
    [accounts.desk.options]
    profile_account = "office@example.org"      # which of Outlook's accounts; without it the sender's address
    on_behalf = false                           # the sender is another mailbox that this account may write for
    save_copy = true                            # a copy in Sent Items
    timeout_ms = 30000                          # for all that Outlook does for one mail

Outlook takes fields and writes the message itself. Recipients (those not shown as Bcc), sender, Reply-To, subject and
the HTML, or the text where there is no HTML, arrive. Lost are the Message-ID (so an attempt that is repeated looks like
another mail), List-Unsubscribe and every other header, and the text beside the HTML. Prefer `microsoft` (Graph) or
`exchange` (EWS), which send the message as it is.

A receipt means that Outlook has it in its Outbox: accepted, not delivered.

postier's own workers lock files and drain on signals as POSIX has them, and do not start on Windows as they are: there
the driver serves programs that send through it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from postier.drivers.base import CheckStep, Driver, DriverOptions, Ports
from postier.drivers.http_check import trial_mail
from postier.drivers.outlook_com import Com, Late, WindowsCom, Work
from postier.drivers.outlook_errors import com_failure
from postier.drivers.smtp_options import SAFE_ADDRESS
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    DeliveryError,
    OutcomeUnknown,
    PostierError,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)
from postier.schemas.receipt import Receipt

_MAIL_ITEM, _TO, _BCC = 0, 1, 3  # OlItemType.olMailItem, OlMailRecipientType.olTo and olBCC

Address = Annotated[str, StringConstraints(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$")]


class OutlookOptions(DriverOptions):
    """Which of Outlook's accounts sends, and how long Outlook is waited for (`timeout_ms`, milliseconds)."""

    profile_account: Address | None = None
    on_behalf: bool = False
    save_copy: bool = True
    timeout_ms: int = Field(default=30_000, ge=100, le=600_000)


class OutlookDriver(Driver[OutlookOptions]):
    """Sends through Outlook, one mail at a time: it has one window and one thread. Safe for threads.

    Raises ConfigurationError anywhere but on Windows, and without pywin32. `com` is the door to COM, Windows' own
    unless another is given.
    """

    Options = OutlookOptions

    @classmethod
    def default_limits(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG003
        """A person's desktop is no relay."""
        return {"max_connections": 1, "per_minute": 30}

    def __init__(
        self, options: OutlookOptions, *, sender: Mailbox, ports: Ports | None = None, com: Com | None = None
    ) -> None:
        super().__init__(options, sender=sender, ports=ports)
        self._com: Com = com or WindowsCom()
        self._turn = threading.Lock()
        self._last: threading.Thread | None = None

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        if not email.recipients or not all(map(SAFE_ADDRESS.fullmatch, email.recipients)):
            raise RecipientRefused("a recipient is not an address", stage="rcpt")
        self._do(lambda application, work: self._send(application, work, email))
        return Receipt(status="queued", text="in Outlook's Outbox")

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Outlook, its account, and, when asked for, a test mail."""
        steps: list[tuple[Literal["connect", "sender", "test_mail"], Callable[[], Mapping[str, str]]]] = [
            ("connect", lambda: {"version": str(self._do(lambda application, _: application.Version))[:40]}),
            (
                "sender",
                lambda: {"account": str(self._do(lambda application, _: self._account(application).SmtpAddress))},
            ),
        ]
        if test_recipient is not None:
            trial = trial_mail(self.sender, test_recipient)
            steps.append(("test_mail", lambda: {"status": self.send(trial).status}))
        for name, work in steps:
            began = time.monotonic()
            try:
                details = dict(work())
            except DeliveryError as error:
                yield CheckStep(name, False, time.monotonic() - began, str(error), _ADVICE[name])
                return
            yield CheckStep(name, True, time.monotonic() - began, details=details)

    def _do(self, do: Callable[[Any, Work], Any]) -> Any:
        """Have Outlook do something, in a thread of its own and in time. Raises DeliveryError."""
        until = time.monotonic() + self.options.timeout_ms / 1000
        if not self._turn.acquire(timeout=self.options.timeout_ms / 1000):
            raise TemporaryError("Outlook is still busy with the mail before", stage="connect")
        work = Work(self._com, do)
        try:
            if self._last is not None and self._last.is_alive():
                raise TemporaryError("Outlook hangs: is a window open that waits for somebody?", stage="connect")
            self._last = work.thread
            return work.wait(max(0.0, until - time.monotonic()))
        except Late as late:
            if late.sending:
                raise _unknown("Outlook was told to send and did not come back") from None
            raise TemporaryError("Outlook hangs: is a window open that waits for somebody?", stage="connect") from None
        except self._com.error as error:
            raise com_failure(error, sending=work.sending) from None
        except PostierError:
            raise
        except Exception as error:  # pywin32's word for what this Outlook does not have is AttributeError
            if work.sending:
                raise _unknown(f"Outlook was told to send, then: {type(error).__name__}") from None
            raise SenderRefused(
                f"this Outlook cannot be automated (is it the new Outlook?): {type(error).__name__}", stage="connect"
            ) from None
        finally:
            self._turn.release()

    def _send(self, application: Any, work: Work, email: Email) -> None:
        account = self._account(application)
        item = application.CreateItem(_MAIL_ITEM)
        self._com.put_reference(item, "SendUsingAccount", account)
        if self.options.on_behalf:
            item.SentOnBehalfOfName = self.sender.address
        item.Subject = email.subject
        if email.html:
            item.HTMLBody = email.html
        else:
            item.Body = email.text
        shown = {mailbox.address.lower() for mailbox in email.to}
        for address in email.recipients:
            item.Recipients.Add(address).Type = _TO if address.lower() in shown else _BCC
        if email.reply_to is not None:
            item.ReplyRecipients.Add(email.reply_to.address)
        if not item.Recipients.ResolveAll():
            raise RecipientRefused("Outlook cannot make out an address", stage="rcpt")
        item.DeleteAfterSubmit = not self.options.save_copy
        work.send(item)

    def _account(self, application: Any) -> Any:
        wanted = (self.options.profile_account or self.sender.address).lower()
        for account in application.Session.Accounts:
            if str(account.SmtpAddress).lower() == wanted:
                return account
        raise SenderRefused("Outlook's profile has no account of this address", stage="mail")


def _unknown(words: str) -> OutcomeUnknown:
    return OutcomeUnknown(words, stage="body", evidence={"stage": "send"})


_ADVICE = {
    "connect": "Open Outlook (the classic one) in the session of whoever runs the workers, and answer its windows.",
    "sender": "Add the account to Outlook's profile, or set profile_account to one that is there.",
    "test_mail": "Look at what Outlook shows: its Trust Center must allow programmatic access, the mailbox the sender.",
}
