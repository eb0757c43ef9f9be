"""The egress guard: which addresses a tenant's server name may lead to.

A name is resolved once; unless every address it has is public, nothing is dialled, and what is dialled is the address
that was checked (no second look-up to rebind). IPv6 forms that carry an IPv4 address count as that address. Notations
that only `getaddrinfo` understands (decimal, octal, hexadecimal, circled digits) are refused before any look-up.

Addresses: IANA special-purpose registries (RFC 6890); NAT64 RFC 6052, 8215; 6to4 RFC 3056; Teredo RFC 4380.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from postier.schemas.errors import SenderRefused, Unreachable

MAIL_PORTS = frozenset({25, 465, 587, 2525})

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Lookup = Callable[..., list[tuple[Any, ...]]]
Resolver = Callable[[str, int], list[tuple[str, int]]]

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Networks that `is_global` of some Python version takes for public.
_CLOSED = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16", "100::/64")
)
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class _Allowed:
    """One line of the allow list: a name or a network, for one port or for all."""

    name: str
    network: Network | None
    port: int | None


def public_only_resolver(allow: Collection[str] = (), *, lookup: Lookup = socket.getaddrinfo) -> Resolver:
    """Return a `Ports.resolve` that lets through public addresses and mail ports, and what `allow` names.

    An entry of `allow` is a host name, an address or a network in CIDR form, with an optional `:port` (IPv6 in brackets
    then). An allowed host may use any port, or the one its entry names. Raises ValueError for an entry that is none of
    these.
    """
    allowed = tuple(_entry(text) for text in allow)

    def resolve(host: str, port: int) -> list[tuple[str, int]]:
        name, literal = _plain(host)
        trusted = [entry for entry in allowed if entry.port in (None, port)]
        if any(entry.name == name for entry in trusted if entry.network is None):
            return [(str(ip), port) for ip in ([literal] if literal else _look_up(lookup, name, port))]
        ips = [literal] if literal else _look_up(lookup, name, port) if _may_ask(port, trusted) else []
        inside = [any(entry.network is not None and ip in entry.network for entry in trusted) for ip in ips]
        if not ips or not all(ok or (port in MAIL_PORTS and is_public(ip)) for ip, ok in zip(ips, inside, strict=True)):
            raise _refused()
        return [(str(ip), port) for ip in ips]

    return resolve


def is_public(ip: Ip) -> bool:
    """Say whether an address, and each address wrapped in it, is reachable for everybody on the internet."""
    if any(ip in network for network in _CLOSED if network.version == ip.version):
        return False
    wrapped = list(_wrapped(ip))
    if wrapped:
        return all(is_public(inner) for inner in wrapped)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


def _wrapped(ip: Ip) -> Iterator[Ip]:
    if isinstance(ip, ipaddress.IPv4Address):
        return
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.ipv4_mapped is not None:
        yield ip.ipv4_mapped
    elif ip.sixtofour is not None:
        yield ip.sixtofour
    elif ip.teredo is not None:
        yield from ip.teredo
    elif (
        ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1) or (int(ip) >> 32) & 0xFFFFFFFF in (0x00005EFE, 0x02005EFE)
    ):
        yield low


def _plain(host: str) -> tuple[str, Ip | None]:
    """The host as a name, and as an address when it is one in its only accepted notation."""
    name = host.strip().rstrip(".").lower()
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    try:
        literal = ipaddress.ip_address(name)
    except ValueError:
        literal = None
    if literal is not None:
        if "%" in name:
            raise _refused()
        return name, literal
    if not name.isascii():
        try:
            coded = name.encode("idna").decode("ascii").lower()
        except UnicodeError:
            raise _refused() from None
        if not any(label.startswith("xn--") for label in coded.split(".")):
            raise _refused()  # only a look-alike of ASCII: full-width letters, circled digits
        name = coded
    if len(name) > 253 or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rsplit(".", 1)[-1]):
        raise _refused()
    return name, None


def _may_ask(port: int, trusted: list[_Allowed]) -> bool:
    return port in MAIL_PORTS or any(entry.network is not None for entry in trusted)


def _look_up(lookup: Lookup, name: str, port: int) -> list[Ip]:
    try:
        rows = lookup(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unreachable("the host name does not resolve", stage="connect") from None
    found: dict[Ip, None] = {}
    for row in rows:
        found.setdefault(ipaddress.ip_address(str(row[4][0]).partition("%")[0]))
    if not found:
        raise Unreachable("the host name has no address", stage="connect")
    return list(found)


def _refused() -> SenderRefused:
    # The same words for every reason: they must not tell what listens where inside.
    return SenderRefused("the egress guard does not let mail leave to this host and port", stage="connect")


def _entry(text: str) -> _Allowed:
    name, port = text.strip().lower(), None
    bracketed = re.fullmatch(r"\[([0-9a-f:.]+)\](?::(\d+))?", name)
    if bracketed:
        name, port = bracketed.group(1), bracketed.group(2)
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
    if port is not None and not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"allow_hosts: {text!r} has a port outside 1 to 65535")
    number = int(port) if port is not None else None
    try:
        return _Allowed("", ipaddress.ip_network(name, strict=False), number)
    except ValueError:
        name = name.rstrip(".")
    if not _NAME.fullmatch(name):
        raise ValueError(f"allow_hosts: {text!r} is not a host name, an address or a network")
    return _Allowed(name, None, number)
