"""What every kind must have, and how a kind from elsewhere joins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from postier.schemas.errors import InvalidEvent
from postier.schemas.events import KINDS, DataChange, Event, kind_named

PLUGIN = """
from postier.schemas.events.base import EXAMPLE_TIME, Event, OneRecipient

class Ping(Event):
    kind = "ping"
    recipient: OneRecipient

    @classmethod
    def example(cls, at=EXAMPLE_TIME):
        return cls(recipient="a@example.org")

    def to(self):
        return (self.recipient,)
"""
CLASH = PLUGIN.replace('"ping"', '"reset_link"')


def test_kinds_handle_their_mail_as_designed() -> None:
    designed = {
        "account_validation": ("urgent", "resend", True, 24),
        "contact_form": ("bulk", "hold", False, 48),
        "data_change": ("bulk", "hold", False, 48),
        "reset_link": ("urgent", "resend", True, 24),
        "sender_confirmation": ("urgent", "resend", True, 48),
    }
    handling = {
        kind: (event.priority, event.on_unknown, event.sensitive, event.deadline // timedelta(hours=1))
        for kind, event in KINDS.items()
    }
    assert {kind: handling[kind] for kind in designed} == designed
    assert isinstance(KINDS, Mapping)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_complete(kind: str) -> None:
    event = KINDS[kind]
    assert kind_named(kind) is event
    assert event.example() == event.example()
    assert event.sample
    assert event.schema_version >= 1
    assert event.__doc__
    fields = event.model_fields
    for field, _ in event.example().links():
        assert field.partition(".")[0] in fields


def test_a_data_change_is_urgent_when_it_says_so() -> None:
    assert not DataChange.example().is_urgent
    assert DataChange.example().model_copy(update={"urgent": True}).is_urgent


def test_an_unknown_kind_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(InvalidEvent, match="contact_form, data_change") as caught:
        kind_named("nothing")
    assert (caught.value.field, caught.value.code) == ("kind", "unknown_kind")


def run_with_plugin(folder: Path, source: str, program: str) -> subprocess.CompletedProcess[str]:
    (folder / "ping_plugin.py").write_text(source)
    described = folder / "ping_plugin-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: ping-plugin\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[postier.events]\nping = ping_plugin:Ping\n")
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_kind_of_another_package_joins_by_entry_point(tmp_path: Path) -> None:
    done = run_with_plugin(
        tmp_path,
        PLUGIN,
        "from postier.schemas.events import KINDS\n"
        "from postier.schemas.edge import read_envelope, wrap\n"
        "from postier.schemas.json_schema import schema_for\n"
        "envelope = wrap(KINDS['ping'].example(), tenant='school')\n"
        "assert read_envelope(envelope.model_dump_json()) == envelope\n"
        "print(sorted(KINDS), schema_for('ping')['properties']['kind'])",
    )
    assert done.returncode == 0, done.stderr
    assert "'ping'" in done.stdout
    assert "'reset_link'" in done.stdout


def test_two_classes_of_one_kind_stop_the_start(tmp_path: Path) -> None:
    done = run_with_plugin(tmp_path, CLASH, "from postier.schemas.events import KINDS; len(KINDS)")
    assert done.returncode != 0
    assert "two event classes are of the kind 'reset_link'" in done.stderr


def test_every_event_class_of_the_package_is_registered() -> None:
    ours = {event for event in Event.__subclasses__() if event.__module__.startswith("postier.schemas.events.")}
    assert ours == {event for event in KINDS.values() if event.__module__.startswith("postier.schemas.events.")}
