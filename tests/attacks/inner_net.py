"""Run inside a network namespace of its own: has listeners on forbidden addresses, tries to be led there, counts.

Prints one JSON object: how many connections came while the guard stood, and how many once a door was opened.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from typing import Any

from postier.schemas.account import Account
from postier.schemas.errors import ConfigurationError, DeliveryError
from postier.workers.route import build_driver, doors_of
from tests.conftest import until
from tests.drivers.kit import mail

ADDRESSES = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1", "198.18.0.1",
    "192.0.2.1", "203.0.113.9", "::1", "fd00::1", "fec0::1", "2001:db8::1", "64:ff9b::a00:1",
]  # fmt: skip
PORTS = [25, 465, 587, 2525, 6379, 80]


def main() -> None:
    for address in ADDRESSES:
        size = "128" if ":" in address else "32"
        subprocess.run(["ip", "addr", "add", f"{address}/{size}", "dev", "lo"], check=False, capture_output=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    came: list[str] = []
    listening = [_listen(address, port, came) for address in ADDRESSES for port in PORTS]
    kept = sum(_try(host, port, []) for host in json.loads(sys.argv[1]) for port in PORTS)
    before = len(came)
    _try("127.0.0.1", 25, ["127.0.0.1"])
    until(lambda: len(came) > before, what="the one that was let in")
    print(json.dumps({"listening": len(listening), "tried": kept, "came": before, "with_a_door": len(came) - before}))


def _listen(address: str, port: int, came: list[str]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()

    def accept() -> None:
        while True:
            peer, _ = sock.accept()
            came.append(f"{address} {port}")
            peer.close()

    threading.Thread(target=accept, daemon=True).start()
    return sock


def _try(host: str, port: int, allow: list[str]) -> int:
    options: dict[str, Any] = {
        "host": host, "port": port, "security": "none", "auth": "none", "connect_timeout": 1.0, "timeout_ms": 1000,
        "allow_hosts": allow or ["127.0.0.0/8", "10.0.0.0/8", "::/0", host],
    }  # fmt: skip
    account = Account.model_validate(
        {"name": "inner", "driver": "smtp", "sender": {"address": "a@school.example"}, "options": options}
    )
    try:
        driver = build_driver(account, doors=doors_of(account, trusted=bool(allow)))
    except ConfigurationError:  # options that cannot even be read lead nowhere
        return 1
    ((_, result),) = driver.converse((mail(),))
    assert isinstance(result, DeliveryError)
    driver.close()
    return 1


if __name__ == "__main__":
    main()
