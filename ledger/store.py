"""The one way to Redis: a connection with explicit timeouts, and the Lua scripts."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from postier.schemas.errors import ConfigurationError, LedgerUnavailable
from postier.settings.logs import redact

_SURELY_OPEN = 0.05  # seconds: no server that was left so shortly ago is back again

Argument = str | bytes | int | float

# Everything but publish must still run when memory is full, or nothing could drain.
_DRAINS = {
    "claim", "settle", "usual", "renew", "manage", "configure", "login", "replay", "records", "repair", "dataset",
    "tidy",
}  # fmt: skip
_READS = {"search", "facts", "preview", "look", "whole"}
# What stands in front of each script; those that only read take the common part alone.
_WRITES = ("common", "clock")
_GOVERNED = (*_WRITES, "accounts", "governor")
_SHARED = {
    "claim": (*_GOVERNED, "housekeeping", "permits"),
    "settle": (*_GOVERNED, "health", "entries"),
    "usual": (*_WRITES, "accounts", "entries"),
    "login": (*_WRITES, "accounts"),
    "renew": (*_WRITES, "accounts"),
    "configure": _GOVERNED,
    "manage": _GOVERNED,
    "replay": _GOVERNED,
}
_REFUSALS = (
    "OOM", "MISCONF", "READONLY", "NOREPLICAS", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED",
)  # fmt: skip
_NOT_OFFERED = (
    "the ledger's scripts are not loaded, and this user may not bring any: no worker of this version has been here "
    "since Redis started (update workers before publishers)"
)
_MEANS = {
    "OOM": "redis_full: its memory is full",
    "MISCONF": "disk_full: it answers MISCONF, for it cannot write to its disk",
    "UNBLOCKED": "UNBLOCKED, for it became a replica",
}
_IN_A_PIPELINE = re.compile(r"^Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
# The client library takes the word off where it has a class for it.
_CLASSES: dict[type[Exception], str] = {
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
}


@cache
def script_source(name: str) -> tuple[str, str]:
    """A script's text, with the shared part in front, and its SHA-1."""
    folder = resources.files("postier.ledger") / "scripts"
    flags = "allow-oom" if name in _DRAINS else "no-writes" if name in _READS else ""
    head = f"#!lua flags={flags}\n" if flags else "#!lua\n"
    shared = ("common",) if name in _READS else _SHARED.get(name, _WRITES)
    parts = [(folder / f"{part}.lua").read_text("utf-8") for part in (*shared, name)]
    text = head + "".join(parts)
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _words(error: ResponseError) -> str:
    """What the server said: in a pipeline the client library puts the command with its values in front."""
    return _IN_A_PIPELINE.sub("", str(error))


def load_scripts() -> None:
    """Read every script now: later there may be no descriptor left, or another version in its place."""
    for name in (*_SHARED, *_DRAINS, *_READS, "publish", "allow", "amend", "refused"):
        script_source(name)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the client library's errors into ours."""
    try:
        yield
    except AuthenticationError:
        text = "Redis refuses the login: compare user and password in POSTIER_REDIS_URL with those it knows"
        raise LedgerUnavailable(text, retry_after=5.0) from None
    except (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError) as error:
        if "max number of clients" in str(error):
            text = "Redis takes no more connections: raise its maxclients, or run fewer workers and publishers"
            raise LedgerUnavailable(text, retry_after=5.0) from None
        silent = isinstance(error.__context__, BlockingIOError)  # the kernel's word for a timeout
        name = "TimeoutError" if silent else type(error).__name__
        raise LedgerUnavailable(f"Redis cannot be reached: {name}") from None
    except NoPermissionError as error:
        text = "Redis refuses the command: its user has no right to it (compare deploy/users.acl)"
        raise LedgerUnavailable(f"{text}: {_words(error)}"[:300], retry_after=30.0) from None
    except ResponseError as error:
        words = _words(error)
        word = _CLASSES.get(type(error)) or words.split(" ", 1)[0]
        if word in _REFUSALS:
            raise LedgerUnavailable(f"Redis refuses the write: {_MEANS.get(word, word)}", retry_after=5.0) from None
        # Whatever else stands in front of Redis, or somebody who ends a script by hand, may say. The server quotes
        # arguments of a command it does not know: those stay out.
        words = redact(words.partition(", with args")[0])[:200]
        raise LedgerUnavailable(f"Redis answers with an error: {type(error).__name__}: {words}") from None
    except RedisError as error:
        raise LedgerUnavailable(f"Redis failed: {type(error).__name__}") from None


def glob(text: str) -> str:
    """A text as SCAN's pattern takes it literally."""
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in text)


def let_the_kernel_wait(sock: Any, seconds: float) -> None:
    """Keep a plain socket's timeout in the kernel: Python asks it with a poll before every send and receive."""
    if type(sock) is socket.socket:
        patience = struct.pack("@ll", *divmod(int(seconds * 1e6), 1_000_000))
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)


class Store:
    """A thread-safe handle on one ledger: the Redis server and the key prefix.

    Commands are never re-sent by the client library: after a timeout nobody knows whether they ran.
    """

    def __init__(self, url: str, *, namespace: str = "postier", timeout: float = 5.0) -> None:
        try:
            self.redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=min(timeout, 2.0),
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
            )
        except ValueError:
            # The library's words may repeat the password: with a / or # in it, the beginning is read as a port.
            raise ConfigurationError(
                "POSTIER_REDIS_URL: this is no Redis address, which reads redis://user:password@host:6379/0 (rediss:// "
                "with TLS, unix:// for a socket); in a password, / # ? and @ are written %2F %23 %3F and %40"
            ) from None
        # Looks at every new connection before it is used; raises when this is not the ledger that was here before.
        self.guard: Callable[[Any], None] | None = None
        self.lost_connections = 0
        self.timeout = timeout
        self._idle: list[tuple[Any, float]] = []  # connections, and when each was used last (monotonic)
        self._pid = os.getpid()
        self.url = url
        self.namespace = namespace
        self.prefix = f"{{{namespace}}}:"

    def key(self, name: str) -> str:
        """The full name of a key."""
        return self.prefix + name

    def run(self, script: str, args: Sequence[Argument]) -> Any:
        """Run one script atomically. Raises LedgerUnavailable; then it may or may not have run."""
        text, digest = script_source(script)
        with translated():
            try:
                return self._call("EVALSHA", digest, 1, self.prefix, *args)
            except NoScriptError:
                try:
                    return self._call("EVAL", text, 1, self.prefix, *args)
                except NoPermissionError:
                    raise LedgerUnavailable(_NOT_OFFERED) from None

    def offer(self, *scripts: str) -> None:
        """Let users who may bring no text of their own run these. Raises LedgerUnavailable. Calling again is safe."""
        digests = [script_source(name)[1] for name in scripts]
        with translated():
            for name, known in zip(scripts, self.redis.script_exists(*digests), strict=True):
                if not known:
                    self.redis.script_load(script_source(name)[0])

    def _call(self, *words: Argument) -> Any:
        """One command on an idle connection; half the cost of the client's general way (measured: 13 against 30 us)."""
        if os.getpid() != self._pid:
            self._idle, self._pid = [], os.getpid()
        connection = self._connection()
        try:
            connection.send_command(*words, check_health=False)
            answer = connection.read_response()
        except ResponseError:
            self._idle.append((connection, time.monotonic()))
            raise
        except BaseException:
            self.lost_connections += 1
            connection.disconnect()
            raise
        self._idle.append((connection, time.monotonic()))
        return answer

    def forget_connections(self) -> None:
        """Close idle connections: whoever comes next makes a new one."""
        while self._idle:
            self._idle.pop()[0].disconnect()

    def _connection(self) -> Any:
        """An idle connection that the server did not close meanwhile, or a new one."""
        while True:
            try:
                connection, used = self._idle.pop()
            except IndexError:
                return self.new_connection()
            if time.monotonic() - used < _SURELY_OPEN:
                return connection
            try:
                if not connection.can_read(timeout=0):
                    return connection
            except (RedisError, OSError):
                pass
            self.lost_connections += 1
            connection.disconnect()

    def new_connection(self) -> Any:
        """One that the guard has looked at; the caller closes it. Raises the client library's errors."""
        # Not the pool's: that one counts every connection it ever made, and makes none after a hundred failures.
        pool = self.redis.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        try:
            connection.connect()
            let_the_kernel_wait(connection._sock, self.timeout)
            if self.guard is not None:
                self.guard(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def now(self) -> int:
        """Redis time in microseconds: when something happened."""
        with translated():
            seconds, micros = self.redis.time()
        return int(seconds) * 1_000_000 + int(micros)

    def ahead(self) -> int:
        """How far (microseconds) the ledger's own time, in which it waits, is ahead of Redis time: 0 unless that one
        has stepped. Due times, deadlines, leases, pauses and ends of quotas are in the ledger's time.
        """
        with translated():
            return int(self.redis.get(self.key("clock")) or 0)

    def close(self) -> None:
        """Close all connections. Calling twice is safe."""
        self.forget_connections()
        self.redis.close()
