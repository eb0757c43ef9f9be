"""`postier accounts add|edit|check|remove|default|rules|export|import|…`: accounts that are kept in the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.account_flags import Draft, pairs, takes_draft
from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, complain, moment, safe, say, say_json, table

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger
    from postier.ledger.account_store import Put
    from postier.ledger.merged import Merged
    from postier.schemas.account import Account

Name = Annotated[str, typer.Argument(help="The account's name.")]
Untested = Annotated[bool, typer.Option("--untested", help="Save without a check.")]
TestMail = Annotated[str | None, typer.Option("--to", help="Let the check send a test mail to this address.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `postier accounts`."""
    app.command("add", epilog=EPILOG)(takes_draft(add))
    app.command("edit", epilog=EPILOG)(takes_draft(edit))
    app.command("check", epilog=EPILOG)(takes_draft(check))
    for command in (remove, default, rules, export, history, reseal, presets):
        app.command(command.__name__, epilog=EPILOG)(command)
    app.command("import", epilog=EPILOG)(import_)


def add(name: Name, draft: Draft, to: TestMail = None, untested: Untested = False, json_output: AsJson = False) -> None:
    """Add an account, once its check passed. Secrets are sealed, and never shown again."""
    from postier.console.account_draft import applied
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        account = applied(draft, name, None)
        _save(opened, account, 0, to, check=not untested, untested=untested, json_output=json_output)


def edit(
    name: Name,
    draft: Draft,
    to: TestMail = None,
    untested: Untested = False,
    version: Annotated[int | None, typer.Option("--version", help="Only if it is still at this version.")] = None,
    json_output: AsJson = False,
) -> None:
    """Change an account. What is not named stays; a new way of sending is checked before it is saved."""
    from postier.console.account_draft import applied
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        seen = opened.accounts().version(f"a:{name}") if version is None else version
        before = _stored(opened, name)
        account = applied(draft, name, before)
        sends = ("driver", "tenant", "sender", "options")
        check = not untested and any(getattr(account, field) != getattr(before, field) for field in sends)
        _save(
            opened, account, seen, to, check=check, untested=untested or (before.untested and not check),
            json_output=json_output,
        )  # fmt: skip


def check(
    draft: Draft,
    names: Annotated[list[str] | None, typer.Argument(help="Accounts; all of them without a name.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Also send a test mail to this address.")] = None,
    json_output: AsJson = False,
) -> None:
    """Try accounts step by step: options, resolve, connect, TLS, greeting, login, sender, test mail. Exit 1 when one
    fails. With settings, one account is tried as it would be with them; nothing is saved. At most five times a minute
    and account."""
    from postier.console.account_draft import applied
    from postier.console.account_trial import known_accounts, try_account
    from postier.console.check import Failed
    from postier.console.ledger_access import ledger
    from postier.schemas.errors import ConfigurationError

    failed = False
    with ledger() as opened:
        registry = known_accounts(opened)
        wanted = names or list(registry.accounts)
        if not draft.is_empty and len(wanted) != 1:
            raise typer.BadParameter("name one account to try these settings with", param_hint="NAMES")
        if not wanted:
            raise ConfigurationError("there is no account to check: set POSTIER_ACCOUNTS_FILE, or add one")
        for name in wanted:
            account = registry.accounts.get(name)
            if not draft.is_empty:
                account = applied(draft, name, account)
            if account is None:
                raise ConfigurationError(f"no account is named {name!r}; there are {', '.join(registry.accounts)}")
            try:
                try_account(opened, account, registry, to, json_output=json_output)
            except Failed:
                failed = True
    if failed:
        raise typer.Exit(NEGATIVE)


def remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Although mail waits: it stays until it expires.")] = False,
    json_output: AsJson = False,
) -> None:
    """Remove an account that is kept in the ledger. Refused while a tenant, a rule or the default names it."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        standing = opened.queries.accounts().get(name, {})
        waiting = int(standing.get("waiting_urgent", 0)) + int(standing.get("waiting_bulk", 0))
        if waiting and not force:
            complain(f"postier: {waiting} mails wait for account {safe(name)}: let them leave, or say --force")
            raise typer.Exit(NEGATIVE)
        opened.tell(opened.accounts().remove(f"a:{name}"))
    _done({"account": name, "removed": True}, f"account {safe(name)} is removed", json_output=json_output)


def default(
    name: Annotated[str | None, typer.Argument(help="The account; shows the default without one.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant instead of the instance.")] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Have none.")] = False,
    json_output: AsJson = False,
) -> None:
    """Set the account that mail leaves by when neither the event nor a rule names one."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        if name is None and not unset:
            registry = opened.registry()
            owner = registry.tenants.get(tenant) if tenant else None
            found = owner.default_account if owner else registry.default_account
            _done({"default": found, "tenant": tenant}, safe(found or "none"), json_output=json_output)
            return
        chosen = None if unset else name
        store = opened.accounts()
        if tenant is None:
            merged = store.set_default(chosen)
        else:
            _known_tenant(opened, tenant)
            merged = store.amend_tenant(tenant, lambda old: old.model_copy(update={"default_account": chosen}))
        opened.tell(merged)
    of = f"tenant {safe(tenant)}" if tenant else "the instance"
    _done({"default": chosen, "tenant": tenant}, f"{of}: {safe(chosen or 'no default')}", json_output=json_output)


def rules(
    tenant: Annotated[str, typer.Argument(help="The tenant's name.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KIND=ACCOUNT]...", help="KIND= removes.")] = None,
    json_output: AsJson = False,
) -> None:
    """Show or change which account each kind of a tenant's mail leaves by."""
    from postier.console.ledger_access import ledger
    from postier.schemas.events import kind_named

    with ledger() as opened:
        _known_tenant(opened, tenant)
        given = pairs("KIND=ACCOUNT", changes)
        for kind in given:
            kind_named(kind)
        if given:
            merged = opened.accounts().amend_tenant(
                tenant,
                lambda old: old.model_copy(update={"rules": {k: v for k, v in {**old.rules, **given}.items() if v}}),
            )
            opened.tell(merged)
        found = opened.registry().tenants[tenant].rules
    if json_output:
        say_json({"tenant": tenant, "rules": found})
    else:
        table(("kind", "account"), sorted(found.items()))


def export(
    target: Annotated[Path | None, typer.Argument(help="A new file; standard output without one.")] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="With secrets, sealed: only our keys open them.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="JSON is the only form of this answer.")] = True,  # noqa: ARG001
) -> None:
    """Write the accounts and tenants kept in the ledger as JSON, without secrets unless they are asked for."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        text = json.dumps(opened.accounts().export(sealed=sealed), indent=2, ensure_ascii=False)
    if target is None:
        say(text)
        return
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise typer.BadParameter(f"{target}: {error.strerror}", param_hint="TARGET") from None


def import_(
    source: Annotated[str, typer.Argument(help="A JSON or TOML file shaped like the accounts file; - for stdin.")],
    to: TestMail = None,
    untested: Untested = False,
    json_output: AsJson = False,
) -> None:
    """Add or change accounts and tenants from a file, all or none. Secrets it leaves out stay as they are here."""
    from postier.console.account_draft import entries, read_table
    from postier.console.check import Failed
    from postier.console.ledger_access import ledger

    given = read_table(source)
    accounts, tenants = entries(given, source)
    with ledger() as opened:
        puts = _puts(opened, accounts, list(tenants.values()), untested=untested)
        if not untested:
            try:
                for account in accounts.values():
                    _try(opened, _with_kept_secrets(opened, account), to, json_output=json_output)
            except Failed:
                complain("postier: nothing is saved; mend it, or say --untested")
                raise typer.Exit(NEGATIVE) from None
        merged = opened.accounts().put(*puts, what="accounts.imported")
        if given.get("default_account"):
            merged = opened.accounts().set_default(str(given["default_account"]))
        opened.tell(merged)
    words = f"{len(accounts)} accounts and {len(tenants)} tenants are saved"
    _done({"accounts": sorted(accounts), "tenants": sorted(tenants), "saved": True}, words, json_output=json_output)


def history(name: Name, json_output: AsJson = False) -> None:
    """Show who changed an account, when and how; secrets show only that they changed."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        changes = opened.accounts().history(f"a:{name}")
    if json_output:
        say_json({"account": name, "changes": changes})
        return
    table(
        ("version", "at", "who", "what", "changes"),
        [
            (
                row["version"], moment(row["at"]), row["who"], row["what"],
                "; ".join(f"{key}: {old} > {new}" for key, (old, new) in row.get("changes", {}).items()),
            )
            for row in changes
        ],
    )  # fmt: skip


def reseal(json_output: AsJson = False) -> None:
    """Seal every stored secret anew with the first seal key, so that an older key can be taken away."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        count = opened.accounts().reseal()
    _done({"resealed": count}, f"{count} accounts are sealed with the first key", json_output=json_output)


def presets(json_output: AsJson = False) -> None:
    """List the providers known by name, and what each needs from its user."""
    from postier.drivers.presets import presets as known

    rows: list[dict[str, Any]] = [
        {
            "preset": each.name, "host": each.host, "port": each.port, "security": each.security,
            "login": list(each.auth_kinds), "username": each.fixed_username or each.username_hint,
            "needs": each.needs, "limits": each.limits(), "source": each.source_url,
        }
        for each in known().values()
    ]  # fmt: skip
    if json_output:
        say_json({"presets": rows})
        return
    table(
        ("preset", "server", "security", "needs", "username"),
        [
            (row["preset"], f"{row['host']}:{row['port']}", row["security"], ", ".join(row["needs"]), row["username"])
            for row in rows
        ],
    )


# --- shared


def _save(
    opened: Ledger, account: Account, seen: int, to: str | None, *, check: bool, untested: bool, json_output: bool
) -> None:
    from postier.console.account_draft import secret_options
    from postier.console.account_trial import draft_driver
    from postier.console.check import Failed
    from postier.ledger.account_store import Put
    from postier.ledger.book import ChangedMeanwhile

    if check:
        try:
            _try(opened, account, to, json_output=json_output)
        except Failed:
            complain(f"postier: account {safe(account.name)} is not saved; mend it, or say --untested")
            raise typer.Exit(NEGATIVE) from None
    else:
        draft_driver(opened, account, opened.registry()).close()
    account = account.model_copy(update={"untested": untested})
    store = opened.accounts()
    try:
        opened.tell(store.put(Put(account, seen, secret_options(account.driver))))
    except ChangedMeanwhile as error:
        complain(f"postier: {safe(error)}")
        raise typer.Exit(NEGATIVE) from None
    version = store.version(f"a:{account.name}")
    answer = {"account": account.name, "saved": True, "version": version, "untested": untested}
    _done(answer, f"account {safe(account.name)} is saved (version {version})", json_output=json_output)


def _try(opened: Ledger, account: Account, to: str | None, *, json_output: bool) -> None:
    from postier.console.account_trial import try_account

    try_account(opened, account, opened.registry(), to, json_output=json_output)


def _puts(opened: Ledger, accounts: dict[str, Account], tenants: list[object], *, untested: bool) -> list[Put]:
    from postier.console.account_draft import secret_options
    from postier.ledger.account_store import Put
    from postier.schemas.account import Tenant

    puts = [Put(one, None) for one in tenants if isinstance(one, Tenant)]
    for account in accounts.values():
        whole = _with_kept_secrets(opened, account).model_copy(update={"untested": untested})
        puts.append(Put(whole, None, secret_options(account.driver)))
    return puts


def _with_kept_secrets(opened: Ledger, account: Account) -> Account:
    from postier.settings.sealed_options import is_sealed

    before = opened.accounts().merged().registry.accounts.get(account.name)
    if before is None or before.driver != account.driver:
        return account
    kept = {key: value for key, value in before.options.items() if is_sealed(value)}
    return account.model_copy(update={"options": {**kept, **account.options}})


def _stored(opened: Ledger, name: str) -> Account:
    from postier.schemas.errors import ConfigurationError

    merged: Merged = opened.accounts().merged()
    if name in opened.files().accounts:
        raise ConfigurationError(
            f"account {name!r} is written in the accounts file: it is read-only here, change it there"
        )
    if name not in merged.stored_accounts:
        raise ConfigurationError(f"no account named {name!r} is kept in the ledger; add it first")
    return merged.registry.accounts[name]


def _known_tenant(opened: Ledger, tenant: str) -> None:
    from postier.schemas.errors import ConfigurationError

    known = opened.registry().tenants
    if tenant not in known:
        raise ConfigurationError(f"no tenant is named {tenant!r}; there are {', '.join(known) or 'none'}")


def _done(answer: dict[str, object], words: str, *, json_output: bool) -> None:
    if json_output:
        say_json(answer)
    else:
        say(words)
