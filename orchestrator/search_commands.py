"""What ``sweep run`` and ``sweep report`` do where a sweep searches: which trials count, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.analysis import MAX_VARIANTS
from orchestrator.plan_commands import draws_points, rows_of_search
from orchestrator.search_findings import best_points
from orchestrator.search_plan import ROW_COLUMNS, planned_trials
from orchestrator.specs import SweepSpec, TrialSpec
from orchestrator.tables import TrialState
from orchestrator.threshold import Finding, ThresholdSearch

_Known = Mapping[str, tuple[str, float]]
"""State and exact match of the trials that have a row, by ``trial_id``."""
MAX_LINES = 3 * MAX_VARIANTS
"""Groups that a table shows; the rest is counted."""


def trials_of(sweep: SweepSpec, cells: list[TrialSpec]) -> list[TrialSpec]:
    """What a sweep runs at most: its cells, or the points that a search has drawn and some that stand for the rest.

    A threshold search whose answers are all known runs nothing more, so only what it measured is left.
    """
    from orchestrator import results

    if draws_points(sweep):
        return planned_trials(sweep, cells, rows_of_search(sweep, results.load_trials(sweep.results_uri, ROW_COLUMNS)))
    if sweep.search is not None and sweep.search.threshold is not None:
        _, known, wanted = _replayed(sweep, cells)
        if not wanted:
            return [trial for trial in cells if trial.trial_id in known]
    return cells


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
        search, _, _ = _replayed(sweep, cells)
        console.print(_findings_table(search.findings(), sweep.search.threshold.accuracy))


def _replayed(sweep: SweepSpec, cells: Sequence[TrialSpec]) -> tuple[ThresholdSearch, _Known, list[TrialSpec]]:
    """The search with every row of the tables told; those rows by trial id; what it wants to know next."""
    from orchestrator import results

    assert sweep.search is not None
    assert sweep.search.threshold is not None
    rows = results.load_trials(sweep.results_uri, columns=["trial_id", "state", "exact_match"])
    known = {row["trial_id"]: (row["state"], row["exact_match"]) for row in rows.to_dict("records")}
    search = ThresholdSearch(cells, sweep.search.threshold)
    for trial in cells:
        _tell(search, trial, known)
    while wanted := search.ready():
        for trial in wanted:
            _tell(search, trial, known)
        wanted = [trial for trial in wanted if trial.trial_id not in known]
        if wanted:
            break
    return search, known, wanted


def _tell(search: ThresholdSearch, trial: TrialSpec, known: _Known) -> None:
    if trial.trial_id in known:
        state, exact_match = known[trial.trial_id]
        search.ended(trial, TrialState(state), {"exact_match": exact_match} if state == TrialState.DONE else {})


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
