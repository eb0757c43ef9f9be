"""The driver kit over an HTTP API: each provider names its answers, the server plays them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from postier.drivers.testing import FAILING, Behaviour, DriverContract, Scene
from postier.schemas.errors import DeliveryError
from tests.drivers.http.fake import (
    SECRET,
    Act,
    FakeApi,
    Reply,
    Request,
    always,
    failure,
    hang_up,
    made,
    silence,
)


class ApiContract(DriverContract):
    """`options` reach the provider, `accepted` is its yes, `probed` what its probe answers, `answers` its refusals."""

    secrets = (SECRET,)
    options: ClassVar[Mapping[str, Any]]
    accepted: ClassVar[Reply]
    probed: ClassVar[Reply]
    probe_path: ClassVar[str]
    answers: ClassVar[Mapping[Behaviour, Reply]]

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        def play(request: Request) -> Reply | Act:
            if behaviour == "silent":
                return silence
            if behaviour == "cuts_after_handover":
                return hang_up
            if behaviour == "refuses_login":
                return self.answers[behaviour]
            if request.path == self.probe_path:
                return self.probed
            return self.accepted if behaviour == "accepts" else self.answers[behaviour]

        with FakeApi(play, before_tls=behaviour == "cuts_before_handover") as fake:
            owns = behaviour in ("accepts", "cuts_after_handover")
            yield Scene(
                fake.options | ({"timeout": 0.15} if behaviour == "silent" else {}) | dict(self.options),
                taken=lambda: len(fake.posts()) if owns else 0,
                attempts=lambda: fake.connections,
            )


__all__ = ["FAILING", "ApiContract", "refused_with"]


def refused_with(driver: Any, reply: Reply, expected: type[DeliveryError], **attributes: Any) -> DeliveryError:
    """Replay one documented answer and assert the error it becomes; returns it."""
    options = attributes.pop("options")
    email = attributes.pop("email", None)
    with FakeApi(always(reply)) as fake:
        error = failure(made(driver, fake, **options), email)
        assert len(fake.requests) == 1
    assert type(error) is expected, (type(error), error.text)
    assert error.stage == "http"
    assert error.code == reply.status
    assert SECRET not in f"{error!r}{vars(error)}"
    for name, value in attributes.items():
        found = getattr(error, name)
        assert found == (pytest.approx(value, abs=2) if isinstance(value, float) else value), (name, found)
    return error
