"""A key and certificate an app proves itself with, and the check of what they sign."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


@dataclass(frozen=True)
class Proof:
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> str:
        return self._pem(serialization.NoEncryption())

    def encrypted(self, password: str) -> str:
        return self._pem(serialization.BestAvailableEncryption(password.encode()))

    def _pem(self, encryption: serialization.KeySerializationEncryption) -> str:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()

    @property
    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def thumbprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA1()).hex(":")

    def verified(self, token: str, *, pss: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The token's header and claims; raises when the signature is not ours."""
        signed, _, signature = token.rpartition(".")
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO) if pss else padding.PKCS1v15()
        self.key.public_key().verify(decoded(signature), signed.encode(), scheme, hashes.SHA256())
        header, claims = (json.loads(decoded(part)) for part in signed.split("."))
        return header, claims


def app_proof(days: int = 365) -> Proof:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "app.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return Proof(key, certificate)


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
