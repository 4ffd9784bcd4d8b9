"""What ``sweep run`` and ``sweep report`` do where a sweep searches: which trials count, and what was found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from orchestrator import plan_commands
from orchestrator.search_findings import THRESHOLD_COLUMNS, best_points, threshold_progress
from orchestrator.search_plan import ROW_COLUMNS
from orchestrator.specs import SweepSpec, TrialSpec
from orchestrator.threshold import Finding

MAX_LINES = 60
"""Groups that a table shows; the rest is counted."""


def trials_of(sweep: SweepSpec, cells: list[TrialSpec]) -> list[TrialSpec]:
    """What a sweep runs at most, as far as its tables tell."""
    from orchestrator import results

    if sweep.search is None:
        return cells
    rows = results.load_trials(sweep.results_uri, [*ROW_COLUMNS, "state", "exact_match"])
    return plan_commands.trials_of(sweep, cells, rows)


def reported(sweep: SweepSpec, cells: list[TrialSpec]) -> list[TrialSpec]:
    """What a report of a sweep shows: its cells, or of a search those that have a row."""
    from orchestrator import results

    if sweep.search is None:
        return cells
    known = results.trial_states(sweep.results_uri)
    return [trial for trial in trials_of(sweep, cells) if trial.trial_id in known]


def print_found(console: Console, sweep: SweepSpec, cells: Sequence[TrialSpec]) -> None:
    """What a search has found; nothing for a sweep without one."""
    from orchestrator import results

    if sweep.search is None:
        return
    if sweep.search.optuna is not None:
        rows = results.load_trials(sweep.results_uri).to_dict("records")
        for best in best_points(sweep, cells, [{str(name): value for name, value in row.items()} for row in rows]):
            console.print(best.line(sweep.search.optuna.metric), highlight=False, soft_wrap=True)
    if sweep.search.threshold is not None:
        rows = results.load_trials(sweep.results_uri, THRESHOLD_COLUMNS).to_dict("records")
        records = [{str(name): value for name, value in row.items()} for row in rows]
        findings = threshold_progress(sweep, cells, records).search.findings()
        console.print(_findings_table(findings, sweep.search.threshold.accuracy))


def _findings_table(findings: Sequence[Finding], accuracy: float) -> Table:
    """One line a group: the smallest n_train that reaches ``accuracy``, and what that rests on."""
    table = Table(title=f"smallest n_train with exact match {accuracy:g}", title_justify="left")
    for name in ("backbone", "task", "rank", "seed"):
        table.add_column(name)
    for name in ("n_train", "missed at", "trials"):
        table.add_column(name, justify="right")
    for finding in findings[:MAX_LINES]:
        answer = {"found": str(finding.n_train), "never": "never"}.get(finding.state, finding.state)
        below = "" if finding.largest_below is None else str(finding.largest_below)
        answer += f" (inferred, {finding.chance:.2f})" if finding.basis == "inferred" else ""
        axes = (str(finding.lora_rank or ""), str(finding.seed))
        table.add_row(finding.backbone, finding.task, *axes, answer, below, str(finding.num_trials))
    if len(findings) > MAX_LINES:
        table.caption = f"and {len(findings) - MAX_LINES} more"
    return table
