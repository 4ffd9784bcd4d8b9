"""``sweep status``: how far a sweep is, why trials failed, what was estimated and what it took; once, or as it runs."""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.capacity import GPU_MODELS, Hardware, gpu_model
from orchestrator.estimates import Estimator, elapsed_s
from orchestrator.failures import is_transient
from orchestrator.plan_commands import trials_of
from orchestrator.specs import SweepSpec, TrialSpec, expand, load_sweep
from orchestrator.tables import TrialState
from orchestrator.trial_counts import counts_table, duration, runs, searches, state_of

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.results import TrialStatus
    from orchestrator.row_watch import RowWatch

WATCH_EVERY_S = 10.0
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
MAX_CAUSES = 12


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sweep status`` beside the sweep itself."""
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=WATCH_EVERY_S,
        metavar="SECONDS",
        help=f"look again every so often (default: {WATCH_EVERY_S:g}), until nothing is left to run or Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, one line each time")


@dataclass(frozen=True)
class Cause:
    """Failures that say the same, but for numbers in their last line."""

    error_kind: str
    last_line: str
    """Of the first of them."""
    example: str
    count: int
    attempts: int
    """The most that any of them had."""

    @property
    def transient(self) -> bool:
        """Whether it passes."""
        return is_transient(self.error_kind)


@dataclass(frozen=True)
class Status:
    """How far a sweep is."""

    sweep: SweepSpec
    trials: Sequence[TrialSpec]
    states: Mapping[str, TrialStatus]
    causes: Sequence[Cause]
    to_run: int
    took_s: float
    """Of the trials that are done, one after another."""
    estimated_s: float
    """Of the same trials, as an estimate at the sweep's start would have been."""
    estimate_basis: str
    left_s: float
    """Of the trials that are to run, one after another."""
    left_basis: str
    at_once: float
    """Trials at once, on average while any ran."""

    def counts(self) -> Counter[str]:
        """Trials by state."""
        return Counter(state_of(trial, self.states) for trial in self.trials)


def status(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep status [--watch [SECONDS]]``: exit status 0, or 130 when watching was ended by Ctrl-C."""
    from orchestrator.row_watch import RowWatch

    sweep = load_sweep(arguments.sweep, arguments.set)
    cells = expand(sweep)
    watch = RowWatch(sweep.results_uri)
    watch.refresh()
    found = make_status(sweep, cells, watch)
    if arguments.watch is None:
        _show(console, found, arguments)
        return 0
    try:
        _watch(console, found, watch, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def make_status(sweep: SweepSpec, cells: Sequence[TrialSpec], watch: RowWatch) -> Status:
    """How far a sweep of ``cells`` is by the rows that ``watch`` has read."""
    states = watch.states()
    rows = watch.frame()
    trials = trials_of(sweep, cells, rows)
    by_id = {trial.trial_id: trial for trial in trials}
    own = rows[rows["trial_id"].isin(list(by_id))]
    done = own[own["state"] == TrialState.DONE]
    done_s = _took_s(done)
    hardware = _seen_hardware(done)
    began = done["started_at"].min() if len(done) else None
    before = rows[rows["finished_at"] < began] if began is not None and began == began else rows[:0]
    at_start, now = Estimator(before, hardware), Estimator(rows, hardware)
    timed = [(by_id[trial_id], took) for trial_id, took in zip(done["trial_id"], done_s, strict=True) if took == took]
    estimates = [at_start.seconds(trial) for trial, _ in timed]
    to_run = [trial for trial in trials if runs(trial, states)]
    left = [now.seconds(trial) for trial in to_run]
    return Status(
        sweep,
        trials,
        states,
        causes(own[own["state"] == TrialState.FAILED], by_id),
        len(to_run),
        math.fsum(took for _, took in timed),
        math.fsum(estimate.seconds for estimate in estimates),
        _basis(estimate.level for estimate in estimates),
        math.fsum(estimate.seconds for estimate in left),
        _basis(estimate.level for estimate in left),
        _at_once(done),
    )


def causes(failed: pd.DataFrame, trials: Mapping[str, TrialSpec]) -> list[Cause]:
    """The ``failed`` rows by kind and last line, the most frequent first; numbers in the line make no difference."""
    found: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    columns = zip(*(failed[name] for name in ("trial_id", "error_kind", "error", "attempts")), strict=True)
    for trial_id, error_kind, error, attempts in columns:
        lines = error.strip().splitlines() if isinstance(error, str) else []
        last_line = lines[-1].strip() if lines else ""
        kind = error_kind if isinstance(error_kind, str) else "error"
        key = (kind, re.sub(r"0x[0-9a-f]+|[0-9]+", "#", last_line))
        found.setdefault(key, []).append((trial_id, last_line, int(attempts or 1)))
    grouped = [
        Cause(kind, rows[0][1], trials[rows[0][0]].label(), len(rows), max(attempts for _, _, attempts in rows))
        for (kind, _), rows in found.items()
    ]
    return sorted(grouped, key=lambda cause: -cause.count)


# --- what is shown


def as_json(found: Status) -> dict[str, Any]:
    """What ``--json`` prints."""
    counts = found.counts()
    return {
        "sweep": found.sweep.name,
        "results": found.sweep.results_uri,
        "trials": len(found.trials),
        "upper_bound": searches(found.sweep),
        "done": counts["done"],
        "pruned": counts["pruned"],
        "failed": counts["failed"],
        "not_run": counts["to run"],
        "to_run": found.to_run,
        "failures": [
            {
                "error_kind": cause.error_kind,
                "count": cause.count,
                "transient": cause.transient,
                "last_line": cause.last_line,
                "example": cause.example,
                "attempts": cause.attempts,
            }
            for cause in found.causes
        ],
        "done_took_s": found.took_s,
        "done_estimated_s": found.estimated_s,
        "left_s": found.left_s,
        "trials_at_once": found.at_once,
    }


def summary(found: Status) -> str:
    """``12 of 40 trials done, 1 failed, 27 not run yet``."""
    counts = found.counts()
    at_most = "at most " if searches(found.sweep) else ""
    pruned = f", {counts['pruned']} pruned" if counts["pruned"] else ""
    return (
        f"{counts['done']} of {at_most}{len(found.trials)} trials done{pruned}, {counts['failed']} failed, "
        f"{counts['to run']} not run yet"
    )


def estimate_lines(found: Status) -> list[str]:
    """What the finished trials were estimated at and took, and what is left."""
    lines = []
    if found.took_s and found.estimated_s:
        ratio = found.took_s / found.estimated_s
        lines.append(
            f"Took {duration(found.took_s)} one after another, {ratio:.2g} times the {duration(found.estimated_s)} "
            f"estimated at the start ({found.estimate_basis})"
        )
    if found.to_run:
        at_most = "at most " if searches(found.sweep) else ""
        left = f"Left: {at_most}{found.to_run} trials, {at_most}{duration(found.left_s)} one after another"
        if found.at_once > 1.05:
            left += f", {duration(found.left_s / found.at_once)} with {found.at_once:.1f} at once as so far"
        lines.append(f"{left} ({found.left_basis})")
    return lines


def failure_lines(found: Status, path: str) -> list[str]:
    """A line a cause, and after those of one kind what to do about it."""
    lines = []
    shown = found.causes[:MAX_CAUSES]
    for kind in dict.fromkeys(cause.error_kind for cause in shown):
        of_kind = [cause for cause in found.causes if cause.error_kind == kind]
        for cause in (cause for cause in of_kind if cause in shown):
            many = f"{cause.count} x, such as " if cause.count > 1 else ""
            lines.append(f"  {kind}: {many}{cause.example}: {cause.last_line} (attempts: {cause.attempts})")
        advice = (
            f"passes: sweep run {path} runs them again"
            if is_transient(kind)
            else f"final; once the cause is gone: sweep run {path} --retry-failed {kind}"
        )
        lines.append(f"    -> {advice}")
    hidden = found.causes[MAX_CAUSES:]
    if hidden:
        lines.append(
            f"  and {len(hidden)} more causes of {sum(cause.count for cause in hidden)} failures (all: --json)"
        )
    return lines


def _show(console: Console, found: Status, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(as_json(found)), flush=True)
        return
    console.print(counts_table(found.sweep, found.trials, found.states))
    for line in (f"{summary(found)}. Tables: {found.sweep.results_uri}", *estimate_lines(found)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in failure_lines(found, arguments.sweep):
        console.print(Text(line, style="red"), soft_wrap=True)


def _watch(console: Console, found: Status, watch: RowWatch, arguments: argparse.Namespace) -> None:
    """Show the sweep until nothing is left to run: live on a terminal, else a line each time."""
    every_s = arguments.watch
    if arguments.json or not console.is_terminal:
        while True:
            if arguments.json:
                _show(console, found, arguments)
            else:
                line = "; ".join([f"{datetime.now():%H:%M:%S} {summary(found)}", *estimate_lines(found)[-1:]])
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            if not found.to_run:
                break
            time.sleep(every_s)
            if watch.refresh():
                found = make_status(found.sweep, expand(found.sweep), watch)
        if not arguments.json:
            _show(console, found, arguments)
        return
    with Live(_live(found, arguments.sweep), console=console, auto_refresh=False) as live:
        while found.to_run:
            time.sleep(every_s)
            if watch.refresh():
                found = make_status(found.sweep, expand(found.sweep), watch)
            live.update(_live(found, arguments.sweep), refresh=True)


def _live(found: Status, path: str) -> RenderableType:
    lines = [f"{summary(found)}. Tables: {found.sweep.results_uri}", *estimate_lines(found)]
    failures = [Text(line, style="red") for line in failure_lines(found, path)]
    seen = Text(f"{datetime.now():%H:%M:%S}; end with Ctrl-C", style="dim")
    return Group(counts_table(found.sweep, found.trials, found.states), *map(Text, lines), *failures, seen)


# --- what the rows say


def _took_s(done: pd.DataFrame) -> list[float]:
    """Seconds that each trial took; by its parts where it does not say when it began. NaN: unknown."""
    parts = done[["load_s", "encode_s", "train_s", "eval_s"]].astype("float64").sum(axis=1, min_count=1)
    return [took if took == took else float(part) for took, part in zip(elapsed_s(done), parts, strict=True)]


def _seen_hardware(done: pd.DataFrame) -> Hardware | None:
    """What the finished trials ran on; None where they do not say."""
    devices = Counter(device for device in done["device"] if isinstance(device, str))
    if not devices:
        return None
    model = next(filter(None, map(gpu_model, (device for device, _ in devices.most_common()))), None)
    if model is None and set(devices) == {"cpu"}:
        return Hardware(({"CPU": 1.0},), None, "CPUs")
    return Hardware(({"CPU": 1.0, "GPU": 1.0},), model or GPU_MODELS["H100"], "GPUs")


def _at_once(done: pd.DataFrame) -> float:
    """Trials at once on average, over the time in which at least one of them ran."""
    pairs = done[["started_at", "finished_at"]].dropna().sort_values("started_at")
    running_s, work_s, until = 0.0, 0.0, -math.inf
    for began, ended in zip(pairs["started_at"], pairs["finished_at"], strict=True):
        start, end = began.timestamp(), ended.timestamp()
        work_s += max(0.0, end - start)
        running_s += max(0.0, end - max(start, until))
        until = max(until, end)
    return work_s / running_s if running_s else 1.0


def _basis(levels: Any) -> str:
    counts = Counter(levels)
    words = {
        "task": "from finished trials of the same backbone and task",
        "backbone": "from finished trials of the same backbone",
        "guess": "a rough guess",
    }
    if len(counts) == 1:
        return words[next(iter(counts))]
    return ", ".join(f"{count} {words[level]}" for level, count in counts.most_common())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, from 0.1 to 86400")
    return seconds
