"""What a refusing reply does in the end: which error it becomes, how the delivery goes on, what its account does."""

import pytest

from postier.drivers.smtp_reply import Reply
from postier.drivers.smtp_words import refusal
from postier.ledger.entries import Claimed
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    Stage,
    TemporaryError,
)
from postier.workers.outcomes import decide, react

DELIVERY = Claimed(
    id="d1", fence=1, attempt=1, crashes=0, tenant="t", kind="account.validation", version=1, event="e1",
    message_id="<d1@example.org>", deadline=2**50, accepted_at=0, on_unknown="resend", payload=b"",
    recipient="someone@example.org", urgent=True, packet="",
)  # fmt: skip

# stage, reply; the error; how the delivery goes on (and whether that spends an attempt); what the account does.
REACTIONS: list[tuple[Stage, int, str, type[DeliveryError], str, str]] = [
    # Us: the mail waits, the account stops.
    ("connect", 554, "No SMTP service here for 192.0.2.7", SenderRefused, "waits", "park"),
    ("mail", 530, "5.7.57 Client not authenticated to send mail", AuthenticationFailed, "waits", "park"),
    ("auth", 535, "5.7.8 Authentication failed", AuthenticationFailed, "waits", "park"),
    ("rcpt", 550, "5.1.1 Your IP has no reverse DNS", SenderRefused, "waits", "park"),
    ("rcpt", 554, "5.7.1 Relay access denied", SenderRefused, "waits", "park"),
    ("rcpt", 525, "5.7.13 login is disabled for this account", AuthenticationFailed, "waits", "park"),
    ("body", 550, "5.7.26 This mail is unauthenticated", SenderRefused, "waits", "park"),
    ("body", 554, "5.2.2 STOREDRV.Submission.Exception:QuotaExceededException", SenderRefused, "waits", "park"),
    # Our allowance is spent: the account stops for its time.
    ("rcpt", 550, "5.4.5 Daily sending limit exceeded", QuotaExhausted, "waits", "park"),
    ("body", 554, "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", QuotaExhausted, "waits",
     "park"),
    # Our pace: slower, and no attempt is spent.
    ("mail", 450, "4.7.1 Rate limit exceeded", RateLimited, "waits", "slow"),
    ("connect", 421, "Too many connections from your host", RateLimited, "waits", "slow"),
    ("mail", 550, "Too many connections", RateLimited, "waits", "slow"),
    ("rcpt", 421, "4.3.2 Service closing", RateLimited, "waits", "slow"),
    ("body", 432, "4.3.2 Concurrent connections limit exceeded", RateLimited, "waits", "slow"),
    ("rcpt", 451, "4.7.500 Server busy", RateLimited, "waits", "slow"),
    ("rcpt", 452, "4.5.3 Too many recipients", RateLimited, "waits", "split"),
    ("rcpt", 452, "Too many recipients", RateLimited, "waits", "split"),
    ("rcpt", 552, "Too many recipients", RateLimited, "waits", "split"),
    # The moment: an attempt is spent.
    ("connect", 421, "Try later", TemporaryError, "retries", ""),
    ("rcpt", 451, "4.7.1 Greylisted", TemporaryError, "retries", ""),
    ("rcpt", 452, "4.2.2 Mailbox full", TemporaryError, "retries", ""),
    ("auth", 454, "4.7.0 Temporary authentication failure", TemporaryError, "retries", ""),
    # This email, or this address: it fails, the account goes on.
    ("body", 554, "5.7.1 This looks like spam", EmailRefused, "failed", ""),
    ("mail", 552, "5.3.4 Message size exceeds the limit", EmailRefused, "failed", ""),
    ("rcpt", 550, "5.1.1 User unknown", RecipientRefused, "failed", ""),
    ("rcpt", 552, "5.2.2 Mailbox full", RecipientRefused, "failed", ""),
    ("rcpt", 550, "5.7.133 Sender not authenticated for group", RecipientRefused, "failed", ""),
    # Never again.
    ("rcpt", 550, "Refused by the recipient: you are blocked", RecipientRefused, "suppressed", ""),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "code", "text", "error", "delivery", "account"), REACTIONS)
def test_a_refusal_moves_its_delivery_and_its_account_as_its_class_calls_for(
    stage: Stage, code: int, text: str, error: type[DeliveryError], delivery: str, account: str
) -> None:
    refused = refusal(Reply(code, text), stage)
    entry = decide(DELIVERY, refused, account="a", took=0.1)
    reaction = react("a", refused, recipients=10)

    goes_on = "retries" if entry[4] else "waits"
    then = str(entry[3]) if entry[0] == "end" else goes_on
    assert type(refused) is error
    assert (then, str(reaction[0]) if reaction else "") == (delivery, account)


def test_a_mail_of_many_that_is_too_many_goes_out_again_at_once_in_parts() -> None:
    refused = refusal(Reply(452, "4.5.3 Too many recipients"), "rcpt")

    assert decide(DELIVERY._replace(packet="p1"), refused, account="a", took=0.1, shared=True)[3:5] == (0, 0)
