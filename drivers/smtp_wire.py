"""Mails over SMTP sessions: one conversation carries several, and where the server can, their commands overlap.

With PIPELINING (RFC 2920) MAIL, RCPT and DATA leave in one write, and those of the next mail right behind a body where
the server is not known to die of it, so that a mail costs one round trip instead of four. On the wire:

    MAIL RCPT DATA          <- 250 250 354
    body . MAIL RCPT DATA   <- 250 (the first mail's verdict, yielded before another body leaves) 250 250 354
    body .                  <- 250
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from postier.drivers.base import Result
from postier.drivers.smtp_mail import (
    Transaction,
    accepts,
    commands_for,
    kept_for_later,
    receipt_for,
    stuffed,
    unknown,
    worst,
)
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_reply import ConnectionLost, ProtocolBroken, Reply, WireBroken
from postier.drivers.smtp_session import Session
from postier.drivers.smtp_words import refusal, safe_words
from postier.schemas.email import Email
from postier.schemas.errors import DeliveryError, TemporaryError
from postier.schemas.receipt import Refusal

_WINDOW = 100  # commands written ahead: their replies must fit the buffers of both ends (RFC 2920 section 3.1)
_VERDICT_421 = re.compile(r"4\.7\.\d{1,3}")


@dataclass(slots=True)
class Overlap:
    """Whether commands may follow a body before its verdict, kept for an account. A verdict that got lost with commands
    behind the body ends it: a server that cannot bear them would leave every mail's outcome unknown.
    """

    allowed: bool = True


class Conversation:
    """Speaks one mail after the other. `take` gives a session, idle or new; `dial` always a new one.

    After a failed dial the rest of the conversation gets the same error without another try: a wrong password must not
    be tried once per mail.
    """

    def __init__(
        self,
        options: SmtpOptions,
        *,
        take: Callable[[], Session],
        dial: Callable[[], Session],
        give_back: Callable[[Session], None],
        clock: Callable[[], float],
        overlap: Overlap | None = None,
    ) -> None:
        self._options = options
        self._overlap = overlap or Overlap()
        self._take: Callable[[], Session] | None = take
        self._dial = dial
        self._give_back = give_back
        self._clock = clock
        self._session: Session | None = None
        self._failure: DeliveryError | None = None

    def run(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Yield each mail's result before the next one's body leaves. Mails pulled but not yielded were not handed
        over.
        """
        source = _Source(emails)
        try:
            current = self._prepare_next(source.pull())
            while current is not None:
                error = self._negotiate(current)
                if error is not None:
                    yield current.email, error
                    current = self._prepare_next(source.pull())
                    continue
                following = self._prepare_next(source.pull())
                current.email.handing_over()
                yield current.email, self._write_body(current, following) or self._verdict(current)
                current = following
        except GeneratorExit:
            raise  # left between two mails: what is owed is known
        except BaseException:
            self._drop()  # interrupted anywhere, what is owed is not known
            raise
        finally:
            session, self._session = self._session, None
            if session is not None:
                self._give_back(session)
        source.raise_failure()

    # --- before the body

    def _prepare_next(self, email: Email | None) -> Transaction | None:
        """Open the mail's transaction, so that its commands may leave right behind the body before it."""
        if email is None:
            return None
        transaction = Transaction(email)
        session = self._session
        overlaps = session is not None and session.overlaps and self._overlap.allowed
        if session is not None and overlaps and not session.broken and not self._is_spent(session, ahead=1):
            self._prepare(transaction, session)
        return transaction

    def _negotiate(self, transaction: Transaction) -> DeliveryError | None:
        """Bring the server to wait for the body; else say why not."""
        session: Session | None = None
        try:
            session = self._ready(transaction)
            if transaction.error is None:
                self._exchange(transaction, session)
            return transaction.error
        except ConnectionLost as lost:
            if session is not None and session.uses > 1 and not transaction.answered:
                return self._once_more(transaction)
            return self._broken(transaction, lost)
        except WireBroken as broken:
            return self._broken(transaction, broken)
        except DeliveryError as error:
            return error

    def _once_more(self, transaction: Transaction) -> DeliveryError | None:
        """A session that died while it lay idle accepted nothing: one fresh connection within the same attempt."""
        self._drop()
        transaction.session = None
        self._take = None
        try:
            session = self._ready(transaction)
            if transaction.error is None:
                self._exchange(transaction, session)
            return transaction.error
        except WireBroken as broken:
            return self._broken(transaction, broken)
        except DeliveryError as error:
            return error

    def _ready(self, transaction: Transaction) -> Session:
        session = self._session
        if session is not None and (session.broken or (self._is_spent(session) and transaction.session is None)):
            session.leave()
            session = None
        if session is None:
            session = self._session = self._open()
        if session.uses:  # a new one still runs on the deadline of its dialling
            self._renew_deadline(session)
        if transaction.session is not session:
            self._prepare(transaction, session)
        return session

    def _open(self) -> Session:
        self._session = None
        if self._failure is not None:
            raise self._failure
        take, self._take = self._take or self._dial, None
        try:
            return take()
        except DeliveryError as error:
            self._failure = error
            raise

    def _prepare(self, transaction: Transaction, session: Session) -> None:
        transaction.session = session
        session.uses += 1
        transaction.written = transaction.answered = transaction.accepted = 0
        transaction.refused.clear()
        try:
            transaction.commands = commands_for(transaction.email, session, self._options.envelope_from)
            transaction.error = None
        except DeliveryError as error:
            transaction.error = error

    def _window(self, transaction: Transaction, session: Session) -> tuple[bytes, int]:
        """The next commands to write, and how many replies they draw."""
        first, size = transaction.written, _WINDOW if session.pipelining else 1
        window = transaction.commands[first : first + size]
        transaction.written = first + len(window)
        if session.odd and first == 0:
            return b"".join((b"RSET\r\n", *window)), len(window) + 1
        return b"".join(window), len(window)

    def _exchange(self, transaction: Transaction, session: Session) -> None:
        """Read the reply to every command, writing on as the window allows. Sets `transaction.error` on a refusal."""
        total = len(transaction.commands)
        refusal_of_all: DeliveryError | None = None
        while transaction.answered < total:
            if transaction.answered == transaction.written:
                if refusal_of_all is not None or (transaction.answered == total - 1 and not transaction.accepted):
                    break  # nothing more was written ahead, so nothing more need be said
                session.send(*self._window(transaction, session))
            if session.odd:
                self._expect_reset(session)
            reply = session.reply()
            transaction.last = reply
            if reply.code == 421:
                raise _Dismissed(reply)
            index = transaction.answered
            transaction.answered = index + 1
            if index == 0:
                if not accepts(reply):
                    refusal_of_all = refusal(reply, "mail", session.secrets)
            elif index < total - 1:
                self._note_recipient(transaction, index - 1, reply, session)
            else:
                self._begin_body(transaction, session, reply, refusal_of_all)
                return
        transaction.error = refusal_of_all or worst(transaction.refused)
        session.odd = True

    @staticmethod
    def _expect_reset(session: Session) -> None:
        reply = session.reply()
        if reply.code != 250:
            raise ProtocolBroken("protocol: the server cannot reset the session")
        session.odd = False

    @staticmethod
    def _note_recipient(transaction: Transaction, index: int, reply: Reply, session: Session) -> None:
        if accepts(reply):
            transaction.accepted += 1
        else:
            error = refusal(reply, "rcpt", session.secrets)
            transaction.refused.append(Refusal(transaction.email.recipients[index], error))

    def _begin_body(
        self, transaction: Transaction, session: Session, reply: Reply, refusal_of_all: DeliveryError | None
    ) -> None:
        if reply.code == 354:
            session.in_body = True
            if transaction.accepted and refusal_of_all is None:
                return
            # RFC 2920 section 3.1: DATA may be granted though nobody was accepted; a lone dot ends it.
            try:
                session.send(b".\r\n", 1)
                session.reply()
                session.in_body = False
            except WireBroken:
                session.broken = True  # why nobody was accepted is known all the same
        elif reply.code < 400:
            raise ProtocolBroken("protocol: the answer to DATA belongs to another command")
        elif transaction.accepted and refusal_of_all is None:
            refusal_of_all = refusal(reply, "data", session.secrets)
        transaction.error = refusal_of_all or worst(transaction.refused)
        session.odd = True

    # --- the body and after

    def _write_body(self, transaction: Transaction, following: Transaction | None) -> DeliveryError | None:
        """Hand the whole body over, the next mail's commands with it; an error means that the server never saw its
        final dot.
        """
        session = self._session
        assert session is not None
        body = stuffed(transaction.email.mime)
        octets, replies = body, 0
        session.mails += 1
        if following is not None and following.session is session and following.error is None:
            commands, replies = self._window(following, session)
            octets = body + commands
        session.expected += 1 + replies
        try:
            session.wire.write(octets)
        except WireBroken as broken:
            if broken.sent >= len(body):
                session.broken = True  # the verdict may still be readable
                return None
            words = self._last_words(session)
            self._drop()
            if words is not None and words.code >= 400:
                return kept_for_later(refusal(words, "body", session.secrets))
            return TemporaryError(f"cut inside the body: {broken}", stage="body", cause=broken.cause)
        return None

    @staticmethod
    def _last_words(session: Session) -> Reply | None:
        """A server that refuses in the middle of a body says why before it closes."""
        try:
            return session.wire.read(timeout=0.5)
        except WireBroken:
            return None

    def _verdict(self, transaction: Transaction) -> Result:
        """The reply to the final dot. Whatever goes wrong here, the mail may have left."""
        session = transaction.session
        assert session is not None
        try:
            reply = session.wire.read(timeout=self._options.final_timeout)
            session.expected -= 1
            session.in_body = False
            if not session.expected and session.wire.unread:
                session.broken = True
            accepted = accepts(reply)
        except WireBroken as broken:
            if session.expected > 1:
                self._overlap.allowed = False
            self._drop()
            return unknown(transaction, str(broken))
        if accepted:
            return receipt_for(transaction, reply, session)
        if reply.code == 421:
            self._drop()
            # A server that shuts down may say so after it took the mail; only a policy reason is a verdict on this
            # mail.
            if not _VERDICT_421.match(reply.enhanced or ""):
                return unknown(transaction, safe_words(reply.text, session.secrets), reply)
        return refusal(reply, "body", session.secrets)

    # --- the session

    def _renew_deadline(self, session: Session) -> None:
        session.wire.deadline = self._clock() + self._options.total_deadline

    def _is_spent(self, session: Session, *, ahead: int = 0) -> bool:
        return session.mails + ahead >= self._options.max_mails_per_session

    def _drop(self) -> None:
        if self._session is not None:
            self._session.drop()
            self._session = None

    def _broken(self, transaction: Transaction, broken: WireBroken) -> DeliveryError:
        secrets = self._session.secrets if self._session is not None else ()
        self._drop()
        if isinstance(broken, _Dismissed):
            return kept_for_later(refusal(broken.reply, transaction.stage, secrets))
        return TemporaryError(str(broken), stage=transaction.stage, cause=broken.cause)


class _Dismissed(WireBroken):
    """The server said 421: it closes the connection, and that is nobody's fault but the moment's."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class _Source:
    """The caller's mails. A failure while one is made waits until the mail before it has its verdict."""

    def __init__(self, emails: Iterable[Email]) -> None:
        self._emails = iter(emails)
        self._failure: Exception | None = None

    def pull(self) -> Email | None:
        try:
            return next(self._emails, None)
        except Exception as failure:
            self._failure = failure
            return None

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
