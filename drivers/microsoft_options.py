"""What a `microsoft` account is configured with, and where Microsoft's clouds are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from postier.drivers.base import DriverOptions
from postier.drivers.smtp_options import SAFE_ADDRESS, Security

WARNED_AHEAD = timedelta(days=30)

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}")
_EVERYBODYS = frozenset({"common", "organizations", "consumers"})

Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[\x21-\x7e]+$")]


@dataclass(frozen=True, slots=True)
class Cloud:
    """The addresses of one of Microsoft's clouds."""

    authority: str
    graph: str
    smtp_host: str
    smtp_resource: str
    smtp_delegated: str


# learn.microsoft.com/graph/deployments and learn.microsoft.com/entra/identity-platform/authentication-national-cloud
CLOUDS = {
    "public": Cloud(
        "https://login.microsoftonline.com",
        "https://graph.microsoft.com",
        "smtp.office365.com",
        "https://outlook.office365.com",
        "https://outlook.office.com/SMTP.Send",
    ),
    "usgov": Cloud(
        "https://login.microsoftonline.us",
        "https://graph.microsoft.us",
        "smtp.office365.us",
        "https://outlook.office365.us",
        "https://outlook.office365.us/SMTP.Send",
    ),
    "china": Cloud(
        "https://login.partner.microsoftonline.cn",
        "https://microsoftgraph.chinacloudapi.cn",
        "smtp.partner.outlook.cn",
        "https://partner.outlook.cn",
        "https://partner.outlook.cn/SMTP.Send",
    ),
}


class MicrosoftOptions(DriverOptions):
    """Which mailbox, which app, and how the app proves itself.

    Exactly one proof: `client_secret`; `private_key` with its `certificate` (both PEM; the certificate's SHA-1
    `thumbprint` will do in its place); `managed_identity`, "system" or a client id, inside Azure only; or `delegated`,
    a person's login by device code.

    `authority` is a cloud by name (public, usgov, china) or an https address, and `graph_url` and `smtp_host` override
    the cloud's. Addresses that are not Microsoft's must be named in `allow_hosts`, which opens the egress guard as in
    the `smtp` driver. `timeout_ms` is milliseconds to hand a mail to Graph, or per reply over SMTP; `final_timeout`
    seconds for the verdict. `secret_expires_on` is the secret's last day as the portal shows it.
    """

    mode: Literal["graph", "smtp"] = "graph"
    mailbox: Annotated[str, StringConstraints(max_length=320)]
    tenant_id: str
    client_id: Name | None = None
    client_secret: SecretStr | None = None
    secret_expires_on: date | None = None
    certificate: str | None = Field(default=None, repr=False, max_length=65_536)
    private_key: SecretStr | None = None
    private_key_password: SecretStr | None = None
    thumbprint: str | None = None
    managed_identity: Name | None = None
    delegated: bool = False
    authority: str = "public"
    graph_url: str | None = None
    smtp_host: str | None = None
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: Security = "starttls"
    envelope_from: str | None = None
    ca_file: str | None = None
    allow_hosts: tuple[str, ...] = ()
    timeout_ms: int = Field(default=30_000, ge=100, le=600_000)
    final_timeout: float = Field(default=100.0, gt=0, le=3_600)

    @field_validator("mailbox")
    @classmethod
    def _mailbox_is_an_address(cls, value: str) -> str:
        if not SAFE_ADDRESS.fullmatch(value) or not re.fullmatch(r"[^@]+@[^@]+", value):
            raise ValueError("must be one plain address: the mailbox that is sent from")
        return value

    @field_validator("tenant_id")
    @classmethod
    def _tenant_is_an_id_or_a_domain(cls, value: str) -> str:
        if not _TENANT.fullmatch(value):
            raise ValueError("must be the directory's id (a GUID) or one of its domains")
        return value.lower()

    @field_validator("thumbprint")
    @classmethod
    def _thumbprint_is_sha1(cls, value: str | None) -> str | None:
        if value is None:
            return None
        plain = value.replace(":", "").replace(" ", "")
        if not _THUMBPRINT.fullmatch(plain):
            raise ValueError("must be the certificate's SHA-1 thumbprint: 40 hexadecimal digits")
        return plain.upper()

    @field_validator("authority")
    @classmethod
    def _authority_is_a_cloud_or_https(cls, value: str) -> str:
        return value if value in CLOUDS else _https(value, "public, usgov, china or ")

    @field_validator("graph_url")
    @classmethod
    def _graph_is_https(cls, value: str | None) -> str | None:
        return None if value is None else _https(value)

    @model_validator(mode="after")
    def _there_is_one_proof(self) -> MicrosoftOptions:
        given = [
            name
            for name, value in (
                ("client_secret", self.client_secret),
                ("private_key", self.private_key),
                ("managed_identity", self.managed_identity),
                ("delegated", self.delegated),
            )
            if value
        ]
        if len(given) != 1:
            ways = "exactly one of client_secret, private_key, managed_identity and delegated"
            if given:
                raise ValueError(f"{given[0]}: does not go with {' and '.join(given[1:])}: give {ways}")
            raise ValueError(f"client_secret: missing: give {ways}")
        if self.client_id is None and not self.managed_identity:
            raise ValueError("client_id: missing: the application's (client) id")
        if self.private_key and not (self.certificate or self.thumbprint):
            raise ValueError("certificate: private_key needs the certificate (PEM), or its thumbprint")
        if self.certificate and not self.private_key:
            raise ValueError("private_key: missing, though a certificate is set")
        if self.tenant_id in _EVERYBODYS and not self.delegated:
            raise ValueError(f"tenant_id: {self.tenant_id!r} goes with delegated only; an app needs its own directory")
        if self.private_key:
            _check_key(self.private_key, self.private_key_password, self.certificate)
        return self

    @property
    def cloud(self) -> Cloud:
        """Where everything is, overrides included."""
        known = CLOUDS.get(self.authority)
        base = known or CLOUDS["public"]
        return Cloud(
            base.authority if known else self.authority,
            self.graph_url or base.graph,
            self.smtp_host or base.smtp_host,
            base.smtp_resource,
            base.smtp_delegated,
        )

    @property
    def scope(self) -> str:
        """The one scope a token is asked for: audiences do not mix."""
        if self.mode == "graph":
            return f"{self.cloud.graph}/{'Mail.Send' if self.delegated else '.default'}"
        return self.cloud.smtp_delegated if self.delegated else f"{self.cloud.smtp_resource}/.default"

    def warnings(self, today: date | None = None) -> list[str]:
        """Sentences about what will stop working within 30 days, or has."""
        today = today or datetime.now(UTC).date()
        ends = [("client secret", self.secret_expires_on)] if self.client_secret else []
        if self.certificate:
            ends.append(("certificate", certificate_end(self.certificate)))
        said = []
        for what, end in ends:
            if end is None or end - today > WARNED_AHEAD:
                continue
            days = (end - today).days
            when = f"ends in {days} days, on {end}" if days >= 0 else f"ended on {end}"
            said.append(f"The {what} {when}: make a new one in the Entra portal and put it into this account.")
        return said


def certificate_end(pem: str) -> date:
    """The last day of a PEM certificate. Raises ValueError when it cannot be read."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.date()
    except ValueError:
        raise ValueError("certificate: not a certificate in PEM form") from None


def _check_key(key: SecretStr, password: SecretStr | None, certificate: str | None) -> None:
    """Raises ValueError unless the key opens and is the certificate's."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        word = password.get_secret_value().encode() if password else None
        opened = load_pem_private_key(key.get_secret_value().encode(), word)
    except Exception:  # cryptography raises several kinds, whose texts may speak of the key
        opened = None
    if not isinstance(opened, rsa.RSAPrivateKey):
        raise ValueError("private_key: not an RSA key in PEM form, or private_key_password does not open it")
    if certificate:
        certificate_end(certificate)
        if x509.load_pem_x509_certificate(certificate.encode()).public_key() != opened.public_key():
            raise ValueError("certificate: belongs to another private_key")


def known_hosts() -> frozenset[str]:
    """The web hosts of Microsoft's clouds, which need no guard."""
    urls = [url for cloud in CLOUDS.values() for url in (cloud.authority, cloud.graph)]
    return frozenset(urlsplit(url).hostname or "" for url in urls)


def _https(value: str, more: str = "") -> str:
    try:
        parts = urlsplit(value)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    plain = port_is_fine and parts.scheme == "https" and parts.hostname and not (parts.username or parts.password)
    if not plain or parts.query or parts.fragment or parts.path.strip("/") or not value.isascii():
        raise ValueError(f"must be {more}an https address without path, user or query")
    return value.rstrip("/")
