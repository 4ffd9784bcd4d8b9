"""A hard limit on how long a piece of work may take: the process that does it ends, whatever it hangs in."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import IO

TIMEOUT_EXIT_STATUS = 124
GRACE_S = 5.0
"""A process whose interpreter never runs again (native code that keeps its lock) ends so much later."""


@contextmanager
def time_limit(limit_s: float | None, before_the_end: Callable[[], None]) -> Iterator[None]:
    """End this process ``limit_s`` seconds after the block began, unless it is over by then; None: never.

    ``before_the_end`` runs first, in another thread, for a last word. Native code that keeps the interpreter's lock
    lets no thread run: then the process ends ``GRACE_S`` later without it, and whoever started it has to say why.
    """
    if limit_s is None:
        yield
        return

    def end() -> None:
        try:
            before_the_end()
        finally:
            os._exit(TIMEOUT_EXIT_STATUS)

    timer = Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    with _stack_dump_file() as file:
        faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True, file=file)  # a thread that needs no lock
        try:
            yield
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()


@contextmanager
def _stack_dump_file() -> Iterator[IO[str]]:
    """The standard error, where it is a file of the operating system's; else nowhere."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        with open(os.devnull, "w") as nowhere:
            yield nowhere
    else:
        yield sys.stderr
