"""EWS requests built with exchangelib's types, and what an answer says. Needs the extra `postier[exchange]`.

CreateItem with MimeContent and MessageDisposition: learn.microsoft.com/exchange/client-developer/
web-service-reference/createitem-operation-email-message. Recipients that the message shows are read from its To and Cc;
those it does not show are BccRecipients, which Exchange keeps from everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from exchangelib.account import Identity
from exchangelib.credentials import DELEGATE, IMPERSONATION
from exchangelib.items import SEND_AND_SAVE_COPY, SEND_ONLY, SEND_TO_NONE, Message
from exchangelib.properties import DistinguishedFolderId, Mailbox
from exchangelib.services import CreateItem, GetFolder, ResolveNames
from exchangelib.util import ENS, MNS, TNS
from exchangelib.version import EXCHANGE_2010_SP2, EXCHANGE_2013, EXCHANGE_2013_SP1, EXCHANGE_2016, Version

from postier.drivers.exchange_options import ExchangeOptions
from postier.drivers.mime_recipients import without_strangers
from postier.schemas.email import Email

_BUILDS = {
    "Exchange2010_SP2": EXCHANGE_2010_SP2,
    "Exchange2013": EXCHANGE_2013,
    "Exchange2013_SP1": EXCHANGE_2013_SP1,
    "Exchange2016": EXCHANGE_2016,
}
_SCOPE = "ActiveDirectory"  # not the login's own contacts
_TEXT_TAGS = (f"{{{MNS}}}MessageText", f"{{{ENS}}}Message", "faultstring")


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says. `code` is EWS's ResponseCode, empty when there is none; `done` that the operation was."""

    code: str = ""
    text: str = field(default="", repr=False)
    done: bool = False
    back_off: float | None = None  # seconds


class Requests:
    """Writes the requests of one account. Holds no login, no connection and nothing of exchangelib's caches."""

    def __init__(self, options: ExchangeOptions) -> None:
        self._options = options
        self._version = Version(_BUILDS[options.version], api_version=options.version)
        impersonates = options.access == "impersonation"
        # The part of exchangelib's Account that its services read; the real one opens connections and keeps them.
        protocol = SimpleNamespace(version=self._version, credentials=None)
        self._account = SimpleNamespace(
            access_type=IMPERSONATION if impersonates else DELEGATE,
            identity=Identity(primary_smtp_address=options.mailbox),
            primary_smtp_address=options.mailbox,
            default_timezone=None,
            version=self._version,
            protocol=protocol,
        )

    def create(self, email: Email) -> bytes:
        """Send this mail, and keep a copy of it if the options say so."""
        head, body, hidden = without_strangers(email)
        message = Message(
            mime_content=head + b"\r\n" + body,
            message_id=email.message_id,
            bcc_recipients=[Mailbox(email_address=address) for address in hidden] or None,
        )
        service = CreateItem(account=self._account)
        payload = service.get_payload(
            items=[message],
            folder=self._sent_items() if self._options.save_copy else None,
            message_disposition=SEND_AND_SAVE_COPY if self._options.save_copy else SEND_ONLY,
            send_meeting_invitations=SEND_TO_NONE,
        )
        return self._wrapped(service, payload)

    def look(self) -> bytes:
        """Ask after the mailbox, as far as a mail needs it.

        Where it is acted as or takes a copy, for its Sent Items. Else the directory has to know it and the login a
        mailbox of its own, for the mail starts there; whether the login may send as it, a test mail tells.
        """
        if self._options.access == "delegate" and not self._options.save_copy:
            names = ResolveNames(protocol=self._account.protocol)
            return self._wrapped(names, names.get_payload([f"smtp:{self._options.mailbox}"], None, False, _SCOPE, None))
        service = GetFolder(account=self._account)
        payload = service.get_payload(folders=[self._sent_items()], additional_fields=[], shape="IdOnly")
        return self._wrapped(service, payload)

    def _sent_items(self) -> Any:
        return DistinguishedFolderId(id="sentitems", mailbox=Mailbox(email_address=self._options.mailbox))

    def _wrapped(self, service: Any, payload: Any) -> bytes:
        return bytes(service.wrap(payload, api_version=self._version.api_version))


def told(body: bytes) -> Told:
    """Read an answer: a response message or a SOAP fault. Never raises; what cannot be read says nothing."""
    try:
        root = fromstring(body)
    except (ParseError, DefusedXmlException, ValueError):
        return Told()
    message = next((node for node in root.iter() if str(node.tag).endswith("ResponseMessage")), None)
    code = _text(root, (f"{{{MNS}}}ResponseCode", f"{{{ENS}}}ResponseCode"))
    values = {str(node.get("Name")): str(node.text or "") for node in root.iter(f"{{{TNS}}}Value")}
    if code == "ErrorInternalServerError":  # what it is about may stand inside
        code = values.get("InnerErrorResponseCode", "").strip() or code
    done = message is not None and message.get("ResponseClass") == "Success" and code == "NoError"
    return Told(code, _text(root, _TEXT_TAGS), done, _seconds(values))


def _text(root: Any, tags: tuple[str, ...]) -> str:
    for tag in tags:
        for node in root.iter(tag):
            if node.text and node.text.strip():
                return str(node.text).strip()
    return ""


def _seconds(values: Mapping[str, str]) -> float | None:
    wait = values.get("BackOffMilliseconds", "").strip()
    return int(wait) / 1000 if wait.isascii() and wait.isdigit() and len(wait) < 10 else None
