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
    case "$*" in
    *"-s install"*) echo "Inst libhere [1.0] (1.1 Debian:12 [amd64])"; echo "Inst libidn12 (1.41-1 Debian:12 [amd64])";;
    *download*) for name in exim4-daemon-light libidn12; do touch ${name}_1_amd64.deb; done; exit 0;;
    esac
    case "$*" in *chromium) echo "E: Unable to locate package chromium"; exit 100;; esac
    for last; do :; done
    case "$*" in *" install "*) printf '#!/bin/sh\\n' > "$BIN/$last"; chmod +x "$BIN/$last";; esac
"""

APT_CACHE = """\
    #!/bin/sh
    printf 'exim4-daemon-light\n  Depends: exim4-base\n |Depends: debconf\n  Depends: libidn12\n  Conflicts: postfix\n'
"""
# unpacks an Exim from any package, setuid as Debian's is, and a library from the rest
DPKG_DEB = """\
    #!/bin/sh
    case "$2" in
    *exim4*) mkdir -p "$3/usr/sbin"; echo exim > "$3/usr/sbin/exim4"; chmod 4755 "$3/usr/sbin/exim4";;
    *) mkdir -p "$3/usr/lib/here"; echo lib > "$3/usr/lib/here/libidn.so.12";;
    esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands that has an apt-get and nothing that the tests look for."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, script in (("apt-get", APT_GET), ("apt-cache", APT_CACHE), ("dpkg-deb", DPKG_DEB)):
        (commands / name).write_text(textwrap.dedent(script))
        (commands / name).chmod(0o755)
    return tmp_path


def provide(machine: Path, *, root: bool = True, **more: str) -> tuple[str, list[str]]:
    """Look for servers on that machine. Returns what was said and what apt-get was told."""
    commands, policy, notes = machine / "bin", machine / "policy-rc.d", machine / "notes"
    script = (
        "import os; from pathlib import Path; from tools import servers\n"
        f"servers.SYSTEM_PATH = {str(commands)!r}; servers.POLICY = Path({str(policy)!r})\n"
        f"servers.EXIM = Path({str(machine / 'build' / 'exim4')!r})\n"
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

    installs = [line for line in told if " install " in line and "-s install" not in line]
    assert len(installs) == 5
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


def test_exim_is_unpacked_beside_postfix_with_the_libraries_that_are_missing_and_no_setuid_bit(machine: Path) -> None:
    _, told = provide(machine)

    (fetched,) = [line.split(" [policy")[0] for line in told if "download" in line]
    assert fetched.endswith("download exim4-daemon-light libnss-wrapper libidn12")
    exim = machine / "build" / "exim4"
    assert (exim / "exim4").stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in (exim / "lib").iterdir()] == ["libidn.so.12"]
    assert [path.name for path in exim.parent.iterdir()] == ["exim4"]


def test_an_exim_that_cannot_be_fetched_is_said_aloud_and_leaves_nothing_half_made(machine: Path) -> None:
    (machine / "bin" / "dpkg-deb").write_text("#!/bin/sh\necho 'not a Debian package'; exit 2\n")

    said, _ = provide(machine)

    assert "not a Debian package" in said
    assert "tests that send through a private Exim will be skipped" in said
    assert list((machine / "build").iterdir()) == []


def test_what_is_there_is_not_installed_again(machine: Path) -> None:
    (machine / "build" / "exim4").mkdir(parents=True)
    for command in ("valkey-server", "dovecot", "postfix", "npm", "google-chrome"):
        (machine / "bin" / command).touch(mode=0o755)

    assert provide(machine) == ("", [])


@pytest.mark.parametrize(("root", "more"), [(False, {}), (True, {"POSTIER_NO_APT": "1"})])
def test_nothing_is_installed_without_leave(machine: Path, root: bool, more: dict[str, str]) -> None:
    said, told = provide(machine, root=root, **more)

    assert told == []
    assert said.count("will be skipped") == 6
