"""Secrets are compared in constant time: what the code compares with `==`, by the names it gives."""

from __future__ import annotations

import ast
import hmac
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from postier.console.demo_catcher import Catcher
from postier.ledger.senders import Senders
from postier.ledger.store import Store

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "settings", "drivers", "ledger", "client", "workers", "console")
SECRET = re.compile(
    r"(?i)(^|_)(token|secret|password|passphrase|credential|hash|digest|signature|h?mac|seal)(s?|_\w+)$"
)

# No stranger's guess is on either side.
OWN = {
    ("console/demo_folder.py", "name == WRONG_PASSWORD"): "the name of a demo's user",
    ("ledger/accounts.py", "credential == before"): "two keyed fingerprints: what a worker named before and names now",
    ("drivers/google_tokens.py", "(self.service_account is None) == (self.refresh_token is None)"): "which was given",
    ("drivers/graph.py", "fresh != token"): "logins before and after a renewal",
    ("drivers/smtp_login.py", "fresh != token"): "logins before and after a renewal",
    ("drivers/tokens.py", "grant.token == refused"): "the login in hand and the one that a provider refused",
    (
        "workers/route.py",
        "credentials.get(name) != self.credentials.get(name)",
    ): "what the settings said before and say now",
}


def compared(source: str) -> Iterator[str]:
    """Comparisons for equality that name a secret; a constant beside it is no secret."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) for side in sides):
            continue
        if any(SECRET.search(name) for side in sides for name in names(side)):
            yield ast.unparse(node)


def names(side: ast.expr) -> Iterator[str]:
    """What one side may be called: names, attributes, keys and functions in it."""
    for node in ast.walk(side):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, object]]:
    """What went through `hmac.compare_digest`."""
    seen: list[tuple[object, object]] = []

    def compare(one: str, other: str, real: Callable[..., bool] = hmac.compare_digest) -> bool:
        seen.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    return seen


def test_no_secret_is_compared_with_an_operator() -> None:
    found = {
        (str(path.relative_to(ROOT)), text)
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for text in compared(path.read_text())
    }

    assert found == set(OWN)


@pytest.mark.parametrize(
    "line",
    [
        "given == token",
        "_digest(a, b) == data['hash']",
        "data.get('hash', '') != given",
        "self._password == data.password",
        "hmac.new(key, body, 'sha256').hexdigest() == header",
        "request.signature_v2 != wanted",
    ],
)
def test_what_would_tell_the_time_is_found(line: str) -> None:
    assert list(compared(line)) == [line]


@pytest.mark.parametrize(
    "line", ["reply.code == code", "token == ''", "hmac.compare_digest(given, token)", "tokens > 3"]
)
def test_what_tells_nothing_is_not(line: str) -> None:
    assert list(compared(line)) == []


def test_a_confirmation_link_is_compared_in_constant_time(store: Store, digests: list[tuple[object, object]]) -> None:
    senders = Senders(store, who="anna")
    token = senders.add("office@brand.example", tenant="school").token
    wrong = token[:-1] + ("B" if token.endswith("A") else "A")

    assert senders.look(wrong) is None
    assert senders.confirm(wrong) is None
    assert senders.confirm(token) is not None
    assert len(digests) == 3
    assert all(token.split(".")[1] not in (one, other) for one, other in digests)  # hashes, not secrets


def test_a_link_of_a_sender_that_nobody_asked_takes_the_same_steps_as_a_wrong_one(
    store: Store, digests: list[tuple[object, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its time would say which addresses of a tenant wait for their confirmation: ids follow from both."""
    senders = Senders(store, who="anna")
    waiting, _ = senders.add("office@brand.example", tenant="school").token.split(".")
    confirmed = senders.add("head@brand.example", tenant="school").token
    senders.confirm(confirmed)
    asked: list[tuple[object, ...]] = []
    execute = store.redis.execute_command
    monkeypatch.setattr(store.redis, "execute_command", lambda *a, **kw: (asked.append(a[:1]), execute(*a, **kw))[1])
    digests.clear()

    steps = []
    for identity in (waiting, confirmed.split(".")[0], "0" * 32):
        assert senders.look(f"{identity}.{'A' * 43}") is None
        steps.append((list(asked), len(digests)))
        asked.clear()
        digests.clear()

    assert steps == [steps[0]] * 3
    assert steps[0][1] == 1


def test_a_password_of_the_demo_is_compared_in_constant_time(
    tmp_path: Path, digests: list[tuple[object, object]]
) -> None:
    (tmp_path / "anna").write_bytes(b"right")
    catcher = Catcher.__new__(Catcher)
    catcher._passwords = tmp_path

    answer = catcher._authenticate(None, None, None, "PLAIN", SimpleNamespace(login=b"anna", password=b"wrong"))

    assert not answer.success
    assert digests == [(b"right", b"wrong")]
