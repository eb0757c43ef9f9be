"""The door to Outlook's object model: COM, through pywin32. Windows only; needs the extra `postier[outlook]`.

COM belongs to threads: whoever talks to Outlook enters COM in that thread and leaves it there, having let go of all
that it got. A call blocks for as long as Outlook shows a window that waits for somebody, and nothing can break it off:
each piece of work has a thread of its own that is waited for, and left behind when its time is over.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from postier.schemas.errors import ConfigurationError

ELSEWHERE = (
    "driver: 'outlook' exists on Windows only, with Outlook on the desktop of somebody who is logged in; elsewhere use "
    "'microsoft' for Microsoft 365, or 'exchange' for an Exchange server of one's own"
)
_PROPERTY_PUT_REFERENCE = 8  # DISPATCH_PROPERTYPUTREF


class Com(Protocol):
    """What the driver needs of COM. `error` is what a failed call raises: `hresult` and `excepinfo`, as pywin32's."""

    error: type[Exception]

    def outlook(self) -> AbstractContextManager[Any]:
        """COM in this thread, and Outlook's Application object."""

    def put_reference(self, item: Any, name: str, value: Any) -> None:
        """Set a property that holds an object: an assignment would set the object's default value instead."""


class WindowsCom:
    """COM itself. Raises ConfigurationError when it is made on another system, or without pywin32."""

    error: type[Exception]

    def __init__(self) -> None:
        if not _on_windows():
            raise ConfigurationError(ELSEWHERE)
        try:
            import pythoncom
            import win32com.client
        except ModuleNotFoundError:
            raise ConfigurationError("driver: 'outlook' needs more packages: pip install 'postier[outlook]'") from None
        self._com, self._client = pythoncom, win32com.client
        self.error = pythoncom.com_error

    @contextmanager
    def outlook(self) -> Iterator[Any]:
        """Outlook's one instance; it is started when it does not run."""
        self._com.CoInitialize()
        try:
            yield self._client.Dispatch("Outlook.Application")
        finally:
            self._com.CoUninitialize()

    def put_reference(self, item: Any, name: str, value: Any) -> None:
        """By the property's own id."""
        raw = item._oleobj_
        raw.Invoke(raw.GetIDsOfNames(name), 0, _PROPERTY_PUT_REFERENCE, 0, value._oleobj_)


class Late(Exception):
    """The time is over. `sending` says that Outlook had been told to send by then; if not, it never will be."""

    def __init__(self, *, sending: bool) -> None:
        super().__init__("Outlook did not answer in time")
        self.sending = sending


class _Abandoned(Exception):
    """Nobody waits for this piece of work any more."""


class Work:
    """One piece of work in a thread of its own. `send` marks the point of no return; an abandoned one stops there."""

    def __init__(self, com: Com, do: Callable[[Any, Work], Any]) -> None:
        self.sending = False
        self._lock = threading.Lock()
        self._abandoned = False
        self._result: Any = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(com, do), name="outlook", daemon=True)

    def wait(self, seconds: float) -> Any:
        """Do it and return what it returns, or raise what it raises; Late when the time is over."""
        self.thread.start()
        self.thread.join(seconds)
        with self._lock:
            if self.thread.is_alive():
                self._abandoned = True
                raise Late(sending=self.sending)
        if self._error is not None:
            raise self._error
        return self._result

    def send(self, item: Any) -> None:
        """Tell Outlook to send, unless nobody waits any more."""
        with self._lock:
            if self._abandoned:
                raise _Abandoned
            self.sending = True
        item.Send()

    def _run(self, com: Com, do: Callable[[Any, Work], Any]) -> None:
        try:
            with com.outlook() as application:
                try:
                    self._result = do(application, self)
                except BaseException as error:
                    traceback.clear_frames(error.__traceback__)
                    self._error = error.with_traceback(None)
                del application
        except BaseException as error:
            self._error = self._error or error


def _on_windows() -> bool:
    return sys.platform == "win32"
