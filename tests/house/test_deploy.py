"""The deployment files say what DESIGN.md promises. They are read, not run: no Docker engine is needed."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from postier.drivers.smtp_options import SmtpOptions
from postier.schemas.account import Registry
from postier.settings.config import Settings
from postier.workers.main import _SPARE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def option(command: list[str], name: str) -> str:
    return command[command.index(f"--{name}") + 1]


def megabytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(mb?|gb?)", text).groups()
    return int(number) * (1024 if unit.startswith("g") else 1)


def test_valkey_syncs_every_write_and_evicts_nothing(compose: dict[str, Any]) -> None:
    command = compose["services"]["valkey"]["command"]

    assert option(command, "appendonly") == "yes"
    assert option(command, "appendfsync") == "always"
    assert option(command, "maxmemory-policy") == "noeviction"


def test_valkey_may_rewrite_its_file_within_its_memory(compose: dict[str, Any]) -> None:
    valkey = compose["services"]["valkey"]

    assert megabytes(valkey["mem_limit"]) >= 2 * megabytes(option(valkey["command"], "maxmemory"))


def test_valkey_keeps_its_data_in_a_volume_and_is_reached_by_the_inner_network_alone(compose: dict[str, Any]) -> None:
    valkey = compose["services"]["valkey"]

    assert "ledger:/data" in valkey["volumes"]
    assert "ports" not in valkey
    assert valkey["networks"] == ["ledger"]
    assert compose["networks"]["ledger"]["internal"] is True


def test_the_worker_may_have_as_many_threads_as_it_starts(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    processes, threads = (int(option(worker["command"], name)) for name in ("processes", "threads"))

    started = processes * (threads * (1 + _SPARE) + 10) + 20  # and a command beside it, as the health check

    assert started < worker["pids_limit"]


def test_the_worker_has_time_to_drain(compose: dict[str, Any]) -> None:
    assert int(compose["services"]["worker"]["stop_grace_period"].removesuffix("s")) > 25


def test_the_worker_runs_without_privileges_on_a_read_only_root(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]

    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in worker["security_opt"]
    assert "receipts:/data" in worker["volumes"]


def test_metrics_are_told_to_this_machine_alone_by_a_service_without_secrets_or_privileges(
    compose: dict[str, Any],
) -> None:
    metrics = compose["services"]["metrics"]

    assert metrics["command"][:2] == ["metrics", "serve"]
    assert all(port.startswith("127.0.0.1:") and port.endswith(":9464") for port in metrics["ports"])
    assert not {"secrets", "configs", "volumes"} & set(metrics)
    assert set(metrics["environment"]) == {"POSTIER_REDIS_URL"}
    assert "healthcheck" in metrics, "the image's own one needs seal keys"
    assert metrics["read_only"] is True
    assert metrics["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in metrics["security_opt"]


def test_no_secret_stands_in_the_compose_file(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]

    assert set(worker["secrets"]) == set(compose["secrets"])
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    assert worker["environment"]["POSTIER_SEAL_KEYS"] == "file:/run/secrets/seal_keys"


def test_every_setting_of_the_worker_is_one_that_postier_reads(compose: dict[str, Any]) -> None:
    names = {f"POSTIER_{name.upper()}" for name in Settings.model_fields}

    assert set(compose["services"]["worker"]["environment"]) <= names
    assert set(re.findall(r"\bPOSTIER_[A-Z_]+", DOCKERFILE)) <= names


def test_the_example_accounts_are_accepted_and_use_the_mounted_secret() -> None:
    text = (DEPLOY / "accounts.example.toml").read_text(encoding="utf-8")

    registry = Registry.model_validate(tomllib.loads(text))

    options = registry.accounts["relay"].options
    assert SmtpOptions.model_validate(options).security == "starttls"
    assert options["password"] == "file:/run/secrets/relay_password"


def test_the_image_installs_hashed_locks_and_every_room() -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install [^\n]*", DOCKERFILE)

    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert set(re.findall(r"^COPY (\w+)/ \1/$", DOCKERFILE, re.MULTILINE)) == set(ROOMS.values())


def test_the_image_runs_as_nobody_in_particular_and_needs_no_shell() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]

    assert "USER 10001:10001" in final
    assert "\nRUN " not in final
    for word in ("ENTRYPOINT", "CMD"):
        assert re.search(rf'^{word} \["', final, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK .* CMD \["/opt/postier/bin/postier", "doctor", "--health"\]$', final, re.MULTILINE)


def test_the_build_sees_every_room_and_no_more_than_it_copies() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}

    assert "*" in ignore
    assert allowed == {*ROOMS.values(), "pyproject.toml", "LICENSE", "README.md", "requirements/*.lock"}
