"""Rows of dots with intervals: one row a task, one dot a backbone, side by side in panels (a forest plot)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.report.figures_layout import (
    GAP_IN,
    MARGIN_IN,
    caption_in,
    caption_text,
    draw_caption,
    draw_legend,
    empty_figure,
    handle,
    legend_in,
    marker_of,
    plain_axes,
)
from orchestrator.report.figures_text import (
    LINE,
    PAGE_IN,
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    height_in,
    style,
    thinned,
    width_in,
    wrapped,
)
from orchestrator.report.looks import FAINT, GRID, INK, PAPER, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK_IN, ROW_PAD_IN = 0.085, 0.07
MAX_LABEL_SHARE = 0.34
"""Of the figure's width, what the names of the rows may take."""


@dataclass(frozen=True)
class Mark:
    """One dot: ``value`` with ``low`` and ``high`` (not-a-number: no interval, infinite: open there)."""

    value: float
    low: float
    high: float
    look: Look
    name: str = ""
    """What the legend calls it; empty is not in the legend."""
    beyond: str = ""
    """``right`` or ``left`` where the truth lies beyond ``value``: an open dot with an arrow."""
    parts: tuple[float, ...] = ()
    """What ``value`` is the mean of: a thin stroke each."""


@dataclass(frozen=True)
class Panel:
    """Rows that share one axis: label -> its dots, from top to bottom."""

    title: str
    rows: dict[str, list[Mark]]


@dataclass(frozen=True)
class Scale:
    """The axis of values."""

    label: str
    log: bool = False
    ticks: tuple[float, ...] = ()
    """Real values to mark; matplotlib's choice where empty."""
    limits: tuple[float, float] | None = None
    line_at: float | None = None
    """Where a line says that there is no difference."""


def rows_figure(
    panels: Sequence[Panel],
    scale: Scale,
    name: str,
    *,
    order: Sequence[str] = (),
    caption: Sequence[str] = (),
    width: float = PAGE_IN,
) -> Figure:
    """Panels of rows of dots, ``width`` inches wide; the rows of panels side by side are the same, named at the left.

    Up to three panels stand side by side; more go below. Rows come in the ``order`` of their labels, else as they first
    appear. The legend is above, the caption below.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = [panel for panel in panels if any(panel.rows.values())]
    if not panels:
        return empty_figure()
    with mpl.rc_context(style(name)):
        across = min(3, len(panels), max(1, int(width / 2.0)))
        down = -(-len(panels) // across)
        known = dict.fromkeys(label for panel in panels for label in panel.rows)
        labels = list(dict.fromkeys([*(label for label in order if label in known), *known]))
        widest = max(width_in(label, TEXT_PT) for label in labels) + 0.02
        label_in = min(widest, MAX_LABEL_SHARE * width)
        shown = {label: wrapped(label, label_in, TEXT_PT) for label in labels}
        left = MARGIN_IN + label_in + 0.08
        gap = 0.16
        panel_in = (width - left - 0.12 - gap * (across - 1)) / across
        titles = [
            "\n".join(wrapped(part, panel_in, TITLE_PT, bold=True) for part in panel.title.split("\n"))
            for panel in panels
        ]
        below = wrapped(scale.label, panel_in, TEXT_PT)
        blocks = []  # of one line of panels: the labels of its rows, their heights, the height of the titles
        for start in range(0, len(panels), across):
            line = panels[start : start + across]
            of_line = [label for label in labels if any(panel.rows.get(label) for panel in line)]
            counts = [max(len(panel.rows.get(label, [])) for panel in line) for label in of_line]
            heights = [
                max(count * MARK_IN, height_in(shown[label], TEXT_PT)) + ROW_PAD_IN
                for label, count in zip(of_line, counts, strict=True)
            ]
            title_in = max(height_in(title, TITLE_PT) if title else 0.0 for title in titles[start : start + across])
            blocks.append((of_line, heights, title_in + (0.04 if title_in else 0.0)))
        entries: dict[str, Any] = {}
        for panel in panels:
            for marks in panel.rows.values():
                for mark in marks:
                    if mark.name:
                        entries.setdefault(mark.name, handle(mark.name, mark.look, line=False))
        columns, legend_height = legend_in(list(entries), width - 2 * MARGIN_IN)
        text = caption_text(caption, width - 2 * MARGIN_IN)
        foot_in = 0.2 + height_in(below, TEXT_PT)  # tick labels and the axis's name
        rows_in = sum(title + sum(heights) + foot_in for _, heights, title in blocks) + GAP_IN * (down - 1)
        height = MARGIN_IN + legend_height + (GAP_IN if entries else 0) + rows_in + caption_in(text) + MARGIN_IN
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        draw_legend(figure, list(entries.values()), columns, MARGIN_IN, MARGIN_IN)
        limits = scale.limits or _limits(panels, scale)
        top = MARGIN_IN + legend_height + (GAP_IN if entries else 0)
        for number, (of_line, heights, title_in) in enumerate(blocks):
            top += title_in
            tall = sum(heights)
            for place, panel in enumerate(panels[number * across : (number + 1) * across]):
                x = left + place * (panel_in + gap)
                box = (x / width, 1 - (top + tall) / height, panel_in / width, tall / height)
                axis = figure.add_axes(box)
                _draw_panel(axis, panel, of_line, heights, scale, limits, panel_in)
                axis.set_xlabel(below, fontsize=TEXT_PT, color=INK, labelpad=2)
                title = titles[number * across + place]
                if title:
                    axis.set_title(title, fontsize=TITLE_PT, fontweight="bold", color=INK, loc="left", pad=3, y=1)
                if place == 0:
                    _name_rows(axis, of_line, heights, shown)
            top += tall + foot_in + GAP_IN
        draw_caption(figure, text, MARGIN_IN)
    return figure


def _draw_panel(
    axis: Axes,
    panel: Panel,
    labels: Sequence[str],
    heights: Sequence[float],
    scale: Scale,
    limits: tuple[float, float],
    room_in: float,
) -> None:
    plain_axes(axis, grid="x")
    axis.spines["left"].set_visible(False)
    _value_axis(axis, scale, limits, room_in)
    axis.set_ylim(sum(heights), 0)
    axis.set_yticks([])
    if scale.line_at is not None:
        axis.axvline(scale.line_at, color=FAINT, linewidth=0.8, zorder=1.5)
    top = 0.0
    for label, tall in zip(labels, heights, strict=True):
        if top:
            axis.axhline(top, color=GRID, linewidth=0.5, zorder=0.5)
        marks = panel.rows.get(label, [])
        for place, mark in enumerate(marks):
            _draw_mark(axis, mark, top + tall / 2 + (place - (len(marks) - 1) / 2) * MARK_IN, limits)
        top += tall


def _draw_mark(axis: Axes, mark: Mark, y: float, limits: tuple[float, float]) -> None:
    color = mark.look.color
    low = mark.value if math.isnan(mark.low) else mark.low
    high = mark.value if math.isnan(mark.high) else mark.high
    left, right = min(limits), max(limits)
    if math.isnan(mark.value):
        return
    if mark.beyond == "right":
        high = math.inf
    elif mark.beyond == "left":
        low = -math.inf
    if mark.parts:
        strokes: dict[str, Any] = {"marker": "|", "markersize": 5.0, "markeredgewidth": 0.8, "linestyle": "none"}
        axis.plot(mark.parts, [y] * len(mark.parts), color=color, zorder=3.2, clip_on=False, **strokes)
    axis.plot([max(low, left), min(high, right)], [y, y], color=color, linewidth=1.0, zorder=3, solid_capstyle="butt")
    arrow: dict[str, Any] = {"color": color, "markersize": 3.2, "linestyle": "none", "clip_on": False, "zorder": 3.5}
    if high > right:
        axis.plot([right], [y], marker=">", **arrow)
    if low < left:
        axis.plot([left], [y], marker="<", **arrow)
    if left <= mark.value <= right:
        dot = marker_of(mark.look)
        if mark.beyond:
            dot["markerfacecolor"] = PAPER
        axis.plot([mark.value], [y], linestyle="none", zorder=4, clip_on=False, **dot)


def _name_rows(axis: Axes, labels: Sequence[str], heights: Sequence[float], shown: dict[str, str]) -> None:
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    top = 0.0
    figure: Any = axis.figure
    beside = ScaledTranslation(-0.08, 0, figure.dpi_scale_trans)
    place = blended_transform_factory(axis.transAxes, axis.transData) + beside
    for label, tall in zip(labels, heights, strict=True):
        axis.text(
            0,
            top + tall / 2,
            shown[label],
            transform=place,
            ha="right",
            va="center",
            fontsize=TEXT_PT,
            color=INK,
            linespacing=LINE * 0.85,
            multialignment="right",
        )
        top += tall


def _limits(panels: Sequence[Panel], scale: Scale) -> tuple[float, float]:
    """Room for every dot and every finite end of an interval, and for the line of no difference."""
    marks = [mark for panel in panels for row in panel.rows.values() for mark in row]
    values = [end for mark in marks for end in (mark.value, mark.low, mark.high, *mark.parts) if math.isfinite(end)]
    values += list(scale.ticks) + ([] if scale.line_at is None else [scale.line_at])
    if scale.log:
        values = [value for value in values if value > 0]
        low, high = (min(values), max(values)) if values else (1.0, 10.0)
        return low / 1.15, high * 1.15
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.04 * (high - low) or 0.05
    return low - pad, high + pad


def _value_axis(axis: Axes, scale: Scale, limits: tuple[float, float], room_in: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

    low, high = limits
    if scale.log:
        axis.set_xscale("log")
    axis.set_xlim(low, high)
    ticks = [tick for tick in scale.ticks if low <= tick <= high]
    if scale.log and not ticks:
        ticks = log_ticks(low, high)
    if ticks:
        span = math.log(high / low) if scale.log else high - low
        places = [(math.log(tick / low) if scale.log else tick - low) / span * room_in for tick in ticks]
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_major_formatter(FixedFormatter(thinned(places, [f"{tick:g}" for tick in ticks], SMALL_PT)))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(max(2, min(6, int(room_in / 0.4)))))


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two values; powers of ten alone over more than three of them."""
    steps = (1, 2, 5) if high / low <= 1e3 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**exponent for exponent in exponents for step in steps if low <= step * 10.0**exponent <= high]
