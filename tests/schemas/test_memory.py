"""What passes through once is not kept: a parser's cache of strings would fill with people's addresses and links."""

from __future__ import annotations

from postier.client import ResetLink
from postier.ledger.payload import Payload, open_payload, seal_payload
from postier.settings.seal import Sealer


def test_a_parsed_event_leaves_no_link_in_a_cache() -> None:
    raw = ResetLink.example().model_dump_json()

    first, second = (ResetLink.model_validate_json(raw) for _ in range(2))

    assert first.action_url == second.action_url
    assert first.action_url is not second.action_url


def test_an_opened_payload_leaves_no_address_in_a_cache(seal_key: str) -> None:
    event = ResetLink.example()
    sealer = Sealer.from_text(seal_key)
    sealed = seal_payload(sealer, "d1", Payload(b"{}", event.recipient, None))

    first, second = (open_payload(sealer, "d1", sealed) for _ in range(2))

    assert first.recipient.address == second.recipient.address
    assert first.recipient.address is not second.recipient.address
