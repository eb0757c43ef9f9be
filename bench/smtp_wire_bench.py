"""CPU of the `smtp` driver per mail, beside smtplib over a reused connection; same sink, in another process.

    python bench/smtp_wire_bench.py [--mails 5000] [--rounds 5]

Prints microseconds of client CPU (user and system) per mail, the best of the rounds, and the ratio.
"""

from __future__ import annotations

import argparse
import multiprocessing
import smtplib
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from postier.drivers.smtp import SmtpDriver, SmtpOptions
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import DeliveryError

SENDER = Mailbox("bench@example.org")
HEADERS = "".join(f"X-Header-{n}: some value of a usual length, number {n}\r\n" for n in range(12))
MIME = (HEADERS + "\r\n" + "A line of text as long as most lines are, seventy octets of it here.\r\n" * 40).encode()


def sink(announce: Connection, extensions: tuple[str, ...]) -> None:
    """Take every mail as fast as Python can; one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        announce.send(server.getsockname()[1])
        while True:
            peer, _ = server.accept()
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _serve(peer, extensions)


def _serve(peer: socket.socket, extensions: tuple[str, ...]) -> None:
    greeting = "".join(f"250-{word}\r\n" for word in ("sink", *extensions)) + "250 SIZE 33554432\r\n"
    peer.sendall(b"220 sink ready\r\n")
    held, in_body = b"", False
    while True:
        octets = peer.recv(262_144)
        if not octets:
            return
        held += octets
        answers: list[bytes] = []
        while True:
            if in_body:
                end = held.find(b"\r\n.\r\n")
                if end < 0:
                    break
                held, in_body = held[end + 5 :], False
                answers.append(b"250 2.0.0 Ok: queued as 4ZxYw123456\r\n")
            line, found, rest = held.partition(b"\r\n")
            if not found:
                break
            held = rest
            verb = line[:4].upper()
            if verb == b"DATA":
                in_body = True
                answers.append(b"354 go ahead\r\n")
            elif verb == b"EHLO":
                answers.append(greeting.encode())
            elif verb == b"QUIT":
                peer.sendall(b"".join(answers) + b"221 bye\r\n")
                return
            else:
                answers.append(b"250 2.1.0 Ok\r\n")
        if answers:
            peer.sendall(b"".join(answers))


def with_driver(port: int, mails: int) -> None:
    """One conversation over as many sessions as the driver's rules want."""
    options = SmtpOptions(host="127.0.0.1", port=port, security="none", allow_hosts=("127.0.0.1",))
    driver = SmtpDriver(options, sender=SENDER)
    recipients = ("someone@example.com",)
    emails = (
        Email(f"d{n}", f"<{n}@example.org>", SENDER.address, recipients, SENDER, (), "s", "t", "", MIME)
        for n in range(mails)
    )
    for _, result in driver.converse(emails):
        if isinstance(result, DeliveryError):
            raise result
    driver.close()


def with_smtplib(port: int, mails: int) -> None:
    """The usual loop, recycled after 100 mails too."""
    for start in range(0, mails, 100):
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org") as client:
            for _ in range(min(100, mails - start)):
                client.sendmail(SENDER.address, ["someone@example.com"], MIME)


def cpu_per_mail(run: Callable[[int, int], None], port: int, mails: int) -> tuple[float, float]:
    """Microseconds of CPU and of wall time per mail."""
    cpu, wall = time.process_time(), time.perf_counter()
    run(port, mails)
    return (time.process_time() - cpu) / mails * 1e6, (time.perf_counter() - wall) / mails * 1e6


def start_sink(extensions: tuple[str, ...]) -> tuple[int, multiprocessing.process.BaseProcess]:
    """The sink's port and process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=sink, args=(theirs, extensions), daemon=True)
    process.start()
    return int(ours.recv()), process


def main() -> None:
    """Alternate the contenders, so that a noisy moment hits all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    eager, eager_process = start_sink(("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"))
    plain, plain_process = start_sink(("8BITMIME",))
    contenders: dict[str, tuple[Callable[[int, int], None], int]] = {
        "smtp driver, PIPELINING": (with_driver, eager),
        "smtp driver, lock-step": (with_driver, plain),
        "smtplib, reused": (with_smtplib, eager),
    }
    best: dict[str, tuple[float, float]] = {}
    try:
        for _ in range(arguments.rounds):
            for name, (run, port) in contenders.items():
                measured = cpu_per_mail(run, port, arguments.mails)
                best[name] = min(best.get(name, measured), measured)
    finally:
        for process in (eager_process, plain_process):
            process.terminate()
            process.join()
    reference = best["smtplib, reused"][0]
    for name, (cpu, wall) in best.items():
        print(f"{name:26} {cpu:7.1f} us CPU  {wall:7.1f} us wall  {cpu / reference:5.2f} of smtplib's CPU")


if __name__ == "__main__":
    main()
