"""Celery on Redis, acknowledging after the task: celery -A celery_app worker; publish: python celery_app.py."""

from __future__ import annotations

import os

import mails
from celery import Celery, group

app = Celery("mail", broker=f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, task_ignore_result=True)


@app.task(name="send")
def send(number: int) -> None:
    mails.send(number)


if __name__ == "__main__":
    mails.publish(send.delay, lambda numbers: group(send.s(number) for number in numbers).apply_async())
