"""ARC and ConceptARC: the radar of the concepts and its honest twin, and which tasks two backbones both solve."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.report.figures_layout import (
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
from orchestrator.report.figures_rows import Mark, Panel, Scale, rows_figure
from orchestrator.report.figures_text import (
    COLUMN_IN,
    LINE,
    PAGE_IN,
    SMALL_PT,
    TEXT_PT,
    height_in,
    style,
    width_in,
    wrapped,
)
from orchestrator.report.looks import AXIS, FAINT, GRID, INK, PAPER, Curve, curve_names, look_among

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AVERAGE = "average"
_MODEL = ["dataset", "backbone", "lora_rank", "recipe"]


def arc_figure(scores: pd.DataFrame, *, width: float = PAGE_IN) -> Figure:
    """Share of tasks solved (all inputs right), a row a dataset and number of attempts, a dot a backbone.

    ``scores`` as from ``arc_scores``.
    """
    known = scores[scores["share"].notna()] if len(scores) else scores
    if known.empty:
        return empty_figure()
    names = _names(known)
    rows: dict[str, list[Mark]] = {}
    for row in known.sort_values(["dataset", "attempts"], kind="stable").to_dict("records"):
        label = f"{row['dataset']}, {row['attempts']} attempt{'s' * (row['attempts'] > 1)}"
        rows.setdefault(label, []).append(_mark(row, names))
    caption = [f"A task counts if all its inputs are right. Bars: 95 % interval over tasks. {_finished(known)}"]
    scale = Scale("share of tasks solved", limits=(-0.01, min(1.02, 1.1 * float(known["high"].max()) + 0.02)))
    return rows_figure([Panel("", rows)], scale, "arc", caption=caption, width=width)


def concept_figure(concepts: pd.DataFrame, averages: pd.DataFrame | None = None, *, width: float = PAGE_IN) -> Figure:
    """Share of inputs solved with all attempts, a row a concept, a dot a backbone, with intervals; the average last.

    ``concepts`` and ``averages`` as from ``concept_scores`` and ``concept_averages``.
    """
    known = _all_attempts(concepts)
    if known.empty:
        return empty_figure()
    names = _names(known)
    rows: dict[str, list[Mark]] = {}
    for row in known.to_dict("records"):
        rows.setdefault(row["concept"], []).append(_mark(row, names))
    for row in [] if averages is None else _all_attempts(averages).to_dict("records"):
        rows.setdefault(AVERAGE, []).append(_mark(row, names))
    scale = Scale("share of test inputs solved", ticks=(0, 0.2, 0.4, 0.6, 0.8, 1.0), limits=(-0.02, 1.02))
    caption = [
        "An input counts if any attempt is right. Bars: 95 % interval, the inputs of a task taken together. "
        f"{_finished(known)}"
    ]
    return rows_figure([Panel("", rows)], scale, "concepts", caption=caption, width=width)


def concept_radar_figure(concepts: pd.DataFrame, *, width: float = COLUMN_IN + 1.2) -> Figure:
    """The concepts around a circle, a line a backbone, as the paper draws it. ``concept_figure`` shows the same with
    intervals, and without an area that depends on the order of the concepts. ``concepts`` as from ``concept_scores``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    known = _all_attempts(concepts)
    around = list(dict.fromkeys(known["concept"]))
    if len(around) < 3:
        return empty_figure("fewer than three concepts")
    names = _names(known)
    with mpl.rc_context(style("concept_radar")):
        present = set(known[["backbone", "lora_rank", "recipe"]].itertuples(index=False, name=None))
        looks = {key: look_among(key, names) for key in names if key in present}
        handles = [handle(names[key], how) for key, how in looks.items()]
        columns, legend_height = legend_in([names[key] for key in looks], width - 2 * MARGIN_IN)
        text = caption_text(
            ["Share of test inputs solved in any attempt; the intervals are in the plot of dots beside it."],
            width - 2 * MARGIN_IN,
        )
        label_in = 0.95
        across = width - 2 * label_in
        tall = across + 2 * 0.36
        height = MARGIN_IN + legend_height + tall + caption_in(text) + MARGIN_IN
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        draw_legend(figure, handles, columns, MARGIN_IN, MARGIN_IN)
        bottom = caption_in(text) + MARGIN_IN + 0.36
        box = (label_in / width, bottom / height, across / width, across / height)
        axis = figure.add_axes(box, projection="polar")
        axis.patch.set_visible(False)
        axis.set_theta_offset(math.pi / 2)  # type: ignore[attr-defined]
        axis.set_theta_direction(-1)  # type: ignore[attr-defined]
        angles = {concept: 2 * math.pi * place / len(around) for place, concept in enumerate(around)}
        top = min(1.0, max(0.2, math.ceil(float(known["share"].max()) * 5 - 1e-9) / 5))
        rings = [0.2 * step for step in range(1, round(top * 5) + 1)]
        for key, how in looks.items():
            own = known[(known["backbone"] == key[0]) & (known["lora_rank"] == key[1]) & (known["recipe"] == key[2])]
            shares = dict(zip(own["concept"], own["share"].astype(float), strict=True))
            theta = [angles[concept] for concept in around if concept in shares]
            radius = [shares[concept] for concept in around if concept in shares]
            if len(theta) == len(around):  # closed, and filled, only where it is whole
                theta, radius = [*theta, theta[0]], [*radius, radius[0]]
                axis.fill(theta, radius, color=how.color, alpha=0.07, linewidth=0)
            line = {"color": how.color, "linestyle": how.linestyle, "linewidth": 1.2}
            axis.plot(theta, radius, clip_on=False, zorder=4, **line, **marker_of(how, 3.0))
        axis.set_ylim(0, top)
        axis.set_yticks(rings, [f"{ring:.1f}" for ring in rings], fontsize=SMALL_PT, color=FAINT)
        axis.set_rlabel_position(180 / len(around))  # type: ignore[attr-defined]
        axis.set_xticks(list(angles.values()), [""] * len(around))
        axis.grid(color=GRID, linewidth=0.5)
        axis.spines["polar"].set_color(AXIS)
        axis.spines["polar"].set_linewidth(0.5)
        for concept, angle in angles.items():
            side = math.sin(angle)
            place = "center" if abs(side) < 0.15 else ("left" if side > 0 else "right")
            out = top * (1 + 0.12 / (across / 2))
            shown = wrapped(_spaced(concept), label_in - 0.12, TEXT_PT, max_lines=3)
            level = "center" if abs(math.cos(angle)) < 0.85 else ("bottom" if math.cos(angle) > 0 else "top")
            axis.text(
                angle, out, shown, ha=place, va=level, fontsize=TEXT_PT, color=INK, linespacing=LINE * 0.85,
                multialignment=place,
            )  # fmt: skip
        draw_caption(figure, text, MARGIN_IN)
    return figure


def overlap_figure(overlap: pd.DataFrame, *, width: float = PAGE_IN) -> Figure:
    """Tasks solved by one backbone alone, by both and by the other alone, a bar a pair.

    ``overlap`` as from ``solved_overlap``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if overlap.empty:
        return empty_figure("no two backbones answered the same tasks")
    counts = ["only_a", "both", "only_b"]
    with mpl.rc_context(style("solved_overlap")):
        names = _names(
            pd.concat(
                [
                    overlap[[f"{name}_{side}" for name in ("backbone", "lora_rank", "recipe")]].set_axis(
                        ["backbone", "lora_rank", "recipe"], axis=1
                    )
                    for side in "ab"
                ]
            )
        )
        rows = overlap.to_dict("records")
        sides = [
            tuple((row[f"backbone_{side}"], row[f"lora_rank_{side}"], row[f"recipe_{side}"]) for side in "ab")
            for row in rows
        ]
        room = 0.3 * width
        several = overlap["dataset"].nunique() > 1
        left_names = [
            wrapped(f"{row['dataset']}: {names[a]}" if several else names[a], room, TEXT_PT)
            for row, (a, _) in zip(rows, sides, strict=True)
        ]
        right_names = [wrapped(names[b], room, TEXT_PT) for _, b in sides]
        left = MARGIN_IN + max(width_in(name, TEXT_PT) for name in left_names) + 0.1
        right = MARGIN_IN + max(width_in(name, TEXT_PT) for name in right_names) + 0.1
        tall = [
            max(0.2, height_in(a, TEXT_PT), height_in(b, TEXT_PT)) + 0.08
            for a, b in zip(left_names, right_names, strict=True)
        ]
        tasks = sorted({int(sum(row[name] for name in counts) + row["neither"]) for row in rows})
        many = str(tasks[0]) if len(tasks) == 1 else f"{tasks[0]} to {tasks[-1]}"
        text = caption_text(
            [
                "Tasks solved by the one at the left alone (its colour), by both (grey), and by the one at the right "
                f"alone (its colour), of {many} tasks that both answered. A task counts if all its inputs are right."
            ],
            width - 2 * MARGIN_IN,
        )
        height = MARGIN_IN + sum(tall) + 0.34 + caption_in(text) + MARGIN_IN
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        room_in = width - left - right
        box = (left / width, 1 - (MARGIN_IN + sum(tall)) / height, room_in / width, sum(tall) / height)
        axis = figure.add_axes(box)
        plain_axes(axis, grid="x")
        longest = max(sum(int(row[name]) for name in counts) for row in rows) or 1
        top = 0.0
        for row, (a, b), one, other, high in zip(rows, sides, left_names, right_names, tall, strict=True):
            y, start = top + high / 2, 0
            colors = {"only_a": look_among(a, names).color, "both": AXIS, "only_b": look_among(b, names).color}
            for name in counts:
                count = int(row[name])
                filled = not (name == "only_b" and colors["only_a"] == colors["only_b"])  # a model and its random twin
                axis.barh(
                    y, count, 0.16, left=start, color=colors[name] if filled else PAPER, edgecolor=colors[name],
                    linewidth=0.6, zorder=3,
                )  # fmt: skip
                if count and count / longest * room_in > width_in(str(count), SMALL_PT) + 0.04:
                    ink = INK if name == "both" or not filled else PAPER
                    axis.text(
                        start + count / 2, y, str(count), ha="center", va="center", fontsize=SMALL_PT, color=ink,
                        zorder=4,
                    )  # fmt: skip
                start += count
            place: dict[str, Any] = {
                "va": "center",
                "fontsize": TEXT_PT,
                "color": INK,
                "linespacing": LINE * 0.85,
                "clip_on": False,
            }
            axis.annotate(one, (0, y), (-6, 0), textcoords="offset points", ha="right", **place)
            axis.annotate(
                other,
                (1, y),
                (6, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="left",
                **place,
            )
            top += high
        axis.set_ylim(sum(tall), 0)
        axis.set_yticks([])
        axis.set_xlim(0, longest * 1.01)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_xlabel("tasks solved", fontsize=TEXT_PT, color=INK, labelpad=2)
        draw_caption(figure, text, MARGIN_IN)
    return figure


def _all_attempts(scores: pd.DataFrame) -> pd.DataFrame:
    """Of each model the rows with the most attempts, those that have a share."""
    if scores.empty:
        return scores
    most = scores.groupby(_MODEL, sort=False)["attempts"].transform("max")
    return scores[(scores["attempts"] == most) & scores["share"].notna()]


def _mark(row: dict[Any, Any], names: dict[Curve, str]) -> Mark:
    key: Curve = (row["backbone"], row["lora_rank"], row["recipe"])
    low, high = (math.nan if pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
    return Mark(float(row["share"]), low, high, look_among(key, names), names[key])


def _finished(scores: pd.DataFrame) -> str:
    """Says what the shares are of, where tasks have not finished."""
    done, expected = scores["num_tasks"].astype(int), scores["num_expected"].astype(int)
    short = done < expected
    if not short.any():
        return ""
    part = (done / expected)[short].min()
    return f"Not all tasks have finished (at least {100 * part:.0f} %): shares are of those that have."


def _names(rows: pd.DataFrame) -> dict[Curve, str]:
    keys = rows[["backbone", "lora_rank", "recipe"]].drop_duplicates()
    return curve_names(keys.assign(task="arc", task_params="", task_label="arc", family=""))


def _spaced(concept: str) -> str:
    """``TopBottom2D`` as ``Top Bottom 2D``, so that it can break."""
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", concept)
