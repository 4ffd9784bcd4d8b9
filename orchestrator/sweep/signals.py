"""SIGINT and SIGTERM while a sweep runs: it stops within a second and keeps its rows."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked the sweep to stop. No Exception, or Tune would handle it."""


class StopSignals:
    """Within the block the first SIGINT or SIGTERM is noted; a second one acts as it did before.

    Noted, not raised where it arrives: that may be within Ray's native code, which turns it into a SystemError.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no signals
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def take_over(self) -> None:
        """Put our handlers back where starting Ray replaced them."""
        for number in self._before:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raise ``Stopped`` when a signal was noted."""
        if self.received:
            raise Stopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__()
