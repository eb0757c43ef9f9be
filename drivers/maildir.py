"""The `file` driver: writes each mail into a Maildir, which every mail program can open. For development.

A complete sample account:

    [accounts.development]
    driver = "file"
    sender = { address = "no-reply@example.org", name = "Example" }
    [accounts.development.options]
    folder = "/var/tmp/postier-mail"   # required, absolute; made when missing (its parent must exist)

A file is the message as it would go over SMTP, line ends included, with the envelope on top: Return-Path, and one
Delivered-To per recipient. It is written under `tmp/` and then renamed into `new/`, so that a reader never sees half a
mail (https://cr.yp.to/proto/maildir.html).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pydantic import field_validator

from postier.drivers.base import CheckStep, Driver, DriverOptions
from postier.schemas.email import Email
from postier.schemas.errors import DeliveryError, EmailRefused, SenderRefused, TemporaryError
from postier.schemas.receipt import Receipt

_FOLDERS = ("tmp", "new", "cur")


class MaildirOptions(DriverOptions):
    """The folder."""

    folder: Path

    @field_validator("folder")
    @classmethod
    def _folder_is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path: workers and commands start in different places")
        return value


class MaildirDriver(Driver[MaildirOptions]):
    """Writes mails as files; the receipt's id is the file's name."""

    Options = MaildirOptions
    announces_handover = True

    def send(self, email: Email) -> Receipt:
        """Write one mail. It is on disk when the receipt comes back."""
        envelope = _envelope(email)
        name = f"{time.time_ns()}.{uuid4().hex}.postier"
        folder = self.options.folder
        draft = folder / "tmp" / name
        try:
            self._prepare()
            with draft.open("xb") as file:
                file.write(envelope + email.mime)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise _refused(error) from None
        try:
            email.handing_over()
        except BaseException:
            draft.unlink()
            raise
        try:
            draft.rename(folder / "new" / name)
        except OSError as error:
            raise _refused(error) from None
        return Receipt(provider_id=name, text=f"written to {folder / 'new'}")

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Make the folder, and write a file into it that is removed at once."""
        began = time.monotonic()
        probe = self.options.folder / "tmp" / f"check.{uuid4().hex}"
        try:
            self._prepare()
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            advice = "Make the parent folder, and let the user that runs the workers write there."
            yield CheckStep("options", False, time.monotonic() - began, str(_refused(error)), advice)
            return
        yield CheckStep("options", True, time.monotonic() - began, f"mails are written to {self.options.folder}")

    def _prepare(self) -> None:
        self.options.folder.mkdir(mode=0o700, exist_ok=True)
        for name in _FOLDERS:
            (self.options.folder / name).mkdir(mode=0o700, exist_ok=True)


def _envelope(email: Email) -> bytes:
    lines = [f"Return-Path: <{email.envelope_from}>", *(f"Delivered-To: {address}" for address in email.recipients)]
    if any(character in line for line in lines for character in "\r\n"):
        raise EmailRefused("an address holds a line end", stage="data")
    return "".join(f"{line}\r\n" for line in lines).encode()


def _refused(error: OSError) -> DeliveryError:
    words = f"the folder cannot be written: {(error.strerror or 'error').lower()}"
    if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError | FileExistsError):
        return SenderRefused(words, stage="data")
    return TemporaryError(words, stage="data")
