"""An Exchange server's EWS on a local port, over TLS: IIS's logins, SOAP answers as Microsoft documents them."""

from __future__ import annotations

import base64
import functools
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import trustme

from postier.drivers.base import Ports
from postier.drivers.exchange import ExchangeDriver
from tests.conftest import PATIENCE
from tests.drivers.exchange import ntlm
from tests.drivers.http.fake import SECRET, SENDER, Act, FakeApi, Handler, Reply, Request

MAILBOX = "office@example.org"
USER = r"CONTOSO\svc-mail"
NT_HASH = bytes.fromhex("a315e0127f31aab03069928b3c66945b")  # of SECRET, by `openssl dgst -md4` over its UTF-16LE
S = "{http://schemas.xmlsoap.org/soap/envelope/}"
M = "{http://schemas.microsoft.com/exchange/services/2006/messages}"
T = "{http://schemas.microsoft.com/exchange/services/2006/types}"

_ENVELOPE = (
    '<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header>'
    '<h:ServerVersionInfo MajorVersion="15" MinorVersion="2" MajorBuildNumber="1544" MinorBuildNumber="9" '
    'Version="V2017_07_11" xmlns:h="http://schemas.microsoft.com/exchange/services/2006/types"/></s:Header>'
    "<s:Body>%s</s:Body></s:Envelope>"
)
_RESPONSE = (
    '<m:{name}Response xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages" '
    'xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"><m:ResponseMessages>'
    '<m:{name}ResponseMessage ResponseClass="{kind}">{inside}</m:{name}ResponseMessage></m:ResponseMessages>'
    "</m:{name}Response>"
)
_FAULT = (
    '<s:Fault><faultcode xmlns:a="http://schemas.microsoft.com/exchange/services/2006/types">a:{code}</faultcode>'
    '<faultstring xml:lang="en-US">{text}</faultstring><detail><e:ResponseCode xmlns:e="http://schemas.microsoft.com/'
    'exchange/services/2006/errors">{code}</e:ResponseCode><e:Message xmlns:e="http://schemas.microsoft.com/exchange/'
    'services/2006/errors">{text}</e:Message>{more}</detail></s:Fault>'
)
_BACK_OFF = (
    '<t:MessageXml xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types">'
    '<t:Value Name="BackOffMilliseconds">{}</t:Value></t:MessageXml>'
)
_XML = {"Content-Type": "text/xml; charset=utf-8", "request-id": "7f5c-0001"}

_RESOLUTION = (
    '<m:ResolutionSet TotalItemsInView="1" IncludesLastItemInRange="true"><t:Resolution><t:Mailbox><t:Name>Office'
    "</t:Name><t:EmailAddress>office@example.org</t:EmailAddress><t:RoutingType>SMTP</t:RoutingType></t:Mailbox>"
    "</t:Resolution></m:ResolutionSet>"
)
_FOLDER = '<m:Folders><t:Folder><t:FolderId Id="AQ==" ChangeKey="AQ=="/></t:Folder></m:Folders>'


def _done(name: str, found: str) -> Reply:
    inside = f"<m:ResponseCode>NoError</m:ResponseCode>{found}"
    return Reply(200, (_ENVELOPE % _RESPONSE.format(name=name, kind="Success", inside=inside)).encode(), _XML)


TAKEN = _done("CreateItem", "<m:Items/>")
FOUND = _done("GetFolder", _FOLDER)
RESOLVED = _done("ResolveNames", _RESOLUTION)


def usual(request: Request) -> Reply:
    """A mailbox that is there and takes everything."""
    operations = {b"<m:CreateItem": TAKEN, b"<m:GetFolder": FOUND, b"<m:ResolveNames": RESOLVED}
    (answer,) = (answer for mark, answer in operations.items() if mark in request.body)
    return answer


def refusal(
    code: str, text: str = "Refused.", *, kind: str = "Error", name: str = "CreateItem", inner: str = ""
) -> Reply:
    """A response message that says no, with status 200 as EWS sends it; `inner` is the more specific code in it."""
    inside = f"<m:MessageText>{text}</m:MessageText><m:ResponseCode>{code}</m:ResponseCode>"
    inside += "<m:DescriptiveLinkKey>0</m:DescriptiveLinkKey>"
    if inner:
        inside += f'<m:MessageXml><t:Value Name="InnerErrorResponseCode">{inner}</t:Value></m:MessageXml>'
    inside += {"CreateItem": "<m:Items/>", "GetFolder": "<m:Folders/>"}.get(name, "")
    return Reply(200, (_ENVELOPE % _RESPONSE.format(name=name, kind=kind, inside=inside)).encode(), _XML)


def fault(code: str, text: str = "Refused.", *, back_off: int | None = None) -> Reply:
    """A SOAP fault, with status 500; `back_off` in milliseconds."""
    more = "" if back_off is None else _BACK_OFF.format(back_off)
    return Reply(500, (_ENVELOPE % _FAULT.format(code=code, text=text, more=more)).encode(), _XML)


@functools.cache
def identity() -> tuple[str, ssl.SSLContext, bytes]:
    """An authority's file, a server's TLS for localhost, and its certificate."""
    ca = trustme.CA()
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    path = Path(folder.name) / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    issued = ca.issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    return str(path), context, ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


_kept: list[Any] = []


class Exchange(FakeApi):
    """Asks for the login as IIS does, then plays `answer`. `asked` are the requests that were logged in.

    `logged_out` makes every connection forget its login before the next request.
    """

    def __init__(
        self,
        answer: Callable[[Request], Reply | Act] = usual,
        *,
        offers: tuple[str, ...] = ("Negotiate", "NTLM", 'Basic realm="mail"'),
        nt_hash: bytes = NT_HASH,
        before_tls: bool = False,
    ) -> None:
        self.answer = answer
        self.offers = offers
        self.nt_hash = nt_hash
        self.asked: list[Request] = []
        self.logins = 0
        self.logged_out = False
        self.at_opening: Reply | Act | None = None  # in place of the challenge
        super().__init__(self._receive, context=identity()[1], before_tls=before_tls)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "url": f"{self.url}/EWS/Exchange.asmx",
            "username": USER,
            "password": SECRET,
            "mailbox": MAILBOX,
            "ca_file": identity()[0],
            "allow_hosts": ("localhost",),
            "timeout_ms": int(PATIENCE * 1_000),
            "final_timeout": PATIENCE,
        }

    def mails(self) -> list[Request]:
        return [request for request in self.asked if b"m:CreateItem" in request.body]

    def _receive(self, request: Request) -> Act:
        return self._serve

    def _serve(self, handler: Handler, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if self.logged_out:
            self.logged_out = False
            handler.__dict__["entered"] = False
        if scheme == "NTLM" and "NTLM" in self.offers:
            self._ntlm(handler, request, base64.b64decode(token))
        elif handler.__dict__.get("entered") or self._knows(scheme, token):
            self._play(handler, request)
        else:
            self._turn_away(handler)

    def _ntlm(self, handler: Handler, request: Request, token: bytes) -> None:
        if ntlm.kind(token) == 1:
            assert request.body == b""
            if self.at_opening is not None:
                self._do(handler, request, self.at_opening)
                return
            self._turn_away(handler, ("NTLM " + base64.b64encode(ntlm.challenge()).decode(),))
            return
        self.logins += 1
        if ntlm.proves(token, self.nt_hash, "svc-mail", "CONTOSO", identity()[2]):
            handler.__dict__["entered"] = True
            self._play(handler, request)
        else:
            self._turn_away(handler)

    def _knows(self, scheme: str, token: str) -> bool:
        offered = any(offer.startswith("Basic") for offer in self.offers) and self.nt_hash == NT_HASH
        return offered and scheme == "Basic" and base64.b64decode(token).decode() == f"{USER}:{SECRET}"

    def _turn_away(self, handler: Handler, offers: tuple[str, ...] | None = None) -> None:
        page = b"<html>401 - Unauthorized: Access is denied due to invalid credentials.</html>"
        handler.send_response(401)
        for offer in offers or self.offers:
            handler.send_header("WWW-Authenticate", offer)
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page)

    def _play(self, handler: Handler, request: Request) -> None:
        self.asked.append(request)
        self._do(handler, request, self.answer(request))

    def _do(self, handler: Handler, request: Request, act: Reply | Act) -> None:
        if isinstance(act, Reply):
            handler.reply(act)
        else:
            act(handler, request)


def always(reply: Reply | Act) -> Callable[[Request], Reply | Act]:
    """The same to every mail; the mailbox is there."""
    return lambda request: reply if b"<m:CreateItem" in request.body else usual(request)


def made(server: Exchange, *, ports: Ports | None = None, **options: Any) -> ExchangeDriver:
    given = ExchangeDriver.Options.model_validate(server.options | options)
    return ExchangeDriver(given, sender=SENDER, ports=ports)


def parts(request: Request) -> ElementTree.Element:
    return ElementTree.fromstring(request.body)


def mime(request: Request) -> bytes:
    """The message as it stands in the request."""
    return base64.b64decode(parts(request).findtext(f".//{T}MimeContent") or "", validate=True)


def hidden(request: Request) -> list[str]:
    return [node.text or "" for node in parts(request).findall(f".//{T}BccRecipients/{T}Mailbox/{T}EmailAddress")]
