"""The driver kit: a suite that every driver passes, ours and others'.

    class TestAcme(DriverContract):
        driver = AcmeDriver
        secrets = ("sample-token",)
        wrong_options = (({"token": ""}, "token"),)

        @contextmanager
        def scene(self, behaviour):
            with FakeAcme(behaviour) as fake:
                yield Scene({"token": "sample-token", "url": fake.url}, taken=lambda: fake.mails, attempts=lambda:
                fake.calls)

The fake provider is a real server on a local port. Needs pytest; nothing at run time imports this module.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pytest
from pydantic import SecretStr, ValidationError

from postier.drivers.base import CheckStep, Driver, DriverOptions, Ports, Result
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    AccountError,
    ConfigurationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    RecipientRefused,
    TemporaryError,
)
from postier.schemas.receipt import Receipt

Behaviour = Literal[
    "accepts",  # takes every mail
    "refuses_login",
    "refuses_recipient",  # for good: nobody has this address
    "busy",  # try again later
    "throttles",  # we send too fast
    "silent",  # takes the connection and never answers
    "cuts_before_handover",  # closes before it may own the mail
    "cuts_after_handover",  # has the whole mail, closes without an answer
]
FAILING: tuple[Behaviour, ...] = (
    "refuses_login",
    "refuses_recipient",
    "busy",
    "throttles",
    "silent",
    "cuts_before_handover",
    "cuts_after_handover",
)
SENDER = Mailbox("no-reply@example.org", "Example")


@dataclass(frozen=True, slots=True)
class Scene:
    """A running fake provider: options that reach it (with short timeouts), how many mails it may own, how often it
    was asked to take one (connections or requests)."""

    options: Mapping[str, Any]
    taken: Callable[[], int]
    attempts: Callable[[], int]


def sample_email(number: int = 1) -> Email:
    """A complete mail to one recipient."""
    message_id = f"<sample-{number}@example.org>"
    mime = (
        "From: Example <no-reply@example.org>\r\nTo: someone@example.com\r\n"
        f"Subject: Sample {number}\r\nMessage-ID: {message_id}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n\r\nHello.\r\n"
    )
    return Email(
        delivery_id=f"sample-{number}",
        message_id=message_id,
        envelope_from=SENDER.address,
        recipients=("someone@example.com",),
        sender=SENDER,
        to=(Mailbox("someone@example.com", "Someone"),),
        subject=f"Sample {number}",
        text="Hello.\r\n",
        html="<p>Hello.</p>",
        mime=mime.encode(),
    )


class DriverContract:
    """Inherit, name the driver, and play the provider's part in `scene`.

    `secrets` are all secrets among the scenes' options. `wrong_options` are options that must be refused, each with a
    word its error must hold. `patience` is how many seconds a mail to a silent provider may take at most. `behaviours`
    may leave out what the provider cannot do.
    """

    driver: ClassVar[type[Driver[Any]]]
    secrets: ClassVar[tuple[str, ...]] = ()
    wrong_options: ClassVar[tuple[tuple[Mapping[str, Any], str], ...]] = ()
    patience: ClassVar[float] = 10.0
    behaviours: ClassVar[frozenset[Behaviour]] = frozenset(("accepts", *FAILING))

    def scene(self, behaviour: Behaviour) -> AbstractContextManager[Scene]:
        """Start a fake provider that behaves so; stopped when the context ends."""
        raise NotImplementedError

    def make(self, scene: Scene) -> Driver[Any]:
        """The driver for a scene. Override to hand ports in."""
        options = self.driver.Options.model_validate(dict(scene.options))
        return self.driver(options, sender=SENDER, ports=Ports())

    # --- outcomes

    def test_a_taken_mail_gives_a_receipt(self) -> None:
        with self._scene("accepts") as scene:
            result = self._send(scene)
            assert isinstance(result, Receipt), result
            assert result.status in ("sent", "queued")
            assert scene.taken() == 1

    def test_a_refused_login_is_the_accounts_fault(self) -> None:
        with self._scene("refuses_login") as scene:
            assert isinstance(self._send(scene), AccountError)
            assert scene.taken() == 0

    def test_a_refused_recipient_is_not_tried_again(self) -> None:
        with self._scene("refuses_recipient") as scene:
            result = self._send(scene)
            if isinstance(result, Receipt):  # a provider that answers by recipient
                assert [type(refused.error) for refused in result.refused] == [RecipientRefused]
            else:
                assert isinstance(result, PermanentError)

    def test_a_busy_provider_asks_for_a_retry(self) -> None:
        with self._scene("busy") as scene:
            assert isinstance(self._send(scene), TemporaryError)
            assert scene.taken() == 0

    def test_a_throttling_provider_slows_the_account(self) -> None:
        with self._scene("throttles") as scene:
            assert isinstance(self._send(scene), RateLimited)

    def test_a_silent_provider_is_left_in_time(self) -> None:
        with self._scene("silent") as scene:
            began = time.monotonic()
            result = self._send(scene)
            assert time.monotonic() - began < self.patience
            assert isinstance(result, TemporaryError | OutcomeUnknown)

    def test_a_cut_before_the_handover_is_safe_to_try_again(self) -> None:
        with self._scene("cuts_before_handover") as scene:
            assert isinstance(self._send(scene), TemporaryError)
            assert scene.taken() == 0

    def test_a_cut_after_the_handover_is_an_unknown_outcome(self) -> None:
        with self._scene("cuts_after_handover") as scene:
            result = self._send(scene)
            assert isinstance(result, OutcomeUnknown)
            assert result.evidence

    # --- manners

    @pytest.mark.parametrize("behaviour", FAILING)
    def test_send_raises_only_delivery_errors_and_tries_once(self, behaviour: Behaviour) -> None:
        with self._scene(behaviour) as scene:
            driver = self.make(scene)
            error: DeliveryError | None = None
            try:
                receipt = driver.send(sample_email())
            except DeliveryError as raised:
                error = raised
            finally:
                driver.close()
            if error is None:
                assert receipt.refused
            else:
                assert error.cause != "delivery_error"
                assert error.stage
            given_up = time.monotonic() + self.patience  # a provider may be told later than we gave it up
            while not scene.attempts() and time.monotonic() < given_up:
                time.sleep(0.01)
            assert scene.attempts() == 1

    @pytest.mark.parametrize("behaviour", ["accepts", *FAILING])
    def test_no_secret_shows(self, behaviour: Behaviour) -> None:
        with self._scene(behaviour) as scene:
            driver = self.make(scene)
            shown = [repr(driver.options), str(driver.options)]
            try:
                shown.append(repr(driver.send(sample_email())))
            except DeliveryError as error:
                shown += [repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
            shown += [repr(step) for step in driver.check()]
            driver.close()
            for secret in self.secrets:
                assert not any(secret in text for text in shown)

    def test_the_handover_is_announced_once_and_before_the_provider_owns_the_mail(self) -> None:
        told: list[int] = []
        with self._scene("accepts") as scene:
            result = self._send(scene, replace(sample_email(), handing_over=lambda: told.append(scene.taken())))
            assert isinstance(result, Receipt)
        assert told == [0]

    def test_a_handover_that_fails_sends_nothing(self) -> None:
        class LeaseLost(Exception):
            pass

        def refuse() -> None:
            raise LeaseLost

        with self._scene("accepts") as scene:
            with pytest.raises(LeaseLost):
                self._send(scene, replace(sample_email(), handing_over=refuse))
            assert scene.taken() == 0

    def test_each_mail_of_a_conversation_gets_its_result_in_turn(self) -> None:
        with self._scene("accepts") as scene:
            driver = self.make(scene)
            answered = [
                (email.delivery_id, type(result))
                for email, result in driver.converse(sample_email(n) for n in range(1, 6))
            ]
            driver.close()
            assert answered == [(f"sample-{n}", Receipt) for n in range(1, 6)]
            assert scene.taken() == 5

    def test_a_closed_driver_can_be_closed_again(self) -> None:
        with self._scene("accepts") as scene:
            driver = self.make(scene)
            driver.send(sample_email())
            driver.close()
            driver.close()

    # --- check

    def test_the_check_of_a_good_account_passes_every_step(self) -> None:
        with self._scene("accepts") as scene:
            steps = self._check(scene)
            assert steps
            assert all(step.ok and not step.advice for step in steps)

    @pytest.mark.parametrize("behaviour", ["refuses_login", "silent"])
    def test_the_check_stops_at_the_first_failed_step_with_advice(self, behaviour: Behaviour) -> None:
        with self._scene(behaviour) as scene:
            steps = self._check(scene)
            assert [step.ok for step in steps] == [True] * (len(steps) - 1) + [False]
            assert steps[-1].advice

    # --- options

    def test_an_unknown_option_is_named(self) -> None:
        with self._scene("accepts") as scene, pytest.raises(ValidationError, match="no_such_option"):
            self.driver.Options.model_validate(dict(scene.options) | {"no_such_option": 1})

    def test_wrong_options_are_refused_by_name_and_without_secrets(self) -> None:
        with self._scene("accepts") as scene:
            for change, word in self.wrong_options:
                with pytest.raises((ValidationError, ConfigurationError)) as caught:
                    self.make(replace(scene, options=dict(scene.options) | dict(change)))
                assert word in str(caught.value)
                assert not any(secret in str(caught.value) for secret in self.secrets)

    def test_options_are_frozen_and_keep_secrets_as_such(self) -> None:
        with self._scene("accepts") as scene:
            options = self.driver.Options.model_validate(dict(scene.options))
        assert isinstance(options, DriverOptions)
        assert options.model_config.get("frozen")
        for name in type(options).model_fields:
            value = getattr(options, name)
            if isinstance(value, SecretStr):
                assert value.get_secret_value() not in repr(options)

    # --- helpers

    def _scene(self, behaviour: Behaviour) -> AbstractContextManager[Scene]:
        if behaviour not in self.behaviours:
            pytest.skip(f"this provider is never like that: {behaviour}")
        return self.scene(behaviour)

    def _send(self, scene: Scene, email: Email | None = None) -> Result:
        driver = self.make(scene)
        try:
            ((_, result),) = driver.converse((email or sample_email(),))
            return result
        finally:
            driver.close()

    def _check(self, scene: Scene) -> list[CheckStep]:
        driver = self.make(scene)
        try:
            return list(driver.check())
        finally:
            driver.close()
