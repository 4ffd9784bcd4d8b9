"""What the study took: time by backbone and what it went into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.report.figures_layout import (
    GAP_IN,
    MARGIN_IN,
    caption_in,
    caption_text,
    draw_caption,
    draw_legend,
    empty_figure,
    legend_in,
    plain_axes,
)
from orchestrator.report.figures_text import PAGE_IN, SMALL_PT, TEXT_PT, height_in, style, width_in, wrapped
from orchestrator.report.looks import COLORS, FAINT, INK, PAPER
from orchestrator.tables import TrialState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"load": "load_s", "train": "train_s", "answer": "eval_s"}
"""What a finished trial's time goes into: name -> column of ``trials``."""
UNITS = ((1.0, "h"), (60.0, "min"), (3600.0, "s"))
"""Parts of an hour; a figure is in the largest that its longest bar is one of."""
LONG = {"h": "hours", "min": "minutes", "s": "seconds"}
LOST = "failed and stopped trials"


def worker_hours(trials: pd.DataFrame) -> pd.DataFrame:
    """Hours by backbone, times the trial's workers: one row a backbone, columns ``load``, ``train``, ``answer``,
    ``lost`` (from start to end of trials that failed or were stopped), ``trials`` with a row, ``on_gpu``.

    ``on_gpu`` is True where every trial with a known device ran on something else than a CPU: hours of workers are
    GPU-hours there, a GPU being what a worker has.
    """
    ended = trials[trials["state"].isin([state.value for state in TrialState])]
    done = ended["state"] == TrialState.DONE
    workers = ended["num_workers"].astype("Float64").fillna(1).astype(float)
    hours = {name: (ended[column].astype("Float64").fillna(0).astype(float) * workers / 3600).where(done, 0.0)
             for name, column in PARTS.items()}  # fmt: skip
    spent = (pd.to_datetime(ended["finished_at"], utc=True) - pd.to_datetime(ended["started_at"], utc=True)).dt
    hours["lost"] = (spent.total_seconds().fillna(0) * workers / 3600).where(~done, 0.0)
    frame = pd.DataFrame({"backbone": ended["backbone"], **hours})
    table = frame.groupby("backbone", sort=False).sum()
    table["trials"] = ended.groupby("backbone", sort=False).size()
    on_cpu = ended["device"].astype("string").str.contains("cpu", case=False)
    table["on_gpu"] = (
        ~on_cpu.fillna(False).groupby(ended["backbone"]).any()
        & ended["device"].notna().groupby(ended["backbone"]).any()
    )
    return table.reset_index()


def cost_figure(trials: pd.DataFrame, *, width: float = PAGE_IN) -> Figure:
    """Hours by backbone as stacked bars: loading, training, answering, and what failed trials took."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    table = worker_hours(trials)
    parts = [*PARTS, "lost"]
    table = table[table[parts].sum(axis=1) > 0]
    if table.empty:
        return empty_figure("no times are known")
    colors = dict(zip(parts, (COLORS[3], COLORS[0], COLORS[2], FAINT), strict=True))
    shown = {"lost": LOST}
    drawn = [part for part in parts if table[part].sum() > 0]
    with mpl.rc_context(style("time_by_backbone")):
        names = [wrapped(name, 0.34 * width, TEXT_PT) for name in table["backbone"]]
        totals = table[parts].sum(axis=1)
        size, small_unit = next((each for each in UNITS if totals.max() * each[0] >= 1), UNITS[-1])
        notes = [
            f"{hours * size:.3g} {small_unit}, {count} trial{'s' * (count > 1)}"
            for hours, count in zip(totals, table["trials"], strict=True)
        ]
        left = MARGIN_IN + max(width_in(name, TEXT_PT) for name in names) + 0.1
        right = max(width_in(note, SMALL_PT) for note in notes) + 0.16
        heights = [max(0.16, height_in(name, TEXT_PT)) + 0.06 for name in names]
        columns, legend_height = legend_in([shown.get(part, part) for part in drawn], width - left)
        gpus = bool(table["on_gpu"].all())
        unit = f"GPU-{LONG[small_unit]}" if gpus else f"{LONG[small_unit]} of workers"
        one = "GPU" if gpus else "process"
        caption = caption_text([f"Seconds of a trial times its workers, one {one} each."], width - 2 * MARGIN_IN)
        top = MARGIN_IN + legend_height + GAP_IN
        height = top + sum(heights) + 0.34 + caption_in(caption) + MARGIN_IN
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        box = (left / width, 1 - (top + sum(heights)) / height, (width - left - right) / width, sum(heights) / height)
        axis = figure.add_axes(box)
        plain_axes(axis, grid="x")
        centres = [sum(heights[:place]) + tall / 2 for place, tall in enumerate(heights)]
        start = pd.Series(0.0, index=table.index)
        for part in drawn:
            axis.barh(centres, table[part] * size, 0.13, left=start, color=colors[part], edgecolor=PAPER, linewidth=0.4)
            start = start + table[part] * size
        axis.set_ylim(sum(heights), 0)
        axis.set_yticks(centres, names, fontsize=TEXT_PT)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, float(totals.max()) * size * 1.02)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlabel(unit, fontsize=TEXT_PT, color=INK, labelpad=2)
        an_inch = float(totals.max()) * size * 1.02 / (width - left - right)
        for centre, total, note in zip(centres, totals, notes, strict=True):
            axis.text(total * size + 0.05 * an_inch, centre, note, fontsize=SMALL_PT, color=INK, va="center")
        patches = [Patch(facecolor=colors[part], label=shown.get(part, part)) for part in drawn]
        draw_legend(figure, patches, columns, left, MARGIN_IN)
        draw_caption(figure, caption, MARGIN_IN)
    return figure
