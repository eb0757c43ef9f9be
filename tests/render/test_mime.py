from __future__ import annotations

import email
import email.policy
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from postier.schemas.email import Mailbox
from postier.schemas.errors import RenderError
from postier.schemas.events import KINDS, Change, Entity, Recipient, Visitor
from postier.workers.mime import Skeleton, encode_body, mailbox, unstructured
from tests.render.helpers import CASES, assert_wire_rules, bodies, example, name_shown, parsed, rendered

HOSTILE_NAMES = [
    'Eve" <q@z.example>, "',
    "Eve <q@z.example>",
    "q@z.example, r@z.example;",
    "Group: a@z.example;",
    "\\",
    '\\"',
    "=?utf-8?q?Eve=0D=0ABcc:_q@z.example?=",
    "(comment",
    "a" * 128,
    "é" * 128,
    "日本語" * 40,
    "👩‍👩‍👧‍👦 family",
    "  spaces  around  ",
    "Zo\u00a0é",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "x>",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_one_mailbox_with_that_name(name):
    visitor = Visitor(name=name, address="visitor@example.com")
    mail = rendered(example("contact_form", visitor=visitor), recipient=Recipient(address="ada@example.org", name=name))
    message = parsed(mail)
    for header, address in (
        ("From", "post@school.example"),
        ("To", "ada@example.org"),
        ("Reply-To", "visitor@example.com"),
    ):
        assert len(message[header].addresses) == 1
        assert message[header].addresses[0].addr_spec == address
    assert message["Bcc"] is None
    assert name_shown(mail, "To") == name
    assert_wire_rules(mail)


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_every_kind_obeys_the_wire_rules(kind, locale):
    mail = rendered(KINDS[kind].example(), locale)
    assert_wire_rules(mail)
    assert bodies(mail) == (mail.text, mail.html)


def test_ascii_mails_go_as_7bit_and_others_do_not():
    english, french = rendered(KINDS["reset_link"].example(), "en"), rendered(KINDS["reset_link"].example(), "fr")
    assert english.mime.count(b"Content-Transfer-Encoding: 7bit") == 2
    assert french.mime.count(b"Content-Transfer-Encoding: quoted-printable") == 1


@pytest.mark.parametrize(
    "message",
    [
        "x" * 5000,
        ".\n..\n.x",
        "From me\n\n>From you",
        "日本語" * 1000,
        "--=_\n--",
        "a\tb",
        " \n  trailing  \n",
        "é" + "y" * 3000,
        "line\r\nline",
        "https://z.example/" + "q" * 1500,
    ],
)
def test_any_message_arrives_as_it_was_written(message):
    mail = rendered(example("contact_form", message=message))
    text, page = bodies(mail)
    assert (text, page) == (mail.text, mail.html)
    quoted = "\n".join(f"> {line}".rstrip() for line in message.replace("\r\n", "\n").split("\n"))
    assert quoted in text
    assert_wire_rules(mail)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\n", b"7bit"),
        ("x" * 998 + "\n", b"7bit"),
        ("x" * 999 + "\n" + "y\n" * 500, b"quoted-printable"),
        ("caf\u00e9\n", b"quoted-printable"),
        ("\v" + "plain words " * 9 + "\n", b"quoted-printable"),
        ("日本語\n" * 9, b"base64"),
    ],
)
def test_a_body_takes_the_lightest_encoding_that_carries_it(text, encoding):
    chosen, body = encode_body(text)
    assert chosen == encoding
    wire = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: " + chosen
    message = email.message_from_bytes(wire + b"\r\n\r\n" + body, policy=email.policy.default)
    assert message.get_content().replace("\r\n", "\n") == text
    assert max(map(len, body.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("text", ["a\0b\n", "\ud800\n"])
def test_a_body_that_cannot_be_sent_is_a_render_error(text):
    with pytest.raises(RenderError):
        encode_body(text)


@pytest.mark.parametrize("hostile", ["a\r\nBcc: q@z.example", "a\nb", "a\rb", "a\0b", "a\x85b", "\ud800", "a\x1bb"])
def test_controls_that_slip_past_the_edge_still_reach_no_header(hostile):
    with pytest.raises(RenderError, match="control"):
        unstructured("Subject", hostile)
    with pytest.raises(RenderError, match="control"):
        mailbox("To", Mailbox("ada@example.org", hostile))


def test_line_separators_become_spaces_in_headers():
    assert parsed_header("Subject", unstructured("Subject", "a\u2028b\u2029é")) == "a b é"


def parsed_header(name: str, line: str) -> str:
    return str(email.message_from_bytes(line.encode() + b"\r\n", policy=email.policy.default)[name])


def test_a_boundary_that_occurs_in_a_body_is_replaced():
    skeleton = Skeleton.build((("Auto-Submitted", "auto-generated"),))
    text = f"--{skeleton.boundary.decode()}--\nBcc: q@z.example\n"
    message = email.message_from_bytes(skeleton.compose("Subject: x\r\n", text, "<p>\n"), policy=email.policy.default)
    assert message.get_boundary() != skeleton.boundary.decode()
    assert [part.get_content().replace("\r\n", "\n") for part in message.iter_parts()] == [text, "<p>\n"]


def test_a_visitor_cannot_fold_a_second_header_into_the_subject():
    for subject in (
        "x" * 255,
        "word " * 50 + "end",
        "=?utf-8?q?=0D=0ABcc:_q@z.example?=",
        "Réponse " * 30 + "fin",
        "a" * 200 + " é",
    ):
        mail = rendered(example("contact_form", subject=subject))
        assert parsed(mail)["Subject"] == f"Contact form: {subject}"
        assert parsed(mail)["Bcc"] is None
        assert_wire_rules(mail)
        head = mail.mime.split(b"\r\n\r\n")[0]
        assert all(len(line) <= 78 or b"x" * 60 in line for line in head.split(b"\r\n") if line[:1] in b"S ")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, tuple(sorted(name for name, _ in attrs))))


def tags(page: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.seen


HOSTILE_HTML = (
    "\"><script>alert(1)</script><img src=x onerror=alert(1)> ' onmouseover=alert(1) </style></title>{{ 7*7 }}"
)


def test_hostile_text_adds_no_tag_and_no_attribute():
    calm = {"name": "x", "subject": "x", "message": "x"}
    wild = dict.fromkeys(calm, HOSTILE_HTML)
    pages = [
        rendered(
            example(
                "contact_form",
                visitor=Visitor(name=texts["name"], address="v@example.com"),
                subject=texts["subject"],
                message=texts["message"],
            )
        ).html
        for texts in (calm, wild)
    ]
    assert tags(pages[0]) == tags(pages[1])
    changes = [
        rendered(
            example(
                "data_change",
                actor=text,
                entity=Entity(type="t", id="1", label=text, url="https://school.example/x?a=1&b='\""[:-1]),
                changes=(Change(field="f", label=text, old=text, new=text),),
            ),
            recipient=Recipient(address="ada@example.org", name=text),
        ).html
        for text in ("x", HOSTILE_HTML)
    ]
    assert tags(changes[0]) == tags(changes[1])
    resets = [rendered(example("reset_link", device=text, code=text[:64])).html for text in ("x", HOSTILE_HTML)]
    assert tags(resets[0]) == tags(resets[1])


def test_a_link_that_slips_past_the_edge_still_runs_nothing():
    event = example("reset_link")
    for url in ("javascript:alert(1)", "http://school.example/", "//z.example", 'https://school.example/" onclick="x'):
        with pytest.raises(RenderError, match="https"):
            rendered(event.model_copy(update={"action_url": url}))


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(name=texts, subject=texts, message=st.text(max_size=1500), locale=st.sampled_from(["en", "fr"]))
def test_whatever_a_visitor_writes_arrives_unchanged_and_alone(name, subject, message, locale):
    try:
        event = example(
            "contact_form", visitor=Visitor(name=name, address="v@example.com"), subject=subject, message=message
        )
    except ValidationError:
        assume(False)
    mail = rendered(event, locale)
    message = parsed(mail)
    assert_wire_rules(mail)
    assert sorted(set(message.keys())) == sorted(message.keys())
    assert bodies(mail) == (mail.text, mail.html)
    for header in ("From", "To", "Reply-To"):
        assert len(message[header].addresses) == 1
    assert message["From"].addresses[0].addr_spec == "post@school.example"
    assert message["Reply-To"].addresses[0].addr_spec == "v@example.com"
    assert tags(mail.html) == tags(
        rendered(example("contact_form", message="x" + "\n" * mail.html.count("<br>")), locale).html
    )
