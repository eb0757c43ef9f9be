"""A TCP proxy in user space: passes, holds everything back (a partition), delays, refuses, or cuts."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time


class Proxy:
    """Stands before `target` (a loopback port) on its own `port`.

    `hole()` is a partition: nothing passes either way and nobody is told; what was sent meanwhile passes after
    `heal()`, as retransmission would have it. `cut()` resets every connection.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self._open = threading.Event()
        self._open.set()
        self._guard = threading.Lock()
        self._socks: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hole(self) -> None:
        """Let nothing pass."""
        self._open.clear()

    def heal(self) -> None:
        """Let everything pass again."""
        self._open.set()

    def cut(self) -> None:
        """Reset every connection."""
        with self._guard:
            socks, self._socks = self._socks, []
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Be gone."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._open.set()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._open.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._guard:
            self._socks += [near, far]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while octets := source.recv(65_536):
                self._open.wait()
                if self.delay:
                    time.sleep(self.delay)
                sink.sendall(octets)
        except OSError:
            pass
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with self._guard:
                if sock in self._socks:
                    self._socks.remove(sock)
            sock.close()
