"""Logging set-up: structlog, one line an event, addresses masked, secrets and exception texts of others kept out."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from postier.settings.log_stream import LogStream, standard_error
from postier.settings.secrets import is_secret_name

_ADDRESS = re.compile(r"([A-Za-z0-9_.+-])[A-Za-z0-9_.+'-]{0,63}@([A-Za-z0-9-])[A-Za-z0-9.-]{0,253}")
_MOST_LINES, _MOST_CAUSES = 4, 3
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


def where(error: BaseException) -> str:
    """An exception without its words, which may hold a secret or a mail: its type and the last lines it came through.

    Causes follow after a `<`.
    """
    told: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(told) < _MOST_CAUSES:
        seen.add(id(current))
        lines = traceback.extract_tb(current.__traceback__)[-_MOST_LINES:]
        told.append(" ".join([type(current).__name__, *(f"{Path(one.filename).name}:{one.lineno}" for one in lines)]))
        current = current.__cause__ or current.__context__
    return " < ".join(told)


def _exceptions_without_words(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else None
    if given and error is None:
        error = sys.exc_info()[1]
    if error is not None:
        event["exception"] = where(error)
    return event


class _RedactingFilter(logging.Filter):
    """Redacts what libraries log through the standard library; of exceptions it leaves type and place."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.msg = f"{record.msg} exception={where(record.exc_info[1])}"
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def configure_logging(level: str = "info", form: Literal["console", "json"] = "json") -> None:
    """Send all logs to standard error, once. Calling again replaces the set-up.

    What standard error does not take (a full disk or pipe, closed) is counted, see `lost_lines`, and sending goes on.
    """
    import structlog

    global _stream
    stream = _stream = standard_error()
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exceptions_without_words,
            _redact_values,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
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


@cache
def log() -> Any:
    """The logger; events are dotted past-tense facts with flat keys."""
    import structlog  # a command that logs nothing starts a tenth of a second sooner

    return structlog.get_logger()
