"""A Microsoft of our own for each test, and the files its certificates lie in."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from postier.ledger.store import Store
from postier.ledger.tokens import SealedTokenStore
from postier.settings.seal import Sealer
from tests.drivers.conftest import Certificates
from tests.drivers.oauth.services import Microsoft


@dataclass(frozen=True)
class Files:
    """One authority for all servers of a test, as other programs want it: in files."""

    ca_file: str
    chain: str
    key: str
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder: Path = tmp_path_factory.mktemp("oauth-ca")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(folder / "chain.pem"), append=True)
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    return Files(str(folder / "ca.pem"), str(folder / "chain.pem"), str(folder / "key.pem"), context)


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
