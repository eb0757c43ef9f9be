"""The drivers that send nothing: memory, file and null."""

from __future__ import annotations

import mailbox
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from postier.drivers.maildir import MaildirDriver
from postier.drivers.memory import Box, MemoryDriver, box
from postier.drivers.null import NullDriver
from postier.drivers.registry import load_driver
from postier.drivers.testing import SENDER, Behaviour, DriverContract, Scene, sample_email
from postier.schemas.errors import OutcomeUnknown, RateLimited, SenderRefused
from postier.schemas.receipt import Receipt
from tests.drivers.kit import mail

ALWAYS: frozenset[Behaviour] = frozenset(("accepts",))


class TestMemory(DriverContract):
    driver = MemoryDriver
    behaviours: ClassVar[frozenset[Behaviour]] = frozenset(("accepts", "throttles", "cuts_after_handover"))
    wrong_options = (({"box": ""}, "box"), ({"keep": 0}, "keep"))

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        kept = box("contract")
        kept.clear()
        asked = [0]
        if behaviour == "throttles":
            kept.fail_with(RateLimited("slow down", stage="data"))
            asked[0] = 1
        if behaviour == "cuts_after_handover":
            kept.fail_with(OutcomeUnknown("no answer", stage="data", evidence={"octets": 1}))
            asked[0] = 1
        yield Scene({"box": "contract"}, lambda: len(kept.mails()), lambda: asked[0])
        kept.clear()


class TestNull(DriverContract):
    driver = NullDriver
    behaviours = ALWAYS

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        yield Scene({}, lambda: 0, lambda: 0)

    # It owns no mail, so there is nothing to count.
    def test_a_taken_mail_gives_a_receipt(self) -> None:
        with self.scene("accepts") as scene:
            result = self._send(scene)
        assert isinstance(result, Receipt)
        assert (result.status, result.text) == ("sent", "dropped")

    def test_each_mail_of_a_conversation_gets_its_result_in_turn(self) -> None:
        with self.scene("accepts") as scene:
            driver = self.make(scene)
            emails = [sample_email(n) for n in range(1, 6)]
            assert [(email, type(result)) for email, result in driver.converse(emails)] == [
                (email, Receipt) for email in emails
            ]


class TestFile(DriverContract):
    driver = MaildirDriver
    behaviours = ALWAYS
    wrong_options = (({"folder": "mail"}, "folder"), ({"folder": None}, "folder"))

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "mail"

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        def taken() -> int:
            with suppress(FileNotFoundError):
                return len(os.listdir(self.folder / "new"))
            return 0

        yield Scene({"folder": str(self.folder)}, taken, taken)


def made(folder: Path) -> MaildirDriver:
    return MaildirDriver(MaildirDriver.Options.model_validate({"folder": str(folder)}), sender=SENDER)


def test_any_mail_program_can_open_the_folder(tmp_path: Path) -> None:
    told = made(tmp_path / "mail").send(mail(1, "a@example.com", "b@example.com"))

    (found,) = mailbox.Maildir(tmp_path / "mail", create=False)
    assert found["Return-Path"] == "<bounces@example.org>"
    assert found.get_all("Delivered-To") == ["a@example.com", "b@example.com"]
    assert found["Message-ID"] == "<1@example.org>"
    assert found.get_payload() == "Hello.\n"
    assert [path.name for path in (tmp_path / "mail" / "new").iterdir()] == [told.provider_id]


def test_a_mail_is_kept_to_the_octet(tmp_path: Path) -> None:
    email = mail(1, body=bytes(range(256)) + b"\r\n.\r\n")
    made(tmp_path / "mail").send(email)

    (path,) = (tmp_path / "mail" / "new").iterdir()
    assert path.read_bytes().endswith(b"Delivered-To: someone@example.com\r\n" + email.mime)


def test_a_mail_that_may_not_leave_leaves_nothing_behind(tmp_path: Path) -> None:
    class LeaseLost(Exception):
        pass

    def refuse() -> None:
        raise LeaseLost

    with pytest.raises(LeaseLost):
        made(tmp_path / "mail").send(mail(handing_over=refuse))

    assert [path for path in (tmp_path / "mail").rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_made_is_the_accounts_fault_and_shows_in_the_check(tmp_path: Path) -> None:
    driver = made(tmp_path / "missing" / "mail")

    with pytest.raises(SenderRefused, match="folder"):
        driver.send(mail())
    (step,) = driver.check()
    assert (step.name, step.ok) == ("options", False)
    assert step.advice


def test_many_threads_write_whole_mails(tmp_path: Path) -> None:
    driver = made(tmp_path / "mail")
    threads = [threading.Thread(target=lambda: [driver.send(mail(n)) for n in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(mailbox.Maildir(tmp_path / "mail", create=False)) == 160
    assert os.listdir(tmp_path / "mail" / "tmp") == []


def test_a_box_keeps_the_newest_mails_only() -> None:
    kept = Box()
    for number in range(5):
        kept.put(mail(number), keep=3)

    assert [email.delivery_id for email in kept.mails()] == ["d2", "d3", "d4"]


def test_accounts_with_one_box_share_it_and_others_do_not() -> None:
    def send(name: str, number: int) -> None:
        options: Any = MemoryDriver.Options.model_validate({"box": name})
        MemoryDriver(options, sender=SENDER).send(mail(number))

    send("shared", 1)
    send("shared", 2)
    send("own", 3)

    assert [email.delivery_id for email in box("shared").mails()] == ["d1", "d2"]
    assert [email.delivery_id for email in box("own").mails()] == ["d3"]
    box("shared").clear()
    box("own").clear()


def test_they_are_found_by_name() -> None:
    assert load_driver("memory") is MemoryDriver
    assert load_driver("file") is MaildirDriver
    assert load_driver("null") is NullDriver


def test_the_null_driver_takes_no_options() -> None:
    with pytest.raises(ValidationError, match="folder"):
        NullDriver.Options.model_validate({"folder": "/tmp"})
