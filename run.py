#!/usr/bin/env python3
# -*- coding: utf-8 -*-
"""The one command of a checkout: sets it up, then runs what was asked. Needs nothing but a bare Python.

This file is read by old Pythons too, so that they can say they are too old: no f-strings, no annotations here.
"""

import os
import sys

OLDEST = (3, 11)
NEWER = ("python3.13", "python3.12", "python3.11", "python3.14", "python3", "python")
ROOT = os.path.dirname(os.path.realpath(__file__))

USAGE = """usage: python3 run.py [WORD] [ARGUMENTS]

  (nothing)            set up .venv, then run the demo: Ctrl-C ends it; --once ends with the sample events
  test [PYTEST ARGS]   set up, install the servers the tests talk to (as root on Debian), run the tests
  check                lint, format, types, import contracts, committed schemas
  lock [UV ARGS]       resolve pyproject.toml again into requirements/*.lock (--upgrade for newer versions)
  components [FILE]    what the image carries, as a CycloneDX list
  release FOLDER       the wheel of the last commit, built so that it can be built again, and its component list
  setup                set up .venv and stop there
  WORD ...             any other word is a postier command, run on the demo while it is up:
                       python3 run.py publish events.jsonl · python3 run.py status ID

environment:
  POSTIER_REDIS_URL    a Redis or Valkey of your own instead of the embedded one
  POSTIER_NO_APT=1     leave the system's packages alone

Everything is made inside the checkout: .venv/ (tools), .postier/ (the data of the demo), build/.
Delete them to start afresh.
"""


def newer_python():
    """The path of a Python that is new enough, or None."""
    import subprocess

    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in NEWER:
            path = os.path.join(folder, name)
            if not os.access(path, os.X_OK):
                continue
            probe = [path, "-c", "import sys; sys.exit(sys.version_info < %r)" % (OLDEST,)]
            with open(os.devnull, "wb") as null:
                try:
                    if subprocess.call(probe, stdout=null, stderr=null) == 0:
                        return path
                except OSError:
                    continue
    return None


def grow_up():
    """Go on with a newer Python when this one is too old."""
    mine = "%d.%d" % sys.version_info[:2]
    path = newer_python()
    if path is None:
        sys.exit(
            "run.py: postier needs Python %d.%d or later; this is %s and PATH has no newer one.\n"
            "        Install one (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python;\n"
            "        anywhere: `uv python install 3.13` or pyenv) and say: python3.13 run.py" % (OLDEST + (mine,))
        )
    sys.stderr.write("run.py: Python %s is too old, going on with %s\n" % (mine, path))
    sys.stderr.flush()
    os.execv(path, [path, os.path.join(ROOT, "run.py")] + sys.argv[1:])


def main():
    if sys.argv[1:] in (["-h"], ["--help"], ["help"]):
        sys.stdout.write(USAGE)
        return 0
    if sys.version_info < OLDEST:
        grow_up()
    from tools import words

    return words.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
