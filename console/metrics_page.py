"""The page that Prometheus reads. Put it where nobody else reaches it: it names accounts, and has no login."""

from __future__ import annotations

from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

from postier.console.exposition import LedgerCollector
from postier.console.output import complain, safe
from postier.console.web_server import SmallHandler, SmallServer
from postier.settings.config import Settings
from postier.settings.logs import where

PATH = "/metrics"


class MetricsServer(SmallServer):
    """Serves the page; `shutdown`, `server_close` end it."""

    def __init__(self, settings: Settings, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.registry = CollectorRegistry()  # of our own: the library's would tell of this process, too
        self._collector = LedgerCollector(settings)
        self.registry.register(self._collector)
        self._said = ""
        super().__init__(_Page, host=host, port=port)

    def say_what_changed(self) -> None:
        """Why the ledger is away, and that it is back: on standard error, each once."""
        words = str(self._collector.away or "")
        if words != self._said:
            self._said = words
            complain(f"postier: {safe(words) or 'the ledger answers again'}")


class _Page(SmallHandler, MetricsHandler):
    server: MetricsServer

    def setup(self) -> None:
        super().setup()
        self.registry = self.server.registry

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        """Look and tell, in the format and coding that the reader asks for."""
        if urlsplit(self.path).path != PATH:
            self.send_error(404)
            return
        try:
            super().do_GET()
            self.server.say_what_changed()
        except OSError:  # the reader left
            raise
        except Exception as error:  # its words could hold what must not stand in a log
            complain(f"postier: this should not happen, please report it: {safe(where(error))}")
            self.send_error(500)
