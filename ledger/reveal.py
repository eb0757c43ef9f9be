"""Whole addresses for a person who says who they are; the look is in the audit before anything is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from postier.ledger.audit import Audit
from postier.ledger.payload import Unsealable, open_payload
from postier.ledger.queries import Status
from postier.ledger.store import Store, translated
from postier.settings.seal import Sealer


def revealed(store: Store, found: Sequence[Status], sealer: Sealer, *, who: str) -> list[Status]:
    """The deliveries with whole addresses, where their content is still there and a key opens it."""
    details = {"deliveries": [one.id for one in found[:20]]}
    Audit(store).record(
        who=who, what="recipients.revealed", subject=found[0].id if found else "", count=len(found), details=details
    )
    shown: list[Status] = []
    for at in range(0, len(found), 500):
        page = found[at : at + 500]
        with translated():
            sealed = store.redis.mget([store.key(f"payload:{one.id}") for one in page])
        shown.extend(_open(sealer, one, text) for one, text in zip(page, sealed, strict=True))
    return shown


def _open(sealer: Sealer, status: Status, sealed: bytes | None) -> Status:
    if sealed is None:
        return status
    try:
        return replace(status, recipient=open_payload(sealer, status.id, sealed).recipient.address)
    except (Unsealable, ValueError):
        return status
