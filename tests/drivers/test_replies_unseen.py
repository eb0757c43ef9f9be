"""Replies of many servers, labelled before any rule saw them, and whom a reply blames.

`set` A to G is the order in which the rows were collected, labelled and then classified for the first time; the rules
of the later sets knew the earlier ones. Sources are named row by row: public test data, source code and help pages of
mail servers and providers. `alt_class` are the other answers that can be defended.

Set H is never learnt from: no rule has been written or changed after a look at it, and a rule that is ends its use as
a measure. It is a sample of what a sender receives: 615 replies as they came, the common ones included, from logs,
bounces, tracebacks, help pages and fixtures that no earlier set names; only repetitions after masking and what nobody
could label (mail loops) were dropped. 113 of them stand in A to G word for word and are not repeated here, 502 are
new. One reader labelled them before `classify` saw any. The first look, rules frozen, 95 % Wilson intervals:

    rows                               exact                   exact or defensible     recipient blamed for us
    502 not in A to G                  91.2 % (88.4 to 93.4)   98.0 % (96.4 to 98.9)   3 rows, 0.6 % (0.2 to 1.7)
    414 of them unlike any in A to G   89.9 % (86.6 to 92.4)   97.6 % (95.6 to 98.7)   3 rows, 0.7 % (0.2 to 2.1)
    615 as they came                   92.4 % (90.0 to 94.2)   98.4 % (97.0 to 99.1)   3 rows, 0.5 % (0.2 to 1.4)

(Unlike: fewer than 80 % of the words shared. Blame is counted even where blaming the recipient can be defended, as
it can in two of the three rows. The interval of the blame reaches beyond the 1 % that is asked for: 3 rows are few.)
"""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from postier.drivers.replies import classify
from tests.drivers.reading import assert_read_like_plain_words

CORPUS = Path(__file__).parent / "data" / "smtp_replies_unseen.csv"
OUR_FAULT = {"config", "auth", "throttle", "permanent_content"}
BLAME = {"permanent_recipient", "suppress"}
ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*")


def corpus(sets: str = "ABCDEFGH") -> list[dict[str, str]]:
    with CORPUS.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["set"] in sets]


def judged(row: dict[str, str]) -> str:
    code = int(row["code"]) if row["code"] else None
    return str(classify(code, row["enhanced"] or None, row["text"], row["stage"] or None))


@pytest.mark.parametrize(("sets", "rows"), [("ABCDEFG", 1279), ("H", 502)])
def test_replies_of_many_servers_are_classified_and_hardly_ever_blame_the_recipient_for_us(
    sets: str, rows: int
) -> None:
    counts, blamed = Counter[str](), []
    for row in corpus(sets):
        said, meant = judged(row), row["expected_class"]
        counts["rows"] += 1
        counts["exact"] += said == meant
        counts["defensible"] += said == meant or said in row["alt_class"].split("|")
        if meant in OUR_FAULT and said in BLAME:
            blamed.append(row["text"])

    assert counts["rows"] == rows
    assert counts["exact"] >= 0.85 * counts["rows"], counts
    assert counts["defensible"] >= 0.95 * counts["rows"], counts
    assert len(blamed) <= 0.01 * counts["rows"], blamed


def test_the_corpus_names_its_sources_and_nobody_s_address() -> None:
    for row in corpus():
        assert row["source"]
        assert not [found for found in ADDRESS.findall(row["text"]) if ".example" not in found.replace("@", ".")], row


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "expected"),
    [
        # The code names the address, the words name something of ours.
        (550, "5.1.1", "Your IP has no Reverse DNS", "config"),
        (550, "5.1.2", "We do not accept mail from your network", "config"),
        (550, "5.2.1", "This domain is sending too much spam", "config"),
        (550, "5.1.1", "<a@example.org>: Recipient address rejected: Your host is not in our list", "config"),
        (550, "5.7.1", "<a@example.org>: Recipient address rejected: Mail appeared to be SPAM or forged",
         "permanent_content"),
        # Words that are said of an address, said of something else.
        (550, None, "The sender domain does not exist", "config"),
        (550, None, "Your server does not exist in DNS", "config"),
        (521, None, "Connections from this network are refused", "config"),
        (554, None, "mail.example.org ESMTP not accepting messages", "config"),
        (517, None, "Invalid domain", "config"),
        (551, None, "auth error", "auth"),
        (525, "5.7.13", "login is disabled for this account", "auth"),
        (550, "5.7.1", "Your message was marked as spam", "permanent_content"),
        (534, "5.3.4", "Message size exceeds the limit", "permanent_content"),
        (550, None, "relaying mail to other.example is not allowed", "config"),
        # Evidence against the recipient, next to a word of ours.
        (550, "5.1.1", "<a@example.org>: Recipient address rejected: User unknown in relay recipient table",
         "permanent_recipient"),
        (550, "5.1.1", "User unknown, refused by policy", "permanent_recipient"),
        (552, "5.2.2", "The mailbox is over quota; your message was not delivered", "permanent_recipient"),
        (550, "5.1.1", "Who is that?", "permanent_recipient"),
    ],
)  # fmt: skip
def test_a_recipient_is_blamed_on_evidence_only(code: int, enhanced: str | None, text: str, expected: str) -> None:
    assert classify(code, enhanced, text) == expected


def test_a_word_of_ours_at_rcpt_keeps_the_blame_off_the_recipient() -> None:
    assert classify(550, None, "No", "rcpt") == "permanent_recipient"
    assert classify(550, None, "No connections from 192.0.2.7 please", "rcpt") == "config"
    assert classify(556, None, "Not for bulk senders", "rcpt") == "config"


@pytest.mark.parametrize("piece", ["relaying mail to ", "your a ", "deliver a ", "no such user a ", "login a auth ",
                                   "user account addr a ", "recipient address rejected: ", "mail to b "])  # fmt: skip
def test_words_about_us_repeated_to_the_brim_cost_what_plain_words_do(piece: str) -> None:
    assert_read_like_plain_words(lambda text: classify(550, "5.1.1", text, "rcpt"), piece * 5000)
