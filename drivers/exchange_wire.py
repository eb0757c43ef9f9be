"""One connection to EWS and the login on it. Needs pyspnego, which comes with the extra `postier[exchange]`.

NTLM logs a connection in, not a request (MS-NTHT): its three messages have to travel over one connection, and each
later request on it needs no login. The first message goes with an empty body, so that a mail leaves once and only to a
server that has asked for the login. The answer to the server's challenge is bound to its certificate (RFC 5929
tls-server-end-point), without which Extended Protection (on by default since Exchange 2019 CU14) refuses it.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httpcore2
import spnego
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from spnego.channel_bindings import GssChannelBindings

from postier.drivers.exchange_options import ExchangeOptions
from postier.drivers.http_answers import Answer, lost, wanted_wait
from postier.drivers.http_wire import Call, Dialler
from postier.schemas.errors import AuthenticationFailed, DeliveryError, SenderRefused, TemporaryError

MAX_ANSWER = 65_536  # octets

_FAULTS = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ConnectionNotAvailable,
)


class EwsSession:
    """One connection. Used by one thread at a time; `mails` counts the requests it has carried."""

    def __init__(self, options: ExchangeOptions, dialler: Dialler, context: ssl.SSLContext) -> None:
        parts = urlsplit(options.url)
        self._options = options
        self._dialler = dialler
        self._target = httpcore2.URL(options.url)
        self._host = parts.netloc
        self._connection = httpcore2.HTTPConnection(
            self._target.origin, ssl_context=context, network_backend=dialler, keepalive_expiry=None
        )
        self._whole = True
        self._stream: httpcore2.NetworkStream | None = None
        self.mails = 0
        self.idle_since = 0.0

    @property
    def wire(self) -> EwsSession:
        """Itself: the pool asks it whether it is quiet."""
        return self

    @property
    def is_clean(self) -> bool:
        """The last answer was read to its end, and the server keeps the connection open."""
        return self._whole and self._connection.is_idle()

    def is_quiet(self) -> bool:
        """Whether the connection stands, as far as this side can tell."""
        return self._connection.is_idle() and not self._connection.has_expired()

    def leave(self) -> None:
        """Close. Calling twice is safe."""
        self._connection.close()

    drop = leave

    def first(self, body: bytes, call: Call) -> Answer:
        """Log in with the request `body`. Raises AuthenticationFailed when the login was refused."""
        if self._options.auth == "basic":
            answer = self.ask(body, call)
        else:
            answer = self.ask(body, call, self._answered_challenge(call.deadline))
        if answer.status == 401:
            raise AuthenticationFailed(_refused_login(answer, self._options.auth), code=401, stage="auth")
        return answer

    def ask(self, body: bytes, call: Call, login: str = "") -> Answer:
        """One request on a connection that is logged in. Raises what has become of it when no answer came."""
        self.mails += 1
        fields = {
            "Host": self._host,
            "User-Agent": "postier",
            "Content-Type": "text/xml; charset=utf-8",
            "Accept": "text/xml",
            "Accept-Encoding": "identity",
            "X-AnchorMailbox": self._options.mailbox if self._options.mailbox.isascii() else "",
            "Authorization": login or self._basic(),
            "Content-Length": str(len(body)),
        }
        return self._exchange(fields, body, call, lambda words: _no_answer(words, call))

    def _answered_challenge(self, deadline: float) -> str:
        """The first two messages of NTLM; returns the third, for the Authorization header of the request."""
        options = self._options
        client = spnego.client(
            options.username,
            options.password.get_secret_value(),
            hostname=urlsplit(options.url).hostname or "",
            service="http",
            protocol="ntlm",
            options=spnego.NegotiateOptions.use_ntlm,
        )
        opening = f"NTLM {_coded(client.step() or b'')}"
        fields = {"Host": self._host, "User-Agent": "postier", "Authorization": opening, "Content-Length": "0"}
        answer = self._exchange(fields, b"", Call(deadline), _no_login)
        challenge = _challenge(answer)
        if challenge is None:
            if answer.status != 401:
                raise _elsewhere(answer)
            raise AuthenticationFailed(_refused_login(answer, "ntlm"), code=401, stage="auth")
        if not self.is_clean:
            raise TemporaryError("the server closes the connection between the messages of NTLM", stage="auth")
        try:
            proof = client.step(challenge, channel_bindings=_bindings(self._stream))
        except Exception:  # pyspnego's own, and what unpacking a hostile token may raise
            raise TemporaryError("the server's NTLM challenge cannot be read", stage="auth") from None
        return f"NTLM {_coded(proof or b'')}"

    def _basic(self) -> str:
        if self._options.auth != "basic":
            return ""
        return "Basic " + _coded(f"{self._options.username}:{self._options.password.get_secret_value()}".encode())

    def _exchange(
        self, fields: Mapping[str, str], body: bytes, call: Call, failure: Callable[[str], DeliveryError]
    ) -> Answer:
        headers = [(name.encode(), value.encode()) for name, value in fields.items() if value]
        request = httpcore2.Request(b"POST", self._target, headers=headers, content=body)
        self._dialler.calls.current = call
        try:
            try:
                response = self._connection.handle_request(request)
            except _FAULTS as error:
                timely = isinstance(error, httpcore2.NetworkError | httpcore2.TimeoutException)
                words = str(error) if timely else ""
                raise failure(words or "the answer is not HTTP, or the connection was closed") from None
            try:
                self._stream = response.extensions["network_stream"]
                content = self._read(response)
            finally:
                response.close()
        finally:
            self._dialler.calls.current = None
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        offers = [value.decode("latin-1") for name, value in response.headers if name.lower() == b"www-authenticate"]
        return Answer(response.status, named | {"www-authenticate": ", ".join(offers)}, content)

    def _read(self, response: httpcore2.Response) -> bytes:
        """At most MAX_ANSWER octets; a break in the middle ends it: the status is known, and may decide."""
        body = bytearray()
        self._whole = False
        try:
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > MAX_ANSWER:
                    return bytes(body[:MAX_ANSWER])
        except _FAULTS:
            return bytes(body)
        self._whole = True
        return bytes(body)


def _no_answer(words: str, call: Call) -> DeliveryError:
    if call.broken or not call.begun:
        return TemporaryError(f"{words}; the request was not whole", stage="http")
    return lost(words, takes_once=False, octets=call.octets)


def _no_login(words: str) -> DeliveryError:
    return TemporaryError(f"the login did not come about: {words}", stage="auth")


def _elsewhere(answer: Answer) -> DeliveryError:
    """The server neither asked for a login nor was given the request."""
    text = f"HTTP status {answer.status} where a login was to be asked for"
    if 300 <= answer.status <= 399 or answer.status in (200, 403, 404, 405):
        return SenderRefused(text, code=answer.status, stage="auth")
    return TemporaryError(text, code=answer.status, stage="auth", retry_after=wanted_wait(answer.headers))


def _challenge(answer: Answer) -> bytes | None:
    for offer in answer.headers["www-authenticate"].split(","):
        scheme, _, token = offer.strip().partition(" ")
        if answer.status == 401 and scheme.lower() == "ntlm" and token:
            try:
                return base64.b64decode(token, validate=True)
            except ValueError:
                raise TemporaryError("the server's NTLM challenge cannot be read", stage="auth") from None
    return None


def _refused_login(answer: Answer, auth: str) -> str:
    offers = [offer.strip().partition(" ")[0] for offer in answer.headers["www-authenticate"].split(",")]
    shown = [offer[:20] for offer in offers if offer.isascii() and offer.isalnum()][:6]
    if shown and auth.lower() not in [offer.lower() for offer in shown]:
        return f"the server does not offer the login {auth}; it offers: {', '.join(shown)}"
    return "the server refused the login"


def _bindings(stream: httpcore2.NetworkStream | None) -> GssChannelBindings | None:
    """What binds NTLM to this TLS connection: the certificate's hash, by its own algorithm but never less than SHA-256
    (RFC 5929 section 4.1)."""
    sock = stream.get_extra_info("ssl_object") if stream is not None else None
    der = sock.getpeercert(True) if isinstance(sock, ssl.SSLSocket) else None
    if der is None:
        return None
    try:
        algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return None
    if algorithm is None or isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(der)
    return GssChannelBindings(application_data=b"tls-server-end-point:" + digest.finalize())


def _coded(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
