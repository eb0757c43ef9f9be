"""Celery on Redis, acknowledging after the task: celery -A celery_app worker; python celery_app.py < counts."""

from __future__ import annotations

import os
import sys

from celery import Celery, group
from mails import send as send_mail

app = Celery("mail", broker=f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, task_ignore_result=True)


@app.task(name="send")
def send(number: int) -> None:
    send_mail(number)


if __name__ == "__main__":
    for line in sys.stdin:
        total = int(line)
        for start in range(0, total, 100):
            group(send.s(number) for number in range(start, min(total, start + 100))).apply_async()
        sys.stdout.write("done\n")
        sys.stdout.flush()
