"""The sample account in each driver's docstring is a good one, and its driver is found by the name it gives."""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from typing import Any

import pytest

from postier.drivers.registry import load_driver
from postier.schemas.account import Account
from postier.schemas.email import Mailbox

NAMES = ["brevo", "mailgun", "mailjet", "postmark", "scaleway", "sendgrid", "ses", "file", "memory", "null", "exchange"]


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_account_of_a_driver_works_as_it_stands(name: str) -> None:
    driver = load_driver(name)
    words = sys.modules[driver.__module__].__doc__ or ""
    block = re.search(r"(?:^    .*\n)+", words, re.MULTILINE)
    assert block is not None
    ((account_name, row),) = tomllib.loads(textwrap.dedent(block.group()))["accounts"].items()

    account = Account.model_validate({"name": account_name, **row})
    given: dict[str, Any] = {
        key: "sample-secret" if str(value).startswith("env:") else value for key, value in account.options.items()
    }
    made = driver(driver.Options.model_validate(given), sender=Mailbox(account.sender.address))
    made.close()

    assert account.driver == name
    assert all(option in words for option in set(driver.Options.model_fields) - {"base_url", "allow_hosts", "ca_file"})
    assert "sample-secret" not in repr(made.options)
