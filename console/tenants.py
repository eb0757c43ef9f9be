"""`postier tenants`: whose mail it is, where its links may point, where its forms go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.account_flags import pairs
from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, complain, safe, say, say_json, table

if TYPE_CHECKING:
    from postier.schemas.account import Tenant

app = typer.Typer(help="Whose mail it is.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="The tenant's name.")]


@app.command("list", epilog=EPILOG)
def list_(json_output: AsJson = False) -> None:
    """List tenants."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        merged = opened.registry()
        stored = opened.files().tenants
    rows = [
        {**tenant.model_dump(mode="json"), "kept_in": "file" if name in stored else "ledger"}
        for name, tenant in sorted(merged.tenants.items())
    ]
    if json_output:
        say_json({"tenants": rows})
        return
    table(
        ("tenant", "kept in", "default account", "hosts", "forms"),
        [
            (row["name"], row["kept_in"], row["default_account"] or "", ", ".join(row["allowed_hosts"]),
             ", ".join(row["forms"]))
            for row in rows
        ],
    )  # fmt: skip


@app.command(epilog=EPILOG)
def show(name: Name, json_output: AsJson = False) -> None:
    """Show one tenant: hosts, default account, rules, forms."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        tenant = opened.registry().tenants.get(name)
        version = opened.accounts().version(f"t:{name}")
    if tenant is None:
        complain(f"postier: no tenant is named {safe(name)}")
        raise typer.Exit(NEGATIVE)
    facts = {**tenant.model_dump(mode="json"), "version": version}
    if json_output:
        say_json(facts)
        return
    for key, value in facts.items():
        if value not in (None, [], {}, ""):
            say(f"{key:<18}{safe(value)}")


@app.command("set", epilog=EPILOG)
def set_(
    name: Name,
    allowed_host: Annotated[
        list[str] | None, typer.Option("--allowed-host", help="All hosts links may point to: host, *.host, host/path.")
    ] = None,
    default_account: Annotated[str | None, typer.Option("--default-account", help="Empty for none.")] = None,
    form: Annotated[
        list[str] | None, typer.Option("--form", metavar="ID=ADDRESS,...", help="A form's recipients; ID= removes.")
    ] = None,
    locale: Annotated[str | None, typer.Option("--locale", help="en or fr.")] = None,
    contact_per_hour: Annotated[int | None, typer.Option("--contact-per-hour", help="Of all its forms.")] = None,
    keep_days: Annotated[
        int | None, typer.Option("--keep-days", min=0, help="How long its ended mail is kept; 0: as everybody's.")
    ] = None,
    cooldown: Annotated[
        list[str] | None, typer.Option("--cooldown", metavar="KIND=SECONDS", help="Between two to one recipient.")
    ] = None,
    version: Annotated[int | None, typer.Option("--version", help="Only if it is still at this version.")] = None,
    json_output: AsJson = False,
) -> None:
    """Make or change a tenant. What is not named stays."""
    from postier.console.ledger_access import ledger
    from postier.schemas.account import Tenant

    plain: dict[str, Any] = {"locale": locale, "contact_per_hour": contact_per_hour}
    if allowed_host is not None:
        plain["allowed_hosts"] = [host for host in allowed_host if host]
    forms, cooldowns = pairs("--form", form), pairs("--cooldown", cooldown)

    def changed(old: Tenant) -> Tenant:
        row = old.model_dump(mode="json", exclude_defaults=True)
        row |= {key: value for key, value in plain.items() if value is not None}
        if default_account is not None:
            row["default_account"] = default_account or None
        if keep_days is not None:
            row["keep_days"] = keep_days or None
        row["cooldowns"] = {**old.cooldowns, **cooldowns}  # pydantic reads the numbers
        row["forms"] = _forms(row.get("forms", {}), forms)
        return Tenant.model_validate({**row, "name": name})

    with ledger() as opened:
        store = opened.accounts()
        opened.tell(store.amend_tenant(name, changed, seen=version))
        now = store.version(f"t:{name}")
    if json_output:
        say_json({"tenant": name, "saved": True, "version": now})
    else:
        say(f"tenant {safe(name)} is saved (version {now})")


@app.command(epilog=EPILOG)
def remove(name: Name, json_output: AsJson = False) -> None:
    """Remove a tenant that is kept in the ledger. Refused while an account belongs to it."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        opened.tell(opened.accounts().remove(f"t:{name}"))
    if json_output:
        say_json({"tenant": name, "removed": True})
    else:
        say(f"tenant {safe(name)} is removed")


def _forms(forms: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    forms = dict(forms)
    for form_id, addresses in given.items():
        if addresses:
            forms[form_id] = {**forms.get(form_id, {}), "recipients": [one.strip() for one in addresses.split(",")]}
        else:
            forms.pop(form_id, None)
    return forms
