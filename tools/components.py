"""The component list of a release: what the image carries, as CycloneDX 1.6 JSON.

    python3 run.py components [FILE]

Read from `requirements/image.lock` (versions and hashes) and the licences and requirements of the same versions in
.venv. The same lock gives the same octets. Known advisories are not looked up here: that needs the network, and is the
business of a scanner that reads this file.
"""

from __future__ import annotations

import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "image.lock"
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# A serial number made from the content: a list built twice is the same list.
_NAMESPACE = uuid.UUID("6f1f3b0e-0f4e-5b0a-9a52-0f8a2f0c7d11")


def bom() -> Bom:
    """Everything the lock names, who requires whom, and postier on top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    licenses = LicenseFactory()
    own = Component(
        name=project["name"], version=project["version"], type=ComponentType.APPLICATION, bom_ref=project["name"],
        purl=PackageURL("pypi", name=project["name"], version=project["version"]),
        licenses=[licenses.make_with_expression(project["license"], acknowledgement=LicenseAcknowledgement.DECLARED)],
    )  # fmt: skip
    made = Bom(serial_number=uuid.uuid5(_NAMESPACE, LOCK.read_text("utf-8") + project["version"]))
    made.metadata.timestamp = None  # type: ignore[assignment]
    made.metadata.component = own
    parts = {canonicalize_name(name): part for name, part in _components(licenses)}
    made.components.update(parts.values())
    needed = [*project["dependencies"], *project["optional-dependencies"]["metrics"]]  # as tools/lock.py has it
    made.register_dependency(own, _known(needed, parts))
    for part in parts.values():
        made.register_dependency(part, _known(_requires(part.name, part.version or ""), parts))
    return made


def _components(licenses: LicenseFactory) -> Iterator[tuple[str, Component]]:
    for entry in LOCK.read_text("utf-8").replace("\\\n", " ").splitlines():
        pin = _PIN.match(entry)
        if pin is None:
            continue
        name, version = pin["name"], pin["version"]
        license_words = _license(name, version)
        yield name, Component(
            name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"{name}@{version}",
            purl=PackageURL("pypi", name=canonicalize_name(name), version=version),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in _HASH.findall(entry)],
            licenses=[_as_license(licenses, license_words)] if license_words else [],
        )  # fmt: skip


def _as_license(licenses: LicenseFactory, words: str) -> License:
    return licenses.make_from_string(words, license_acknowledgement=LicenseAcknowledgement.DECLARED)


def _license(name: str, version: str) -> str:
    """What the installed package says of its licence in a few words; nothing for one that is not installed here."""
    facts = _facts(name, version)
    if facts is None:
        return ""
    words = next((facts[field] for field in ("License-Expression", "License") if field in facts), "")
    if words and len(words) < 60 and "\n" not in words:
        return words
    named = [line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or [] if line.startswith("License ::")]
    return named[0] if named else ""


def _requires(name: str, version: str) -> list[str]:
    return metadata.requires(name) or [] if _facts(name, version) is not None else []


def _facts(name: str, version: str) -> metadata.PackageMetadata | None:
    try:
        return metadata.metadata(name) if metadata.version(name) == version else None
    except metadata.PackageNotFoundError:
        return None


def _known(requirements: list[str], parts: dict[NormalizedName, Component]) -> list[Component]:
    """The locked ones of these; those for extras that nobody asked for, or for other systems, are not locked."""
    names = {canonicalize_name(Requirement(one).name) for one in requirements}
    return [parts[name] for name in sorted(names & parts.keys())]


def main() -> int:
    text = JsonV1Dot6(bom()).output_as_string(indent=2) + "\n"
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        sys.stderr.write(f"run.py: the component list is not valid CycloneDX 1.6: {fault}\n")
        return 1
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(text, "utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
