"""What the LoRA rank and the training seed do.

The effects of pretraining and of a recipe's field are tables of pairs: ``figures_thresholds.paired_figure``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.report.curve_figures import INTERVAL_OF
from orchestrator.report.figures_layout import empty_figure
from orchestrator.report.figures_rows import Mark, Panel, Scale, rows_figure
from orchestrator.report.figures_text import PAGE_IN
from orchestrator.report.looks import Curve, curve_names, look_among, value_range
from orchestrator.tables import TrialState, task_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORE = Scale("exact match", ticks=(0, 0.2, 0.4, 0.6, 0.8, 1.0), limits=(-0.02, 1.02))


def rank_figure(curves: pd.DataFrame, *, n_train: int | None = None, width: float = PAGE_IN) -> Figure:
    """Exact match by LoRA rank, a panel a backbone, a row a task, a dot a rank: the larger, the darker.

    ``curves`` as from ``learning_curves``; of several sizes ``n_train``, else the largest that all ranks of a task
    and backbone have. What has one rank alone is left out.
    """
    trained = curves[(curves["family"] != "baseline") & curves["exact_match"].notna()]
    groups = ["task_label", "backbone", "recipe"]
    trained = trained[trained.groupby(groups)["lora_rank"].transform("nunique") > 1]
    if trained.empty:
        return empty_figure("one LoRA rank a backbone")
    names = curve_names(trained)
    panels: dict[str, Panel] = {}
    order: dict[str, None] = {}
    for (label, backbone, _), group in trained.groupby(groups, sort=False):
        sizes = [set(of_rank["n_train"]) for _, of_rank in group.groupby("lora_rank")]
        both = set.intersection(*sizes) & ({n_train} if n_train is not None else set.union(*sizes))
        if not both:
            continue
        at = group[group["n_train"] == max(both)].sort_values("lora_rank")
        row = f"{label}, n={max(both)}"
        order[row] = None
        marks = panels.setdefault(str(backbone), Panel(str(backbone), {})).rows.setdefault(row, [])
        for point in at.to_dict("records"):
            key = (point["backbone"], point["lora_rank"], point["recipe"])
            ends = float(point["exact_match"]), float(point["low"]), float(point["high"])
            marks.append(Mark(*ends, look_among(key, names), names[key]))
    caption = [_bars(trained)]
    return rows_figure(list(panels.values()), SCORE, "lora_rank", order=list(order), caption=caption, width=width)


def seed_figure(trials: pd.DataFrame, *, n_train: int | None = None, width: float = PAGE_IN) -> Figure:
    """Exact match by training seed: a row a task, a stroke a seed, a dot their mean, a dot's colour its backbone.

    Of several sizes ``n_train``, else for each task the one whose seeds differ most.
    """
    from orchestrator.analysis.intervals import seeds_interval

    done = trials[(trials["state"] == TrialState.DONE) & trials["exact_match"].notna() & (trials["n_train"] > 0)]
    done = done[done["family"] != "baseline"]
    keys = ["task", "task_params", "backbone", "lora_rank", "recipe"]
    done = done[done.groupby([*keys, "n_train"])["seed"].transform("nunique") > 1]
    if n_train is not None:
        done = done[done["n_train"] == n_train]
    if done.empty:
        return empty_figure("one training seed a cell")
    pairs = list(zip(done["task"], done["task_params"], strict=True))
    labels = {pair: task_label(*pair) for pair in dict.fromkeys(pairs)}
    done = done.assign(task_label=[labels[pair] for pair in pairs])
    names = curve_names(done)
    by_cell = done.groupby([*keys, "n_train"], sort=False)["exact_match"]
    spread = by_cell.std().groupby(["task", "task_params", "n_train"]).mean()
    rows: dict[str, list[Mark]] = {}
    counts = []
    cells = list(by_cell)
    for pair, label in labels.items():
        size = int(spread.loc[pair].idxmax())
        for cell, scores in cells:
            if cell[:2] == pair and cell[-1] == size:
                parts = scores.astype(float).tolist()
                low, high = (float(end) for end in seeds_interval(parts))
                key: Curve = cell[2:5]  # type: ignore[assignment]
                mark = Mark(sum(parts) / len(parts), low, high, look_among(key, names), names[key], parts=tuple(parts))
                rows.setdefault(f"{label}, n={size}" if n_train is None else label, []).append(mark)
                counts.append(len(parts))
    which = "the n_train whose seeds differ most" if n_train is None else f"n_train {n_train}"
    caption = [
        f"Strokes: {value_range(pd.Series(counts))} training seeds each, at {which}. Dots: their mean; bars: its 95 % "
        "interval over training seeds, on these test problems."
    ]
    return rows_figure([Panel("", rows)], SCORE, "seeds", caption=caption, width=width)


def _bars(rows: pd.DataFrame) -> str:
    kinds = list(dict.fromkeys(rows["interval"].dropna())) if "interval" in rows else []
    over = " or ".join(INTERVAL_OF.get(str(kind), str(kind)) for kind in kinds)
    text = f"Bars: 95 % interval{' ' * bool(over)}{over}."
    if {"seeds", "n_test"} <= set(rows.columns):
        seeds, n_test = rows["seeds"].dropna().astype(int), rows["n_test"].dropna().astype(int)
        if len(seeds) and len(n_test):
            many = "s" * (int(seeds.max()) > 1)
            text += f" {value_range(seeds)} training seed{many}, {value_range(n_test)} test problems."
    return text
