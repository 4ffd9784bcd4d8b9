"""Where figures are drawn: here, or side by side in other processes while the rest of the report is worked out."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from orchestrator.report import figure_files
from orchestrator.report.page_parts import Figure

P = ParamSpec("P")
T = TypeVar("T")


class Studio:
    """Draws figures, each of which a call asks for and a ``Future`` brings.

    With ``processes`` = 1 a figure is drawn where and when it is asked for. More are new processes (none is a fork,
    since threads are about), each of which takes about three seconds to begin: for reports with many figures, and for
    programs that another process may import, such as ``sweep``.
    """

    def __init__(self, processes: int = 1) -> None:
        self._pool: Executor | None = None
        if processes > 1:
            self._pool = ProcessPoolExecutor(
                processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
            )

    def __enter__(self) -> Studio:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def svg(self, figure: Figure) -> Future[str]:
        """The figure as an ``<svg>`` element."""
        return self._ask(_svg, figure)

    def files(self, figure: Figure, folder: Path) -> Future[list[Path]]:
        """The figure's files in ``folder``."""
        return self._ask(_files, figure, folder)

    def _ask(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._pool is not None:
            return self._pool.submit(work, *args, **kwargs)
        done: Future[T] = Future()
        done.set_result(work(*args, **kwargs))
        return done


def _begin(parent: int) -> None:
    """In a new process: leave Ctrl-C to the one that asked, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _svg(figure: Figure) -> str:
    return figure_files.svg_text(figure.draw(), figure.title, figure.description, name=figure.name)


def _files(figure: Figure, folder: Path) -> list[Path]:
    return figure_files.save(figure.draw(), folder, figure.name)
