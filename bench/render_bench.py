"""Microseconds per rendered mail, for each kind and locale: `python bench/render_bench.py [SECONDS]`.

All in: three templates, headers, MIME bytes. The best of many short rounds, so that busy neighbours disturb it least.
"""

from __future__ import annotations

import sys
import time

from postier.schemas.account import Account, Brand, Sender
from postier.schemas.email import Email
from postier.schemas.events import KINDS, Event, Recipient
from postier.workers.render import Renderer

ROUNDS = 25


def main(seconds: float) -> None:
    account = Account(
        name="school",
        driver="smtp",
        sender=Sender(address="post@school.example", name="Riverside School"),
        brand=Brand(name="Riverside School", logo_url="https://school.example/logo.png", colour="#1f6f54"),
    )
    renderer = Renderer(account)
    for kind, event_type in KINDS.items():
        for locale in ("en", "fr"):
            event = event_type.example()
            recipient = Recipient(address="ada@example.org", name="Ada Byron", locale=locale)
            best = min(_round(renderer, event, kind, recipient, seconds / ROUNDS) for _ in range(ROUNDS))
            size = len(_mail(renderer, event, kind, recipient, 0).mime)
            print(f"{kind:20} {locale}  {best * 1e6:7.1f} µs/mail  {size / 1024:5.1f} kB")


def _mail(renderer: Renderer, event: Event, kind: str, recipient: Recipient, number: int) -> Email:
    ids = f"d{number}", f"<d{number}@school.example>"
    return renderer.render(
        event, kind=kind, tenant="riverside", recipient=recipient, delivery_id=ids[0], message_id=ids[1]
    )


def _round(renderer: Renderer, event: Event, kind: str, recipient: Recipient, seconds: float) -> float:
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(50):
            _mail(renderer, event, kind, recipient, count)
            count += 1
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
