"""One SMTP session: dialled, greeted, encrypted, logged in. It knows nothing of mails; `smtp_wire` speaks those.

Sources: RFC 5321 (SMTP), 3207 (STARTTLS), 4954 (AUTH), 2920 (PIPELINING), 1870 (SIZE), 6531 (SMTPUTF8);
XOAUTH2: developers.google.com/gmail/imap/xoauth2-protocol.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from postier.drivers.base import Ports, TokenSource
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_reply import ProtocolBroken, Reply, Wire, WireBroken
from postier.drivers.smtp_words import refusal, safe_words
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    Stage,
    TemporaryError,
    Unreachable,
)

_MOST_ADDRESSES = 4  # of one host: the connect time is shared between them
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


@dataclass(eq=False, slots=True)
class Session:
    """A connection ready for mail, with what the server offers and how far it has been used.

    `expected` counts replies still to come, `in_body` says that the server waits for a body: unless both are nought the
    session must not be used again. `uses` counts mails begun, `mails` bodies handed over. `odd` asks for a RSET before
    the next mail.
    """

    wire: Wire
    options: SmtpOptions
    extensions: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    banner: str = ""
    uses: int = 0
    mails: int = 0
    expected: int = 0
    in_body: bool = False
    odd: bool = False
    broken: bool = False
    idle_since: float = 0.0
    pipelining: bool = False
    size_limit: int | None = None
    utf8: bool = False

    @property
    def is_clean(self) -> bool:
        """Nothing is owed in either direction."""
        return not (self.broken or self.in_body or self.expected or self.wire.unread)

    def send(self, octets: bytes, replies: int) -> None:
        """Write commands that will draw so many replies."""
        self.expected += replies
        self.wire.write(octets)

    def reply(self) -> Reply:
        """The next expected reply. With the last one nothing more may have come: that would be another's answer."""
        reply = self.wire.read()
        self.expected -= 1
        if not self.expected and self.wire.unread:
            raise ProtocolBroken("protocol: the server sent a reply nobody asked for")
        return reply

    def ask(self, command: str) -> Reply:
        """Send one command and return its reply."""
        self.send(command.encode("ascii") + b"\r\n", 1)
        return self.reply()

    def leave(self) -> None:
        """Close, with a QUIT when the session is clean. The answer is not waited for. Calling twice is safe."""
        if self.is_clean:
            self.broken = True
            try:
                self.wire.deadline = float("inf")
                self.wire.write(b"QUIT\r\n")
            except WireBroken:
                pass
        self.drop()

    def drop(self) -> None:
        """Close at once."""
        self.broken = True
        self.wire.close()


def connect(options: SmtpOptions, addresses: list[tuple[str, int]], clock: Callable[[], float]) -> Session:
    """Open a connection to the first address that answers. Raises Unreachable."""
    limit = clock() + options.connect_timeout
    reason = "no address to connect to"
    for address, port in addresses[:_MOST_ADDRESSES]:
        left = limit - clock()
        if left <= 0:
            break
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
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
    session.utf8 = "SMTPUTF8" in offered
    size = offered.get("SIZE", "").strip()
    session.size_limit = int(size) if size.isdecimal() and size.isascii() and len(size) < 16 and int(size) > 0 else None


def start_tls(session: Session, context: ssl.SSLContext) -> None:
    """STARTTLS: required, never skipped; what came in clear after the 220 is refused (CVE-2011-0411)."""
    if "STARTTLS" not in session.extensions:
        raise Unreachable("tls_unavailable: the server does not offer STARTTLS", stage="starttls")
    session.send(b"STARTTLS\r\n", 1)
    reply = session.wire.read()
    session.expected = 0
    if reply.code != 220:
        words = safe_words(reply.text)
        raise Unreachable(
            f"tls_unavailable: STARTTLS was refused: {words}",
            code=reply.code,
            enhanced=reply.enhanced,
            stage="starttls",
        )
    if session.wire.unread:
        raise Unreachable("tls_unavailable: the server sent clear text after agreeing to TLS", stage="starttls")
    wrap(session, context)
    session.extensions = {}


def wrap(session: Session, context: ssl.SSLContext) -> None:
    """The TLS handshake. Raises AccountError for a certificate that is not the host's, else Unreachable."""
    stage: Stage = "starttls" if session.options.security == "starttls" else "connect"
    wire = session.wire
    try:
        wire.sock.settimeout(wire.timeout)
        wire.swap(context.wrap_socket(wire.sock, server_hostname=session.options.host))
    except ssl.SSLCertVerificationError as error:
        which = _CERTIFICATE_FAULTS.get(error.verify_code, "not trusted")
        raise AccountError(f"certificate: {which}: {safe_words(error.verify_message)}", stage=stage) from None
    except (OSError, ValueError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else "the handshake failed"
        raise Unreachable(f"tls_unavailable: {reason}", stage=stage) from None


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
        raise refused(session, reply, "auth")


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
        if options.security == "tls" and context is not None:
            wrap(session, context)
        greet(session)
        stage = "ehlo"
        hello(session)
        if options.security == "starttls" and context is not None:
            stage = "starttls"
            start_tls(session, context)
            stage = "ehlo"
            hello(session)
        stage = "auth"
        log_in(session, ports.tokens)
    except WireBroken as error:
        session.drop()
        text = f"tls_unavailable: {error}" if stage == "starttls" else str(error)
        raise Unreachable(text, stage=stage) from None
    except BaseException:
        session.drop()
        raise
    return session


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


def _own_name(sock: socket.socket) -> str:
    name = socket.gethostname()
    if _FULL_NAME.fullmatch(name):
        return name
    own = str(sock.getsockname()[0])
    return f"[IPv6:{own}]" if ":" in own else f"[{own}]"
