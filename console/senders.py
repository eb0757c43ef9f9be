"""`postier senders`: addresses of a brand that mail may leave from, once their owner said yes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import EPILOG, AsJson, TenantName
from postier.console.output import NEGATIVE, moment, safe, say, say_json, table

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger
    from postier.ledger.senders import Asked, BrandSender, Senders

app = typer.Typer(help="Verified senders of a brand.", no_args_is_help=True, rich_markup_mode=None)

Address = Annotated[str, typer.Argument(help="The sender's address.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose sender it is.")]
Shown = Annotated[str, typer.Option("--name", help="The name shown with it.")]
Branded = Annotated[str, typer.Option("--account", help="The branded account that sends as it once it is confirmed.")]
Language = Annotated[str | None, typer.Option("--locale", help="Of the mail to its owner: en or fr.")]
Hours = Annotated[float, typer.Option("--hours", min=0.1, max=336, help="How long the link works.")]


@app.command("list", epilog=EPILOG)
def list_(tenant: TenantName = None, json_output: AsJson = False) -> None:
    """List senders with their state."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        found = _senders(opened).list(tenant)
    if json_output:
        say_json({"senders": [one.as_dict() for one in found]})
        return
    table(
        ("tenant", "address", "name", "state", "account", "asked", "link ends"),
        [
            (
                one.tenant, one.address, one.name, one.state, one.account, moment(one.mailed_at),
                moment(one.expires_at) if one.state == "pending" else "",
            )
            for one in found
        ],
    )  # fmt: skip


@app.command(epilog=EPILOG)
def add(
    address: Address,
    tenant: Tenant,
    name: Shown = "",
    account: Branded = "",
    locale: Language = None,
    hours: Hours = 48.0,
    json_output: AsJson = False,
) -> None:
    """Ask the owner of an address, by mail, whether a tenant may send as it."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        _known(opened, tenant, account)
        asked = _senders(opened).add(address, tenant=tenant, name=name, account=account, life=hours * 3600)
        _mail(opened, asked, locale, json_output=json_output)


@app.command(epilog=EPILOG)
def resend(
    address: Address, tenant: Tenant, locale: Language = None, hours: Hours = 48.0, json_output: AsJson = False
) -> None:
    """Mail a new link; the older one stops working. At most once a minute and ten times a day."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        _known(opened, tenant, "")
        asked = _senders(opened).resend(address, tenant=tenant, life=hours * 3600)
        _mail(opened, asked, locale, json_output=json_output)


@app.command(epilog=EPILOG)
def change(
    address: Address,
    new: Annotated[str, typer.Argument(help="The address that takes its place once it is confirmed.")],
    tenant: Tenant,
    name: Shown = "",
    locale: Language = None,
    hours: Hours = 48.0,
    json_output: AsJson = False,
) -> None:
    """Change a sender's address: the old one serves until the owner of the new one confirmed."""
    from postier.console.ledger_access import ledger
    from postier.schemas.address import address_key
    from postier.schemas.errors import ConfigurationError

    with ledger() as opened:
        _known(opened, tenant, "")
        senders = _senders(opened)
        old = [one for one in senders.list(tenant) if address_key(one.address) == address_key(address)]
        if not old or old[0].state == "cancelled":
            raise ConfigurationError(f"tenant {tenant!r} has no such sender to change")
        asked = senders.add(
            new, tenant=tenant, name=name or old[0].name, account=old[0].account, replaces=old[0].address,
            life=hours * 3600,
        )  # fmt: skip
        _mail(opened, asked, locale, json_output=json_output)


@app.command(epilog=EPILOG)
def cancel(address: Address, tenant: Tenant, json_output: AsJson = False) -> None:
    """Stop sending as an address; its link stops working. Mail leaves from the default sender then."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        _tell(_senders(opened).cancel(address, tenant=tenant), json_output=json_output)


@app.command(epilog=EPILOG)
def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for a free one.")] = 8025,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    json_output: AsJson = False,
) -> None:
    """Serve the page behind confirmation links until it is stopped. A proxy in front of it speaks TLS."""
    from postier.console.ledger_access import ledger
    from postier.console.sender_pages import PATH, ConfirmationServer
    from postier.console.web_server import serve_until_stopped
    from postier.ledger.senders import Senders

    with ledger() as opened:
        senders = Senders(opened.store, who="the owner, by link")
        serve_until_stopped(
            lambda: ConfirmationServer(senders, host=host, port=port), PATH, host=host, port=port,
            json_output=json_output,
        )  # fmt: skip


@app.command(epilog=EPILOG)
def advise(
    domain: Annotated[str, typer.Argument(help="The domain mail shall leave from.")],
    preset: Annotated[str | None, typer.Option("--preset", help="The provider that sends for it.")] = None,
    include: Annotated[list[str] | None, typer.Option("--include", help="A host its SPF record must include.")] = None,
    selector: Annotated[list[str] | None, typer.Option("--selector", help="A DKIM selector to look for.")] = None,
    nameserver: Annotated[str | None, typer.Option("--nameserver", metavar="HOST[:PORT]")] = None,
    json_output: AsJson = False,
) -> None:
    """Look at a domain's SPF, DKIM and DMARC records, and say what to publish. Exit 1 when something is missing."""
    from postier.console.domain_advice import examine

    findings = examine(domain, preset=preset, includes=include or (), selectors=selector or (), nameserver=nameserver)
    if json_output:
        say_json({"domain": domain, "findings": [one.as_dict() for one in findings]})
    else:
        for one in findings:
            say(f"{one.result:<5} {one.name:<6} {safe(one.words)}")
            if one.advice:
                say(f"             {safe(one.advice)}")
    if any(one.result == "fail" for one in findings):
        raise typer.Exit(NEGATIVE)


# --- shared


def _senders(opened: Ledger) -> Senders:
    from postier.console.ledger_access import whoami
    from postier.ledger.senders import Senders

    return Senders(opened.store, who=whoami())


def _known(opened: Ledger, tenant: str, account: str) -> None:
    from postier.schemas.errors import ConfigurationError

    registry = opened.registry()
    if tenant not in registry.tenants:
        raise ConfigurationError(f"no tenant is named {tenant!r}; there are {', '.join(registry.tenants) or 'none'}")
    if not opened.settings.public_url:
        raise ConfigurationError(
            "POSTIER_PUBLIC_URL: not set: give the https address where the world reaches `postier senders serve`"
        )
    if account:
        found = registry.accounts.get(account)
        if found is None or found.tenant != tenant or found.driver != "branded":
            raise ConfigurationError(f"--account {account}: no branded account of tenant {tenant!r} has this name")


def _mail(opened: Ledger, asked: Asked, locale: str | None, *, json_output: bool) -> None:
    """Ask the owner. The link points to us, whatever hosts the tenant's own links may point to."""
    from postier.console.sender_pages import PATH
    from postier.ledger.publish import Publisher, admit_and_route
    from postier.schemas.edge import wrap
    from postier.schemas.errors import ConfigurationError
    from postier.schemas.events import SenderConfirmation
    from postier.schemas.links import parse_link
    from postier.workers.branding import provider_of

    sender, registry = asked.sender, opened.registry()
    branded = registry.accounts.get(sender.account)
    provider = provider_of(branded, registry) if branded else registry.accounts.get(registry.default_account or "")
    if provider is None:
        raise ConfigurationError("default_account: there is none that could mail the owner: `postier accounts default`")
    link = f"{opened.settings.public_url.rstrip('/')}{PATH}?t={asked.token}"
    tenant = registry.tenants[sender.tenant]
    ours = tenant.model_copy(update={"allowed_hosts": (parse_link(link)[0],)})
    recipient: Any = {"address": sender.address, "name": sender.name, "locale": locale}
    event = SenderConfirmation(
        recipient=recipient, action_url=link, expires_at=datetime.fromtimestamp(sender.expires_at, UTC),
        sender_name=sender.name,
    )  # fmt: skip
    known = registry.model_copy(update={"tenants": {**registry.tenants, sender.tenant: ours}})
    admitted = admit_and_route(wrap(event, tenant=sender.tenant, account=provider.name), known)
    (answer,) = Publisher(opened.store, opened.settings.sealer()).publish([admitted])
    if isinstance(answer, Exception):
        raise answer
    _tell(sender, delivery=answer.deliveries[0], json_output=json_output)


def _tell(sender: BrandSender, *, delivery: str = "", json_output: bool) -> None:
    if json_output:
        say_json({**sender.as_dict(), **({"delivery": delivery} if delivery else {})})
    elif delivery:
        until = moment(sender.expires_at)
        say(f"{safe(sender.address)} is {sender.state}: its owner is asked, the link works until {until} ({delivery})")
    else:
        say(f"{safe(sender.address)} is {sender.state}")
