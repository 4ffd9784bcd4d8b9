"""What a running sweep shows: a live display on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState

LINE_EVERY_S = 2.0
"""In a log, a line for a finished trial at most this often; failures and the last trial always get one."""
RUNNING_SHOWN = 8


class Progress:
    """Counts trials as they start and end, and shows: done / running / failed, elapsed, time left.

    The time left weighs what is missing by how long finished trials of the same backbone took, over the workers in use.
    """

    def __init__(self, specs: Sequence[TrialSpec], console: Console | None = None, quiet: bool = False) -> None:
        self._specs = specs
        self._console = console or Console(file=sys.stdout)
        self._quiet = quiet
        self._started = time.monotonic()
        self._running: dict[int, float] = {}
        self._ended: dict[TrialState, int] = {TrialState.DONE: 0, TrialState.FAILED: 0}
        self._took_s: dict[str, list[float]] = defaultdict(list)
        self._left: dict[str, int] = defaultdict(int)
        for spec in specs:
            self._left[spec.backbone] += 1
        self._workers = 1
        self._last_line = 0.0
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True)

    @property
    def done(self) -> int:
        """Trials that ended well."""
        return self._ended[TrialState.DONE]

    @property
    def failed(self) -> int:
        """Trials that failed."""
        return self._ended[TrialState.FAILED]

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def trial_started(self, index: int) -> None:
        """The trial ``specs[index]`` runs now."""
        self._running[index] = time.monotonic()
        self._workers = max(self._workers, len(self._running))

    def trial_ended(
        self, index: int, state: TrialState, elapsed_s: float | None = None, detail: str | None = None
    ) -> None:
        """The trial ``specs[index]`` ended; ``detail`` is its score or its error in a word."""
        spec, began = self._specs[index], self._running.pop(index, time.monotonic())
        elapsed_s = time.monotonic() - began if elapsed_s is None else elapsed_s
        self._ended[state] += 1
        self._left[spec.backbone] -= 1
        self._took_s[spec.backbone].append(elapsed_s)
        if self._quiet:
            return
        failed = state == TrialState.FAILED
        now, last = time.monotonic(), self.done + self.failed == len(self._specs)
        if self._live.is_started:
            if failed:
                self._live.console.print(Text(f"failed  {spec.label()}: {detail}", style="red"))
        elif failed or last or now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self._console.print(
                f"[{self.done + self.failed}/{len(self._specs)}] {state.value} {spec.label()} "
                f"{detail or ''} {elapsed_s:.1f} s | {self.summary()}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def summary(self) -> str:
        """``12 done, 2 running, 0 failed, elapsed 1:05, left ~0:40``."""
        elapsed = clock(time.monotonic() - self._started)
        left = self.seconds_left()
        counts = f"{self.done} done, {len(self._running)} running, {self.failed} failed"
        return f"{counts}, elapsed {elapsed}, left {'?' if left is None else '~' + clock(left)}"

    def seconds_left(self) -> float | None:
        """Estimate of the time until the last trial ends; None before the first one has ended."""
        everything = [seconds for took in self._took_s.values() for seconds in took]
        if not everything:
            return None
        typical = sum(everything) / len(everything)
        means = {name: sum(took) / len(took) for name, took in self._took_s.items()}
        work_s = sum(count * means.get(name, typical) for name, count in self._left.items())
        now = time.monotonic()
        spent_s = sum(now - began for began in self._running.values())
        return max(0.0, work_s - spent_s) / self._workers

    def render(self) -> RenderableType:
        """The live display."""
        ended, total = self.done + self.failed, len(self._specs)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=max(total, 1), completed=ended, width=32),
            f"{ended}/{total}",
            Text(f"{self.done} done", style="green"),
            Text(f"{len(self._running)} running", style="cyan"),
            Text(f"{self.failed} failed", style="red" if self.failed else "dim"),
            Text(self.summary().split(", ", 3)[3], style="dim"),
        )
        now = time.monotonic()
        running = sorted(self._running.items(), key=lambda item: item[1])
        lines = [
            Text(f"  {clock(now - began):>5}  {self._specs[index].label()}", style="cyan", overflow="ellipsis")
            for index, began in running[:RUNNING_SHOWN]
        ]
        return Group(head, *lines)


def clock(seconds: float) -> str:
    """``0:42``, ``12:05``, ``3:01:30``."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"
