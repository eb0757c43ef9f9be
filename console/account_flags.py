"""The options that describe an account, shared by the commands that make, change and try one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(frozen=True, slots=True)
class Draft:
    """What was said about an account; what was not said is None."""

    driver: Annotated[str | None, typer.Option("--driver", help="How it sends: smtp, provider, microsoft, …")] = None
    preset: Annotated[str | None, typer.Option("--preset", help="A provider of `postier accounts presets`.")] = None
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose it is; the instance's without one.")] = None
    sender: Annotated[str | None, typer.Option("--sender", help="From: an address, or 'Name <address>'.")] = None
    reply_to: Annotated[str | None, typer.Option("--reply-to", help="Where answers go.")] = None
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="A driver option; KEY= removes it.")
    ] = None
    secret: Annotated[
        list[str] | None, typer.Option("--secret", metavar="KEY", help="Ask for this option without showing it.")
    ] = None
    secret_stdin: Annotated[
        str | None, typer.Option("--secret-stdin", metavar="KEY", help="Read this option from standard input.")
    ] = None
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="KEY=VALUE", help="per_second, per_minute, per_day, …")
    ] = None
    fallback: Annotated[str | None, typer.Option("--fallback", help="The account that takes over.")] = None
    overflow: Annotated[str | None, typer.Option("--overflow", help="When: never, parked or slow.")] = None
    locale: Annotated[str | None, typer.Option("--locale", help="en or fr.")] = None
    brand: Annotated[list[str] | None, typer.Option("--brand", metavar="KEY=VALUE", help="name, logo_url, colour.")] = (
        None
    )
    source: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="A TOML or JSON file with all this; - for stdin.")
    ] = None

    @property
    def is_empty(self) -> bool:
        """Nothing was said."""
        return all(getattr(self, each.name) is None for each in fields(self))


def takes_draft(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of a Draft; it gets them as its keyword `draft`."""
    said = get_type_hints(Draft, include_extras=True)
    names = [each.name for each in fields(Draft)]

    def with_options(**given: Any) -> None:
        command(draft=Draft(**{name: given.pop(name) for name in names}), **given)

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "draft"]
    kind = inspect.Parameter.KEYWORD_ONLY
    extra = [inspect.Parameter(name, kind, default=None, annotation=said[name]) for name in names]
    parameters = [*(p.replace(kind=kind) for p in own), *extra]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


def pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise typer.BadParameter("say KEY=VALUE", param_hint=option)
    return key.strip(), value


def pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """KEY=VALUE arguments as a mapping. Raises a usage error."""
    return dict(pair(option, text) for text in texts or ())
