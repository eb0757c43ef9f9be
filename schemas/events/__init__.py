"""The events producers publish: one module per kind."""

from postier.schemas.events.account_validation import AccountValidation
from postier.schemas.events.base import Event, Recipient
from postier.schemas.events.contact_form import ContactForm, Visitor
from postier.schemas.events.data_change import Change, DataChange, Entity
from postier.schemas.events.registry import KINDS, kind_named
from postier.schemas.events.reset_link import ResetLink
from postier.schemas.events.sender_confirmation import SenderConfirmation

__all__ = [
    "KINDS",
    "AccountValidation",
    "Change",
    "ContactForm",
    "DataChange",
    "Entity",
    "Event",
    "Recipient",
    "ResetLink",
    "SenderConfirmation",
    "Visitor",
    "kind_named",
]
