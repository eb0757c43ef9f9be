"""Logs that nobody takes cost lines, never a send."""

from __future__ import annotations

import os

import pytest

from postier.settings.log_stream import LogStream


def test_a_full_pipe_makes_nobody_wait_and_lost_lines_are_counted() -> None:
    reader, writer = os.pipe()
    try:
        stream = LogStream(writer)
        for _ in range(1000):
            stream.write("x" * 199 + "\n")
        assert 0 < stream.lost < 1000
        lost = stream.lost
        taken = os.read(reader, 1 << 20)
        assert taken.count(b"\n") == 1000 - lost
        stream.write("again\n")
        assert (stream.lost, os.read(reader, 100)) == (lost, b"again\n")
    finally:
        os.close(reader)
        os.close(writer)


def test_a_line_longer_than_a_pipe_takes_at_once_arrives_whole() -> None:
    reader, writer = os.pipe()
    try:
        LogStream(writer).write("y" * 20_000)
        assert os.read(reader, 30_000) == b"y" * 20_000
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_and_a_closed_stream_count_every_line() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    full = LogStream(descriptor)
    full.write("one\n")
    os.close(descriptor)
    full.write("two\n")
    nobody = LogStream(None)
    nobody.write("three\n")
    assert (full.lost, nobody.lost) == (2, 1)
