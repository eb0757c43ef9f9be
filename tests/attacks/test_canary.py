"""T18, G14: secrets, links, addresses and messages are in the mail that leaves, and nowhere else.

One broad run with a marked word in everything that is secret: every kind, several drivers, failures of every class,
wrong passwords, tokens, crashing drivers, refused events, and the commands that people look with. Then everything that
could have kept a word is searched: logs, Redis with its append-only file, what commands answered, what errors say.
"""

from __future__ import annotations

import base64
import json
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from postier.client.postier import Postier
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.settings.config import Settings, load_settings
from postier.settings.seal import Sealer
from tests.attacks.kit import Yard, account, bent
from tests.conftest import until
from tests.drivers.conftest import Certificates
from tests.drivers.http.fake import FakeApi, Reply
from tests.drivers.kit import Peer, ScriptedServer, polite
from tests.drivers.oauth.services import CLIENT, TENANT, Graph, TokenService, entra_error

pytestmark = pytest.mark.xdist_group("canary")  # one run is enough
MARK = "kanarie"
CRASHING = "tests.attacks.crashing:CrashingDriver"


def canary(what: str) -> str:
    """A word that is nowhere else."""
    return f"{MARK}{what}7q3x"


SECRETS = [
    "plainpassword", "filepassword", "envpassword", "wrongpassword", "crashpassword", "apikey", "clientsecret",
    "linktoken", "unsubscribetoken", "codeword", "message", "subject", "visitorname", "recipientname", "oldvalue",
    "newvalue", "entitylabel", "actor", "device", "redispassword", "refused",
]  # fmt: skip
ADDRESSES = [f"{canary(name)}@inner-mail.example" for name in ("reader", "visitor", "replyto", "follower")]


def forms(word: str) -> set[bytes]:
    """The word as it is, and as programs write it without thinking."""
    raw = word.encode()
    aligned = {base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] + 0 : -4] for shift in (0, 1, 2)}
    return {raw, raw.hex().encode(), quote(word).encode(), "".join(f"%{c:02X}" for c in raw).encode()} | aligned


@dataclass
class Found:
    """Everything that could have kept a word, by where it was."""

    places: dict[str, bytes] = field(default_factory=dict)

    def hits(self, words: list[str]) -> list[str]:
        return [
            f"{word} in {place}"
            for place, octets in self.places.items()
            for word in words
            if any(form in octets for form in forms(word))
        ]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("canary-redis"), fsync="always") as server:
        yield server


def telltale(peer: Peer, line: str) -> str:
    """A server that repeats what it heard: the login in every form, the mail's text and links."""
    if line.startswith("AUTH"):
        coded = line.rpartition(" ")[2]
        plain = base64.b64decode(coded).decode().replace("\0", " ")
        return f"535 5.7.8 no: {line} {coded} {plain}"
    body = peer.last_body.decode("utf-8", "replace")
    links = " ".join(re.findall(r"https://[^\s\"<>]+", body)[:2])
    return f"554 5.6.0 {links} is not welcome, said {ADDRESSES[0]}"


@pytest.fixture(scope="module")
def found(
    own_server: EmbeddedServer, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Found]:
    folder = tmp_path_factory.mktemp("canary")
    (folder / "password").write_text(canary("filepassword"))
    key = Sealer.new_key()
    entra, graph = TokenService(certificates.good), Graph(certificates.good)
    entra.always = entra_error(7000215, "invalid_client", 401, f"Invalid secret {canary('clientsecret')}")
    with (
        ScriptedServer(polite(extensions=("PIPELINING", "AUTH PLAIN LOGIN"), AUTH="235 welcome")) as good,
        ScriptedServer(polite(extensions=("AUTH PLAIN LOGIN",), AUTH=telltale)) as wrong,
        ScriptedServer(polite(DOT=telltale)) as chatty,
        ScriptedServer(polite(RCPT=lambda _, line: f"550 5.1.1 {line} unknown")) as unknown,
        ScriptedServer(polite(DOT="451 4.3.0 later")) as later,
        FakeApi(lambda request: Reply(401, {"errors": [{"message": f"{request.headers}"}]})) as api,
        entra.web,
        graph.web,
    ):
        accounts = {
            "good": account(good.port, options=login("plainpassword", canary("plainpassword"))),
            "byfile": account(good.port, options=login("byfile", f"file:{folder}/password")),
            "byenv": account(good.port, options=login("byenv", "env:CANARY_PASSWORD")),
            "wrong": account(wrong.port, options=login("wrong", canary("wrongpassword"))),
            "chatty": account(chatty.port),
            "unknown": account(unknown.port),
            "later": account(later.port),
            "missing": account(9, options=login("missing", "env:CANARY_MISSING")),
            "crash": other(CRASHING, password=canary("crashpassword")),
            "crash-late": other(CRASHING, password=canary("crashpassword"), when="handed over"),
            "crash-made": other(CRASHING, password=canary("crashpassword"), when="made"),
            "api": other("sendgrid", api_key=canary("apikey"), **as_toml(api.options)),
            "microsoft": other(
                "microsoft", mailbox="office@contoso.example", tenant_id=TENANT, client_id=CLIENT,
                client_secret=canary("clientsecret"), authority=entra.url, graph_url=graph.web.url,
                ca_file=certificates.ca_file, allow_hosts=["localhost", "127.0.0.1"], timeout_ms=3000,
            ),
            "nothing": other("null"),
        }  # fmt: skip
        yard = Yard(own_server.url, "canary", key, folder, **accounts)
        yard.environment["CANARY_PASSWORD"] = canary("envpassword")
        try:
            yard.start_worker()
            yard.start_worker(POSTIER_LOG_FORMAT="console")
            result = Found()
            outputs = run_through(yard, list(accounts))
            assert_it_was_carried(good, chatty, yard)
            yard.stop_workers()
            result.places |= {f"command {name}": text.encode() for name, text in outputs.items()}
            result.places |= {path.name: path.read_bytes() for path in folder.glob("worker*.log")}
            result.places |= errors(yard)
            result.places |= {f"key {k.decode()}": k + b" " + v for k, v in dump(yard.store)}
            for path in own_server.folder.rglob("*"):
                if path.is_file():
                    result.places[f"redis {path.name}"] = path.read_bytes()
            result.places |= {f"data {p.name}": p.read_bytes() for p in (folder / "data").rglob("*") if p.is_file()}
            result.places["positive control"] = f"log line with {canary('planted')}".encode()
            yield result
        finally:
            yard.close()


def login(user: str, password: str) -> dict[str, Any]:
    return {"username": user, "password": password, "allow_plain_login": True}


def other(driver: str, **options: Any) -> dict[str, Any]:
    return {"driver": driver, "sender": {"address": "post@school.example"}, "options": options}


def as_toml(options: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def events(name: str) -> Iterator[dict[str, Any]]:
    link = f"https://school.example/reset?token={canary('linktoken')}"
    reader = {"address": ADDRESSES[0], "name": canary("recipientname"), "locale": "en"}
    table: dict[str, dict[str, Any]] = {
        "reset_link": {"data.recipient": reader, "data.action_url": link, "data.code": canary("codeword"),
                       "data.device": canary("device")},
        "account_validation": {"data.recipient": reader | {"address": f"{name}-{ADDRESSES[0]}"},
                               "data.action_url": link, "data.code": canary("codeword")},
        "data_change": {"data.recipients": [{"address": ADDRESSES[3]}], "data.entity.label": canary("entitylabel"),
                        "data.entity.url": link, "data.actor": canary("actor"),
                        "data.unsubscribe_url": f"https://school.example/u?t={canary('unsubscribetoken')}",
                        "data.changes.0.old": canary("oldvalue"), "data.changes.0.new": canary("newvalue")},
        "contact_form": {"data.visitor": {"name": canary("visitorname"), "address": ADDRESSES[1]},
                         "data.subject": canary("subject"), "data.message": f"{canary('message')} {link}"},
    }  # fmt: skip
    for number, (kind, changes) in enumerate(table.items()):
        more = {} if kind == "contact_form" else {"reply_to": ADDRESSES[2]}
        yield bent(kind, changes, id=f"{name}-{number}", account=name, **more)


def run_through(yard: Yard, names: list[str]) -> dict[str, str]:
    """Publish everything by every account, wait until each had its try, and look at it in every way."""
    outputs: dict[str, str] = {}
    ids: list[str] = []
    for name in names:
        answers = yard.publish(list(events(name)), f"canary-{name}")
        ids += [identity for answer in answers for identity in answer["deliveries"]]
        outputs[f"publish {name}"] = json.dumps(answers)

    def tried(identity: str) -> bool:
        status = yard.status(identity)
        parked = yard.queries.accounts().get(status.account, {}).get("state") not in ("ready", None)
        return bool(status.attempt or parked or status.state not in ("waiting", "leased", "sending"))

    until(lambda: all(map(tried, ids)), 120, what="a try of everything")
    bad: list[dict[str, Any] | bytes] = [
        bent("reset_link", {"data.action_url": f"https://z.example/{canary('refused')}"}),
        bent("reset_link", {"data.recipient.address": f"{canary('refused')} {ADDRESSES[0]}"}),
        bent("contact_form", {"data.message": f"{canary('refused')}\0"}),
        bent("contact_form", {"data.unheard_of": canary("refused")}),
        bent("contact_form", {"idempotency_key": "good-0", "tenant": "school"}),
        f'{{"kind": "{canary("refused")}"'.encode(),
    ]
    outputs["publish bad"] = json.dumps(yard.publish(bad, "canary-bad"))
    commands: list[tuple[str, ...]] = [
        ("doctor",), ("doctor", "--json"), ("accounts", "list"), ("accounts", "list", "--json"), ("accounts", "export"),
        ("deliveries", "retry", "--all", "--json"),
        ("deliveries", "list", "--limit", "1000"), ("deliveries", "list", "--limit", "1000", "--json"),
        ("failed", "list", "--limit", "1000"), ("failed", "list", "--limit", "1000", "--json"), ("failed", "groups"),
        ("audit",), ("audit", "--json"), ("unknown", "list"), ("export", "-"), ("tenants", "list"), ("kinds",),
        ("inbox", "list"), ("inbox", "list", "--json"), ("metrics",), ("metrics", "--json"),
    ]  # fmt: skip
    commands += [("accounts", "show", name, *(("--json",) if place % 2 else ())) for place, name in enumerate(names)]
    commands += [
        ("accounts", "check", name)
        for name in ("wrong", "missing", "api", "microsoft", "crash", "crash-made", "chatty")
    ]
    commands += [("status", identity) for identity in ids[::3]]
    commands += [("failed", "show", identity, "--json") for identity in ids[::7]]
    commands += [("failed", "replay", identity, "--yes") for identity in ids[:2]]
    for words in commands:
        answer = run_or_told(yard, *words)
        outputs[" ".join(words)] = answer
    return outputs


def run_or_told(yard: Yard, *words: str) -> str:
    """What a command says, traceback and all."""
    try:
        answer = yard.run(*words)
    except Exception:
        return traceback.format_exc()
    return answer.out + answer.err


def assert_it_was_carried(good: ScriptedServer, chatty: ScriptedServer, yard: Yard) -> None:
    """The words did travel: else the search would prove nothing."""

    def came() -> bytes:
        return b"\n".join(good.bodies).replace(b"=\r\n", b"")

    names = ("linktoken", "unsubscribetoken", "codeword", "message", "subject", "newvalue", "recipientname", "device")
    until(lambda: all(canary(name).encode() in came() for name in names), what="every word in a mail")

    def logins() -> str:  # of three accounts, over connections that begin side by side
        coded = [line.rpartition(" ")[2] for line in list(good.lines) if line.startswith("AUTH")]
        return " ".join(base64.b64decode(one).decode() for one in coded)

    until(lambda: canary("plainpassword") in logins(), what="the login")
    until(lambda: chatty.bodies)

    def parked() -> set[str]:
        return {name for name, facts in yard.queries.accounts().items() if facts.get("state") != "ready"}

    until(lambda: {"wrong", "missing", "api", "microsoft"} <= parked(), what="the parking")
    until(lambda: "driver.failed" in yard.log())


def errors(yard: Yard) -> dict[str, bytes]:
    """Exceptions with their tracebacks, and what objects say of themselves."""

    def raised(act: Callable[[], object]) -> bytes:
        try:
            return repr(act()).encode()
        except Exception as error:
            return f"{traceback.format_exc()} {error!r} {error.__dict__!r}".encode()

    from postier.schemas.events import ContactForm, Recipient, ResetLink

    wrong: dict[str, Any] = bent(
        "contact_form", {"data.message": f"{canary('refused')}\0", "data.subject": canary("subject")}
    )["data"]
    url = f"redis://user:{canary('redispassword')}@127.0.0.1:1/0"
    with yard.in_environment():
        settings = load_settings()
        client = Postier(settings=settings)
        away = Settings(redis_url=url, seal_keys=SecretStr(Sealer.new_key()))
        acts: dict[str, Callable[[], object]] = {
            "a wrong event": lambda: ContactForm(**wrong),
            "a wrong recipient": lambda: Recipient(address=f"{canary('refused')} x", name=canary("recipientname")),
            "an event": lambda: ResetLink.example().model_copy(update={"code": canary("codeword")}),
            "a recipient": lambda: Recipient(address=ADDRESSES[0], name=canary("recipientname")),
            "a wrong publish": lambda: client.publish(ContactForm.model_construct(**wrong), tenant="school"),
            "another tenant": lambda: client.publish(ContactForm.example(), tenant=canary("refused")),
            "redis away": lambda: Store(url).now(),
            "redis wrong": lambda: Store(f"gopher://u:{canary('redispassword')}@x/").now(),
            "settings": lambda: away,
            "real settings": lambda: settings,
            "accounts": lambda: settings.registry(),
            "account": lambda: settings.registry().accounts["good"],
        }  # fmt: skip
        said = {f"error {name}": raised(act) for name, act in acts.items()}
        client.close()
    return said


def dump(store: Store) -> Iterator[tuple[bytes, bytes]]:
    """Every key with its value as Redis would write it, and as text where it has one; some end meanwhile."""
    for key in store.redis.scan_iter(count=10_000):
        kind = store.redis.type(key)
        readers: dict[bytes, Callable[[bytes], Any]] = {
            b"none": lambda _: b"",
            b"string": lambda k: store.redis.get(k),
            b"hash": lambda k: b" ".join(one for pair in store.redis.hgetall(k).items() for one in pair),
            b"list": lambda k: b" ".join(store.redis.lrange(k, 0, -1)),
            b"set": lambda k: b" ".join(store.redis.smembers(k)),
            b"zset": lambda k: b" ".join(store.redis.zrange(k, 0, -1)),
            b"stream": lambda k: repr(store.redis.xrange(k)).encode(),
        }
        value = readers[kind](key)
        yield key, (value or b"") + b" " + (store.redis.dump(key) or b"")


def test_the_search_finds_what_is_there(found: Found) -> None:
    assert found.hits([canary("planted")]) == [f"{canary('planted')} in positive control"]
    coded = Found(
        {"coded": base64.b64encode(f"user={canary('x')}\1".encode()), "hex": canary("y").encode().hex().encode()}
    )
    assert len(coded.hits([canary("x"), canary("y")])) == 2
    assert len(found.places) > 120
    assert any(place.startswith("redis") and b"delivery:" in octets for place, octets in found.places.items())


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_word_is_kept_nowhere(secret: str, found: Found) -> None:
    assert found.hits([canary(secret)]) == []


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: str(address).partition("@")[0])
def test_no_whole_address_is_kept_anywhere(address: str, found: Found) -> None:
    assert found.hits([address]) == []


def test_no_command_ended_in_a_traceback(found: Found) -> None:
    told = [place for place, octets in found.places.items() if place.startswith("command") and b"Traceback" in octets]
    assert told == []
