"""Outlook on a desktop. Its object model cannot be had outside Windows, so this one driver's counterpart here is a
stand-in: objects with the names, types and failures of Outlook's reference (learn.microsoft.com/office/vba/api/
outlook.mailitem), behind the driver's own door to COM. That the door is shut elsewhere is tested for real."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from postier.drivers.outlook import OutlookDriver, OutlookOptions
from postier.drivers.outlook_com import WindowsCom
from postier.drivers.testing import SENDER, Behaviour, DriverContract, Scene, sample_email
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)
from tests.conftest import PATIENCE
from tests.drivers.kit import wait_for

ELSEWHERE = pytest.mark.skipif(sys.platform == "win32", reason="says what other systems say")


class ComError(Exception):
    """As pywin32's: hresult is signed, excepinfo ends with the code inside."""

    def __init__(self, code: int, inside: int | None = None) -> None:
        super().__init__(code, "words", inside, None)
        self.hresult = code - (1 << 32)
        self.excepinfo = None if inside is None else (0, "Outlook", "secret words", None, 0, inside - (1 << 32))


class Recipients:
    def __init__(self) -> None:
        self.rows: list[SimpleNamespace] = []
        self.resolves = True

    def Add(self, name: str) -> SimpleNamespace:  # noqa: N802
        self.rows.append(SimpleNamespace(Name=name, Type=1))
        return self.rows[-1]

    def ResolveAll(self) -> bool:  # noqa: N802
        return self.resolves


class MailItem:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.Subject = self.Body = self.HTMLBody = self.SentOnBehalfOfName = ""
        self.DeleteAfterSubmit = False
        self.SendUsingAccount: Any = None
        self.Recipients, self.ReplyRecipients = Recipients(), Recipients()
        self.Recipients.resolves = desk.resolves

    def Send(self) -> None:  # noqa: N802
        self.desk.at_send(self)
        self.desk.outbox.append(self)


@dataclass
class Desk:
    """Outlook and COM on one desktop."""

    addresses: tuple[str, ...] = ("someone.else@example.org", SENDER.address)
    resolves: bool = True
    outbox: list[MailItem] = field(default_factory=list)
    entered: list[int] = field(default_factory=list)  # the threads that entered COM
    left: list[int] = field(default_factory=list)
    at_start: Any = lambda: None
    at_create: Any = lambda: None
    at_accounts: Any = lambda: None
    at_send: Any = lambda item: None
    freed: threading.Event = field(default_factory=threading.Event)
    error: type[Exception] = ComError

    @contextmanager
    def outlook(self) -> Iterator[Any]:
        self.entered.append(threading.get_ident())
        try:
            self.at_start()
            yield self
        finally:
            self.left.append(threading.get_ident())

    def put_reference(self, item: Any, name: str, value: Any) -> None:
        setattr(item, name, value)

    Version = "16.0.0.17928"

    @property
    def Session(self) -> SimpleNamespace:  # noqa: N802
        self.at_accounts()
        return SimpleNamespace(Accounts=[SimpleNamespace(SmtpAddress=address) for address in self.addresses])

    def CreateItem(self, kind: int) -> MailItem:  # noqa: N802
        assert kind == 0
        assert threading.get_ident() == self.entered[-1]
        self.at_create()
        return MailItem(self)

    def block(self, *_: object) -> None:
        """A window that waits for somebody."""
        assert self.freed.wait(60)


def raising(code: int, inside: int | None = None) -> Any:
    def fail(*_: object) -> None:
        raise ComError(code, inside)

    return fail


def made(desk: Desk, **options: Any) -> OutlookDriver:
    return OutlookDriver(OutlookOptions.model_validate(options), sender=SENDER, com=desk)


def failure(desk: Desk, email: Email | None = None, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        made(desk, **options).send(email or sample_email())
    return caught.value


class TestContract(DriverContract):
    driver = OutlookDriver
    behaviours = frozenset(  # Outlook takes what it is given and slows down by itself
        {"accepts", "refuses_login", "refuses_recipient", "busy", "silent", "cuts_before_handover",
         "cuts_after_handover"}
    )  # fmt: skip
    wrong_options = (
        ({"profile_account": "office"}, "profile_account"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"on_behalf": "who knows"}, "on_behalf"),
    )

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        desk = Desk()
        match behaviour:
            case "refuses_login":
                desk.at_accounts = raising(0x80020009, 0x80040111)
            case "refuses_recipient":
                desk.resolves = False
            case "busy":
                desk.at_create = raising(0x80010001)
            case "silent":
                desk.at_start = desk.block
            case "cuts_before_handover":
                desk.at_create = raising(0x800706BA)
            case "cuts_after_handover":

                def die(item: MailItem) -> None:
                    desk.outbox.append(item)
                    raise ComError(0x800706BE)

                desk.at_send = die
        self.desk = desk
        try:
            yield Scene(
                {"timeout_ms": 150} if behaviour == "silent" else {},
                taken=lambda: len(desk.outbox),
                attempts=lambda: len(desk.entered),
            )
        finally:
            desk.freed.set()
            wait_for(lambda: len(desk.left) == len(desk.entered))

    def make(self, scene: Scene) -> OutlookDriver:
        options = OutlookOptions.model_validate(dict(scene.options))
        return OutlookDriver(options, sender=SENDER, com=self.desk)


def rows(recipients: Recipients) -> list[tuple[str, int]]:
    return [(row.Name, row.Type) for row in recipients.rows]


def test_a_mail_becomes_an_item_of_the_senders_account() -> None:
    desk = Desk()
    email = replace(sample_email(), reply_to=Mailbox("help@example.org", "Help; evil@example.com"))

    told = made(desk).send(email)

    assert (told.status, told.provider_id) == ("queued", None)
    (item,) = desk.outbox
    assert item.SendUsingAccount.SmtpAddress == SENDER.address
    assert item.SentOnBehalfOfName == ""
    assert (item.Subject, item.HTMLBody, item.Body) == ("Sample 1", "<p>Hello.</p>", "")
    assert rows(item.Recipients) == [("someone@example.com", 1)]
    assert rows(item.ReplyRecipients) == [("help@example.org", 1)]
    assert item.DeleteAfterSubmit is False


def test_recipients_that_are_not_shown_become_bcc_and_nobody_else_is_written_to() -> None:
    desk = Desk()
    packet = replace(sample_email(), recipients=("a@example.com", "b@example.com"), to=(SENDER,))

    made(desk).send(packet)

    assert rows(desk.outbox[0].Recipients) == [("a@example.com", 3), ("b@example.com", 3)]


def test_a_mail_without_html_is_sent_as_text_and_a_copy_is_left_out_when_so_said() -> None:
    desk = Desk()

    made(desk, save_copy=False).send(replace(sample_email(), html=""))

    (item,) = desk.outbox
    assert (item.Body, item.HTMLBody, item.DeleteAfterSubmit) == ("Hello.\r\n", "", True)


def test_another_mailbox_is_written_for_by_the_account_that_was_said() -> None:
    desk = Desk()

    made(desk, profile_account="Someone.Else@example.org", on_behalf=True).send(sample_email())

    (item,) = desk.outbox
    assert item.SendUsingAccount.SmtpAddress == "someone.else@example.org"
    assert item.SentOnBehalfOfName == SENDER.address


def test_every_thread_enters_com_and_leaves_it() -> None:
    desk = Desk()
    driver = made(desk)
    threads = [threading.Thread(target=driver.send, args=(sample_email(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert desk.entered == desk.left
    assert threading.get_ident() not in desk.entered
    assert len(desk.outbox) == 4


CODES: list[tuple[int, type[DeliveryError]]] = [
    (0x80040154, SenderRefused),
    (0x80080005, SenderRefused),
    (0x80070005, SenderRefused),
    (0x80004004, SenderRefused),
    (0x80040113, SenderRefused),
    (0x8004060C, SenderRefused),
    (0x8004011C, SenderRefused),
    (0x80040111, AuthenticationFailed),
    (0x80040118, AuthenticationFailed),
    (0x80040119, AuthenticationFailed),
    (0x80040305, EmailRefused),
    (0x80040607, RecipientRefused),
    (0x80040700, RecipientRefused),
    (0x80010001, TemporaryError),
    (0x8001010A, TemporaryError),
    (0x80040115, TemporaryError),
    (0x8004011D, TemporaryError),
    (0x80004005, TemporaryError),
]


@pytest.mark.parametrize(("code", "kind"), CODES, ids=[f"{row[0]:08X}" for row in CODES])
def test_a_failed_call_blames_what_is_broken_without_outlooks_words(code: int, kind: type[DeliveryError]) -> None:
    for desk in (Desk(at_send=raising(code)), Desk(at_create=raising(0x80020009, code))):
        error = failure(desk)

        assert type(error) is kind
        assert error.text.startswith(f"0x{code:08X}: ")
        assert "secret" not in error.text
        assert len(desk.entered) == 1


@pytest.mark.parametrize("code", [0x800706BA, 0x800706BE, 0x80010108])
def test_an_outlook_that_goes_away_leaves_the_outcome_open_only_once_it_was_told_to_send(code: int) -> None:
    assert type(failure(Desk(at_create=raising(code)))) is TemporaryError
    error = failure(Desk(at_send=raising(code)))
    assert isinstance(error, OutcomeUnknown)
    assert error.evidence


def test_an_account_that_outlook_does_not_have_is_ours_to_mend() -> None:
    assert isinstance(failure(Desk(addresses=("other@example.org",))), SenderRefused)


def test_the_new_outlook_is_told_apart() -> None:
    desk = Desk()
    desk.at_create = lambda: desk.nothing_like_this  # type: ignore[attr-defined]

    assert "new Outlook" in failure(desk).text


def test_a_window_at_send_is_an_unknown_outcome_and_holds_the_next_mail_up(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, shown, wait = Desk(), threading.Event(), threading.Thread.join

    def show(item: MailItem) -> None:
        shown.set()
        desk.block()

    def wait_for_the_window(thread: threading.Thread, seconds: float | None = None) -> None:
        """Nobody's time is over before the window is there."""
        if thread.name == "outlook":
            assert shown.wait(PATIENCE)
        wait(thread, seconds)

    desk.at_send = show
    monkeypatch.setattr(threading.Thread, "join", wait_for_the_window)
    driver = made(desk, timeout_ms=150)
    try:
        with pytest.raises(OutcomeUnknown):
            driver.send(sample_email(1))
        with pytest.raises(TemporaryError, match="window"):
            driver.send(sample_email(2))
        assert len(desk.entered) == 1
    finally:
        desk.freed.set()
    wait_for(lambda: len(desk.left) == 1)
    driver.options = OutlookOptions()  # with all its time
    driver.send(sample_email(3))


def test_a_mail_that_was_given_up_before_it_was_sent_is_never_sent_later() -> None:
    desk = Desk()
    desk.at_create = desk.block
    with pytest.raises(TemporaryError):
        made(desk, timeout_ms=150).send(sample_email())

    desk.freed.set()
    wait_for(lambda: len(desk.left) == 1)

    assert desk.outbox == []


def test_the_check_names_outlook_the_account_and_the_test_mail() -> None:
    desk = Desk()

    good = list(made(desk).check(test_recipient="someone@example.com"))
    bad = list(made(Desk(addresses=())).check())

    assert [(step.name, step.ok) for step in good] == [("connect", True), ("sender", True), ("test_mail", True)]
    assert good[0].details == {"version": "16.0.0.17928"}
    assert len(desk.outbox) == 1
    assert [(step.name, step.ok) for step in bad] == [("connect", True), ("sender", False)]
    assert "profile_account" in bad[-1].advice


@ELSEWHERE
def test_on_another_system_the_driver_says_where_it_exists_and_what_to_use_instead() -> None:
    with pytest.raises(ConfigurationError) as caught:
        OutlookDriver(OutlookOptions(), sender=SENDER)

    assert "Windows only" in str(caught.value)
    assert "'microsoft'" in str(caught.value)
    assert "'exchange'" in str(caught.value)


@ELSEWHERE
def test_on_windows_without_pywin32_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postier.drivers.outlook_com._on_windows", lambda: True)

    with pytest.raises(ConfigurationError, match=r"pip install 'postier\[outlook\]'"):
        WindowsCom()


@ELSEWHERE
def test_checking_an_outlook_account_here_fails_at_its_options_with_the_way_out(tmp_path: Any) -> None:
    """`postier accounts check`, for real."""
    accounts = tmp_path / "accounts.toml"
    accounts.write_text(
        'default_account = "desk"\n[accounts.desk]\ndriver = "outlook"\nsender = { address = "office@example.org" }\n'
    )
    environment = {"PATH": "/usr/bin:/bin", "POSTIER_ACCOUNTS_FILE": str(accounts), "HOME": str(tmp_path)}
    environment |= {"POSTIER_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [sys.executable, "-m", "postier.console", "accounts", "check", "desk"],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL" in done.stdout
    assert "accounts.desk.driver: 'outlook' exists on Windows only" in done.stdout  # no option is at fault
    assert "'exchange' for an Exchange server" in done.stdout
