"""What Exchange's refusals mean: learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode and
.../exchange-web-services/ews-throttling-in-exchange, read in November 2026.

A code that is not in the table says that the mail was not sent: the moment is blamed. What Exchange itself does not
know (ErrorTimeoutExpired: there was not enough time to complete the request) is an unknown outcome.
"""

from __future__ import annotations

from functools import partial

from postier.drivers.http_answers import Known, crowded
from postier.schemas.errors import (
    AuthenticationFailed,
    EmailRefused,
    OutcomeUnknown,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)

_PROBE = 3_600.0  # seconds: no answer tells when an allowance is renewed
_LOGIN = ("errorpasswordexpired", "errorpasswordchangerequired", "errorcallerisinvalidadaccount",
          "errorinvalidauthorizationcontext")  # fmt: skip
_SENDER = (
    "erroraccessdenied",
    "erroraccountdisabled",
    "errorcreateitemaccessdenied",
    "errorfoldernotfound",
    "errorimpersonateuserdenied",
    "errorimpersonationdenied",
    "errorimpersonationfailed",
    "errorincorrectschemaversion",
    "errorinvalidexchangeimpersonationheaderdata",
    "errorinvalidrequest",
    "errorinvalidschemaversionformailboxversion",
    "errorinvalidserverversion",
    "errorinvaliduserprincipalname",
    "erroritemnotfound",  # of the folder: it is not there, or may not be seen
    "errormailboxconfiguration",
    "errormissingemailaddress",
    "errornameresolutionnomailbox",
    "errornameresolutionnoresults",
    "errornonexistentmailbox",
    "errornonprimarysmtpaddress",
    "errorquotaexceeded",  # of the sending mailbox: it is full
    "errorsaveditemfoldernotfound",
    "errorschemavalidation",
    "errorsendasdenied",
    "errorservicediscoveryfailed",
)
_EMAIL = (
    "errorcontentconversionfailed",
    "errordatasizelimitexceeded",
    "errorinvalidpropertyset",
    "errormessagesizeexceeded",
    "errormimecontentconversionfailed",
    "errormimecontentinvalid",
    "errormimecontentinvalidbase64string",
    "errorrequeststreamtoobig",
    "errorvirusdetected",
    "errorvirusmessagedeleted",
)
_RECIPIENT = ("errorinvalidrecipients", "errorinvalidsmtpaddress", "errormailrecipientnotfound",
              "errormissingrecipients")  # fmt: skip
_SLOWER = ("errorserverbusy", "errorexceededconnectioncount", "errortoomanyobjectsopened")
_MOMENT = ("erroradoperation", "erroradunavailable", "errorconnectionfailed", "errorinsufficientresources",
           "errorinternalservererror", "errorinternalservertransienterror", "errormailboxfailover",
           "errormailboxmoveinprogress", "errormailboxstoreunavailable", "errornotenoughmemory")  # fmt: skip

EXCHANGE_ERRORS = (
    *(Known(AuthenticationFailed, code=code) for code in _LOGIN),
    Known(crowded, code="errorinvalidrecipients", words="too many recipients"),
    *(Known(SenderRefused, code=code) for code in _SENDER),
    *(Known(EmailRefused, code=code) for code in _EMAIL),
    *(Known(RecipientRefused, code=code) for code in _RECIPIENT),
    *(Known(RateLimited, code=code) for code in _SLOWER),
    Known(partial(QuotaExhausted, until=_PROBE), code="errorsubmissionquotaexceeded"),
    *(Known(TemporaryError, code=code) for code in _MOMENT),
    Known(partial(OutcomeUnknown, evidence={"answer": "ErrorTimeoutExpired"}), code="errortimeoutexpired"),
    # no word of Exchange's own: IIS, or what stands before it
    Known(AuthenticationFailed, 401),
    Known(SenderRefused, 403),
    Known(SenderRefused, 404),
    Known(SenderRefused, 405),
    Known(EmailRefused, 413),
    Known(RateLimited, 429),
    Known(TemporaryError, 503),
)

ADVICE = {
    "ErrorAccessDenied": "Let the login use this mailbox: full access to it, or the role ApplicationImpersonation.",
    "ErrorAccountDisabled": "The account is disabled: enable it, or use another mailbox.",
    "ErrorFolderNotFound": "Let the login use this mailbox: full access to it, or the role ApplicationImpersonation.",
    "ErrorImpersonateUserDenied": "Give the login the role ApplicationImpersonation for this mailbox.",
    "ErrorImpersonationDenied": "Give the login the role ApplicationImpersonation for this mailbox.",
    "ErrorInvalidServerVersion": "The server is older than the schema: set version to what it speaks.",
    "ErrorItemNotFound": "Let the login use this mailbox: full access to it, or the role ApplicationImpersonation.",
    "ErrorMissingEmailAddress": "The login has no mailbox of its own: set access to impersonation.",
    "ErrorNameResolutionNoMailbox": "The login has no mailbox of its own: set access to impersonation.",
    "ErrorNameResolutionNoResults": "Check mailbox: the directory knows nobody by this address.",
    "ErrorNonExistentMailbox": "Check mailbox: the server knows nobody by this address.",
    "ErrorNonPrimarySmtpAddress": "Set mailbox to the mailbox's primary address; Exchange's words name it.",
    "ErrorPasswordChangeRequired": "Log in once with Outlook on the web, change the password, and put it here.",
    "ErrorPasswordExpired": "The password has run out: change it with Outlook on the web, and put it here.",
    "ErrorQuotaExceeded": "The mailbox is full: make room in it, or set save_copy to false.",
    "ErrorSchemaValidation": "The server does not understand the request: set version to what it speaks.",
    "ErrorSendAsDenied": "Give the login the right Send As for the sender's address.",
    "ErrorServerBusy": "The server asks to slow down: lower the account's limits, or widen its throttling policy.",
    "ErrorSubmissionQuotaExceeded": "The mailbox has sent its allowance: wait, or widen its throttling policy.",
}
