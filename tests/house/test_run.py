"""run.py, seen from outside, in a small checkout of its own: nothing here touches the `.venv` of this one."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# stands where the venv's Python would: tells what it was asked, on which Redis, and leaves as told
ECHO = """\
    #!/bin/sh
    echo "asked: $*"
    echo "redis: $POSTIER_REDIS_URL"
    echo "folder: $(pwd)"
    exit 7
"""

# a Python that keeps a list of what pip was asked to install
INSTALLER = """\
    #!/bin/sh
    case "$*" in *" install "*) echo "$*" >> "$(dirname "$0")/../installed";; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose set-up is finished, with a stand-in for the Python of its `.venv`."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    for name in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    put_python(folder, ECHO)
    stamp(folder)
    return folder


def put_python(checkout: Path, script: str) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(textwrap.dedent(script))
    python.chmod(0o755)


def stamp(checkout: Path) -> None:
    """Write the stamp of a finished set-up, as the checkout itself reckons it."""
    reckon = "import json; from tools.checkout import wanted, STAMP; STAMP.write_text(json.dumps(wanted()))"
    subprocess.run([sys.executable, "-c", reckon], cwd=checkout, check=True, timeout=30)


def append(file: Path, line: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("POSTIER_", "PYTEST_"))}
    return kept | {"POSTIER_NO_APT": "1", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull} | more


def run(checkout: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(checkout / "run.py"), *arguments],
        cwd=checkout.parent,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_run_py_alone_becomes_the_demo_in_the_checkout(checkout: Path) -> None:
    answer = run(checkout)

    assert "asked: -P -m postier.console demo\n" in answer.stdout
    assert f"folder: {checkout}\n" in answer.stdout


def test_options_without_a_word_go_to_the_demo(checkout: Path) -> None:
    assert "asked: -P -m postier.console demo --once\n" in run(checkout, "--once").stdout


def test_any_other_word_is_a_postier_command_where_the_caller_stands(checkout: Path) -> None:
    answer = run(checkout, "publish", "events.jsonl")

    assert "asked: -P -m postier.console publish events.jsonl\n" in answer.stdout
    assert f"folder: {checkout.parent}\n" in answer.stdout


def test_the_exit_code_is_the_command_s_own(checkout: Path) -> None:
    assert run(checkout, "status", "0").returncode == 7


def test_a_command_speaks_to_the_running_demo(checkout: Path) -> None:
    (checkout / ".postier").mkdir()
    (checkout / ".postier" / "demo.env").write_text("# the demo\nPOSTIER_REDIS_URL=redis://127.0.0.1:1/0?a=b\n")

    assert "redis: redis://127.0.0.1:1/0?a=b\n" in run(checkout, "status", "ID").stdout


def test_a_redis_of_one_s_own_wins_over_the_demo(checkout: Path) -> None:
    (checkout / ".postier").mkdir()
    (checkout / ".postier" / "demo.env").write_text("POSTIER_REDIS_URL=redis://127.0.0.1:1/0\n")

    answer = run(checkout, "status", "ID", POSTIER_REDIS_URL="redis://127.0.0.1:2/0")

    assert "redis: redis://127.0.0.1:2/0\n" in answer.stdout


def test_tests_run_in_three_processes_unless_the_arguments_choose(checkout: Path) -> None:
    assert (
        "asked: -m pytest -n 3 --dist loadgroup tests/house -k wheel\n"
        in run(checkout, "test", "tests/house", "-k", "wheel").stdout
    )
    assert "asked: -m pytest -n 0\n" in run(checkout, "test", "-n", "0").stdout
    assert "asked: -m pytest --pdb\n" in run(checkout, "test", "--pdb").stdout


def test_a_finished_set_up_is_found_in_silence_and_without_starting_anything(checkout: Path) -> None:
    answer = run(checkout, "setup")  # the stand-in for Python would tell what it was asked

    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    look = "import sys; sys.addaudithook(lambda event, _: event.startswith(('subprocess', 'os.posix_spawn', 'os.fork',"
    look += " 'os.exec', 'socket')) and print(event)); from tools import words; words.run(['setup'])"
    seen = subprocess.run(
        [sys.executable, "-c", look], cwd=checkout, env=environment(), capture_output=True, text=True, check=True
    )
    assert seen.stdout == ""


def test_a_changed_lock_is_installed_with_its_hashes_and_then_postier_again(checkout: Path) -> None:
    put_python(checkout, INSTALLER)
    append(checkout / "requirements" / "checkout.lock", "# changed")

    answer = run(checkout, "setup")

    assert answer.returncode == 0
    lock, postier = (checkout / ".venv" / "installed").read_text().splitlines()
    assert "--require-hashes" in lock
    assert lock.endswith("/requirements/checkout.lock")
    assert postier.endswith(f"-e {checkout}")
    assert run(checkout, "setup").stderr == ""


def test_a_changed_pyproject_installs_postier_alone(checkout: Path) -> None:
    put_python(checkout, INSTALLER)
    append(checkout / "pyproject.toml", "# changed")

    run(checkout, "setup")

    (postier,) = (checkout / ".venv" / "installed").read_text().splitlines()
    assert postier.endswith(f"-e {checkout}")
    assert "--no-build-isolation" in postier


def test_a_checkout_that_moved_installs_postier_again(checkout: Path) -> None:
    put_python(checkout, INSTALLER)
    moved = checkout.rename(checkout.parent / "moved")

    run(moved, "setup")

    assert (moved / ".venv" / "installed").read_text().splitlines()[-1].endswith(f"-e {moved}")


def test_two_set_ups_of_one_checkout_wait_for_each_other(checkout: Path) -> None:
    finished = (checkout / ".venv" / "postier-stamp.json").read_text()
    (checkout / ".venv" / "postier-stamp.json").unlink()
    (checkout / "build").mkdir()
    with (checkout / "build" / "setup.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, str(checkout / "run.py"), "setup"], env=environment(), stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stderr is not None
            assert "another set-up of this checkout is running" in second.stderr.readline()
            (checkout / ".venv" / "postier-stamp.json").write_text(finished)
            fcntl.flock(other, fcntl.LOCK_UN)

            assert second.wait(timeout=30) == 0
            assert second.stderr.read() == ""


def test_ctrl_c_reaches_the_command_and_its_exit_code_comes_back(checkout: Path) -> None:
    put_python(checkout, "#!/bin/sh\ntrap 'echo drained; exit 42' INT\necho up\nread line\n")
    with subprocess.Popen(
        [sys.executable, str(checkout / "run.py")],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline() == "up\n"
        demo.send_signal(signal.SIGINT)

        assert demo.wait(timeout=30) == 42
        assert demo.stdout.read() == "drained\n"


def test_set_up_says_what_to_install_when_nothing_can_install(checkout: Path) -> None:
    bare = checkout / "bare"
    call = (
        "import sys; sys.executable = '/nonexistent/python3'\n"
        "from pathlib import Path; from tools.installers import bootstrap_pip, SetupError\n"
        f"try: bootstrap_pip(Path({str(bare)!r}), Path('requirements/checkout.lock'))\n"
        "except SetupError as error: print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", call],
        cwd=checkout,
        env=environment(PATH="/nonexistent", HOME="/nonexistent"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "apt-get install python3-venv" in answer.stdout
    assert "docs.astral.sh/uv" in answer.stdout


def test_a_failed_install_shows_its_last_words(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    put_nothing_installable(checkout)

    answer = run(checkout, "setup")

    assert answer.returncode == 1
    assert "Its last words:" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_set_up_that_was_cut_off_is_begun_again(checkout: Path) -> None:
    append(checkout / "requirements" / "checkout.lock", "# changed")
    put_python(checkout, "#!/bin/sh\ncase \"$*\" in *' install '*) exit 1;; esac\n")
    assert run(checkout, "setup").returncode == 1
    with subprocess.Popen(
        [sys.executable, str(checkout / "run.py"), "setup"], env=environment(), stderr=subprocess.PIPE, text=True
    ) as second:
        assert second.stderr is not None
        first_words = second.stderr.readline()
        second.send_signal(signal.SIGINT)

        assert "half made" in first_words
        assert second.wait(timeout=30) == 128 + signal.SIGINT
        assert "Traceback" not in second.stderr.read()


def put_nothing_installable(checkout: Path) -> None:
    """A lock of a package that exists nowhere; pip itself comes from the ensurepip of the Python that runs."""
    lock = checkout / "requirements" / "checkout.lock"
    pip = lock.read_text().partition("\npip==")[2].partition("\nplaywright==")[0]
    lock.write_text(f"pip=={pip}\npostier-nowhere==1.0 --hash=sha256:{'0' * 64}\n")


def pretend_old(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """run.py in a Python that believes to be 3.9, with `path` as its PATH."""
    old = "import sys, runpy; sys.version_info = (3, 9, 2); sys.argv = ['run.py', 'status', 'x y']"
    return subprocess.run(
        [sys.executable, "-c", f"{old}; runpy.run_path({str(folder / 'run.py')!r}, run_name='__main__')"],
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_an_old_python_names_the_one_that_is_needed(checkout: Path) -> None:
    answer = pretend_old(checkout, "/nonexistent")

    assert answer.returncode == 1
    assert "postier needs Python 3.11 or later; this is 3.9" in answer.stderr


def test_an_old_python_goes_on_with_a_newer_one_on_path(checkout: Path) -> None:
    newer = checkout / "newer"
    newer.mkdir()
    (newer / "python3.13").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (newer / "python3.13").chmod(0o755)

    answer = pretend_old(checkout, str(newer))

    assert "asked: -P -m postier.console status x y\n" in answer.stdout
    assert f"going on with {newer}/python3.13" in answer.stderr


def test_run_py_can_be_read_by_python_2_and_early_python_3() -> None:
    source = (ROOT / "run.py").read_text(encoding="utf-8")

    assert source.splitlines()[1] == "# -*- coding: utf-8 -*-"
    assert not any(f'{mark}"' in source or f"{mark}'" in source for mark in (" f", "(f", "=f"))
    assert "->" not in source
    assert ":=" not in source


def test_help_needs_no_set_up(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")

    answer = run(checkout, "--help")

    assert answer.returncode == 0
    assert "python3 run.py" in answer.stdout
    assert not (checkout / ".venv").exists()


def test_the_stamp_is_readable_json(checkout: Path) -> None:
    assert set(json.loads((checkout / ".venv" / "postier-stamp.json").read_text())) == {"lock", "project"}
