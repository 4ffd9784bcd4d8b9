"""The learning-curve picture: small multiples, a panel a task."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.analysis import CURVE, learning_curves
from orchestrator.report.looks import (
    FAINT,
    GRID,
    INK,
    Curve,
    curve_names,
    curves_of,
    look_among,
    notes,
    value_range,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_COLUMNS = 3
PANEL_IN, TOP_IN, TITLE_LINE_IN, LEGEND_ENTRY_IN, LEGEND_CHARACTER_IN = 2.9, 0.38, 0.17, 2.1, 0.07
CAPTION_CHARACTERS_PER_IN = 16.5


def write_learning_curves(trials: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw ``learning_curves.png`` and ``.svg`` into ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = learning_curve_figure(trials)
    paths = [folder / "learning_curves.png", folder / "learning_curves.svg"]
    for path in paths:
        figure.savefig(path, dpi=160)
    return paths


def learning_curve_figure(trials: pd.DataFrame) -> Figure:
    """Accuracy against n_train (log axis), a panel a task, a line a backbone; baselines in grey; intervals as bands."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    curves = learning_curves(trials)
    labels = list(dict.fromkeys(curves["task_label"]))
    sizes = sorted(set(curves["n_train"]) - {0})
    columns = max(1, min(PANEL_COLUMNS, len(labels)))
    rows = max(1, -(-len(labels) // columns))
    width_in = 4.1 * max(columns, 1.6) + 0.6
    caption = _caption(trials, int((width_in - 0.8) * CAPTION_CHARACTERS_PER_IN))
    with mpl.rc_context({"font.size": 10, "svg.hashsalt": "learning_curves", "font.family": "DejaVu Sans"}):
        names = curve_names(curves)
        entry_in = max(LEGEND_ENTRY_IN, *(0.75 + LEGEND_CHARACTER_IN * len(name) for name in names.values()))
        legend_columns = max(1, min(len(names), int(width_in / entry_in)))
        legend_in = 0.24 * -(-len(names) // legend_columns)
        caption_in = 0.148 * len(caption)
        bottom_in = 0.62 + legend_in + 0.12 + caption_in + 0.12
        top_in = TOP_IN + TITLE_LINE_IN * (max(len(_title(label).splitlines()) for label in labels) - 1)
        height_in = top_in + PANEL_IN * rows + 0.85 * (rows - 1) + bottom_in
        figure = Figure(figsize=(width_in, height_in), facecolor="white")
        figure.subplots_adjust(
            left=0.62 / width_in,
            right=1 - 0.2 / width_in,
            top=1 - top_in / height_in,
            bottom=bottom_in / height_in,
            wspace=0.1,
            hspace=0.85 / PANEL_IN,
        )
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        handles: dict[str, Any] = {}
        for axis, label in zip(axes, labels, strict=False):
            _draw_panel(axis, curves[curves["task_label"] == label], sizes, names, handles)
            axis.set_title(_title(label), fontsize=10, color=INK, loc="left", fontweight="bold")
        for axis in axes[::columns]:
            axis.set_ylabel("exact match", color=INK)
        for axis in axes[len(labels) :]:
            axis.set_visible(False)
        ordered = [handles[name] for name in names.values() if name in handles]
        figure.legend(
            handles=ordered,
            loc="lower left",
            bbox_to_anchor=(0.5 / width_in, (caption_in + 0.2) / height_in),
            ncols=legend_columns,
            frameon=False,
            fontsize=9,
            borderpad=0,
            handlelength=2.8,
            columnspacing=1.6,
        )
        x, y = 0.58 / width_in, 0.12 / height_in
        figure.text(x, y, "\n".join(caption), fontsize=7.5, color=FAINT, va="bottom", linespacing=1.4)
    return figure


def _draw_panel(
    axis: Axes, curves: pd.DataFrame, sizes: Sequence[int], names: dict[Curve, str], handles: dict[str, Any]
) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for key, curve in curves_of(curves):
        name, how = names[key], look_among(key, names)
        finished = curve[curve["exact_match"].notna()].sort_values("n_train")
        if finished.empty:
            continue
        if (finished["n_train"] == 0).all():
            value = float(finished["exact_match"].iloc[0])
            line = axis.axhline(value, color=how.color, linestyle=how.linestyle, linewidth=1.3, label=name, zorder=2)
        else:
            trained = bool(how.marker)
            if trained:
                axis.fill_between(
                    finished["n_train"], finished["low"], finished["high"], color=how.color, alpha=0.13, linewidth=0
                )
            (line,) = axis.plot(
                finished["n_train"],
                finished["exact_match"],
                color=how.color,
                linestyle=how.linestyle,
                linewidth=2.0 if trained else 1.3,
                marker=how.marker or None,
                markersize=6,
                markerfacecolor="white" if how.hollow else how.color,
                markeredgewidth=1.6,
                label=name,
                zorder=4 if trained else 2,
                clip_on=False,
            )
        handles.setdefault(name, line)
        gaps = curve[curve["exact_match"].isna() & (curve["failed"] > 0) & (curve["n_train"] > 0)]
        axis.plot(gaps["n_train"], [0.0] * len(gaps), "x", color=how.color, markersize=7, clip_on=False, zorder=5)
    if sizes:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator([float(size) for size in sizes]))
        axis.xaxis.set_major_formatter(FixedFormatter([str(size) for size in sizes]))
        axis.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    else:  # nothing here depends on n_train
        axis.xaxis.set_major_locator(NullLocator())
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(-0.02, 1.02)
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axis.set_xlabel("n_train (log scale)", color=INK)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#b0b0b0")
    axis.tick_params(colors=INK, length=3)


def _caption(trials: pd.DataFrame, width: int) -> list[str]:
    trained = trials[trials["seed"].notna() & (trials["n_train"] > 0)]
    seeds = trained.groupby([*CURVE, "n_train"], dropna=False)["seed"].nunique() if len(trained) else 1
    mean = f"{value_range(pd.Series(seeds))} training seed{'s' * (int(pd.Series(seeds).max()) > 1)}"
    counts = trials["state"].value_counts()
    absent = [f"{counts[state]} {state}" for state in ("failed", "missing") if counts.get(state)]
    text = (
        f"Mean over {mean}; {value_range(trials['n_test'])} test problems a task; "
        "bands: 95 % Wilson interval over test problems."
    )
    if absent:
        text += f" Not finished: {', '.join(absent)} of {len(trials)} trials (x: failed)."
    lines = [text, *notes(trials)]
    return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="   ")]


def _title(label: str) -> str:
    return textwrap.fill(label, 44)
