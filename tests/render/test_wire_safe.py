"""The renderer vouches for its octets, so that nobody has to look at each of them twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postier.drivers.smtp_mail import clean
from postier.schemas.account import Account
from postier.schemas.events import ContactForm
from postier.workers.mime import MAX_LINE, encode_body
from postier.workers.render import Renderer

ACCOUNT = Account.model_validate({"name": "main", "driver": "null", "sender": {"address": "noreply@example.org"}})


@given(message=st.text(st.characters(blacklist_categories=["Cs", "Cc"], whitelist_characters="\n\t."), max_size=3000))
def test_a_mail_called_wire_safe_is(message: str) -> None:
    event = ContactForm.example().model_copy(update={"message": message})
    mail = Renderer(ACCOUNT).render(
        event, kind="contact_form", tenant="t", recipient=event.visitor, delivery_id="d", message_id="<d@example.org>"
    )
    assert mail.wire_safe
    assert clean(mail.mime)


@given(st.lists(st.integers(0, 2 * MAX_LINE), max_size=12))
def test_only_lines_that_fit_go_as_they_are(lengths: list[int]) -> None:
    encoding, body = encode_body("".join("x" * length + "\n" for length in lengths))
    assert max((len(line) for line in body.split(b"\r\n")), default=0) <= MAX_LINE
    assert (encoding == b"7bit") == all(length <= MAX_LINE for length in lengths)
