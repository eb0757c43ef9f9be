"""What applications import: publish an event, ask what became of it."""

from postier.client.postier import Postier
from postier.ledger.publish import Accepted
from postier.schemas.errors import (
    ConfigurationError,
    IdempotencyConflict,
    InvalidEvent,
    LedgerUnavailable,
    PostierError,
)
from postier.schemas.events import (
    AccountValidation,
    Change,
    ContactForm,
    DataChange,
    Entity,
    Event,
    Recipient,
    ResetLink,
    Visitor,
)

__all__ = [
    "Accepted",
    "AccountValidation",
    "Change",
    "ConfigurationError",
    "ContactForm",
    "DataChange",
    "Entity",
    "Event",
    "IdempotencyConflict",
    "InvalidEvent",
    "LedgerUnavailable",
    "Postier",
    "PostierError",
    "Recipient",
    "ResetLink",
    "Visitor",
]
