"""Dramatiq on its own Redis broker: dramatiq dramatiq_app; publish: python dramatiq_app.py."""

from __future__ import annotations

import os

import dramatiq
import mails
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(host="127.0.0.1", port=int(os.environ["REDIS_PORT"])))


@dramatiq.actor
def send(number: int) -> None:
    mails.send(number)


if __name__ == "__main__":
    mails.publish(send.send, lambda numbers: [send.send(number) for number in numbers])
