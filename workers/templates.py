"""The templates that ship with the schemas, compiled once per process, and the words they may use.

A template sees the event's fields, `recipient` and the `brand_*` values, never anything private. The files
`{kind}.{locale}.subject`, `.txt` and `.html` belong together; the HTML comes from `mjml/` (see `compile_templates`).

A kind of another package has its files in the folder `templates` of that package.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from markupsafe import Markup, escape
from pydantic import BaseModel

from postier.schemas.errors import RenderError
from postier.schemas.events import KINDS

LOCALES = ("en", "fr")
MAX_OUTPUT = 1024 * 1024  # characters of one rendered template

_KIND = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_HREF = re.compile(r"https://[^\s\"<>\\`]+\Z", re.IGNORECASE)
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")
_END_OF_EMBEDDING, _END_OF_ISOLATE = "\u202c", "\u2069"
_CLOSED_BY = dict.fromkeys("\u202a\u202b", _END_OF_EMBEDDING) | dict.fromkeys("\u2066\u2067\u2068", _END_OF_ISOLATE)
# fmt: off
_MONTHS = {
    "en": ("January", "February", "March", "April", "May", "June",
           "July", "August", "September", "October", "November", "December"),
    "fr": ("janvier", "février", "mars", "avril", "mai", "juin",
           "juillet", "août", "septembre", "octobre", "novembre", "décembre"),
}
# fmt: on


# A mail says its times two or three times over.
@lru_cache(maxsize=512)
def when_en(moment: datetime) -> str:
    """22 November 2026 at 14:05 UTC"""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {_MONTHS['en'][moment.month - 1]} {moment.year} at {moment.hour:02}:{moment.minute:02} UTC"


@lru_cache(maxsize=512)
def when_fr(moment: datetime) -> str:
    """22 novembre 2026 à 14 h 05 UTC"""
    moment = moment.astimezone(UTC)
    day = "1er" if moment.day == 1 else moment.day
    return f"{day} {_MONTHS['fr'][moment.month - 1]} {moment.year} à {moment.hour} h {moment.minute:02} UTC"


def _when_html(plain: Callable[[datetime], str]) -> Callable[[datetime], Markup]:
    """The same words with the time of day kept on one line: only digits and our own words are in it."""

    @lru_cache(maxsize=512)
    def when(moment: datetime) -> Markup:
        day, joint, time = plain(moment).rpartition(" at " if plain is when_en else " à ")
        return spelled(Markup(day + joint + time.replace(" ", "&#160;")))

    return when


def shown(value: Any) -> str:
    """As HTML: what is markup already stays as it is, without the copies that markupsafe makes of it."""
    return value if type(value) is Markup else escape(value)


def spelled(text: str) -> Markup:
    """As HTML in ASCII, with character references: one letter beyond it would have the whole page rewritten."""
    escaped = escape(text)
    return escaped if escaped.isascii() else Markup(escaped.encode("ascii", "xmlcharrefreplace").decode("ascii"))


def _link(url: str) -> str:
    """For href attributes: the edge has checked the link, this line keeps `javascript:` out should it ever not."""
    if not _HREF.match(url):
        raise RenderError("a link in the event is not https")
    return url


def _lines(text: str) -> Markup:
    return Markup("<br>\n").join(escape(_closed(text)).split("\n"))


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _indented(text: str) -> str:
    return _closed(text).replace("\n", "\n    ")


def _closed(text: str) -> str:
    """`text` with the embeddings and isolates closed that its last line opens: words of ours follow on that line.

    Left open they could turn them round, and "old → new" would read as "new → old" (UAX 9, section 3.3.2).
    """
    if text.isascii():
        return text
    opened: list[str] = []
    for mark in _DIRECTION.findall(text, text.rfind("\n") + 1):
        if mark in _CLOSED_BY:
            opened.append(_CLOSED_BY[mark])
        elif mark == _END_OF_ISOLATE and mark in opened:
            while opened.pop() != mark:  # it ends the embeddings inside too
                pass
        elif opened and opened[-1] == mark:
            opened.pop()
    return text + "".join(reversed(opened))


@cache
def _fields_of(model: type) -> frozenset[str] | None:
    """The names a template may read of one of our frozen models; None for any other type."""
    if issubclass(model, BaseModel):
        return frozenset(model.model_fields)
    if dataclasses.is_dataclass(model):
        return frozenset(field.name for field in dataclasses.fields(model))
    return None


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which our models show their fields and nothing else (and do so quickly)."""

    def getattr(self, obj: Any, attribute: str) -> Any | Undefined:
        model: Any = type(obj)
        fields = _fields_of(model)
        if fields is None:
            return super().getattr(obj, attribute)
        return getattr(obj, attribute) if attribute in fields else self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any | Undefined:
        model: Any = type(obj)
        return super().getitem(obj, argument) if _fields_of(model) is None else self.getattr(obj, argument)


@cache
def _environment(locale: str, *, html: bool) -> Environment:
    environment = Sandbox(
        autoescape=html, undefined=StrictUndefined, trim_blocks=not html, lstrip_blocks=not html, cache_size=0
    )
    when = {"en": when_en, "fr": when_fr}[locale]
    environment.filters["when"] = _when_html(when) if html else when
    environment.filters.update({"link": _link, "lines": _lines} if html else {"quoted": _quoted, "indented": _indented})
    return environment


class Fields(dict[str, Any]):
    """What a template may name; what it holds when a template is rendered counts."""

    def __missing__(self, name: str) -> Any:
        return missing


class _Context(Context):
    """Jinja's context without what templates of one file cannot use: names are looked up in the fields directly."""

    def __init__(self, environment: Environment, fields: Fields, name: str, shared: EvalContext) -> None:
        self.environment, self.parent, self.name, self.eval_ctx = environment, fields, name, shared
        self.vars, self.blocks, self.exported_vars = {}, {}, set()
        self.resolve_or_missing = fields.__getitem__  # type: ignore[method-assign,assignment]


class Template:
    """One compiled template. Rendering it needs no look-up and shares its mapping with the other templates."""

    __slots__ = ("_environment", "_name", "_root", "_shared")

    def __init__(self, environment: Environment, name: str, source: str) -> None:
        self._environment = environment
        self._name = name
        # The root function is what Template.render calls; going there directly saves a copy of the fields per template.
        self._root: Callable[[Context], Iterable[str]] = environment.from_string(source).root_render_func
        self._shared = EvalContext(environment, name)
        names: dict[str, Any] = getattr(self._root, "__globals__", {})
        if names.get("escape") is escape:
            names["escape"] = shown

    def render(self, fields: dict[str, Any]) -> str:
        """The text for these fields. Raises RenderError; its words name the template and the field, never a value."""
        try:
            given = fields if type(fields) is Fields else Fields(fields)
            text = "".join(self._root(_Context(self._environment, given, self._name, self._shared)))
        except RenderError as error:
            raise RenderError(f"{self._name}: {error}") from None
        except UndefinedError as error:
            raise RenderError(f"{self._name}: {error.message}") from None
        except Exception as error:
            # Without its cause: an exception's words and frames may hold the payload.
            raise RenderError(f"{self._name}: {type(error).__name__}") from None
        if len(text) > MAX_OUTPUT:
            raise RenderError(f"{self._name}: the result is longer than {MAX_OUTPUT} characters")
        return text


@dataclasses.dataclass(frozen=True, slots=True)
class TemplateSet:
    """Subject, text and HTML of one kind in one locale."""

    locale: str
    subject: Template
    text: Template
    html: Template


@cache
def template_set(kind: str, locale: str) -> TemplateSet | None:
    """The templates of a kind in a locale; None when there are none at all. RenderError when the set is not whole."""
    if not _KIND.match(kind) or locale not in LOCALES:
        return None
    folder = _folder_of(kind)
    sources: Mapping[str, Any] = {ending: folder / f"{kind}.{locale}.{ending}" for ending in ("subject", "txt", "html")}
    missing = [source.name for source in sources.values() if not source.is_file()]
    if len(missing) == len(sources):
        return None
    if missing:
        raise RenderError(f"no template {missing[0]}")

    def compiled(ending: str) -> Template:
        source = sources[ending]
        try:
            return Template(_environment(locale, html=ending == "html"), source.name, source.read_text("utf-8"))
        except TemplateSyntaxError as error:
            raise RenderError(f"{source.name}, line {error.lineno}: {error.message}") from None

    return TemplateSet(locale, compiled("subject"), compiled("txt"), compiled("html"))


def _folder_of(kind: str) -> Traversable:
    """Ours, or the folder `templates` of another package that brought the kind."""
    event = KINDS.get(kind)
    module = event.__module__ if event else ""
    if not event or module.startswith("postier."):
        return files("postier.schemas.templates")
    package = module if hasattr(sys.modules[module], "__path__") else module.rpartition(".")[0]
    return files(package) / "templates" if package else files("postier.schemas.templates")


def templates_for(kind: str, *locales: str | None) -> TemplateSet:
    """The kind's templates in the first of these locales that has them, English at last. RenderError when none has."""
    for locale in (*locales, "en"):
        found = template_set(kind, locale) if locale else None
        if found is not None:
            return found
    raise RenderError(f"no templates for the kind {kind!r}" if _KIND.match(kind) else "no templates for this kind")
