"""`postier accounts`: the configured ways to send, how they stand, and whether they work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console import account_changes
from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, complain, moment, safe, say, say_json, table

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger
    from postier.schemas.account import Account

app = typer.Typer(help="The configured ways to send.", no_args_is_help=True, rich_markup_mode=None)
account_changes.register(app)

Name = Annotated[str, typer.Argument(help="The account's name.")]


REMOVED = "no account has this name any more: add it again, and its mail leaves"


@app.command("list", epilog=EPILOG)
def list_(json_output: AsJson = False) -> None:
    """List accounts with their state and waiting mail, but for what waits for its next attempt."""
    from postier.console.ledger_access import ledger
    from postier.console.words import account_in_words

    with ledger() as opened:
        standing = opened.queries.accounts()
        known = opened.registry().accounts
        found = [_described(account, standing) for account in known.values()]
    left = [
        {"name": name, **facts}
        for name, facts in standing.items()
        if name not in known and facts["waiting_urgent"] + facts["waiting_bulk"]
    ]
    if json_output:
        say_json({"accounts": found, "removed_with_mail": left})
        return
    table(
        ("account", "tenant", "driver", "sender", "state", "waiting", "reason"),
        [
            (
                row["name"], row["tenant"] or "(all)", row["driver"], row["sender"]["address"], row["state"],
                row["waiting_urgent"] + row["waiting_bulk"], account_in_words(row["name"], row),
            )
            for row in found
        ]
        + [
            (row["name"], "", "", "", "removed", row["waiting_urgent"] + row["waiting_bulk"], REMOVED)
            for row in left
        ],
    )  # fmt: skip


@app.command(epilog=EPILOG)
def show(name: Name, json_output: AsJson = False) -> None:
    """Show one account: its settings with secrets hidden, and how it stands in the ledger."""
    from postier.console.ledger_access import ledger
    from postier.ledger.book import Book

    with ledger() as opened:
        account = _named(opened, name)
        page = Book(opened.store).read()
        facts = {
            **_described(account, opened.queries.accounts()),
            "kept_in": "file" if name in opened.files().accounts else "ledger",
            "version": page.version_of(f"a:{name}"),
        }
    if json_output:
        say_json(facts)
        return
    for key, value in _flat(facts):
        say(f"{key:<26}{safe(value)}")


@app.command(epilog=EPILOG)
def pause(name: Name, json_output: AsJson = False) -> None:
    """Stop an account; its mail waits until it is resumed."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        _told(name, "paused", opened.manage().pause(name), json_output=json_output)


@app.command(epilog=EPILOG)
def resume(name: Name, json_output: AsJson = False) -> None:
    """Let a paused or parked account send again, at once. What was tried keeps the time of its next attempt:
    `postier deliveries retry --account` lets that go too."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        _told(name, "ready", opened.manage().resume(name), json_output=json_output)


@app.command(epilog=EPILOG)
def login(name: Name, json_output: AsJson = False) -> None:
    """Log an account in by device code: a person consents in a browser, and its waiting mail leaves."""
    from postier.console.login import log_in

    log_in(name, json_output=json_output)


def _told(name: str, state: str, known: bool, *, json_output: bool) -> None:
    if not known:
        complain(f"postier: the ledger knows no account named {safe(name)}: a worker that is set up with it tells it")
        raise typer.Exit(NEGATIVE)
    if json_output:
        say_json({"account": name, "state": state})
    else:
        say(f"account {safe(name)} is {state}")


def _named(opened: Ledger, name: str) -> Account:
    registry = opened.registry()
    account = registry.accounts.get(name)
    if account is None:
        complain(f"postier: no account is named {safe(name)}; there are {safe(', '.join(registry.accounts)) or 'none'}")
        raise typer.Exit(NEGATIVE)
    return account


def _described(account: Account, standing: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from postier.settings.secrets import mask_options

    unknown = {"state": "unseen", "waiting_urgent": 0, "waiting_bulk": 0, "conversations": 0}
    shown = account.model_dump(mode="json", exclude={"options"})
    return {**shown, "options": mask_options(account.options), **unknown, **standing.get(account.name, {})}


_MOMENTS = ("since", "until", "held_until", "frees_at")


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{prefix}{key}."))
        elif value not in (None, "", []):
            rows.append((f"{prefix}{key}", moment(value) if key in _MOMENTS else value))
    return rows
