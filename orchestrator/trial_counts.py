"""How many trials of a sweep are to run, done and failed: the table that ``sweep plan`` and ``sweep status`` print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from orchestrator.failures import TRANSIENT, is_to_run
from orchestrator.specs import SweepSpec, TrialSpec

if TYPE_CHECKING:
    from orchestrator.results import TrialStatus

MAX_LINES = 40
"""A table with more lines has one for each backbone and task name, or for each backbone."""
States = Mapping[str, "TrialStatus"]
ExtraColumn = tuple[Mapping[str, float], Callable[[float], str]]
"""A number for some trials, by ``trial_id``, and how a sum of them is written."""


def state_of(trial: TrialSpec, states: States) -> str:
    """``done``, ``failed``, ``pruned``, or ``to run`` where the trial has no row."""
    status = states.get(trial.trial_id)
    return "to run" if status is None else status.state.value


def runs(trial: TrialSpec, states: States) -> bool:
    """Whether ``sweep run`` would run a trial: it has no row, or one of a failure that passes."""
    return is_to_run(states.get(trial.trial_id), TRANSIENT)


def searches(sweep: SweepSpec) -> bool:
    """Whether a search chooses among the trials, so that their number is the most it may run."""
    return sweep.search is not None


def counts_table(
    sweep: SweepSpec,
    trials: Sequence[TrialSpec],
    states: States,
    extra: Mapping[str, ExtraColumn] | None = None,
) -> Table:
    """How many trials are to run, done and failed, by backbone and task (by backbone alone where that is too long).

    ``extra`` are further columns by name.
    """
    extra = extra or {}
    lines: dict[tuple[str, str], Counter[str]] = {}
    line_of = _lines(trials)
    for trial in trials:
        line = lines.setdefault(line_of[trial.backbone, id(trial.task)], Counter())
        line[state_of(trial, states)] += 1
        for name, (numbers, _) in extra.items():
            line[name] += numbers.get(trial.trial_id, 0)  # type: ignore[assignment]
    table = Table(title=f"{sweep.name}: {len(trials)} trials", title_justify="left")
    for name in ("backbone", "task"):
        table.add_column(name, overflow="fold")
    pruned = any(line["pruned"] for line in lines.values())
    for name in ("to run", "done", *(["pruned"] if pruned else []), "failed", *extra):
        table.add_column(name, justify="right", no_wrap=True)

    def cells(line: Counter[str]) -> list[str | Text]:
        failed = Text(str(line["failed"]), style="red" if line["failed"] else "")
        counts = [str(line[name]) for name in ("to run", "done", *(["pruned"] if pruned else []))]
        return [*counts, failed, *(show(line[name]) for name, (_, show) in extra.items())]

    for (backbone, task), line in lines.items():
        table.add_row(backbone, task, *cells(line))
    total: Counter[str] = Counter()
    for line in lines.values():
        total.update(line)
    table.add_section()
    table.add_row("all", "", *cells(total), style="bold")
    return table


def _lines(trials: Sequence[TrialSpec]) -> dict[tuple[str, int], tuple[str, str]]:
    """The line of the table that each backbone and task (its ``id``) counts in."""
    from orchestrator.analysis import MAX_VARIANTS, variants_label

    tasks = {id(trial.task): trial.task for trial in trials}
    labels = {key: task.label() for key, task in tasks.items()}
    variants: dict[str, set[str]] = {}
    for key, task in tasks.items():
        variants.setdefault(task.name, set()).add(labels[key])
    pairs = dict.fromkeys((trial.backbone, id(trial.task)) for trial in trials)

    def lines(max_variants: int) -> dict[tuple[str, int], tuple[str, str]]:
        def task_line(key: int) -> str:
            name = tasks[key].name
            count = len(variants[name])
            return labels[key] if count <= max_variants else variants_label(name, count)

        return {(backbone, key): (backbone, task_line(key)) for backbone, key in pairs}

    for max_variants in (MAX_VARIANTS, 1):
        found = lines(max_variants)
        if len(set(found.values())) <= MAX_LINES:
            return found
    by_backbone: dict[str, set[str]] = {}
    for backbone, key in pairs:
        by_backbone.setdefault(backbone, set()).add(labels[key])
    return {pair: (pair[0], f"{len(by_backbone[pair[0]])} tasks") for pair in pairs}


def duration(seconds: float) -> str:
    """``0.4 s``, ``45 s``, ``12 min``, ``3.4 h``, ``12 days``."""
    for unit, size, until in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 72)):
        if seconds < until * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds / 86400)} days"


def number(value: float) -> str:
    """``1,234`` or ``0.4``."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"
