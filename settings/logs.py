"""Logging set-up: structlog, one line an event, addresses masked, secrets and exception texts of others kept out."""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from postier.settings.log_stream import LogStream, standard_error
from postier.settings.secrets import is_secret_name

_ADDRESS = re.compile(r"([A-Za-z0-9_.+-])[A-Za-z0-9_.+'-]{0,63}@([A-Za-z0-9-])[A-Za-z0-9.-]{0,253}")
_LINK = re.compile(r"\b(https?://[^/\s?#]{1,253})[^\s\"'<>]*")


def redact(text: str) -> str:
    """Mask addresses (`a***@d***`) and cut links behind their host."""
    if "@" in text:
        text = _ADDRESS.sub(r"\1***@\2***", text)
    if "://" in text:
        text = _LINK.sub(r"\1/…", text)
    return text


def _redact_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = "••••••" if is_secret_name(key) else redact(value)
    return event


class _RedactingFilter(logging.Filter):
    """Redacts what libraries log through the standard library."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


def configure_logging(level: str = "info", form: Literal["console", "json"] = "json") -> None:
    """Send all logs to standard error, once. Calling again replaces the set-up.

    What standard error does not take (a full disk or pipe, closed) is counted, see `lost_lines`, and sending goes on.
    """
    global _stream
    stream = _stream = standard_error()
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact_values,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_RedactingFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


def lost_lines() -> int:
    """How many log lines of this process nobody got."""
    return _stream.lost if _stream is not None else 0


_stream: LogStream | None = None
_LOGGER: Any = structlog.get_logger()


def log() -> Any:
    """The logger; events are dotted past-tense facts with flat keys."""
    return _LOGGER
