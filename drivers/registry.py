"""Finds a driver by the name an account gives: built in, by entry point, or by import path."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from importlib import metadata
from typing import Any

from postier.drivers.base import Driver, DriverOptions
from postier.schemas.errors import ConfigurationError

ENTRY_POINTS = "postier.drivers"

# Imported when first asked for: most workers need one or two of them.
BUILT_IN: dict[str, str] = {
    "smtp": "postier.drivers.smtp:SmtpDriver",
    "provider": "postier.drivers.provider:ProviderDriver",
    "microsoft": "postier.drivers.microsoft:MicrosoftDriver",
    "exchange": "postier.drivers.exchange:ExchangeDriver",
    "outlook": "postier.drivers.outlook:OutlookDriver",
    "google": "postier.drivers.google:GoogleDriver",
    "branded": "postier.drivers.branded:BrandedDriver",
    "brevo": "postier.drivers.brevo:BrevoDriver",
    "mailgun": "postier.drivers.mailgun:MailgunDriver",
    "mailjet": "postier.drivers.mailjet:MailjetDriver",
    "postmark": "postier.drivers.postmark:PostmarkDriver",
    "scaleway": "postier.drivers.scaleway:ScalewayDriver",
    "sendgrid": "postier.drivers.sendgrid:SendgridDriver",
    "ses": "postier.drivers.ses:SesDriver",
    "file": "postier.drivers.maildir:MaildirDriver",
    "memory": "postier.drivers.memory:MemoryDriver",
    "null": "postier.drivers.null:NullDriver",
}

_FILE = re.compile(r"[a-z][a-z0-9]*")  # drivers/acme.py holds AcmeDriver
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load_driver(name: str) -> type[Driver[Any]]:
    """The driver class for `name`: a built-in name, an entry point of `postier.drivers`, or `package.module:Class`.

    Raises ConfigurationError that says what is wrong with the name, the module or the class. Calling twice is safe.
    """
    if name in BUILT_IN:
        return _imported(BUILT_IN[name], name)
    found = tuple(metadata.entry_points(group=ENTRY_POINTS, name=name))
    if len(found) > 1:
        owners = ", ".join(sorted(entry.dist.name if entry.dist else "?" for entry in found))
        raise ConfigurationError(
            f"driver: several packages bring a driver named {name!r}: {owners}; use package.module:Class"
        )
    if found:
        return _imported(found[0].value, name)
    if ":" in name:
        return _imported(name, name)
    if _FILE.fullmatch(name) and importlib.util.find_spec(f"postier.drivers.{name}"):
        return _imported(f"postier.drivers.{name}:{name.capitalize()}Driver", name)
    raise ConfigurationError(f"driver: no driver is named {name!r}; {_hint(name)}")


def driver_names() -> list[str]:
    """Every name `load_driver` knows without an import path."""
    return sorted({*BUILT_IN, *(entry.name for entry in metadata.entry_points(group=ENTRY_POINTS))})


def _imported(path: str, name: str) -> type[Driver[Any]]:
    if not _PATH.fullmatch(path):
        raise ConfigurationError(f"driver: {path!r} is not of the form package.module:Class")
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"driver {name!r}: cannot import {module_name}: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"driver {name!r}: importing {module_name} fails: {type(error).__name__}") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigurationError(f"driver {name!r}: {module_name} has no class {class_name}")
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise ConfigurationError(f"driver {name!r}: {class_name} is not a subclass of postier.drivers.base.Driver")
    if not issubclass(found.Options, DriverOptions):
        raise ConfigurationError(f"driver {name!r}: {class_name}.Options is not a subclass of DriverOptions")
    return found


def _hint(name: str) -> str:
    names = driver_names()
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}, or package.module:Class"
