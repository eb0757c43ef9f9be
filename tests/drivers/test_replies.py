"""Replies are classified by general rules: a labelled corpus, replies made up here, and hostile text."""

import csv
import gc
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postier.drivers.replies import ReplyClass, advice, classify, parse_enhanced
from tests.drivers.reading import assert_read_like_plain_words

CORPUS = Path(__file__).parent / "data" / "smtp_replies.csv"
OUR_FAULT = {"config", "auth", "throttle", "permanent_content"}
BLAME = {"permanent_recipient", "suppress"}
STAGES = ["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "http"]


def corpus() -> list[dict[str, str]]:
    with CORPUS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def judged(row: dict[str, str]) -> ReplyClass:
    return classify(int(row["code"]) if row["code"] else None, row["enhanced"] or None, row["text"])


def test_the_corpus_is_classified_as_its_labels_say() -> None:
    rows = corpus()
    wrong = [(row["code"], row["text"], judged(row)) for row in rows if judged(row) != row["expected_class"]]

    assert len(rows) == 170
    assert len(wrong) <= 3, wrong


def test_the_recipient_is_not_blamed_for_our_own_fault_in_the_corpus() -> None:
    blamed = [row["text"] for row in corpus() if row["expected_class"] in OUR_FAULT and judged(row) in BLAME]

    assert blamed == []


def test_the_corpus_survives_upper_case_and_a_lost_enhanced_code_in_front_of_the_text() -> None:
    rows = corpus()
    wrong = 0
    for row in rows:
        text = f"{row['enhanced']} {row['text']}".strip().upper()
        wrong += classify(int(row["code"]) if row["code"] else None, None, text) != row["expected_class"]

    assert wrong <= len(rows) * 0.03


def test_a_class_equals_its_plain_string() -> None:
    assert classify(451, None, "try later") == "retry"
    assert isinstance(classify(250, None, "ok"), str)
    assert {str(member) for member in ReplyClass} == {
        "sent", "retry", "throttle", "permanent_recipient", "permanent_content", "config", "auth", "suppress",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "expected"),
    [
        # The first digit wins over an enhanced code that disagrees.
        (451, "5.1.1", "No such user", "retry"),
        (550, "4.1.1", "No such user", "permanent_recipient"),
        (250, "5.1.1", "whatever", "sent"),
        # Our own rate, volume and quota, whatever the digit.
        (554, "5.2.0", "STOREDRV.Submission.Exception:SubmissionQuotaExceededException", "throttle"),
        (550, "5.4.5", "You have reached your sending limit for today", "throttle"),
        (552, None, "Too many recipients in this transaction", "throttle"),
        (452, "4.5.3", "Too many recipients", "throttle"),
        (421, None, "Too many connections from your host", "throttle"),
        (451, "4.7.500", "Server busy, come back (AS123)", "throttle"),
        (550, None, "You exceeded the 500 messages per hour allowed by your plan", "throttle"),
        # A full mailbox: theirs is the recipient's matter, the one we submit from is ours.
        (554, "5.2.2", "mailbox full; STOREDRV.Submission.Exception:QuotaExceededException", "config"),
        (554, "5.2.2", "STOREDRV.Deliver; mailbox full", "permanent_recipient"),
        (452, "4.2.2", "Mailbox is over quota", "retry"),
        # Login, and what only looks like it.
        (535, None, "nope", "auth"),
        (550, "5.7.30", "Basic authentication is not supported", "auth"),
        (535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox", "auth"),
        (530, "5.7.0", "Must issue a STARTTLS command first", "config"),
        (538, None, "Encryption required for requested authentication mechanism", "config"),
        (454, "4.7.0", "Temporary authentication failure", "retry"),
        (432, "4.7.12", "A password transition is needed", "auth"),
        (550, "5.7.133", "Sender not authenticated for group", "permanent_recipient"),
        # Our sender, domain, IP and relay right.
        (550, "5.7.60", "Client may not send as this sender", "config"),
        (553, "5.7.1", "Sender address rejected: not owned by user clerk", "config"),
        (550, "5.1.1", "Sender address rejected: User unknown in local table", "config"),
        (554, "5.7.1", "Relay access denied", "config"),
        (550, None, "SPF check failed for your domain", "config"),
        (550, "5.7.1", "Rejected: no reverse DNS for your server", "config"),
        (554, None, "203.0.113.9 is on our blocklist", "config"),
        (550, "5.7.27", "Sender domain has null MX", "config"),
        (550, None, "Bad HELO name", "config"),
        # This email.
        (550, "5.7.1", "This looks like spam to us", "permanent_content"),
        (554, None, "Attachment type .exe not allowed", "permanent_content"),
        (552, "5.3.4", "Size exceeds 10 MB", "permanent_content"),
        (552, None, "Message size exceeds fixed limit", "permanent_content"),
        (554, "5.6.0", "Bad MIME structure", "permanent_content"),
        (550, None, "A URL in this message is listed by SURBL", "permanent_content"),
        # The recipient.
        (550, "5.1.1", "Who is that?", "permanent_recipient"),
        (550, None, "There is no such user here", "permanent_recipient"),
        (553, None, "That mailbox has been closed", "permanent_recipient"),
        (556, None, "Domain takes no mail", "permanent_recipient"),
        (521, None, "We do not accept mail", "permanent_recipient"),
        (550, "5.6.7", "SMTPUTF8 is required", "permanent_recipient"),
        # Never again.
        (550, None, "Refused by the recipient: you are blocked", "suppress"),
        (None, None, "Unsubscribed Address", "suppress"),
        (605, None, "Not delivering to previously bounced address", "suppress"),
        # Doubt never falls on the recipient.
        (550, None, "No", "config"),
        (550, "5.7.1", "Refused", "config"),
        (554, None, "Transaction failed", "permanent_content"),
        # Greylisting with a wrong digit.
        (550, None, "You are greylisted, try again in 5 minutes", "retry"),
    ],
)
def test_a_reply_gets_the_class_its_words_and_codes_call_for(
    code: int | None, enhanced: str | None, text: str, expected: str
) -> None:
    assert classify(code, enhanced, text) == expected


@pytest.mark.parametrize(
    ("code", "text", "stage", "expected"),
    [
        (554, "No SMTP service here", "connect", "config"),
        (550, "User unknown", "connect", "config"),
        (421, "Too many connections", "connect", "throttle"),
        (554, "5.5.1 Helo refused", "ehlo", "config"),
        (454, "TLS not available", "starttls", "retry"),
        (554, "TLS broken", "starttls", "config"),
        (454, "4.7.0 Temporary authentication failure", "auth", "retry"),
        (421, "Too many login attempts", "auth", "throttle"),
        (550, "User unknown", "auth", "auth"),
        (538, "Encryption required", "auth", "config"),
        (550, "5.1.1 User unknown", "mail", "config"),
        (552, "Message size exceeds the limit", "mail", "permanent_content"),
        (550, "Rejected by this user", "mail", "config"),
        (530, "5.7.0 Authentication required", "mail", "auth"),
        (550, "No", "rcpt", "permanent_recipient"),
        (550, "5.7.1 Blocked by the list of bad senders at Spamhaus", "rcpt", "config"),
        (450, "4.2.0 Greylisted", "rcpt", "retry"),
        (554, "No", "body", "permanent_content"),
        (550, "5.1.1 User unknown", "body", "permanent_recipient"),
    ],
)
def test_the_stage_decides_whom_a_reply_can_be_about(code: int, text: str, stage: str, expected: str) -> None:
    assert classify(code, None, text, stage) == expected


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (202, "", "sent"),
        (400, "ErrorInvalidRecipients: At least one recipient is not valid.", "permanent_recipient"),
        (400, "ErrorMimeContentInvalidBase64String", "permanent_content"),
        (401, "InvalidAuthenticationToken", "auth"),
        (403, "ErrorAccessDenied: Access is denied.", "config"),
        (403, "ErrorSendAsDenied", "config"),
        (413, "Request Entity Too Large", "permanent_content"),
        (422, "recipient_suppressed: bounce", "suppress"),
        (429, "ApplicationThrottled", "throttle"),
        (500, "Internal error", "retry"),
        (503, "Service unavailable", "retry"),
        (504, "Gateway timeout", "retry"),
    ],
)
def test_an_http_refusal_is_read_by_its_status(code: int, text: str, expected: str) -> None:
    assert classify(code, None, text, "http") == expected


@pytest.mark.parametrize(
    "text", ["Connection reset by peer", "timed out", "[Errno 111] Connection refused", "server closed", "", "hm"]
)
def test_no_code_and_no_telling_words_ask_for_a_retry(text: str) -> None:
    assert classify(None, None, text) == "retry"


def test_without_a_code_the_answer_is_never_sent() -> None:
    assert classify(None, "2.0.0", "250 2.0.0 Ok") != "sent"
    assert classify(354, None, "250 go ahead") != "sent"


def test_a_reply_quoted_in_a_text_without_code_is_read() -> None:
    assert classify(None, None, "550 5.1.1 The mailbox does not exist") == "permanent_recipient"
    assert classify(None, None, "451 4.3.0 Try later") == "retry"
    assert classify(None, "5.7.26", "Unauthenticated mail") == "config"


def test_escaped_bytes_and_further_lines_do_not_hide_the_meaning() -> None:
    assert classify(550, None, "b'5.7.1 Refused:\\r\\n5.7.1 the host is\\r\\n5.7.1 on a blacklist'") == "config"
    assert classify(550, None, "5.7.1 Your\n550-5.7.1 message looks\r\n550 5.7.1 like spam") == "permanent_content"
    assert classify(552, None, "The recipient's\r\nmailbox is\r\nfull") == "permanent_recipient"


def test_a_word_in_an_address_or_a_link_is_no_word_of_the_server() -> None:
    assert classify(550, "5.1.1", "<spam-virus@example.org>: unknown user") == "permanent_recipient"
    assert classify(550, None, "Mailbox not found, see https://example.org/help/spam") == "permanent_recipient"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Empfänger unbekannt", "permanent_recipient"),
        ("Das Postfach des Empfängers ist voll", "permanent_recipient"),
        ("Le destinataire n'existe pas", "permanent_recipient"),
        ("La boîte aux lettres est pleine", "permanent_recipient"),
        ("Trop de connexions, ralentissez", "throttle"),
        ("Authentification requise", "auth"),
        ("Adresse IP sur liste noire", "config"),
        ("El usuario no existe", "permanent_recipient"),
        ("Remitente rechazado", "config"),
        ("Caixa de correio cheia", "permanent_recipient"),
        ("Utente sconosciuto", "permanent_recipient"),
        ("Messaggio troppo grande", "permanent_content"),
        ("Onbekende gebruiker", "permanent_recipient"),
        ("邮箱不存在", "permanent_recipient"),
        ("宛先が見つかりません", "permanent_recipient"),
    ],
)
def test_common_words_of_other_languages_are_understood(text: str, expected: str) -> None:
    assert classify(550, None, text) == expected


@given(
    code=st.none() | st.integers(),
    enhanced=st.none() | st.text(max_size=30) | st.from_regex(r"[245]\.\d{1,3}\.\d{1,3}", fullmatch=True),
    text=st.text(),
    stage=st.none() | st.sampled_from(STAGES) | st.text(max_size=5),
)
def test_any_reply_has_a_class_and_an_advice(
    code: int | None, enhanced: str | None, text: str, stage: str | None
) -> None:
    answer = classify(code, enhanced, text, stage)

    assert answer in set(ReplyClass)
    assert advice(code, enhanced, text, answer)
    assert isinstance(parse_enhanced(text)[1], str)


@given(
    code=st.integers(500, 599), text=st.text(), stage=st.sampled_from(["connect", "ehlo", "starttls", "auth", "mail"])
)
def test_before_a_recipient_is_named_none_is_blamed(code: int, text: str, stage: str) -> None:
    assert classify(code, None, text, stage) not in BLAME


@given(code=st.integers(400, 499), text=st.text(), stage=st.sampled_from(STAGES[:-1]))
def test_a_temporary_reply_never_fails_an_email_at_the_smtp_stages(code: int, text: str, stage: str) -> None:
    assert classify(code, None, text, stage) in {"retry", "throttle", "auth"}


WORDS = [
    "user", "not", "a", "message", "exceeded", "limit", "sender", "quota", "x@", "@", "5.1.1", "<",
    "https://", "header", "is", "content", "domain", "per", "over", "unknown", "mailbox", "address",
    "recipient", "no", "refused", "é", "用", "\n", "too many", "are not",
]  # fmt: skip


@settings(max_examples=60)
@given(pieces=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), gap=st.sampled_from(["", " ", ". "]))
def test_hostile_text_costs_what_plain_words_do(pieces: list[str], gap: str) -> None:
    assert_read_like_plain_words(lambda text: classify(550, None, text), gap.join(pieces * 5000))


def test_success_costs_next_to_nothing() -> None:
    calls: list[str] = []
    gc.disable()  # what others hung on a collection is no call of ours
    sys.setprofile(lambda frame, event, what: calls.append(f"{event} {frame.f_code.co_name}"))
    try:
        classify(250, "2.0.0", "Ok: queued as 4XyZ")
    finally:
        sys.setprofile(None)
        gc.enable()

    assert calls[:2] == ["call classify", "return classify"]  # it calls nobody


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.1.1 User unknown", ("5.1.1", "User unknown")),
        ("#5.7.1 No", ("5.7.1", "No")),
        ("5.7.26 One\n5.7.26 two", ("5.7.26", "One\ntwo")),
        ("2.0.0", ("2.0.0", "")),
        ("User unknown", (None, "User unknown")),
        ("5.1.1.9 is an address", (None, "5.1.1.9 is an address")),
        ("", (None, "")),
    ],
)
def test_an_enhanced_code_is_split_off_a_text(text: str, expected: tuple[str | None, str]) -> None:
    assert parse_enhanced(text) == expected


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "hint"),
    [
        (534, "5.7.9", "Application-specific password required", "app password"),
        (535, "5.7.8", "Username and Password not accepted. p=BadCredentials", "app password"),
        (535, "5.7.139", "SmtpClientAuthentication is disabled for the Tenant", "administrator"),
        (550, "5.7.30", "Basic authentication is not supported", "OAuth2"),
        (535, "5.7.3", "Authentication unsuccessful", "enterprise application"),
        (554, "5.2.252", "SendAsDenied", "Send As"),
        (530, "5.7.0", "Must issue a STARTTLS command first", "STARTTLS"),
        (None, None, "[SSL: WRONG_VERSION_NUMBER] wrong version number", "465"),
        (None, None, "Connection refused", "port"),
        (None, None, "Name or service not known", "resolve"),
        (550, "5.4.5", "Daily sending limit exceeded", "quota"),
        (554, "5.7.1", "Your IP is on a blacklist", "blocklist"),
        (550, "5.7.23", "SPF failed", "SPF"),
        (553, "5.1.8", "<a@example.org>: Sender address rejected: Domain not found", "DNS"),
        (550, "5.1.8", "Access denied, bad outbound sender", "release"),
        (550, None, "Your account has been suspended for sending spam", "release"),
        (550, None, "Your region is blocked", "country"),
        (554, "5.4.6", "Too many hops", "circle"),
        (535, None, "Account disabled", "released"),
        (535, None, "authentication failed: too many failed attempts", "wait"),
        (550, None, "You have exceeded the 200 messages per hour", "per_minute"),
        (450, "4.7.1", "Connection rate limit exceeded", "max_connections"),
        (550, None, "DKIM signature missing", "DKIM"),
        (550, "5.7.26", "DMARC failed", "DMARC"),
        (550, "5.7.25", "No PTR record", "PTR"),
        (450, None, "Greylisted", "greylisting"),
        (552, "5.2.2", "Mailbox full", "full"),
        (550, "5.1.1", "User unknown", "typing error"),
        (552, "5.3.4", "Message too large", "too big"),
        (550, None, "This is spam", "spam"),
        (550, None, "Virus found", "virus"),
        (554, None, "Email address is not verified", "verify"),
        (606, None, "unsubscribed", "unsubscribed"),
    ],
)
def test_advice_names_what_a_person_can_do(code: int | None, enhanced: str | None, text: str, hint: str) -> None:
    assert hint in advice(code, enhanced, text, classify(code, enhanced, text))


def test_advice_repeats_nothing_of_the_reply() -> None:
    said = advice(550, "5.1.1", "<someone@example.org> unknown, token=abc", "permanent_recipient")

    assert "someone" not in said
    assert "abc" not in said


@pytest.mark.parametrize("reply_class", list(ReplyClass))
def test_every_class_has_advice_for_a_reply_without_words(reply_class: ReplyClass) -> None:
    said = advice(None, None, "", reply_class)

    assert said.endswith(".")
    assert "\n" not in said
