"""What a running sweep shows: a live display on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
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

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(file=sys.stdout)
        self._quiet = quiet
        self._started = time.monotonic()
        self._running: dict[str, tuple[float, TrialSpec]] = {}
        self._ended: dict[TrialState, int] = dict.fromkeys(TrialState, 0)
        self._took_s: dict[str, list[float]] = defaultdict(list)
        self._left: Counter[str] = Counter()
        self._workers = 1
        self._last_line = 0.0
        self.total = 0
        """Trials to run, at most where a search decides."""
        self.retried = 0
        """Failures that passed, or may yet."""
        self.elsewhere = 0
        """Trials that another sweep on the same results folder ended."""
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True)

    @property
    def done(self) -> int:
        """Trials that ended well, those that a search ended early included."""
        return self._ended[TrialState.DONE] + self._ended[TrialState.PRUNED]

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

    def expect(self, trials: Sequence[TrialSpec], total: int) -> None:
        """So many trials are to run, ``trials`` among them."""
        self.total = total
        self._left.update(spec.backbone for spec in trials)

    def trial_started(self, spec: TrialSpec) -> None:
        """The trial runs now."""
        self._running[spec.trial_id] = time.monotonic(), spec
        self._workers = max(self._workers, len(self._running))

    def trial_returned(self, spec: TrialSpec) -> None:
        """The trial does not run after all, if it did: another worker will get it."""
        self._running.pop(spec.trial_id, None)

    def trial_retried(self, spec: TrialSpec, detail: str, wait_s: float) -> None:
        """The trial failed for a passing reason and will be tried again in ``wait_s``."""
        self._running.pop(spec.trial_id, None)
        self.retried += 1
        self._say(f"retry in {wait_s:.0f} s  {spec.label()}: {detail}", "yellow")

    def ended_elsewhere(self, spec: TrialSpec, state: TrialState) -> None:
        """Another sweep ended the trial."""
        self.elsewhere += 1
        self._left[spec.backbone] -= 1

    def trial_ended(
        self, spec: TrialSpec, state: TrialState, elapsed_s: float | None = None, detail: str | None = None
    ) -> None:
        """The trial ended; ``detail`` is its score or its error in a word."""
        began, _ = self._running.pop(spec.trial_id, (time.monotonic(), spec))
        elapsed_s = time.monotonic() - began if elapsed_s is None else elapsed_s
        self._ended[state] += 1
        self._left[spec.backbone] -= 1
        self._took_s[spec.backbone].append(elapsed_s)
        if state == TrialState.FAILED and self._live.is_started:
            self._say(f"failed  {spec.label()}: {detail}", "red")
            return
        ended = self.done + self.failed + self.elsewhere
        now = time.monotonic()
        is_due = state == TrialState.FAILED or ended == self.total or now - self._last_line >= LINE_EVERY_S
        if is_due and not self._live.is_started:
            self._last_line = now
            line = f"[{ended}/{self.total}] {state.value} {spec.label()} {detail or ''} {elapsed_s:.1f} s"
            self._say(f"{line} | {self.summary()}")

    def _say(self, line: str, style: str = "") -> None:
        if not self._quiet:
            text = Text(line, style=style if self._live.is_started else "")
            (self._live.console if self._live.is_started else self._console).print(text, soft_wrap=True)

    def summary(self) -> str:
        """``12 done, 2 running, 0 failed, elapsed 1:05, left ~0:40``."""
        counts = f"{self.done} done, {len(self._running)} running, {self.failed} failed"
        counts += f", {self.elsewhere} done elsewhere" if self.elsewhere else ""
        return f"{counts}, {self._times()}"

    def _times(self) -> str:
        left = self.seconds_left()
        return f"elapsed {clock(time.monotonic() - self._started)}, left {'?' if left is None else '~' + clock(left)}"

    def seconds_left(self) -> float | None:
        """Estimate of the time until the last trial ends; None before the first one has ended."""
        everything = [seconds for took in self._took_s.values() for seconds in took]
        if not everything:
            return None
        typical = sum(everything) / len(everything)
        means = {name: sum(took) / len(took) for name, took in self._took_s.items()}
        work_s = sum(count * means.get(name, typical) for name, count in self._left.items())
        now = time.monotonic()
        spent_s = sum(now - began for began, _ in self._running.values())
        return max(0.0, work_s - spent_s) / self._workers

    def render(self) -> RenderableType:
        """The live display."""
        ended, total = self.done + self.failed + self.elsewhere, self.total
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=max(total, 1), completed=ended, width=32),
            f"{ended}/{total}",
            Text(f"{self.done} done", style="green"),
            Text(f"{len(self._running)} running", style="cyan"),
            Text(f"{self.failed} failed", style="red" if self.failed else "dim"),
            Text(f"{self.elsewhere} elsewhere", style="cyan") if self.elsewhere else Text(),
            Text(self._times(), style="dim"),
        )
        now = time.monotonic()
        running = sorted(self._running.values(), key=lambda item: item[0])
        lines = [
            Text(f"  {clock(now - began):>5}  {spec.label()}", style="cyan", overflow="ellipsis")
            for began, spec in running[:RUNNING_SHOWN]
        ]
        return Group(head, *lines)


def clock(seconds: float) -> str:
    """``0:42``, ``12:05``, ``3:01:30``."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"
