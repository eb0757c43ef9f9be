"""Which servers the tests find or install, with an apt-get that only takes notes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# notes its arguments and what services were told at that moment; puts a command in place, unless told to fail
APT_GET = """\
    #!/bin/sh
    echo "$DEBIAN_FRONTEND: $* [policy: $("$POLICY"; echo $?)]" >> "$NOTES"
    case "$*" in *chromium) echo "E: Unable to locate package chromium"; exit 100;; esac
    for last; do :; done
    case "$*" in *" install "*) printf '#!/bin/sh\\n' > "$BIN/$last"; chmod +x "$BIN/$last";; esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands that has an apt-get and nothing that the tests look for."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "apt-get").write_text(textwrap.dedent(APT_GET))
    (commands / "apt-get").chmod(0o755)
    return tmp_path


def provide(machine: Path, *, root: bool = True, **more: str) -> tuple[str, list[str]]:
    """Look for servers on that machine. Returns what was said and what apt-get was told."""
    commands, policy, notes = machine / "bin", machine / "policy-rc.d", machine / "notes"
    script = (
        "import os; from pathlib import Path; from tools import servers\n"
        f"servers.SYSTEM_PATH = {str(commands)!r}; servers.POLICY = Path({str(policy)!r})\n"
        f"os.geteuid = lambda: {0 if root else 1000}\n"
        "servers.provide()\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("POSTIER_")}
    environment |= {
        "PATH": f"{commands}:/usr/bin:/bin",
        "POLICY": str(policy),
        "NOTES": str(notes),
        "BIN": str(commands),
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment | more,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stderr, notes.read_text().splitlines() if notes.exists() else []


def test_missing_servers_are_installed_while_services_are_kept_down(machine: Path) -> None:
    _, told = provide(machine)

    installs = [line for line in told if " install " in line]
    assert len(installs) == 4
    assert all(line.startswith("noninteractive: ") and "[policy: 101]" in line for line in installs)
    assert all("--no-install-recommends" in line and "--no-remove" in line for line in installs)


def test_the_policy_of_the_machine_is_put_back(machine: Path) -> None:
    policy = machine / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o700)

    provide(machine)

    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert policy.stat().st_mode & 0o777 == 0o700


def test_no_policy_is_left_where_there_was_none(machine: Path) -> None:
    provide(machine)

    assert not (machine / "policy-rc.d").exists()


def test_a_package_that_cannot_be_installed_is_said_aloud_and_stops_nothing(machine: Path) -> None:
    said, _ = provide(machine)

    assert "Unable to locate package chromium" in said
    assert "tests that look at pages in a browser will be skipped" in said
    assert (machine / "bin" / "postfix").exists()


def test_what_is_there_is_not_installed_again(machine: Path) -> None:
    for command in ("valkey-server", "dovecot", "postfix", "google-chrome"):
        (machine / "bin" / command).touch(mode=0o755)

    assert provide(machine) == ("", [])


@pytest.mark.parametrize(("root", "more"), [(False, {}), (True, {"POSTIER_NO_APT": "1"})])
def test_nothing_is_installed_without_leave(machine: Path, root: bool, more: dict[str, str]) -> None:
    said, told = provide(machine, root=root, **more)

    assert told == []
    assert said.count("will be skipped") == 4
