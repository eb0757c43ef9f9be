"""What COM's and MAPI's failures mean: learn.microsoft.com/windows/win32/com/com-error-codes and
learn.microsoft.com/office/client-developer/outlook/mapi/mapi-constants, read in November 2026."""

from __future__ import annotations

from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)

_EXCEPTION = 0x80020009  # DISP_E_EXCEPTION: the reason is inside
_GONE = frozenset({0x800706BA, 0x800706BE, 0x80010108, 0x80010105, 0x80010007})  # Outlook ended, or its process failed

_MEANINGS: dict[int, tuple[type[DeliveryError], str]] = {
    0x80040154: (SenderRefused, "Outlook is not installed here"),  # REGDB_E_CLASSNOTREG
    0x80080005: (SenderRefused, "Outlook runs for another person, or with other rights"),  # CO_E_SERVER_EXEC_FAILURE
    0x80070005: (SenderRefused, "Outlook denies the access"),  # E_ACCESSDENIED
    0x80004004: (SenderRefused, "Outlook's guard or a person refused to send"),  # E_ABORT
    0x80040113: (SenderRefused, "a person cancelled it"),  # MAPI_E_USER_CANCEL
    0x8004060C: (SenderRefused, "the mailbox is full"),  # MAPI_E_STORE_FULL
    0x8004011C: (SenderRefused, "the mailbox's account is disabled"),  # MAPI_E_ACCOUNT_DISABLED
    0x80040111: (AuthenticationFailed, "Outlook cannot log in to the mailbox"),  # MAPI_E_LOGON_FAILED
    0x80040118: (AuthenticationFailed, "the mailbox's password has to be changed"),  # MAPI_E_PASSWORD_CHANGE_REQUIRED
    0x80040119: (AuthenticationFailed, "the mailbox's password has run out"),  # MAPI_E_PASSWORD_EXPIRED
    0x80040305: (EmailRefused, "the mail is too long for Outlook"),  # MAPI_E_TOO_BIG
    0x80040607: (RecipientRefused, "Outlook sees no recipient"),  # MAPI_E_NO_RECIPIENTS
    0x80040700: (RecipientRefused, "Outlook cannot make out an address"),  # MAPI_E_AMBIGUOUS_RECIP
    0x80010001: (TemporaryError, "Outlook is busy"),  # RPC_E_CALL_REJECTED
    0x8001010A: (TemporaryError, "Outlook is busy"),  # RPC_E_SERVERCALL_RETRYLATER
    0x80040115: (TemporaryError, "Outlook cannot reach its server"),  # MAPI_E_NETWORK_ERROR
    0x8004011D: (TemporaryError, "Outlook cannot open the mailbox now"),  # MAPI_E_FAILONEPROVIDER
}


def com_failure(error: Exception, *, sending: bool) -> DeliveryError:
    """The error for a failed call; `sending` says that Outlook had been told to send. Outlook's own text stays out of
    it: it may quote the mail."""
    code = _code(error)
    if code in _GONE:
        if sending:
            return OutcomeUnknown(
                f"0x{code:08X}: Outlook went away while it sent", stage="body", evidence={"hresult": f"0x{code:08X}"}
            )
        return TemporaryError(f"0x{code:08X}: Outlook went away", stage="connect")
    kind, words = _MEANINGS.get(code, (TemporaryError, "Outlook failed"))
    return kind(f"0x{code:08X}: {words}", stage="body" if sending else "connect")


def _code(error: Exception) -> int:
    code = getattr(error, "hresult", 0)
    inside = getattr(error, "excepinfo", None)
    if isinstance(code, int) and code & 0xFFFFFFFF == _EXCEPTION and inside and isinstance(inside[-1], int):
        code = inside[-1] or code
    return int(code) & 0xFFFFFFFF if isinstance(code, int) else 0
