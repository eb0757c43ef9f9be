"""A Redis stream and a loop, no queue library: the floor. python bare_app.py work; publish: python bare_app.py."""

from __future__ import annotations

import contextlib
import os
import sys

import mails
import redis

STREAM, GROUP = "mail", "workers"
line = redis.Redis(port=int(os.environ["REDIS_PORT"]))


def work() -> None:
    with contextlib.suppress(redis.ResponseError):  # the other process made it
        line.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    while True:
        for _, entries in line.xreadgroup(GROUP, str(os.getpid()), {STREAM: ">"}, count=8, block=5000):
            for entry, fields in entries:
                mails.send(int(fields[b"number"]))
                line.xack(STREAM, GROUP, entry)


def send(number: int) -> None:
    line.xadd(STREAM, {"number": number})


def send_all(numbers: list[int]) -> None:
    with line.pipeline(transaction=False) as pipe:
        for number in numbers:
            pipe.xadd(STREAM, {"number": number})
        pipe.execute()


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        mails.publish(send, send_all)
