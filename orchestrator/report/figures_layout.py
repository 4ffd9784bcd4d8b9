"""What all figures share: their frame in inches, how a panel's axes look, the legend and the caption."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from orchestrator.report.figures_text import LINE, SMALL_PT, TEXT_PT, height_in, thinned, width_in, wrapped
from orchestrator.report.looks import AXIS, FAINT, GRID, INK, PAPER, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN_IN, GAP_IN = 0.06, 0.08
HANDLE_IN = 0.42
"""Length of a line in the legend with the space after it."""
EMPTY = "nothing finished yet"


def plain_axes(axis: Axes, *, grid: str = "both") -> None:
    """Two thin spines, ticks in the text's colour, a faint grid behind the data."""
    axis.patch.set_visible(False)
    if grid:
        axis.grid(axis=grid, color=GRID, linewidth=0.5)  # type: ignore[arg-type]
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(AXIS)
    axis.tick_params(colors=INK, length=2, width=0.6, pad=2, labelsize=SMALL_PT)


def size_axis(axis: Axes, sizes: Sequence[float], room_in: float, *, zero: bool = False, margin: float = 1.25) -> float:
    """A log axis of n_train over ``room_in`` inches with the real sizes as ticks, as many labels as fit.

    With ``zero`` there is a tick 0 (no training at all) left of the smallest size; returns where.
    """
    import math

    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_xscale("log")
    first, last = float(sizes[0]), float(sizes[-1])
    step = min((b / a for a, b in pairwise(sizes)), default=2.0)
    zero_at = first / max(2.0, step)
    low, high = (zero_at if zero else first) / margin, last * margin
    places = ([zero_at] if zero else []) + [float(size) for size in sizes]
    labels = (["0"] if zero else []) + [f"{size:g}" for size in sizes]
    span = math.log(high / low)
    labels = thinned([math.log(place / low) / span * room_in for place in places], labels, SMALL_PT)
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_major_formatter(FixedFormatter(labels))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(low, high)
    return zero_at


def handle(name: str, how: Look, *, line: bool = True) -> Any:
    """What stands for a curve in the legend."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=how.color,
        linestyle=how.linestyle if line else "none",
        label=name,
        linewidth=1.4 if how.marker else 1.0,
        **marker_of(how),
    )


def marker_of(how: Look, size: float = 3.8) -> dict[str, Any]:
    """matplotlib's arguments for the marker of a look."""
    return {
        "marker": how.marker or None,
        "markersize": size,
        "markerfacecolor": PAPER if how.hollow else how.color,
        "markeredgecolor": how.color,
        "markeredgewidth": 1.0,
    }


def legend_in(names: Sequence[str], width: float) -> tuple[int, float]:
    """Columns of a legend of ``names`` that is at most ``width`` inches wide, and its height in inches."""
    if not names:
        return 1, 0.0
    entries = [width_in(name, TEXT_PT) + HANDLE_IN + 0.16 for name in names]
    for columns in range(len(names), 1, -1):
        rows = -(-len(names) // columns)
        if -(-len(names) // rows) < columns:  # as matplotlib fills them: as many in each column, the first ones more
            continue
        long = len(names) - (rows - 1) * columns
        starts = [min(place, long) * rows + max(0, place - long) * (rows - 1) for place in range(columns + 1)]
        if sum(max(entries[first:last]) for first, last in pairwise(starts)) <= width:
            return columns, _legend_rows_in(rows)
    return 1, _legend_rows_in(len(names))


def _legend_rows_in(rows: int) -> float:
    return rows * TEXT_PT * 1.38 / 72


def draw_legend(figure: Figure, handles: Sequence[Any], columns: int, left_in: float, top_in: float) -> None:
    """The legend with its upper left corner ``left_in`` and ``top_in`` inches from that of the figure."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    legend = figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(left_in / width, 1 - top_in / height),
        ncols=columns,
        frameon=False,
        fontsize=TEXT_PT,
        borderpad=0,
        borderaxespad=0,
        handlelength=2.9,
        handletextpad=0.6,
        columnspacing=1.4,
        labelspacing=0.3,
    )
    for text in legend.get_texts():
        text.set_color(INK)


def caption_text(lines: Sequence[str], width: float) -> str:
    """``lines`` wrapped to ``width`` inches."""
    return "\n".join(wrapped(line, width, SMALL_PT, max_lines=6) for line in lines if line)


def draw_caption(figure: Figure, text: str, left_in: float) -> None:
    """Small grey text at the bottom of the figure, from ``left_in`` inches."""
    if not text:
        return
    width, height = figure.get_size_inches()
    place = {"va": "bottom", "ha": "left", "linespacing": LINE}
    figure.text(left_in / width, MARGIN_IN / height, text, fontsize=SMALL_PT, color=FAINT, **place)  # type: ignore[arg-type]


def caption_in(text: str) -> float:
    """Height in inches of the caption with the gap above it."""
    return height_in(text, SMALL_PT) + GAP_IN if text else 0.0


def empty_figure(text: str = EMPTY, width: float = 3.3) -> Figure:
    """A figure that says why there is none."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.5), facecolor=PAPER)
    figure.text(0.02, 0.5, text, fontsize=TEXT_PT, color=FAINT, va="center")
    return figure
