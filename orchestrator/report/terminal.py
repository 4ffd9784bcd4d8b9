"""What a sweep found, for the terminal."""

from __future__ import annotations

import pandas as pd
from rich.table import Table
from rich.text import Text

from orchestrator.analysis import learning_curves
from orchestrator.report.looks import curve_names, curves_of, value_range

MAX_LINES = 60
"""Curves that a terminal shows."""


def results_table(trials: pd.DataFrame, curves: pd.DataFrame | None = None) -> Table:
    """Exact match by task, backbone and n_train, for the terminal: the first ``MAX_LINES`` curves, and how many more.

    ``trials`` as from ``analysis.with_missing``; ``curves``: their ``learning_curves``, where they are known.
    """
    curves = learning_curves(trials) if curves is None else curves
    sizes = sorted(set(curves["n_train"]) - {0})
    several_seeds = trials["seed"].nunique() > 1
    title = f"exact match on {value_range(trials['n_test'])} test problems"
    table = Table(title=title + (", mean over seeds" if several_seeds else ""), title_justify="left")
    table.add_column("task")
    table.add_column("backbone")
    if (curves["n_train"] == 0).any():
        table.add_column("any n", justify="right")
    for size in sizes:
        table.add_column(f"n={size}", justify="right")
    lines = [
        (str(label), key, curve)
        for label, of_task in curves.groupby("task_label", sort=False)
        for key, curve in curves_of(of_task)
    ]
    names = curve_names(curves)
    above = None
    for label, key, curve in lines[:MAX_LINES]:
        if above not in (None, label):
            table.add_section()
        cells = {row["n_train"]: _cell(row) for _, row in curve.iterrows()}
        columns = ([0] if (curves["n_train"] == 0).any() else []) + sizes
        table.add_row("" if label == above else label, names[key], *(cells.get(n, Text("")) for n in columns))
        above = label
    if len(lines) > MAX_LINES:
        table.caption = f"and {len(lines) - MAX_LINES} more curves: see the report"
    return table


def _cell(row: pd.Series) -> Text:
    if row["done"]:
        of = row["done"] + row["failed"] + row["missing"]
        partial = f" ({row['done']}/{of})" if row["done"] < of else ""
        return Text(f"{row['exact_match']:.2f}{partial}", style="bold" if row["exact_match"] >= 0.8 else "")
    return Text("failed", style="red") if row["failed"] else Text("missing", style="dim")
