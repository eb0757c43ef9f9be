"""The memory of a worker's threads is one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ARENAS = """
import ctypes, re, sys, threading
from postier.workers.main import share_memory_among_threads

if sys.argv[1] == "shared":
    share_memory_among_threads()
    share_memory_among_threads()
held, all_hold = [], threading.Barrier(8)

def allocate():
    held.append(bytearray(5000))
    all_hold.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(len(re.findall("<heap nr", open(sys.argv[2]).read())))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_all_threads_allocate_from_one_arena(tmp_path: Path) -> None:
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", ARENAS, how, str(tmp_path / f"{how}.xml")]
        return int(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)

    assert arenas("as usual") > 1
    assert arenas("shared") == 1
