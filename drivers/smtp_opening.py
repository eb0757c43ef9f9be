"""Opens an SMTP session step by step: connection, greeting, TLS, login.

Sources: RFC 5321 (SMTP), 3207 (STARTTLS), 8314 (implicit TLS), 1870 (SIZE), 2920 (PIPELINING), 6531 (SMTPUTF8).
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

from postier.drivers.base import Ports
from postier.drivers.certificates import certificate_cause
from postier.drivers.smtp_login import log_in
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_reply import Reply, Wire, WireBroken
from postier.drivers.smtp_session import Session
from postier.drivers.smtp_words import refusal, safe_words
from postier.schemas.errors import AccountError, DeliveryError, Stage, TemporaryError, Unreachable

_MOST_ADDRESSES = 4  # of one host: the connect time is shared between them
# Dovecot's submission service (2.3.19 at least) takes a mail and then dies of a RCPT that waits behind its body: the
# mail leaves, its verdict never comes. RFC 2920 section 3.1 allows such groups.
_CRASHES = re.compile(r"\bdovecot\b", re.IGNORECASE)
_FULL_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
# OpenSSL's X509_V_ERR numbers.
_CERTIFICATE_FAULTS = {
    9: "not yet valid",
    10: "expired",
    18: "self-signed",
    19: "self-signed in its chain",
    20: "issuer unknown",
    21: "issuer unknown",
    62: "other name",
    64: "other name",
}


def tls_context(options: SmtpOptions) -> ssl.SSLContext:
    """TLS 1.2 or later that verifies chain and name; `ca_file` replaces the system's authorities. Costs
    milliseconds.
    """
    context = ssl.create_default_context(cafile=options.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def connect(options: SmtpOptions, addresses: list[tuple[str, int]], clock: Callable[[], float]) -> Session:
    """Open a connection to the first address that answers. Raises Unreachable."""
    limit = clock() + options.connect_timeout
    reason = "no address to connect to"
    for address, port in addresses[:_MOST_ADDRESSES]:
        left = limit - clock()
        if left <= 0:
            break
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # this machine speaks no IPv6
            reason = (error.strerror or "failed").lower()
            continue
        try:
            sock.settimeout(left)
            sock.connect((address, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or "failed").lower()
            continue
        except BaseException:
            sock.close()
            raise
        return Session(Wire(sock, timeout=options.timeout_ms / 1000, clock=clock), options)
    raise Unreachable(f"cannot connect: {reason}", stage="connect")


def greet(session: Session) -> None:
    """Read the banner."""
    session.expected = 1
    reply = session.reply()
    if reply.code != 220:
        raise refused(session, reply, "connect")
    session.banner = safe_words(reply.text)


def hello(session: Session) -> None:
    """EHLO, and remember what is offered. A server that knows only HELO offers nothing."""
    name = session.options.ehlo_name or _own_name(session.wire.sock)
    reply = session.ask(f"EHLO {name}")
    if 500 <= reply.code <= 504 and reply.code != 503:
        reply = session.ask(f"HELO {name}")
    if reply.code != 250:
        raise refused(session, reply, "ehlo")
    offered: dict[str, str] = {}
    for line in reply.text.split("\n")[1:]:
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        offered[word.upper()] = f"{offered[word.upper()]} {rest}" if word.upper() in offered else rest
    session.extensions = offered
    session.pipelining = "PIPELINING" in offered
    session.overlaps = session.pipelining and not _CRASHES.search(session.banner)
    session.utf8 = "SMTPUTF8" in offered
    size = offered.get("SIZE", "").strip()
    session.size_limit = int(size) if size.isdecimal() and size.isascii() and len(size) < 16 and int(size) > 0 else None


def start_tls(session: Session, context: ssl.SSLContext | None) -> None:
    """STARTTLS: required, never skipped; what came in clear after the 220 is refused (CVE-2011-0411)."""
    if "STARTTLS" not in session.extensions:
        raise _no_tls("the server does not offer STARTTLS", "starttls")
    session.send(b"STARTTLS\r\n", 1)
    reply = session.wire.read()
    session.expected = 0
    if reply.code != 220:
        words = safe_words(reply.text)
        raise _no_tls(f"STARTTLS was refused: {words}", "starttls", code=reply.code, enhanced=reply.enhanced)
    if session.wire.unread:
        raise _no_tls("the server sent clear text after agreeing to TLS", "starttls")
    wrap(session, context)
    session.extensions = {}


def wrap(session: Session, context: ssl.SSLContext | None) -> None:
    """The TLS handshake. Raises AccountError for a certificate that is not the host's, else Unreachable."""
    stage: Stage = "starttls" if session.options.security == "starttls" else "connect"
    wire = session.wire
    if context is None:
        raise _no_tls("no TLS context was made", stage)
    try:
        wire.sock.settimeout(wire.time_left)
        wire.swap(context.wrap_socket(wire.sock, server_hostname=session.options.host))
    except ssl.SSLCertVerificationError as error:
        which = _CERTIFICATE_FAULTS.get(error.verify_code, "not trusted")
        text = f"certificate: {which}: {safe_words(error.verify_message)}"
        raise AccountError(text, stage=stage, cause=certificate_cause(error)) from None
    except (OSError, ValueError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else "the handshake failed"
        raise _no_tls(reason, stage) from None


def _no_tls(reason: str, stage: Stage, **details: Any) -> Unreachable:
    return Unreachable(f"tls_unavailable: {reason}", stage=stage, cause="tls_unavailable", **details)


def refused(session: Session, reply: Reply, stage: Stage) -> DeliveryError:
    """The error for a reply that ends the session's opening."""
    error = refusal(reply, stage, session.secrets)
    if type(error) is TemporaryError and stage in ("connect", "ehlo"):
        return Unreachable(
            error.text,
            retry_after=error.retry_after,
            code=error.code,
            enhanced=error.enhanced,
            stage=stage,
            reply_class=error.reply_class,
        )
    return error


def dial(
    options: SmtpOptions, ports: Ports, addresses: list[tuple[str, int]], context: ssl.SSLContext | None
) -> Session:
    """A session ready for mail. Raises Unreachable, AuthenticationFailed or another DeliveryError; nothing stays open
    then.
    """
    session = connect(options, addresses, ports.clock)
    session.wire.deadline = ports.clock() + options.total_deadline
    stage: Stage = "connect"
    try:
        if options.security == "tls":
            wrap(session, context)
        greet(session)
        stage = "ehlo"
        hello(session)
        if options.security == "starttls":
            stage = "starttls"
            start_tls(session, context)
            stage = "ehlo"
            hello(session)
        stage = "auth"
        if options.logs_in:
            with ports.logins():
                log_in(session, ports.tokens)
    except WireBroken as error:
        session.drop()
        if stage == "starttls":
            raise _no_tls(str(error), stage) from None
        raise Unreachable(str(error), stage=stage, cause=error.cause) from None
    except BaseException:
        session.drop()
        raise
    return session


def _own_name(sock: socket.socket) -> str:
    name = socket.gethostname()
    if _FULL_NAME.fullmatch(name):
        return name
    own = str(sock.getsockname()[0])
    return f"[IPv6:{own}]" if ":" in own else f"[{own}]"
