"""The server's side of NTLM (MS-NLMP), computed by hand: independent of the library that plays the client."""

from __future__ import annotations

import hashlib
import hmac
import struct
import time

CHALLENGE = bytes.fromhex("0123456789abcdef")
_SIGNATURE = b"NTLMSSP\0"
# Unicode, request target, NTLM, always sign, extended session security, target info, version, 128, key exchange, 56
_FLAGS = 0x00000001 | 0x00000004 | 0x00000200 | 0x00008000 | 0x00080000 | 0x00800000 | 0x02000000 | 0x20000000
_EPOCH = 11_644_473_600  # seconds from 1601 to 1970


def kind(token: bytes) -> int:
    """1 for the opening, 3 for the proof."""
    assert token.startswith(_SIGNATURE)
    return int(struct.unpack_from("<I", token, 8)[0])


def challenge() -> bytes:
    """The second message (section 2.2.1.2)."""
    now = int((time.time() + _EPOCH) * 10_000_000)
    pairs = [(2, _text("CONTOSO")), (1, _text("EX01")), (4, _text("contoso.example")), (7, struct.pack("<Q", now))]
    info = b"".join(struct.pack("<HH", name, len(value)) + value for name, value in pairs) + bytes(4)
    target = _text("CONTOSO")
    fixed = 56
    head = _SIGNATURE + struct.pack("<I", 2) + _field(len(target), fixed) + struct.pack("<I", _FLAGS) + CHALLENGE
    version = bytes((10, 0)) + struct.pack("<H", 20348) + bytes((0, 0, 0, 15))
    return head + bytes(8) + _field(len(info), fixed + len(target)) + version + target + info


def proves(token: bytes, nt_hash: bytes, user: str, domain: str, certificate: bytes | None) -> bool:
    """Whether the third message knows the password behind `nt_hash` (section 3.3.2) and is bound to `certificate`."""
    answer, said_domain, said_user = (_content(token, at) for at in (20, 28, 36))
    if said_user.decode("utf-16-le") != user or said_domain.decode("utf-16-le") != domain:
        return False
    proof, blob = answer[:16], answer[16:]
    key = _hmac(nt_hash, _text(user.upper() + domain))
    return hmac.compare_digest(proof, _hmac(key, CHALLENGE + blob)) and _bound(blob, certificate)


def _bound(blob: bytes, certificate: bytes | None) -> bool:
    """The pair MsvAvChannelBindings is the MD5 of a gss_channel_bindings_struct (sections 2.2.2.1, 3.1.5.1.2)."""
    at, found = 28, b""
    while True:
        name, size = struct.unpack_from("<HH", blob, at)
        if name == 0:
            break
        if name == 10:
            found = blob[at + 4 : at + 4 + size]
        at += 4 + size
    if certificate is None:
        return found in (b"", bytes(16))
    data = b"tls-server-end-point:" + hashlib.sha256(certificate).digest()
    return found == hashlib.md5(bytes(16) + struct.pack("<I", len(data)) + data).digest()


def _content(token: bytes, at: int) -> bytes:
    size, _, offset = struct.unpack_from("<HHI", token, at)
    return token[offset : offset + size]


def _field(size: int, offset: int) -> bytes:
    return struct.pack("<HHI", size, size, offset)


def _text(value: str) -> bytes:
    return value.encode("utf-16-le")


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.md5).digest()
