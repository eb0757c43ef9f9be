"""A Microsoft of our own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postier.ledger.store import Store
from postier.ledger.tokens import SealedTokenStore
from postier.settings.seal import Sealer
from tests.drivers.conftest import Certificates, Files
from tests.drivers.oauth.services import Microsoft


@pytest.fixture
def microsoft(certificates: Certificates) -> Iterator[Microsoft]:
    with Microsoft(certificates.good, certificates.ca_file).running() as running:
        yield running


@pytest.fixture
def microsoft_beside(files: Files) -> Iterator[Microsoft]:
    """One whose certificates are those of the mail servers beside it."""
    with Microsoft(files.context, files.ca_file).running() as running:
        yield running


@pytest.fixture
def token_store(store: Store, sealer: Sealer) -> SealedTokenStore:
    return SealedTokenStore(store, sealer, owner="school")
