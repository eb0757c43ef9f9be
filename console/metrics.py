"""`postier metrics`: what a monitoring system reads of the ledger, once or for as long as it runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import say_json

if TYPE_CHECKING:
    from prometheus_client.core import Metric

app = typer.Typer(
    help="Metrics of the ledger for Prometheus: one exporter serves any number of workers.", rich_markup_mode=None
)


@app.callback(invoke_without_command=True, epilog=EPILOG)
def show(context: typer.Context, json_output: AsJson = False) -> None:
    """Print the metrics once, in the text format of Prometheus. When the ledger is away they say so (postier_up 0),
    and the exit code is 4. The command below serves them."""
    if context.invoked_subcommand is not None:
        return
    _need_the_library()
    from prometheus_client import generate_latest

    from postier.console.exposition import LedgerCollector
    from postier.settings.config import load_settings

    collector = LedgerCollector(load_settings())
    if json_output:
        say_json({"metrics": [_as_dict(one) for one in collector.collect()]})
    else:
        sys.stdout.write(generate_latest(collector).decode())
    if collector.away is not None:
        sys.stdout.flush()
        raise collector.away


@app.command(epilog=EPILOG)
def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for a free one.")] = 9464,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    json_output: AsJson = False,
) -> None:
    """Serve /metrics until it is stopped: it looks at the ledger each time it is read, and answers when the ledger is
    away, too. It has no login: let only Prometheus reach it."""
    _need_the_library()
    from postier.console.ledger_access import ledger
    from postier.console.metrics_page import PATH, MetricsServer
    from postier.console.web_server import serve_until_stopped

    with ledger() as opened:  # settings that are wrong are told now
        settings = opened.settings
    serve_until_stopped(
        lambda: MetricsServer(settings, host=host, port=port), PATH, host=host, port=port, json_output=json_output
    )


def _need_the_library() -> None:
    from postier.schemas.errors import ConfigurationError

    try:
        import prometheus_client  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise ConfigurationError("metrics need one more package: pip install 'postier[metrics]'") from None


def _as_dict(metric: Metric) -> dict[str, Any]:
    samples = [{"labels": sample.labels, "value": sample.value} for sample in metric.samples]
    name = metric.samples[0].name  # of a counter, with what the library takes off its name
    return {"name": name, "type": metric.type, "help": metric.documentation, "samples": samples}
