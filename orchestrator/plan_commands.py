"""``sweep plan`` and ``sweep status``: what a sweep will run, what it has run, and what failed."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator import backbone_commands
from orchestrator.specs import SweepSpec, TrialSpec, check_problems, expand, load_sweep

if TYPE_CHECKING:
    from orchestrator.results import TrialStatus


def plan(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep plan``: check every trial, count what is to run; starts nothing."""
    sweep, trials, states = read(arguments)
    not_done = [trial for trial in trials if state_of(trial, states) != "done"]
    check_problems(not_done)
    for fault in backbone_commands.unavailable(not_done):  # no error: a laptop may plan what a cluster runs
        warnings.warn(fault, stacklevel=2)
    _print_counts(console, sweep, trials, states)
    console.print(f"{len(not_done)} of {len(trials)} trials to run: sweep run {arguments.sweep}", highlight=False)
    return 0


def status(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep status``: how far a sweep is, and what failed."""
    sweep, trials, states = read(arguments)
    _print_counts(console, sweep, trials, states)
    counts = Counter(state_of(trial, states) for trial in trials)
    console.print(
        f"{counts['done']} of {len(trials)} trials done, {counts['failed']} failed, {counts['to run']} not run yet. "
        f"Tables: {sweep.results_uri}",
        highlight=False,
        soft_wrap=True,
    )
    failed = [trial for trial in trials if state_of(trial, states) == "failed"]
    if failed:
        from orchestrator import results

        rows = results.read_trials(sweep.results_uri, {trial.trial_id for trial in failed}).set_index("trial_id")
        for trial in failed:
            row = rows.loc[trial.trial_id]
            last_line = (row["error"] or "").strip().splitlines()[-1:]
            text = f"  {row['error_kind']}: {trial.label()}: {' '.join(last_line)} (attempts: {row['attempts']})"
            console.print(Text(text, style="red"), soft_wrap=True)
    return 0


def read(arguments: argparse.Namespace) -> tuple[SweepSpec, list[TrialSpec], dict[str, TrialStatus]]:
    """The sweep of a command line, its trials, and what the tables say of them."""
    from orchestrator import results

    sweep = load_sweep(arguments.sweep, arguments.set)
    return sweep, expand(sweep), results.trial_states(sweep.results_uri)


def state_of(trial: TrialSpec, states: dict[str, TrialStatus]) -> str:
    """``done``, ``failed``, or ``to run`` where the trial has no row."""
    status = states.get(trial.trial_id)
    return "to run" if status is None else status.state.value


def _print_counts(
    console: Console, sweep: SweepSpec, trials: Sequence[TrialSpec], states: dict[str, TrialStatus]
) -> None:
    from orchestrator.analysis import MAX_VARIANTS, variants_label

    labels: dict[str, set[str]] = {}
    for trial in trials:
        labels.setdefault(trial.task.name, set()).add(trial.task.label())
    counts: dict[tuple[str, str], Counter[str]] = {}
    for trial in trials:
        of_name = len(labels[trial.task.name])
        label = trial.task.label() if of_name <= MAX_VARIANTS else variants_label(trial.task.name, of_name)
        counts.setdefault((trial.backbone, label), Counter())[state_of(trial, states)] += 1
    table = Table(title=f"{sweep.name}: {len(trials)} trials", title_justify="left")
    for name in ("backbone", "task"):
        table.add_column(name)
    for name in ("to run", "done", "failed"):
        table.add_column(name, justify="right")
    for (backbone, task), count in counts.items():
        failed = Text(str(count["failed"]), style="red" if count["failed"] else "")
        table.add_row(backbone, task, str(count["to run"]), str(count["done"]), failed)
    total = sum(counts.values(), Counter())
    table.add_section()
    table.add_row("all", "", str(total["to run"]), str(total["done"]), str(total["failed"]), style="bold")
    console.print(table)
