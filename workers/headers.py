"""Which headers a kind carries besides From, To, Subject, Date and Message-ID. Names never come from an event."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from postier.schemas.errors import RenderError
from postier.workers.mime import url_value

Headers = tuple[tuple[str, str], ...]

# RFC 3834 section 5; https://learn.microsoft.com/en-us/openspecs/exchange_server_protocols/ms-oxcmail
_BY_A_MACHINE: Headers = (("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All"))
# A person wrote it: a help desk may acknowledge it, out-of-office notes may not come back.
_BY_A_PERSON: Headers = (("X-Auto-Response-Suppress", "OOF"),)

# Google wants 5 to 15 characters, always the same: https://support.google.com/mail/answer/6254652
_FEEDBACK_INSTANCE = re.compile(r"[A-Za-z0-9_-]{5,15}\Z")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\Z")


def fixed_headers(kind: str) -> Headers:
    """The headers that every mail of a kind carries with the same value."""
    return _BY_A_PERSON if kind == "contact_form" else _BY_A_MACHINE


def feedback_instance(instance: str) -> str:
    """`instance` unchanged; RenderError when it cannot be the last part of a Feedback-ID."""
    if not _FEEDBACK_INSTANCE.match(instance):
        raise RenderError("Feedback-ID: the instance name has 5 to 15 letters, digits, - or _")
    return instance


def list_headers(kind: str, event: Any, *, tenant: str, domain: str) -> Headers:
    """RFC 2919's List-Id for mail of a subscription, and RFC 8058's one-click headers when the event has the link."""
    if kind != "data_change":
        return ()
    list_id = f"<{_label(event.subscription_id)}.{_label(tenant)}.{domain}>"
    if event.unsubscribe_url is None:
        return (("List-Id", list_id),)
    return (
        ("List-Id", list_id),
        ("List-Unsubscribe", url_value("List-Unsubscribe", event.unsubscribe_url)),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    )


def _label(name: str) -> str:
    """One label of a List-Id; names that are no label get one of their own, always the same."""
    if _LABEL.match(name):
        return name.lower()
    return "x-" + hashlib.sha256(name.encode()).hexdigest()[:32]
