"""A fast SMTP sink in a process of its own: takes everything, remembers when each mail came, from whom, and which one.

    python bench/sink.py PORT [SECONDS_PER_REPLY]

Its own verb XLOG answers one JSON line: a list of [seconds since 1970, envelope sender, Message-ID] per mail taken.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time

MESSAGE_ID = re.compile(rb"(?mi)^message-id:\s*(<[^>]+>)")
QUICKACK = getattr(socket, "TCP_QUICKACK", socket.TCP_NODELAY)  # Linux alone has the first
TAKEN: list[tuple[float, str, str]] = []
HELLO = b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 ENHANCEDSTATUSCODES\r\n"
OPEN = 0
MOST_OPEN = 0


class Sink(asyncio.Protocol):
    """One connection: lines in, replies out, in the order they came."""

    delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        global OPEN, MOST_OPEN
        OPEN += 1
        MOST_OPEN = max(MOST_OPEN, OPEN)
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.socket = transport.get_extra_info("socket")
        self.socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        self.buffer = bytearray()
        self.in_body = self.over = False
        self.sender = ""
        self.free_at = 0.0
        self._send(b"220 sink.test ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        global OPEN
        OPEN -= 1

    def data_received(self, data: bytes) -> None:
        # Clients that write a body in pieces would wait 40 ms for a delayed acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        self.buffer += data
        replies = []
        while True:
            end = self.buffer.find(b"\r\n.\r\n" if self.in_body else b"\r\n")
            if end < 0:
                break
            part = bytes(self.buffer[:end])
            del self.buffer[: end + (5 if self.in_body else 2)]
            replies.append(self._take(part) if self.in_body else self._command(part))
        if replies:
            self._send(b"".join(replies))

    def _take(self, body: bytes) -> bytes:
        found = MESSAGE_ID.search(body)
        TAKEN.append((time.time(), self.sender, found[1].decode() if found else ""))
        self.in_body = False
        return b"250 2.0.0 Ok: queued\r\n"

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return HELLO
        if verb == b"MAIL":
            self.sender = line[10:].split(b">")[0].strip(b"<> ").decode()
        elif verb == b"DATA":
            self.in_body = True
            return b"354 go ahead\r\n"
        elif verb == b"QUIT":
            self.over = True
            return b"221 2.0.0 Bye\r\n"
        elif verb == b"XLOG":
            return b"250 " + json.dumps({"taken": TAKEN, "most_open": MOST_OPEN}).encode() + b"\r\n"
        elif verb == b"XNUM":
            return b"250 %d\r\n" % len(TAKEN)
        return b"250 2.0.0 Ok\r\n"

    def _send(self, data: bytes) -> None:
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._write, data, self.over)
        else:
            self._write(data, self.over)

    def _write(self, data: bytes, over: bool) -> None:
        self.transport.write(data)
        if over:
            self.transport.close()


async def main() -> None:
    Sink.delay = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
