from __future__ import annotations

import pytest

from postier.schemas.errors import RenderError
from postier.schemas.events import KINDS, Recipient, Visitor
from postier.workers.render import Renderer
from tests.render.helpers import ACCOUNT, CASES, MESSAGE_ID, assert_wire_rules, bodies, example, parsed, rendered

ALWAYS = ["From", "To", "Subject", "Date", "Message-ID", "Feedback-ID", "MIME-Version", "Content-Type"]
MACHINE = ["Auto-Submitted", "X-Auto-Response-Suppress"]
LISTS = ["List-Id", "List-Unsubscribe", "List-Unsubscribe-Post"]
WANTED = {  # of the kinds that have more or fewer than a mail of a machine has
    "data_change": [*ALWAYS, *MACHINE, *LISTS],
    "contact_form": [*ALWAYS, "X-Auto-Response-Suppress", "Reply-To"],
}
VALUES = {
    "Auto-Submitted": "auto-generated",
    "X-Auto-Response-Suppress": "All",
    "List-Id": "<marks-4b.riverside.school.example>",
    "List-Unsubscribe": "<https://school.example/unsubscribe?list=marks-4b>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    "MIME-Version": "1.0",
    "Message-ID": MESSAGE_ID,
}


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_each_kind_carries_its_headers_once_and_no_other(kind, locale):
    mail = rendered(KINDS[kind].example(), locale, date=1_795_356_300.9)
    message = parsed(mail)
    wanted = WANTED.get(kind, [*ALWAYS, *MACHINE])
    assert sorted(message.keys()) == sorted(wanted)
    for name in wanted:
        if name in VALUES and (kind, name) != ("contact_form", "X-Auto-Response-Suppress"):
            assert message[name] == VALUES[name]
    assert message["Feedback-ID"] == f"{kind}:riverside:school:postier"
    assert message["Subject"] == mail.subject
    assert mail.mime.split(b"Date: ")[1].startswith(b"Sun, 22 Nov 2026 14:05:00 +0000\r\n")


def test_a_contact_form_mail_comes_from_us_and_answers_go_to_the_visitor():
    mail = rendered(KINDS["contact_form"].example())
    message = parsed(mail)
    assert message["From"].addresses[0].display_name == "Inès Moreau via Riverside School"
    assert message["From"].addresses[0].addr_spec == mail.envelope_from == "post@school.example"
    assert message["Reply-To"].addresses[0].addr_spec == "ines@example.com"
    assert message["X-Auto-Response-Suppress"] == "OOF"
    assert "ines@example.com" not in mail.recipients


def test_a_contact_form_ignores_any_other_reply_address():
    renderer = Renderer(ACCOUNT.model_copy(update={"reply_to": "office@school.example"}))
    mail = rendered(KINDS["contact_form"].example(), renderer=renderer, reply_to="other@school.example")
    assert parsed(mail)["Reply-To"].addresses[0].addr_spec == "ines@example.com"


def test_the_events_reply_address_goes_before_the_accounts():
    event = KINDS["reset_link"].example()
    renderer = Renderer(ACCOUNT.model_copy(update={"reply_to": "office@school.example"}))
    assert parsed(rendered(event))["Reply-To"] is None
    assert parsed(rendered(event, renderer=renderer))["Reply-To"] == "office@school.example"
    assert (
        parsed(rendered(event, renderer=renderer, reply_to="desk@school.example"))["Reply-To"] == "desk@school.example"
    )


def test_unsubscribing_is_offered_only_with_a_link():
    mail = rendered(example("data_change", unsubscribe_url=None))
    assert parsed(mail)["List-Id"] == VALUES["List-Id"]
    assert parsed(mail)["List-Unsubscribe"] is parsed(mail)["List-Unsubscribe-Post"] is None


@pytest.mark.parametrize("subscription", ["a.b:c/d+e", "x" * 128, "trailing-", "UPPER"])
def test_any_subscription_makes_a_valid_list_id(subscription):
    mail = rendered(example("data_change", subscription_id=subscription), tenant="a.tenant.")
    value = parsed(mail)["List-Id"]
    inner = value[1:-1]
    assert value == f"<{inner}>"
    assert len(value) <= 255
    assert all(label and len(label) <= 63 for label in inner.split("."))
    assert inner.endswith(".school.example")
    assert (
        value == parsed(rendered(example("data_change", subscription_id=subscription), tenant="a.tenant."))["List-Id"]
    )


def test_different_subscriptions_and_tenants_have_different_list_ids():
    ids = {
        parsed(rendered(example("data_change", subscription_id=subscription), tenant=tenant))["List-Id"]
        for subscription in ("a.b", "a:b", "a/b")
        for tenant in ("one", "two", "t.o")
    }
    assert len(ids) == 9


def test_a_very_long_unsubscribe_link_is_folded_on_the_wire_and_whole_elsewhere():
    url = "https://school.example/u?" + "t" * 2000
    mail = rendered(example("data_change", unsubscribe_url=url))
    assert_wire_rules(mail)
    assert parsed(mail)["List-Unsubscribe"].replace(" ", "") == f"<{url}>"
    assert dict(mail.headers)["List-Unsubscribe"] == f"<{url}>"


def test_a_link_beyond_ascii_is_percent_encoded_in_its_header():
    mail = rendered(example("data_change", unsubscribe_url="https://school.example/désabonner"))
    assert parsed(mail)["List-Unsubscribe"] == "<https://school.example/d%C3%A9sabonner>"


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_the_fields_of_the_email_repeat_the_message(kind, locale):
    mail = rendered(KINDS[kind].example(), locale)
    message = parsed(mail)
    assert bodies(mail) == (mail.text, mail.html)
    assert message["From"].addresses[0].addr_spec == mail.sender.address
    assert message["To"].addresses[0].display_name == mail.to[0].name
    assert mail.recipients == ("ada@example.org",)
    assert (message["Reply-To"] is None) == (mail.reply_to is None)
    for name, value in mail.headers:
        assert message[name] == value
    named = {name for name, _ in mail.headers}
    assert named == set(message.keys()) - {*ALWAYS, "Reply-To"} | {"Feedback-ID"}


@pytest.mark.parametrize("bad", ["four", "much-too-long-name", "a:b:c", "naïve", ""])
def test_a_feedback_instance_has_the_form_google_asks_for(bad):
    with pytest.raises(RenderError, match="Feedback-ID"):
        Renderer(ACCOUNT, feedback_id_instance=bad)


@pytest.mark.parametrize(
    "bad", ["d1@school.example", "<a b@c>", "<a@b>\r\nBcc: q@z.example", "<é@school.example>", "<>", ""]
)
def test_a_message_id_that_is_none_is_refused(bad):
    with pytest.raises(RenderError, match="Message-ID"):
        rendered(KINDS["reset_link"].example(), message_id=bad)


def test_the_moment_of_handing_over_passes_through():
    calls = []
    rendered(KINDS["reset_link"].example(), handing_over=lambda: calls.append(1)).handing_over()
    rendered(KINDS["reset_link"].example()).handing_over()
    assert calls == [1]


def test_a_packet_names_nobody_and_goes_to_all():
    recipients = [Recipient(address=f"parent.{n}@example.org", name=f"Parent {n}", locale="fr") for n in range(3)]
    stamp = {"kind": "data_change", "tenant": "riverside", "delivery_id": "d", "message_id": MESSAGE_ID}
    mail = Renderer(ACCOUNT).render_packet(example("data_change"), recipients=recipients, **stamp)
    assert mail.recipients == tuple(recipient.address for recipient in recipients)
    assert parsed(mail)["To"].addresses[0].addr_spec == "post@school.example"
    assert b"parent." not in mail.mime
    assert parsed(mail)["Bcc"] is None
    assert mail.text.startswith("Bonjour,\n")
    assert_wire_rules(mail)


def test_a_sensitive_kind_is_never_a_packet():
    stamp = {"kind": "reset_link", "tenant": "riverside", "delivery_id": "d", "message_id": MESSAGE_ID}
    with pytest.raises(RenderError, match="one recipient"):
        Renderer(ACCOUNT).render_packet(example("reset_link"), recipients=[Recipient(address="a@example.org")], **stamp)


def test_an_international_local_part_makes_the_mail_smtputf8():
    mail = rendered(example("reset_link"), recipient=Recipient(address="zoé@example.org", name="Zoé", locale="fr"))
    assert mail.smtputf8
    assert "To: =?utf-8?q?Zo=C3=A9?= <zoé@example.org>\r\n".encode() in mail.mime
    assert_wire_rules(mail)
    visitor = rendered(example("contact_form", visitor=Visitor(name="Zoé", address="zoé@example.com")))
    assert visitor.smtputf8
    assert "<zoé@example.com>" in visitor.mime.decode()


def test_an_international_domain_needs_no_smtputf8():
    mail = rendered(example("reset_link"), recipient=Recipient(address="ada@münchen.example", name="Ada"))
    assert not mail.smtputf8
    assert mail.recipients == ("ada@xn--mnchen-3ya.example",)
    assert b"<ada@xn--mnchen-3ya.example>" in mail.mime
