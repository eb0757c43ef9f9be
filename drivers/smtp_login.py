"""AUTH: proves who we are, once, and shows the secret to nobody else.

Sources: RFC 4954 (AUTH), 4616 (PLAIN); XOAUTH2: developers.google.com/gmail/imap/xoauth2-protocol and
learn.microsoft.com/exchange/client-developer/legacy-protocols.
"""

from __future__ import annotations

import base64

from postier.drivers.base import TokenSource
from postier.drivers.smtp_reply import ProtocolBroken, Reply
from postier.drivers.smtp_session import Session
from postier.drivers.smtp_words import refusal, safe_words
from postier.schemas.errors import AuthenticationFailed


def log_in(session: Session, tokens: TokenSource | None) -> None:
    """Prove who we are, once, with the one mechanism that was chosen. Raises AuthenticationFailed or TemporaryError.

    Only an OAuth2 token is tried a second time, and only as a new one: the old may have run out (Exchange answers 535).
    """
    options = session.options
    if not options.logs_in:
        return
    mechanism = _mechanism(session, tokens)
    password = options.password.get_secret_value() if options.password else ""
    if mechanism != "XOAUTH2":
        reply = (_plain if mechanism == "PLAIN" else _login)(session, options.username or "", password)
    else:
        token = tokens() if tokens else password
        reply = _xoauth2(session, options.username or "", token)
        if reply.code == 535 and tokens is not None:
            fresh = tokens(refused=token)
            if fresh != token:
                reply = _xoauth2(session, options.username or "", fresh)
    if reply.code != 235:
        raise refusal(reply, "auth", session.secrets)


def _mechanism(session: Session, tokens: TokenSource | None) -> str:
    options = session.options
    offered = session.extensions.get("AUTH", "").upper().replace("=", " ").split()
    if options.auth != "auto":
        wanted = [options.auth.upper()]
    elif tokens is not None and options.password is None:
        wanted = ["XOAUTH2"]
    else:
        wanted = ["PLAIN", "LOGIN"]
    for name in wanted:
        if name in offered:
            return name
    shown = ", ".join(safe_words(name)[:20] for name in offered[:8]) or "none"
    raise AuthenticationFailed(
        f"the server does not offer the login {' or '.join(wanted)}; it offers: {shown}", stage="auth"
    )


def _plain(session: Session, username: str, password: str) -> Reply:
    answer = _coded(f"\0{username}\0{password}")
    _hide(session, answer, password)
    reply = session.ask(f"AUTH PLAIN {answer}")
    if reply.code == 334:
        raise ProtocolBroken("protocol: the server asked for more than PLAIN has")
    return reply


def _login(session: Session, username: str, password: str) -> Reply:
    _hide(session, password)
    reply = session.ask("AUTH LOGIN")
    for word in (username, password):
        if reply.code != 334:
            if reply.code == 235:
                raise ProtocolBroken("protocol: the login was granted before it was complete")
            return reply
        reply = session.ask(_coded(word))
    if reply.code == 334:
        raise ProtocolBroken("protocol: the server asked for more than LOGIN has")
    return reply


def _xoauth2(session: Session, username: str, token: str) -> Reply:
    answer = _coded(f"user={username}\1auth=Bearer {token}\1\1")
    _hide(session, answer, token)
    reply = session.ask(f"AUTH XOAUTH2 {answer}")
    if reply.code != 334:
        return reply
    verdict = session.ask("")  # Google explains in the 334 and wants an empty line before its 535
    if verdict.code == 235:
        raise ProtocolBroken("protocol: the login was granted after it was refused")
    return verdict


def _hide(session: Session, *secrets: str) -> None:
    """Whatever the server echoes of these must not be shown."""
    forms = {form for secret in secrets if secret for form in (secret, _coded(secret))}
    session.secrets = (*session.secrets, *sorted(forms, key=len, reverse=True))


def _coded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")
