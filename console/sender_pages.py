"""The page behind a confirmation link: it shows what is asked, and only its button (a POST) says yes.

Mail scanners open links, so looking changes nothing. One request a connection, few and small ones, ten seconds each;
nothing is logged, since addresses of pages carry tokens. Put a proxy that speaks TLS in front.
"""

from __future__ import annotations

import base64
import hashlib
import html
from urllib.parse import parse_qs, urlsplit

from postier.console.web_server import SmallHandler, SmallServer
from postier.ledger.senders import BrandSender, Senders
from postier.schemas.errors import LedgerUnavailable

PATH = "/senders/confirm"
_LONGEST_FORM = 1000

_STYLE = (
    "body{font:17px/1.5 system-ui,sans-serif;max-width:34em;margin:12vh auto;padding:0 1.2em;color:#1b1f23;"
    "background:#fff}button{font:inherit;padding:.7em 1.4em;border:0;border-radius:6px;background:#1f4e79;color:#fff}"
    "@media(prefers-color-scheme:dark){body{color:#e8eaed;background:#1f2429}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}
_WORDS = {
    "en": {
        "ask": "May mail be sent in the name of {address}?",
        "why": "{tenant} asks to send mail from this address{name}. Confirm only if you agree.",
        "name": " with the name {name}",
        "yes": "Yes, I agree",
        "done": "Thank you: {address} is confirmed.",
        "done_why": "Mail may leave from this address now. You can close this page.",
        "dead": "This link does not work.",
        "dead_why": "It was used, replaced by a newer one, or has run out. Ask for a new one.",
        "away": "This does not work at the moment.",
        "away_why": "Nothing was changed. Please try again in a minute.",
    },
    "fr": {
        "ask": "Des messages peuvent-ils partir au nom de {address} ?",
        "why": "{tenant} demande à envoyer des messages depuis cette adresse{name}. Ne confirmez que si vous êtes "
        "d’accord.",
        "name": " sous le nom {name}",
        "yes": "Oui, je suis d’accord",
        "done": "Merci : {address} est confirmée.",
        "done_why": "Des messages peuvent désormais partir de cette adresse. Vous pouvez fermer cette page.",
        "dead": "Ce lien ne fonctionne pas.",
        "dead_why": "Il a servi, a été remplacé par un plus récent ou a expiré. Demandez-en un nouveau.",
        "away": "Cela ne fonctionne pas pour le moment.",
        "away_why": "Rien n’a été changé. Réessayez dans une minute.",
    },
}


def _token(form: str) -> str:
    """The token of a query or form; none when it has more fields than anybody of ours, or a scanner, adds."""
    try:
        return parse_qs(form, max_num_fields=20).get("t", [""])[0]
    except ValueError:
        return ""


class ConfirmationServer(SmallServer):
    """Serves the page; `shutdown`, `server_close` end it."""

    def __init__(self, senders: Senders, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.senders = senders
        super().__init__(_Page, host=host, port=port)


class _Page(SmallHandler):
    server: ConfirmationServer

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        """Show what is asked; changes nothing."""
        parts = urlsplit(self.path)
        if parts.path != PATH:
            self._say(404, "dead")
            return
        self._answer(_token(parts.query), use=False)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        """Say yes."""
        length = self.headers.get("Content-Length", "")
        form = self.headers.get_content_type() == "application/x-www-form-urlencoded"
        if urlsplit(self.path).path != PATH or not form or not length.isdecimal() or len(length) > 4:
            self._say(400, "dead")
            return
        if int(length) > _LONGEST_FORM:
            self._say(413, "dead")
            return
        body = self.rfile.read(int(length)).decode("ascii", "replace")
        self._answer(_token(body), use=True)

    def _answer(self, token: str, *, use: bool) -> None:
        try:
            found = self.server.senders.confirm(token) if use else self.server.senders.look(token)
        except (LedgerUnavailable, ValueError):
            self._say(503, "away")
            return
        if found is None:
            self._say(404, "dead")
        elif use:
            self._say(200, "done", found)
        else:
            self._say(200, "ask", found, token)

    def _say(self, status: int, what: str, sender: BrandSender | None = None, token: str = "") -> None:
        language = "fr" if self.headers.get("Accept-Language", "").lower().startswith("fr") else "en"
        words = _WORDS[language]
        values = {"address": sender.address, "tenant": sender.tenant} if sender else {}
        values["name"] = words["name"].format(name=sender.name) if sender and sender.name else ""
        title = html.escape(words[what].format(**values))
        why = html.escape(words["why" if what == "ask" else f"{what}_why"].format(**values))
        form = (
            f'<form method="post" action="{PATH}"><input type="hidden" name="t" value="{html.escape(token)}">'
            f"<button>{html.escape(words['yes'])}</button></form>"
            if what == "ask"
            else ""
        )
        page = (
            f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width"><title>{title}</title><style>{_STYLE}</style></head>'
            f"<body><h1>{title}</h1><p>{why}</p>{form}</body></html>"
        ).encode()
        self._send(status, page)

    def _send(self, status: int, page: bytes) -> None:
        self.send_response_only(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A bare answer: what was asked is not repeated."""
        self.close_connection = True
        if not hasattr(self, "headers"):
            self.command = ""
        self._send(code, b"")
