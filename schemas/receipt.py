"""A provider's proof of acceptance."""

from __future__ import annotations

from typing import Literal

from postier.schemas.errors import DeliveryError
from postier.schemas.values import value


@value(frozen=True, slots=True)
class Refusal:
    """One recipient of an otherwise accepted mail that was not taken, and why (PermanentError, TemporaryError)."""

    recipient: str
    error: DeliveryError


@value(frozen=True, slots=True)
class Receipt:
    """The provider took the mail. `provider_id` is its own id; `text` its words, `code`/`enhanced` as in DeliveryError.

    `status` is `queued` when the provider only promises to try. `refused` lists the recipients that were left out.
    """

    provider_id: str | None = None
    status: Literal["sent", "queued"] = "sent"
    code: int | None = None
    enhanced: str | None = None
    text: str = ""
    refused: tuple[Refusal, ...] = ()
