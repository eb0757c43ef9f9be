"""What a delivery keeps of its event, sealed: the event's fields, its own recipient, the reply address."""

from __future__ import annotations

import json
from dataclasses import dataclass

from postier.schemas.events import Recipient
from postier.settings.seal import Sealer, Unsealable

__all__ = ["Payload", "Unsealable", "open_payload", "seal_payload"]


@dataclass(frozen=True, slots=True)
class Payload:
    """The opened payload; `data` is the event's JSON."""

    data: bytes
    recipient: Recipient
    reply_to: str | None


def seal_payload(sealer: Sealer, delivery_id: str, payload: Payload) -> bytes:
    """Seal for this delivery only."""
    head = json.dumps([payload.recipient.address, payload.recipient.name, payload.recipient.locale, payload.reply_to])
    return sealer.seal(head.encode() + b"\n" + payload.data, delivery_id.encode())


def open_payload(sealer: Sealer, delivery_id: str, sealed: bytes) -> Payload:
    """Open again. Raises Unsealable, or ValueError when the content is not ours."""
    head, _, data = sealer.open(sealed, delivery_id.encode()).partition(b"\n")
    address, name, locale, reply_to = json.loads(head)
    return Payload(data, Recipient.model_construct(address=address, name=name, locale=locale), reply_to)
