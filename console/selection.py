"""Which deliveries a command is about: ids, a group, what filters leave, a file; and the word that lets it happen."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import read_moment
from postier.console.output import NEGATIVE, USAGE, complain, safe

if TYPE_CHECKING:
    from postier.ledger.search import Filters
    from postier.ledger.store import Store

TYPED_BEYOND = 100  # so many may be agreed to with a y

Group = Annotated[str | None, typer.Option("--group", help="Only this group of `postier failed`.")]
Cause = Annotated[str | None, typer.Option("--class", "--cause", help="Only this class of failure.")]
Text = Annotated[str | None, typer.Option("--text", help="Only replies with this text, in any case.")]
FailedSince = Annotated[str | None, typer.Option("--since", help="Failed since: a time (ISO 8601) or an age like 2h.")]
FailedUntil = Annotated[str | None, typer.Option("--until", help="Failed before: a time (ISO 8601) or an age like 2h.")]
File = Annotated[
    str | None, typer.Option("--file", help="Delivery ids, one a line, or JSON Lines with `id`; - is stdin.")
]
All = Annotated[bool, typer.Option("--all", help="Every one that the filters leave.")]
Yes = Annotated[bool, typer.Option("--yes", help=f"Do not ask (up to {TYPED_BEYOND}).")]
Confirm = Annotated[
    int | None, typer.Option("--confirm", help="Do not ask, if the preview counts exactly so many; for scripts.")
]
By = Annotated[str | None, typer.Option("--by", help="Who does this, for timelines and the audit; you without it.")]


def filters_of(
    *,
    account: str | None = None,
    kind: str | None = None,
    tenant: str | None = None,
    cause: str | None = None,
    text: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Filters:
    """The filters that options give; a cause may be said with the word of its state (`expired`)."""
    from postier.ledger.search import Filters

    return Filters(
        account, kind, tenant, cause, text, read_moment(since, "--since"), read_moment(until, "--until")
    )  # fmt: skip


def checked_states(chosen: Iterable[str] | None, states: Sequence[str]) -> list[str] | None:
    """The states that were chosen among `states`. Raises a usage error for other words."""
    for state in chosen or ():
        if state not in states:
            raise typer.BadParameter(f"{state!r} is none of {', '.join(states)}", param_hint="--state")
    return list(chosen) if chosen else None


@dataclass(slots=True)
class Chosen:
    """Ids in a file, so that the preview and the deed are about the same ones and a million cost no memory."""

    file: Any
    count: int
    explicit: bool

    def __iter__(self) -> Iterator[str]:
        self.file.seek(0)
        for line in self.file:
            yield line.rstrip("\n")


@contextmanager
def choose(
    store: Store,
    ids: Sequence[str] | None,
    *,
    file: str | None,
    all_: bool,
    group: str | None,
    filters: Filters,
    states: Sequence[str] | None,
) -> Iterator[Chosen]:
    """The deliveries an order is about, in a file that is gone afterwards.

    Raises a usage error when nothing was said; ends the command when a group is not known.
    """
    from postier.ledger.groups import Groups

    if not ids and not all_ and group is None and file is None:
        raise typer.BadParameter("give delivery ids, or --group, --file or --all", param_hint="ids")
    sources: list[Iterable[str]] = [list(ids or [])]
    if file is not None:
        sources.append(_of_file(file))
    if all_ or group is not None:
        groups = Groups(store)
        refuse_unknown_group(store, group)
        sources.append(groups.members(filters, states=states, group=group))
    count = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8", prefix="postier-") as spool:
        for item in chain.from_iterable(sources):
            spool.write(f"{item}\n")
            count += 1
        spool.flush()
        yield Chosen(spool, count, explicit=not (all_ or group is not None or file is not None))


def refuse_unknown_group(store: Store, group: str | None) -> None:
    """End the command when there is no such group."""
    from postier.ledger.groups import Groups

    if group is not None and not Groups(store).parts(filters_of(), group=group):
        complain(f"postier: no group is known as {safe(group)}: `postier failed` lists them")
        raise typer.Exit(NEGATIVE)


def _of_file(name: str) -> Iterator[str]:
    try:
        source = sys.stdin if name == "-" else open(name, encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        complain(f"postier: cannot read {safe(name)}: {error.strerror}")
        raise typer.Exit(USAGE) from None
    try:
        for number, line in enumerate(source, 1):
            text = line.strip()
            if text.startswith("{"):
                try:
                    text = str(json.loads(text)["id"])
                except (ValueError, KeyError):
                    complain(f"postier: {safe(name)}: line {number} is no object with an id")
                    raise typer.Exit(USAGE) from None
            if text and len(text) <= 200:
                yield text
    finally:
        if source is not sys.stdin:
            source.close()


def agree(verb: str, count: int, *, explicit: bool, yes: bool, confirm: int | None, what: str = "deliveries") -> None:
    """Go on only with the word of a person or a script: beyond a hundred the count itself has to be said."""
    if confirm is not None:
        if confirm != count:
            complain(f"postier: nothing done: --confirm {confirm} was said, but it would be {count}")
            raise typer.Exit(NEGATIVE)
        return
    if count == 0 or (count <= TYPED_BEYOND and (yes or explicit)):
        return
    if not sys.stdin.isatty():
        wanted = "--yes" if count <= TYPED_BEYOND else f"--confirm {count}"
        raise typer.BadParameter(f"say {wanted} to {verb} {count} {what}", param_hint=wanted.partition(" ")[0])
    if count <= TYPED_BEYOND:
        if not typer.confirm(f"{verb} {count} {what}?", err=True):
            raise typer.Exit(NEGATIVE)
    elif typer.prompt(f"type {count} to {verb} {count} {what}", err=True).strip() != str(count):
        complain("postier: nothing done")
        raise typer.Exit(NEGATIVE)
