"""The learning-curve pictures: small multiples, a panel a task; and one picture of one task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.analysis import CURVE, learning_curves
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
    size_axis,
)
from orchestrator.report.figures_text import (
    LINE,
    PAGE_IN,
    TEXT_PT,
    TITLE_PT,
    height_in,
    spread,
    style,
    width_in,
    wrapped,
)
from orchestrator.report.looks import (
    FAINT,
    INK,
    PAPER,
    Curve,
    Look,
    curve_names,
    curves_of,
    look_among,
    notes,
    value_range,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVAL_OF = {
    "problems": "over test problems",
    "seeds": "over training seeds",
    "both": "over training seeds and test problems",
    "binomial": "over test problems, from the shares alone",
}
"""What a 95 % interval says, by the column ``interval``."""
PUBLISHED, CEILING = "published (thin, dashed)", "ceiling of picture and VAE (thin, dotted)"


def learning_curve_figure(
    trials: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
    *,
    curves: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    ceilings: pd.DataFrame | None = None,
    width: float = PAGE_IN,
) -> Figure:
    """Exact match against n_train (log axis), a panel a task, a line a backbone, intervals as bands; baselines in grey.

    ``curves`` are ``learning_curves(trials, predictions)`` where they are there already. ``published`` has the columns
    ``task``, ``task_params``, ``backbone``, ``n_train`` and ``exact_match``, drawn thin and dashed behind ours.
    ``ceilings`` as from ``ceilings_of``, which is what they are by default. ``width`` is in inches; more than 12 tasks
    get smaller panels, so that 30 fit a page.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    curves = _curves(trials, predictions, curves)
    ceilings = ceilings_of(trials) if ceilings is None else ceilings
    labels = list(dict.fromkeys(curves["task_label"]))
    if not labels:
        return empty_figure()
    columns, panel_in = _columns(len(labels), width)
    rows = -(-len(labels) // columns)
    left, gap, right = 0.42, 0.14, 0.1
    room_in = (width - left - right - gap * (columns - 1)) / columns
    names = curve_names(curves)
    titles = {label: wrapped(label, room_in, TITLE_PT, max_lines=3, bold=True) for label in labels}
    with mpl.rc_context(style("learning_curves")):
        handles = _handles(curves, names, published, ceilings)
        legend_columns, legend_height = legend_in([item.get_label() for item in handles], width - left)
        caption = caption_text(curve_caption(trials, curves), width - 2 * MARGIN_IN)
        shared = all(_sizes(curves) == _sizes(curves[curves["task_label"] == label]) for label in labels)
        ticks_in = 0.3 if shared else 0.16
        title_in = [
            max(height_in(titles[label], TITLE_PT) for label in labels[row * columns : (row + 1) * columns]) + 0.05
            for row in range(rows)
        ]
        below_in = [0.08 if shared and row < rows - 1 else ticks_in for row in range(rows)]
        below_in[-1] = 0.32
        height = MARGIN_IN + sum(title_in) + rows * panel_in + sum(below_in) + GAP_IN
        height += legend_height + caption_in(caption) + MARGIN_IN
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        top = MARGIN_IN
        for row in range(rows):
            top += title_in[row]
            for column, label in enumerate(labels[row * columns : (row + 1) * columns]):
                x = left + column * (room_in + gap)
                box = (x / width, 1 - (top + panel_in) / height, room_in / width, panel_in / height)
                axis = figure.add_axes(box)
                of_task = curves[curves["task_label"] == label]
                draw_task(axis, of_task, names, room_in, _of_task(published, of_task), _of_task(ceilings, of_task))
                axis.set_title(titles[label], fontsize=TITLE_PT, color=INK, loc="left", fontweight="bold", pad=4, y=1)
                bottom = row * columns + column + columns >= len(labels)
                if column == 0:
                    axis.set_ylabel("exact match", color=INK, fontsize=TEXT_PT, labelpad=2)
                else:
                    axis.set_yticklabels([])
                if shared and not bottom:
                    axis.tick_params(labelbottom=False)
                if bottom:
                    axis.set_xlabel("n_train (log scale)", color=INK, fontsize=TEXT_PT, labelpad=2)
            top += panel_in + below_in[row]
        draw_legend(figure, handles, legend_columns, left, top + GAP_IN)
        draw_caption(figure, caption, MARGIN_IN)
    return figure


def task_curve_figure(
    curves: pd.DataFrame,
    *,
    names: dict[Curve, str] | None = None,
    published: pd.DataFrame | None = None,
    ceilings: pd.DataFrame | None = None,
    width: float = 4.6,
) -> Figure:
    """One task of ``learning_curves``: as ``learning_curve_figure``, with every line named at its end.

    ``names`` are ``curve_names`` of all tasks, so that a curve is called the same everywhere. Names that do not fit
    beside the panel (or are more than fit above each other) go to a legend below.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if curves.empty:
        return empty_figure(width=width)
    names = names or curve_names(curves)
    label = str(curves["task_label"].iloc[0])
    published, ceilings = _of_task(published, curves), _of_task(ceilings, curves)
    with mpl.rc_context(style(label)):
        handles = _handles(curves, names, published, ceilings)
        own = [names[key] for key, curve in curves_of(curves) if curve["exact_match"].notna().any()]
        panel_in = 0.42 * width
        beside_in = min(max((width_in(name, TEXT_PT) for name in own), default=0.0), 0.36 * width)
        shown = {name: wrapped(name, beside_in, TEXT_PT, max_lines=3) for name in own}
        direct = bool(own) and sum(height_in(text, TEXT_PT) for text in shown.values()) <= panel_in
        left, right = 0.42, (beside_in + 0.3 if direct else 0.12)
        listed = [item for item in handles if not direct or item.get_label() in (PUBLISHED, CEILING)]
        columns, legend_height = legend_in([item.get_label() for item in listed], width - left)
        caption = caption_text(curve_caption(None, curves), width - 2 * MARGIN_IN)
        title = wrapped(label, width - 2 * MARGIN_IN, TITLE_PT, bold=True)
        title_in = height_in(title, TITLE_PT) + 0.05
        height = MARGIN_IN + title_in + panel_in + 0.34 + legend_height + caption_in(caption) + MARGIN_IN
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        room_in = width - left - right
        box = (left / width, 1 - (MARGIN_IN + title_in + panel_in) / height, room_in / width, panel_in / height)
        axis = figure.add_axes(box)
        ends = draw_task(axis, curves, names, room_in, published, ceilings)
        figure.text(
            MARGIN_IN / width,
            1 - MARGIN_IN / height,
            title,
            fontsize=TITLE_PT,
            fontweight="bold",
            color=INK,
            va="top",
            linespacing=LINE,
        )
        axis.set_ylabel("exact match", color=INK, fontsize=TEXT_PT, labelpad=2)
        axis.set_xlabel("n_train (log scale)", color=INK, fontsize=TEXT_PT, labelpad=2)
        if direct:
            _name_ends(axis, ends, shown, panel_in)
        draw_legend(figure, listed, columns, left, MARGIN_IN + title_in + panel_in + 0.36)
        draw_caption(figure, caption, MARGIN_IN)
    return figure


def draw_task(
    axis: Axes,
    curves: pd.DataFrame,
    names: dict[Curve, str],
    room_in: float,
    published: pd.DataFrame | None = None,
    ceilings: pd.DataFrame | None = None,
) -> dict[str, tuple[float, Look]]:
    """Draw one task into ``axis``, ``room_in`` inches wide; returns where each line ends: name -> (y, look)."""
    from matplotlib.ticker import NullLocator

    sizes = _sizes(curves)
    if published is not None:
        sizes = sorted({*sizes, *published["n_train"].astype(int)})
    plain_axes(axis)
    zero = bool(((curves["n_train"] == 0) & (curves["family"] != "baseline")).any())
    zero_at = size_axis(axis, sizes, room_in, zero=zero) if sizes else 1.0
    if not sizes:  # nothing here depends on n_train
        axis.xaxis.set_major_locator(NullLocator())
    ends: dict[str, tuple[float, Look]] = {}
    for key, curve in curves_of(curves):
        name, how = names[key], look_among(key, names)
        trained = bool(how.marker)
        finished = curve[curve["exact_match"].notna()].sort_values("n_train")
        gaps = curve[curve["exact_match"].isna() & (curve["failed"] > 0) & (curve["n_train"] > 0)]
        axis.plot(gaps["n_train"], [0.0] * len(gaps), "x", color=how.color, markersize=4.5, clip_on=False, zorder=5)
        if finished.empty:
            continue
        if sizes:
            x = finished["n_train"].astype(float).where(finished["n_train"] > 0, zero_at).tolist()
        else:  # side by side
            x = [float(len(ends) + 1)]
        y, low, high = (finished[column].astype(float).tolist() for column in ("exact_match", "low", "high"))
        ends[name] = (y[-1], how)
        line = {"color": how.color, "linestyle": how.linestyle, "label": name}
        if not trained:
            axis.axhspan(low[0], high[0], color=how.color, alpha=0.1, linewidth=0, zorder=1)
            axis.axhline(y[0], linewidth=0.9, zorder=2, **line)
            continue
        if len(x) == 1:
            axis.plot([x[0], x[0]], [low[0], high[0]], color=how.color, linewidth=1.0, alpha=0.6, zorder=3)
        else:
            axis.fill_between(x, low, high, color=how.color, alpha=0.14, linewidth=0, zorder=3)
        axis.plot(x, y, linewidth=1.3, zorder=4, clip_on=False, **line, **marker_of(how, 3.4))
    if published is not None:
        for backbone, of_backbone in published.groupby("backbone", sort=False):
            ours = next((key for key in names if key[0] == backbone), None)
            color = look_among(ours, names).color if ours is not None else FAINT
            points = of_backbone.sort_values("n_train")
            dashes = (0, (3, 1.5))
            axis.plot(
                points["n_train"], points["exact_match"], color=color, linewidth=0.7, linestyle=dashes, zorder=2.5
            )
    if ceilings is not None:
        for backbone, of_backbone in ceilings.groupby("backbone", sort=False):
            ours = next((key for key in names if key[0] == backbone), None)
            if ours is not None:
                value = float(of_backbone["roundtrip_exact_match"].iloc[0])
                dotted: dict[str, Any] = {"color": look_among(ours, names).color, "linestyle": (0, (1, 1))}
                axis.axhline(value, linewidth=0.7, zorder=2.5, **dotted)
    if not sizes:
        axis.set_xlim(0.3, len(ends) + 0.7)
    axis.set_ylim(-0.02, 1.02)
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    return ends


def curve_caption(trials: pd.DataFrame | None, curves: pd.DataFrame) -> list[str]:
    """How many seeds and test problems, what the bands are, what is not there and what backbones say of themselves."""
    trained = curves[(curves["family"] != "baseline") & curves["exact_match"].notna()]
    several = trained["seeds"] if "seeds" in trained else trained["done"]
    num_seeds = pd.Series([1]) if trained.empty else several.astype(int)
    mean = f"{value_range(num_seeds)} training seed{'s' * (int(num_seeds.max()) > 1)}"
    kinds = list(dict.fromkeys(trained["interval"].dropna())) if "interval" in trained else ["problems"]
    over = " or ".join(INTERVAL_OF.get(str(kind), str(kind)) for kind in kinds) or INTERVAL_OF["problems"]
    text = f"Mean over {mean}; {value_range(curves['n_test'])} test problems a task; bands: 95 % interval {over}."
    counts = {state: int(curves[state].sum()) for state in ("failed", "missing")}
    absent = [f"{count} {state}" for state, count in counts.items() if count]
    if absent:
        total = int(curves[["done", "failed", "missing"]].to_numpy().sum())
        text += f" Not finished: {', '.join(absent)} of {total} trials (×: failed)."
    return [text, *([] if trials is None else notes(trials))]


def published_points(curves: pd.DataFrame) -> pd.DataFrame:
    """The published learning curves of the tasks and backbones of ``curves``, where there are some: the ``published``
    of the figures."""
    from orchestrator.analysis.published import published_curve

    columns = [*CURVE, "n_train", "exact_match"]
    trained = curves[curves["family"] != "baseline"].drop_duplicates(["task", "task_params", "backbone", "recipe"])
    found = []
    for task, task_params, backbone, lora_rank, recipe in trained[CURVE].itertuples(index=False):
        points = published_curve(task, task_params, backbone, recipe=recipe)
        key = {"task": task, "task_params": task_params, "backbone": backbone, "lora_rank": lora_rank, "recipe": recipe}
        found.append(points.assign(**key)[columns])
    found = [points for points in found if len(points)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def ceilings_of(trials: pd.DataFrame) -> pd.DataFrame | None:
    """What render, VAE, decode and parse leave of perfect answers: columns ``task``, ``task_params``, ``backbone`` and
    ``roundtrip_exact_match``; None where no trial says so."""
    from orchestrator.analysis.baselines import ROUNDTRIP, reference_scores

    if ROUNDTRIP not in trials or trials[ROUNDTRIP].isna().all():
        return None
    scores = reference_scores(trials[trials[ROUNDTRIP].notna()])
    ceilings = scores[scores["reference"] == "roundtrip"].rename(columns={"exact_match": ROUNDTRIP})
    return ceilings[["task", "task_params", "backbone", ROUNDTRIP]] if len(ceilings) else None


def _curves(trials: pd.DataFrame, predictions: pd.DataFrame | None, curves: pd.DataFrame | None) -> pd.DataFrame:
    if curves is not None:
        return curves
    return learning_curves(trials) if predictions is None else learning_curves(trials, predictions)


def _columns(num_panels: int, width: float) -> tuple[int, float]:
    """How many panels stand side by side, and how tall each is, in inches."""
    widest = (3 if num_panels <= 9 else 4 if num_panels <= 12 else 5) if width > 5 else (1 if width < 3 else 2)
    columns = max(1, min(widest, num_panels))
    return columns, {1: 2.0, 2: 1.7, 3: 1.45, 4: 1.2}.get(columns, 0.95)


def _sizes(curves: pd.DataFrame) -> list[int]:
    return sorted({int(size) for size in curves["n_train"]} - {0})


def _handles(
    curves: pd.DataFrame,
    names: dict[Curve, str],
    published: pd.DataFrame | None,
    ceilings: pd.DataFrame | None,
) -> list[Any]:
    from matplotlib.lines import Line2D

    finished = {key for key, curve in curves.groupby(CURVE[2:], sort=False) if curve["exact_match"].notna().any()}
    looks = {name: look_among(key, names) for key, name in names.items() if key in finished}
    handles: list[Any] = [handle(name, how) for name, how in looks.items()]
    if published is not None and len(published):
        handles.append(Line2D([], [], color=FAINT, linewidth=0.7, linestyle=(0, (3, 1.5)), label=PUBLISHED))
    if ceilings is not None and len(ceilings):
        handles.append(Line2D([], [], color=FAINT, linewidth=0.7, linestyle=(0, (1, 1)), label=CEILING))
    return handles


def _of_task(rows: pd.DataFrame | None, curves: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of the task of ``curves``."""
    if rows is None or rows.empty:
        return None
    here = set(zip(curves["task"], curves["task_params"], strict=True))
    pairs = zip(rows["task"], rows["task_params"], strict=True)
    found = rows[[pair in here for pair in pairs]]
    return found if len(found) else None


def _name_ends(axis: Axes, ends: dict[str, tuple[float, Look]], shown: dict[str, str], panel_in: float) -> None:
    """Name each line right of the panel, at the height of its end or as near as the other names allow."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    low, high = axis.get_ylim()
    figure: Any = axis.figure
    beside = blended_transform_factory(axis.transAxes, axis.transData)
    names = list(ends)
    heights = [height_in(shown[name], TEXT_PT) / panel_in * (high - low) for name in names]
    places = spread([ends[name][0] for name in names], heights, low, high)
    an_inch = 1 / (axis.get_position().width * figure.get_figwidth())
    for name, y in zip(names, places, strict=True):
        end, how = ends[name]
        lead = beside + ScaledTranslation(0.03, 0, figure.dpi_scale_trans)
        axis.plot([1, 1 + 0.1 * an_inch], [end, y], transform=lead, color=how.color, linewidth=0.5, clip_on=False)
        place = beside + ScaledTranslation(0.17, 0, figure.dpi_scale_trans)
        if how.marker:
            axis.plot([1], [y], transform=place, linestyle="none", clip_on=False, **marker_of(how, 3.4))
        else:
            part = [1 - 0.07 * an_inch, 1 + 0.05 * an_inch]
            axis.plot(part, [y, y], transform=place, color=how.color, linewidth=0.9, clip_on=False)
        place = beside + ScaledTranslation(0.24, 0, figure.dpi_scale_trans)
        axis.text(1, y, shown[name], transform=place, color=INK, fontsize=TEXT_PT, va="center", linespacing=LINE * 0.9)
