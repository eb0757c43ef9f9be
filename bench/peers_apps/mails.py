"""What the Python peers send: one template, the standard library's email package, one SMTP connection a thread."""

from __future__ import annotations

import os
import smtplib
import threading
from email.message import EmailMessage

HTML = "<p>Hello {name},</p>" + "<p>Somebody asked for a new password. </p>\n" * 280 + '<a href="{url}">{url}</a>'
_local = threading.local()


def send(number: int) -> None:
    """Render and send mail `number`."""
    url = f"https://app.example.org/reset/{number}"
    mail = EmailMessage()
    mail["From"] = "Main <main@example.org>"
    mail["To"] = f"user{number}@example.com"
    mail["Subject"] = "Reset your password"
    mail["Message-ID"] = f"<{number}.peer@example.org>"
    mail.set_content(f"Hello Ana Lima, {url}\n")
    mail.add_alternative(HTML.format(name="Ana Lima", url=url), subtype="html")
    if getattr(_local, "line", None) is None:
        _local.line = smtplib.SMTP("127.0.0.1", int(os.environ["SMTP_PORT"]))
    _local.line.send_message(mail)
