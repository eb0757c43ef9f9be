"""What a delivery keeps of its event, sealed: the event's fields, its own recipient, the reply address."""

from __future__ import annotations

from pydantic_core import from_json, to_json

from postier.schemas.events import Recipient
from postier.schemas.values import value
from postier.settings.seal import Sealer, Unsealable

__all__ = ["Payload", "Reader", "Unsealable", "open_payload", "seal_payload"]


@value(frozen=True, slots=True)
class Reader:
    """A recipient as it passed the edge: made in a moment, not checked again."""

    address: str
    name: str = ""
    locale: str | None = None


@value(frozen=True, slots=True)
class Payload:
    """The payload; `data` is the event's JSON."""

    data: bytes
    recipient: Recipient | Reader
    reply_to: str | None


def seal_payload(sealer: Sealer, delivery_id: str, payload: Payload) -> bytes:
    """Seal for this delivery only."""
    head = to_json([payload.recipient.address, payload.recipient.name, payload.recipient.locale, payload.reply_to])
    return sealer.seal(head + b"\n" + payload.data, delivery_id.encode())


def open_payload(sealer: Sealer, delivery_id: str, sealed: bytes) -> Payload:
    """Open again. Raises Unsealable, or ValueError when the content is not ours."""
    head, _, data = sealer.open(sealed, delivery_id.encode()).partition(b"\n")
    address, name, locale, reply_to = from_json(head, cache_strings="keys")
    return Payload(data, Reader(address, name, locale), reply_to)
