"""``sweep compare --published``: our cells beside the paper's, and how the runs differ from what it states."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

NAMES_SHOWN = 8
LISTS = ("deviations", "open_choices")
BY_CHANCE = 0.05
"""Share of 95 % intervals of no difference that do not hold 0."""
VERDICT_STYLES = {"above": "green", "below": "red", "unknown": "dim"}


def add_compare_arguments(sub: argparse.ArgumentParser) -> None:
    """The options of ``sweep compare``."""
    sub.add_argument("sources", nargs="+", metavar="SOURCE", help="results folders, their URIs, or sweeps' YAMLs")
    sub.add_argument(
        "--published",
        action="store_true",
        required=True,
        help="with the numbers of arXiv 2510.24448, which ship with this package",
    )
    sub.add_argument("--out", type=Path, metavar="X.csv", help="write the comparison there too")


def compare(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep compare --published SOURCE...``: exit status 0, with or without anything to compare.

    Raises:
        ValueError: a source cannot be read, or ``--out`` cannot be written.
    """
    from orchestrator import analysis
    from orchestrator.analysis.published import COMPARED_PREDICTION_COLUMNS, compare_published

    study = analysis.load(arguments.sources, COMPARED_PREDICTION_COLUMNS)
    compared = compare_published(*study)
    if arguments.out is not None:
        _write_csv(compared, arguments.out)
    if compared.empty:
        console.print(nothing_matches(study.trials), highlight=False, markup=False, soft_wrap=True)
        return 0
    console.print(comparison_table(compared))
    for line in [*summary_lines(compared), *difference_lines(compared)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if arguments.out is not None:
        console.print(f"Written: {arguments.out}", highlight=False, markup=False, soft_wrap=True)
    return 0


def nothing_matches(trials: pd.DataFrame) -> str:
    """One line: which backbones and tasks are published, and which of them the finished ``trials`` have."""
    from orchestrator.analysis.published_table import PUBLISHED_BACKBONES, published_backbone, published_name
    from orchestrator.tables import TrialState, task_label

    done = trials[trials["state"] == TrialState.DONE]
    if done.empty:
        return "Nothing to compare: no trial is done yet."
    trained = done.loc[done["family"] != "baseline", "backbone"].drop_duplicates().tolist()
    tasks = done[["task", "task_params"]].drop_duplicates()
    names = [published_name(task, params) for task, params in zip(tasks["task"], tasks["task_params"], strict=True)]
    labels = [task_label(task, params) for task, params in zip(tasks["task"], tasks["task_params"], strict=True)]
    have = f"The trials have the backbones {_listed(trained)}" if trained else "The trials have baselines alone"
    if not any(published_backbone(name) for name in trained):
        known = ", ".join(PUBLISHED_BACKBONES.values())
        return (
            f"Nothing to compare: the published backbones are {known}. {have}; a stand-in is never a published model."
        )
    if not any(names):
        return (
            f"Nothing to compare: none of the tasks is a published setting: {_listed(labels)}. The published ones are "
            "those of orchestrator/sweeps/paper_*.yaml."
        )
    return (
        f"Nothing to compare: {have.lower()} and {sum(map(bool, names))} published tasks, but no published cell: no "
        "finished trial has a published n_train (and inputs, attempts) of its backbone and task."
    )


def comparison_table(compared: pd.DataFrame) -> Table:
    """One line a published cell, for the terminal."""
    import pandas as pd

    table = Table(title="ours beside the published numbers (95 % intervals)", title_justify="left")
    for name in ("backbone", "published task"):
        table.add_column(name)
    for name in ("n_train", "metric", "ours", "published", "difference", "verdict"):
        table.add_column(name, justify="left" if name in ("metric", "verdict") else "right")
    cell = compared.groupby(["backbone", "published_task", "subset", "n_train", "metric", "inputs"], dropna=False)
    tell_apart = {name: (cell[name].transform("nunique") > 1).tolist() for name in ("lora_rank", "recipe")}
    last = ""
    for place, row in enumerate(compared.to_dict("records")):
        task = f"{row['published_task']} {row['subset']}".strip()
        if last not in ("", row["published_task"]):
            table.add_section()
        last = row["published_task"]
        metric = " ".join(filter(None, [row["metric"], row["inputs"], _attempts(row)]))
        rank = f"r={row['lora_rank']}" if tell_apart["lora_rank"][place] else ""
        backbone = " ".join(filter(None, [row["backbone"], rank, row["recipe"] if tell_apart["recipe"][place] else ""]))
        table.add_row(
            backbone,
            task,
            "" if pd.isna(row["n_train"]) else str(row["n_train"]),
            metric,
            _with_interval(row["ours"], row["low"], row["high"]),
            f"{row['published']:.3f}",
            _with_interval(row["difference"], row["difference_low"], row["difference_high"], "+"),
            Text(row["verdict"], style=VERDICT_STYLES.get(row["verdict"], "")),
        )
    return table


def summary_lines(compared: pd.DataFrame) -> list[str]:
    """How many cells agree, and how many of them would not by chance alone."""
    counts = Counter(compared["verdict"])
    told = len(compared) - counts["unknown"]
    parts = [f"{counts[verdict]} {verdict}" for verdict in ("within", "above", "below", "unknown") if counts[verdict]]
    cells = len(
        compared[["model", "published_task", "subset", "n_train", "attempts", "inputs", "metric"]].drop_duplicates()
    )
    settings = f" ({len(compared)} comparisons: several ranks, recipes or settings)" if cells < len(compared) else ""
    lines = [f"{cells} published cell{'s' * (cells > 1)}{settings}: {', '.join(parts)}."]
    if told >= 1 / BY_CHANCE:
        lines[0] += f" Were all the same, about {round(told * BY_CHANCE)} would still be outside by chance."
    return [*lines, "Published are single training seeds: what another one would change is in no interval."]


def difference_lines(compared: pd.DataFrame) -> list[str]:
    """By backbone: how its runs differ from what the paper states, and what they chose where it states nothing."""
    lines = []
    for backbone, rows in compared.groupby("backbone", sort=False):
        found = _counted(rows, "deviations")
        lines.append(
            f"{backbone} differs from what is stated in: {found}"
            if found
            else f"{backbone}: nothing stated is done otherwise"
        )
        chosen = _counted(rows, "open_choices")
        if chosen:
            lines.append(f"  our choice, as nothing is stated: {chosen}")
    return lines


def _counted(rows: pd.DataFrame, column: str) -> str:
    """The texts in a column of lists, each with the number of cells that have it where not all do."""
    counts = Counter(text for texts in rows[column] for text in texts)
    return "; ".join(
        text if count == len(rows) else f"{text} (in {count} of {len(rows)})" for text, count in counts.items()
    )


def _attempts(row: dict[Hashable, Any]) -> str:
    return f"({row['attempts']} attempts)" if row["attempts"] > 1 else ""


def _with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    interval = f" [{low:{sign}.2f}, {high:{sign}.2f}]" if low == low else ""
    return f"{value:{sign}.3f}{interval}"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _write_csv(compared: pd.DataFrame, path: Path) -> None:
    flat = compared.assign(**{name: compared[name].map("; ".join) for name in LISTS})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flat.to_csv(path, index=False)
    except OSError as error:
        raise ValueError(f"--out {path}: cannot be written: {error.strerror or error}") from None
