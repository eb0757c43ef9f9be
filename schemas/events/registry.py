"""The kinds that exist: every event module of this package, and the entry points of the group `postier.events`."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType, ModuleType

from postier.schemas.errors import ConfigurationError, InvalidEvent
from postier.schemas.events.base import Event

GROUP = "postier.events"
_NOT_KINDS = {"base", "registry"}


@cache
def _load() -> Mapping[str, type[Event]]:
    kinds: dict[str, type[Event]] = {}
    package = importlib.import_module("postier.schemas.events")
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        if found.name not in _NOT_KINDS:
            for event in _events_of(importlib.import_module(f"{package.__name__}.{found.name}")):
                _add(kinds, event)
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            loaded = point.load()
        except Exception as error:
            raise ConfigurationError(f"entry point {GROUP}:{point.name} cannot be loaded: {error}") from error
        for event in _events_of(loaded) if isinstance(loaded, ModuleType) else (loaded,):
            _add(kinds, event)
    return MappingProxyType(kinds)


def _events_of(module: ModuleType) -> Iterator[type[Event]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Event) and value.__module__ == module.__name__:
            yield value


def _add(kinds: dict[str, type[Event]], event: object) -> None:
    if not (isinstance(event, type) and issubclass(event, Event) and isinstance(getattr(event, "kind", None), str)):
        raise ConfigurationError(f"{GROUP}: {event!r} is not an event class with a kind")
    if kinds.setdefault(event.kind, event) is not event:
        raise ConfigurationError(f"two event classes are of the kind {event.kind!r}")


class _Kinds(Mapping[str, type[Event]]):
    """Loaded at the first look, so importing one event stays cheap."""

    def __getitem__(self, kind: str) -> type[Event]:
        return _load()[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(_load())

    def __len__(self) -> int:
        return len(_load())


KINDS: Mapping[str, type[Event]] = _Kinds()


def kind_named(name: str) -> type[Event]:
    """The event class of a kind. Raises InvalidEvent `unknown_kind`, naming the kinds that exist."""
    found = _load().get(name)
    if found is None:
        raise InvalidEvent(f"there is no such kind; there are {', '.join(KINDS)}", field="kind", code="unknown_kind")
    return found
