"""What scores are held against: baselines without a model, and the ceiling of a video backbone's pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.report.figures_layout import empty_figure
from orchestrator.report.figures_rows import Mark, Panel, Scale, rows_figure
from orchestrator.report.figures_text import PAGE_IN
from orchestrator.report.looks import FAINT, MARKERS, Look, look, value_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDTRIP = "roundtrip"


def reference_figure(references: pd.DataFrame, *, width: float = PAGE_IN) -> Figure:
    """Exact match of each baseline (grey) and each video backbone's ceiling (its colour, hollow), a row a task.

    ``references`` as from ``reference_scores``; of a baseline that learns from the training set the largest one.
    """
    known = references[references["exact_match"].notna()] if len(references) else references
    if known.empty:
        return empty_figure("no baselines")
    keys = ["task_label", "reference", "backbone"]
    known = known[known["n_train"] == known.groupby(keys, sort=False)["n_train"].transform("max")]
    baselines = list(dict.fromkeys(known.loc[known["reference"] != ROUNDTRIP, "reference"]))
    rows: dict[str, list[Mark]] = {}
    for row in known.to_dict("records"):
        ceiling = row["reference"] == ROUNDTRIP
        if ceiling:
            how = look(row["backbone"])
            how, name = Look(how.color, how.marker, hollow=True), f"ceiling of {row['backbone']}"
        else:
            how = Look(FAINT, MARKERS[baselines.index(row["reference"]) % len(MARKERS)])
            name = row["backbone"]
        ends = float(row["exact_match"]), float(row["low"]), float(row["high"])
        rows.setdefault(row["task_label"], []).append(Mark(*ends, how, name))
    scale = Scale("exact match", ticks=(0, 0.2, 0.4, 0.6, 0.8, 1.0), limits=(-0.02, 1.02))
    caption = [
        "A ceiling is what rendering, the backbone's encoder and decoder, and reading leave of the right answers. "
        f"Bars: 95 % interval over {value_range(known['n_test'].astype(int))} test problems."
    ]
    return rows_figure([Panel("", rows)], scale, "baselines", caption=caption, width=width)
