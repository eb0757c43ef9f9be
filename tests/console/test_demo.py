"""The demo from outside, with nothing but its own folder."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import policy
from email.parser import BytesParser
from pathlib import Path

from postier.ledger.embedded import EmbeddedServer
from tests.conftest import PATIENCE
from tests.console.helpers import Answer, wait_until

POSTIER = (sys.executable, "-P", "-m", "postier.console")


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")}


def settings(folder: Path) -> dict[str, str]:
    lines = (folder / "demo.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def command(folder: Path, *arguments: str) -> Answer:
    done = subprocess.run(
        [*POSTIER, *arguments],
        env=clean() | settings(folder),
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def processes_of(folder: Path) -> list[str]:
    """Command lines and environments of everything that runs for this demo."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line + environment and process.name != str(os.getpid()):
            found.append(line.decode(errors="replace"))
    return found


def test_once_each_sample_event_ends_as_its_story_says_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [*POSTIER, "demo", "--once", "--json", "--folder", str(folder)],
        env=clean(), capture_output=True, text=True, timeout=8 * PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    told = answer["stories"]
    assert answer["ok"]
    assert {story["kind"] for story in told} == {"account_validation", "reset_link", "data_change", "contact_form"}
    assert {(story["account"], story["story"]) for story in told} == {
        ("office", "sent"), ("office", "failed"), ("newsletter", "sent"), ("library", "waits"), ("annexe", "retried"),
    }  # fmt: skip
    assert all(story["as_told"] for story in told)
    sent = sum(delivery["state"] == "sent" for story in told for delivery in story["deliveries"])
    mails = list((folder / "mail").glob("*/*.eml"))
    assert len(mails) == sent == 14
    languages = {BytesParser(policy=policy.default).parsebytes(mail.read_bytes())["Content-Language"] for mail in mails}
    assert languages <= {"en", "fr", None}
    assert (folder / "mail" / "index.html").read_text().count("<tr>") == sent + 1
    assert stat.S_IMODE((folder / "demo.env").stat().st_mode) == 0o600
    assert "the demo is not running" in command(folder, "deliveries", "list").err.lower()
    assert processes_of(folder) == []


def test_at_a_terminal_it_serves_on_a_redis_of_one_s_own_until_ctrl_c(server: EmbeddedServer, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    environment = clean() | {"POSTIER_REDIS_URL": server.url, "TERM": "xterm", "COLUMNS": "160"}
    with terminal() as (end, screen):
        start = [*POSTIER, "demo", "--folder", str(folder)]
        with subprocess.Popen(start, env=environment, stdout=end) as demo:
            wait_until(lambda: b"Serving." in screen, 4 * PATIENCE)

            first = command(folder, "publish", str(folder / "sample.jsonl"))
            again = command(folder, "publish", str(folder / "sample.jsonl"))
            second = subprocess.run(
                start, env=clean(), capture_output=True, text=True, timeout=4 * PATIENCE, check=False
            )
            waiting = command(folder, "deliveries", "list", "--account", "library", "--json")
            wait_until(lambda: first.lines[-1]["deliveries"][0].encode() in screen)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(timeout=2 * PATIENCE) == 0

    assert settings(folder)["POSTIER_NAMESPACE"] == "postier-demo"
    assert (first.code, again.code) == (0, 0)
    assert all(line["duplicate"] for line in again.lines)
    assert second.returncode == 2
    assert second.stderr.startswith("postier: a demo is running in ")
    assert {line["state"] for line in waiting.lines} == {"waiting"}
    assert processes_of(folder) == []


@contextmanager
def terminal() -> Iterator[tuple[int, bytearray]]:
    """The end of a pseudo-terminal for a command, and what it wrote so far."""
    ours, theirs = os.openpty()
    screen = bytearray()

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while part := os.read(ours, 65_536):
                screen.extend(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield theirs, screen
    finally:
        os.close(theirs)
        reader.join(timeout=5)
        os.close(ours)


def test_a_killed_demo_takes_its_server_and_workers_along(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with subprocess.Popen([*POSTIER, "demo", "--folder", str(folder)], env=clean(), stdout=subprocess.DEVNULL) as demo:
        wait_until(lambda: (folder / "sample.jsonl").exists())
        wait_until(lambda: len(processes_of(folder)) > 2)

        demo.kill()
        demo.wait()

        wait_until(lambda: not processes_of(folder))
