"""Dramatiq on its own Redis broker: dramatiq dramatiq_app; publish: python dramatiq_app.py < counts."""

from __future__ import annotations

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from mails import send as send_mail

dramatiq.set_broker(RedisBroker(host="127.0.0.1", port=int(os.environ["REDIS_PORT"])))


@dramatiq.actor
def send(number: int) -> None:
    send_mail(number)


if __name__ == "__main__":
    for line in sys.stdin:
        for number in range(int(line)):
            send.send(number)
        sys.stdout.write("done\n")
        sys.stdout.flush()
