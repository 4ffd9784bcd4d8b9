"""What a sweep found: a table for the terminal, and the learning-curve picture."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pandas as pd
from rich.table import Table
from rich.text import Text

from orchestrator.analysis import CURVE, learning_curves
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec
from trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart with any colour vision; their yellow and black are left out (paper, text).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
BASELINE_DASHES: tuple[Any, ...] = ((0, (6, 2)), (0, (1, 1.6)), (0, (6, 2, 1, 2)), (0, (3, 2)))
INK, FAINT, GRID = "#222222", "#6b6b6b", "#e6e6e6"
PANEL_COLUMNS = 3
PANEL_IN, TOP_IN, TITLE_LINE_IN, LEGEND_ENTRY_IN, LEGEND_CHARACTER_IN = 2.9, 0.38, 0.17, 2.1, 0.07
PALEST = 0.7
"""Share of white in the last of several curves of one backbone, which differ in rank or recipe."""
CAPTION_CHARACTERS_PER_IN = 16.5


@dataclass(frozen=True)
class Look:
    """How a backbone is drawn, always the same: one colour a model, hollow markers for its random-weight twin."""

    color: str
    marker: str = ""
    linestyle: Any = "-"
    hollow: bool = False


def look(name: str) -> Look:
    """The look of a backbone by its place among those there are, or by its name's hash where a repository names it;
    grey for one that is no longer there."""
    try:
        spec = backbone_spec(name)
    except ValueError:
        return Look(FAINT, "x")
    if name not in backbone_names():
        place = crc32(name.encode())
        return Look(COLORS[place % len(COLORS)], MARKERS[place // len(COLORS) % len(MARKERS)])
    same_kind = [other for other in map(backbone_spec, backbone_names()) if other.trainable == spec.trainable]
    if not spec.trainable:
        place = [other.name for other in same_kind].index(name)
        return Look(FAINT, linestyle=BASELINE_DASHES[place % len(BASELINE_DASHES)])
    models = list(dict.fromkeys(_model(other) for other in same_kind))
    place = models.index(_model(spec))
    marker = MARKERS[place // len(COLORS) % len(MARKERS)]
    return Look(COLORS[place % len(COLORS)], marker, "-" if spec.pretrained else (0, (4, 2)), not spec.pretrained)


def _look_among(key: tuple[Any, ...], names: dict[tuple[Any, ...], str]) -> Look:
    """The look of one curve (backbone, lora_rank, recipe): its backbone's, paler for each one that comes after another
    of the same backbone, and with another marker."""
    from matplotlib.colors import to_hex, to_rgb

    how = look(str(key[0]))
    siblings = [other for other in names if other[0] == key[0]]
    place = siblings.index(key)
    if place == 0:
        return how
    white = PALEST * place / max(1, len(siblings) - 1)
    red, green, blue = ((1 - white) * part + white for part in to_rgb(how.color))
    color = to_hex((red, green, blue))
    marker = MARKERS[(MARKERS.index(how.marker) + place) % len(MARKERS)] if how.marker in MARKERS else how.marker
    return replace(how, color=color, marker=marker)


def results_table(trials: pd.DataFrame) -> Table:
    """Exact match by task, backbone and n_train, for the terminal. ``trials`` as from ``analysis.with_missing``."""
    curves = learning_curves(trials)
    sizes = sorted(set(curves["n_train"]) - {0})
    several_seeds = trials["seed"].nunique() > 1
    title = f"exact match on {_range(trials['n_test'])} test problems"
    table = Table(title=title + (", mean over seeds" if several_seeds else ""), title_justify="left")
    table.add_column("task")
    table.add_column("backbone")
    if (curves["n_train"] == 0).any():
        table.add_column("any n", justify="right")
    for size in sizes:
        table.add_column(f"n={size}", justify="right")
    names = _curve_names(curves)
    for label, of_task in curves.groupby("task_label", sort=False):
        first = True
        for key, curve in _curves_of(of_task):
            cells = {row["n_train"]: _cell(row) for _, row in curve.iterrows()}
            columns = ([0] if (curves["n_train"] == 0).any() else []) + sizes
            table.add_row(str(label) if first else "", names[key], *(cells.get(n, Text("")) for n in columns))
            first = False
        table.add_section()
    return table


def notes(trials: pd.DataFrame) -> list[str]:
    """One line a backbone that has something to say about its numbers."""
    known = [backbone_spec(name) for name in trials["backbone"].unique() if name in backbone_names()]
    return [f"{spec.name}: {spec.note}" for spec in known if spec.note]


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
        names = _curve_names(curves)
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
    axis: Axes, curves: pd.DataFrame, sizes: Sequence[int], names: dict[tuple[Any, ...], str], handles: dict[str, Any]
) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for key, curve in _curves_of(curves):
        name, how = names[key], _look_among(key, names)
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
    mean = f"{_range(pd.Series(seeds))} training seed{'s' * (int(pd.Series(seeds).max()) > 1)}"
    counts = trials["state"].value_counts()
    absent = [f"{counts[state]} {state}" for state in ("failed", "missing") if counts.get(state)]
    text = (
        f"Mean over {mean}; {_range(trials['n_test'])} test problems a task; "
        "bands: 95 % Wilson interval over test problems."
    )
    if absent:
        text += f" Not finished: {', '.join(absent)} of {len(trials)} trials (x: failed)."
    lines = [text, *notes(trials)]
    return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="   ")]


def _cell(row: pd.Series) -> Text:
    if row["done"]:
        of = row["done"] + row["failed"] + row["missing"]
        partial = f" ({row['done']}/{of})" if row["done"] < of else ""
        return Text(f"{row['exact_match']:.2f}{partial}", style="bold" if row["exact_match"] >= 0.8 else "")
    return Text("failed", style="red") if row["failed"] else Text("missing", style="dim")


def _curves_of(curves: pd.DataFrame) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Curves of one task: trained backbones first, each kind in the order of the sweep."""
    groups = [(tuple(key[2:]), group) for key, group in curves.groupby(CURVE, sort=False)]
    return sorted(groups, key=lambda item: item[1]["family"].iloc[0] == "baseline")


def _title(label: str) -> str:
    return textwrap.fill(label, 44)


def _curve_names(curves: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """A name a curve (backbone, lora_rank, recipe): the backbone, with rank and recipe only where they tell apart."""
    keys = [key for _, of_task in curves.groupby("task_label", sort=False) for key, _ in _curves_of(of_task)]
    keys = list(dict.fromkeys(keys))
    by_backbone: dict[str, list[tuple[Any, ...]]] = {}
    for key in keys:
        by_backbone.setdefault(key[0], []).append(key)
    names = {}
    for key in keys:
        backbone, lora_rank, recipe = key
        siblings = by_backbone[backbone]
        extra = [f"r={lora_rank}"] if len({other[1] for other in siblings}) > 1 else []
        if len({other[2] for other in siblings}) > 1:
            fields = [json.loads(other[2]) for other in siblings]
            own = json.loads(recipe)
            differing = sorted({name for other in fields for name in other | own if other.get(name) != own.get(name)})
            extra += [f"{name}={own.get(name, _default(name))}" for name in differing]
        names[key] = " ".join([backbone, *extra])
    return names


def _default(recipe_field: str) -> Any:
    """What a recipe holds where its row says nothing of the field."""
    field = TrainRecipe.model_fields.get(recipe_field)
    return "default" if field is None else field.default


def _model(spec: BackboneSpec) -> tuple[str, str]:
    """What a pretrained flavour and its random twin share."""
    return spec.name.split("/", 1)[0], spec.repo_id


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"
