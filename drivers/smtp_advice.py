"""One sentence for the person whose SMTP account failed a step of its check."""

from __future__ import annotations

from typing import Literal

from postier.drivers.replies import advice, classify
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_session import Session
from postier.schemas.errors import ConfigurationError, DeliveryError

Step = Literal["options", "resolve", "connect", "tls", "greeting", "login", "sender", "test_mail"]


def advise(name: Step, error: DeliveryError | ConfigurationError, options: SmtpOptions, session: Session | None) -> str:
    """What to do about it; what our own steps know goes before what the reply's words say."""
    text = str(error)
    if isinstance(error, DeliveryError) and error.code is not None and not text.startswith("tls_unavailable"):
        reply_class = error.reply_class or str(classify(error.code, error.enhanced, text, error.stage))
        found = advice(error.code, error.enhanced, text, reply_class)
        if found:
            return str(found)
    if text.startswith("certificate: "):
        return _of_certificate(text)
    if text.startswith("too_slow") and options.security != "tls" and session is not None and not session.banner:
        return (
            f"Nothing is said in clear on port {options.port}, as where TLS is spoken from the first octet: "
            "set security to 'tls', or use port 587 with 'starttls'."
        )
    if name == "tls":
        return _of_tls(options)
    if text.startswith("the server does not offer the login") and session is not None:
        return _of_login(options, session.extensions)
    return _BY_STEP.get(name, "")


def _of_certificate(text: str) -> str:
    if text.startswith("certificate: other name"):
        return "The certificate belongs to another host: use the name it was made for as the host."
    if text.startswith("certificate: expired"):
        return "The server's certificate has run out: its owner has to renew it."
    return "No known authority signed the certificate: set ca_file to the authority's certificate if it is your own."


def _of_tls(options: SmtpOptions) -> str:
    if options.port == 465 and options.security == "starttls":
        return "Port 465 speaks TLS from the first octet: set security to 'tls', or use port 587."
    if options.port != 465 and options.security == "tls":
        return f"Port {options.port} usually begins in clear: set security to 'starttls', or use port 465."
    return "The server cannot do TLS on this port: try port 465 with security 'tls', or ask its owner."


def _of_login(options: SmtpOptions, offered: dict[str, str]) -> str:
    if options.security == "none" and "STARTTLS" in offered:
        return "The server lets people log in under TLS alone: set security to 'starttls'."
    ways = {way.upper() for way in offered.get("AUTH", "").replace("=", " ").split()}
    if not ways:
        return "No login is taken on this port: use port 587 or 465, or leave username and password out."
    if ways <= {"XOAUTH2", "OAUTHBEARER"}:
        return "The server takes OAuth2 alone: use the driver microsoft or google, which fetch its tokens."
    if ways & {"PLAIN", "LOGIN"}:
        return "Set auth to 'auto', or to a login that the server offers."
    return "The server offers no login that postier knows: PLAIN, LOGIN or XOAUTH2."


_BY_STEP: dict[str, str] = {
    "options": "Mend the option that is named.",
    "resolve": "Check the spelling of the host, and that it is a public mail server on port 25, 465, 587 or 2525; "
    "a server inside the network must be named in POSTIER_EGRESS_ALLOW.",
    "connect": "Check host and port, and that a firewall lets them through; many networks close port 25.",
    "greeting": "The host answers but does not speak SMTP as expected: check host, port and security.",
    "login": "Check the username, the password and the way of logging in.",
    "sender": "The server does not take this sender address: use one that belongs to the login.",
    "test_mail": "Check the recipient's address, and read the server's words.",
}
