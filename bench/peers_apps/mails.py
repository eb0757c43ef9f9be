"""What the Python peers share: one template, the standard library's email package, one SMTP connection a thread; and
how their publishers are told what to do.
"""

from __future__ import annotations

import itertools
import json
import os
import smtplib
import sys
import threading
import time
from collections.abc import Callable
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


def publish(one: Callable[[int], object], many: Callable[[list[int]], object]) -> None:
    """Obey lines on standard input: `burst COUNT` publishes at once, `pace COUNT` one at a time, 100 a second.

    Answers each with a line: [[Message-ID, monotonic seconds before the call, seconds it took], ...], [] for a burst.
    """
    numbers = itertools.count()
    for line in sys.stdin:
        verb, count = line.split()
        found = list(itertools.islice(numbers, int(count)))
        timed = []
        for number in found if verb == "pace" else ():
            began = time.monotonic()
            one(number)
            took = time.monotonic() - began
            timed.append((f"<{number}.peer@example.org>", began, took))
            time.sleep(max(0.0, 0.01 - took))
        for start in range(0, len(found) if verb == "burst" else 0, 100):
            many(found[start : start + 100])
        sys.stdout.write(json.dumps(timed) + "\n")
        sys.stdout.flush()
