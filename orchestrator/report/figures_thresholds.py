"""Samples-to-threshold, and what two backbones differ by: efficiency ratios and paired differences (forest plots)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.analysis import CURVE
from orchestrator.report.figures_layout import empty_figure
from orchestrator.report.figures_rows import Mark, Panel, Scale, rows_figure
from orchestrator.report.figures_text import PAGE_IN
from orchestrator.report.looks import FAINT, Curve, Look, curve_names, look_among, value_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEYOND = {"at least": "right", "at most": "left"}
_SIDE = ["backbone", "lora_rank", "recipe"]


def threshold_figure(thresholds: pd.DataFrame, *, accuracy: float = 0.9, width: float = PAGE_IN) -> Figure:
    """Training examples to reach ``accuracy``, a row a task, a dot a backbone, on a log axis of the real sizes.

    ``thresholds`` as from ``samples_to_threshold``. An open dot with an arrow: not reached with the most examples that
    were tried, or reached with the fewest already. A dot lies between two sizes where the curve does.
    """
    rows = thresholds[thresholds["largest"].notna()] if len(thresholds) else thresholds
    if rows.empty:
        return empty_figure()
    names = curve_names(rows)
    marks: dict[str, list[Mark]] = {}
    for row in rows.to_dict("records"):
        key = (row["backbone"], row["lora_rank"], row["recipe"])
        beyond = str(row["censored"] or "")
        value = {"right": float(row["largest"]), "left": float(row["smallest"])}.get(beyond, float(row["samples"]))
        ends = (math.nan, math.nan) if beyond == "right" else (float(row["low"]), float(row["high"]))
        how = look_among(key, names)
        marks.setdefault(row["task_label"], []).append(Mark(value, *ends, how, names[key], beyond))
    sizes = _sizes_between(rows)
    scale = Scale(f"n_train to reach {accuracy:g} exact match (log scale)", True, tuple(sizes), _widened(sizes))
    caption = [
        f"Interpolated on log n_train; bars: 95 % interval; open dot and arrow: beyond the sizes that were tried. "
        f"{_seeds(rows)}"
    ]
    return rows_figure([Panel("", marks)], scale, "samples_to_threshold", caption=caption, width=width)


def efficiency_figure(ratios: pd.DataFrame, *, accuracy: float = 0.9, width: float = PAGE_IN) -> Figure:
    """How many times fewer examples one backbone needs than another, a panel a pair, a row a task, a line at 1.

    ``ratios`` as from ``efficiency_ratios``. A dot has the colour of the backbone that needs fewer, grey where the
    interval holds 1; open with an arrow where only one of the two reaches ``accuracy``. Tasks where neither does are
    left out, and counted.
    """
    known = ratios[ratios["ratio"].notna()] if len(ratios) else ratios
    if known.empty:
        return empty_figure(f"on no task does one of two backbones reach {accuracy:g}")
    panels = _pair_panels(known, "ratio", 1.0)
    scale = Scale("times fewer examples (log scale)", log=True, line_at=1.0, limits=_ratio_limits(known))
    unknown = len(ratios) - len(known)
    left_out = f" {unknown} comparisons left out: neither reaches it." if unknown else ""
    caption = [
        f"Examples that the second needs to reach {accuracy:g} over those that the first needs: right of the line the "
        "first needs fewer; the dot has the colour of the one that needs fewer. Bars: 95 % interval over the same test "
        f"problems; grey: the interval holds 1. {_seeds(known)}{left_out}"
    ]
    order = list(dict.fromkeys(known["task_label"]))
    return rows_figure(panels, scale, "efficiency_ratios", order=order, caption=caption, width=width)


def paired_figure(paired: pd.DataFrame, *, n_train: int | None = None, width: float = PAGE_IN) -> Figure:
    """Differences on the same test problems, a panel a pair, a row a task, a line at 0.

    ``paired`` as from ``paired_differences``, ``rank_effects``, ``pretraining_effects`` or ``recipe_effects``; of
    several sizes the given ``n_train``, else of each task and pair the largest. Colours as in ``efficiency_figure``; a
    hollow grey dot has no power to tell.
    """
    rows = paired[paired["difference"].notna()] if len(paired) else paired
    if n_train is not None and len(rows):
        rows = rows[rows["n_train"] == n_train]
    if rows.empty:
        return empty_figure("no two backbones answered the same problems")
    pair = [f"{name}_{side}" for side in "ab" for name in _SIDE]
    if n_train is None:
        rows = rows.sort_values("n_train", kind="stable").groupby(["task_label", *pair], sort=False).tail(1)
    rows = rows.assign(task_label=[f"{row.task_label}, n={row.n_train}" for row in rows.itertuples()])
    rows = rows.loc[sorted(rows.index)]
    panels = _pair_panels(rows, "difference", 0.0)
    size = "with the most training examples" if n_train is None else f"with {n_train} training examples"
    caption = [
        f"Exact match of the first less that of the second {size}, on the same test problems. The dot has the colour "
        "of the better one. Bars: 95 % interval; grey: the interval holds 0; hollow and grey: too few problems to tell "
        f"{_meaningful()} apart. {_seeds(rows)}"
    ]
    scale = Scale("difference of exact match", line_at=0.0)
    order = list(dict.fromkeys(rows["task_label"]))
    return rows_figure(panels, scale, "paired_differences", order=order, caption=caption, width=width)


def _pair_panels(rows: pd.DataFrame, value: str, nothing: float) -> list[Panel]:
    """A panel a pair; ``nothing`` is the value that says that the two are the same."""
    names = _side_names(rows)
    panels: dict[tuple[Curve, Curve], Panel] = {}
    for row in rows.to_dict("records"):
        a, b = _key(row, "a"), _key(row, "b")
        panel = panels.setdefault((a, b), Panel(f"{names[a]}\nvs {names[b]}", {}))
        low, high, beyond = float(row["low"]), float(row["high"]), BEYOND.get(str(row.get("censored", "")), "")
        better = a if row[value] >= nothing else b
        how = look_among(better, names)
        if low <= nothing <= high:
            how = Look(FAINT, how.marker, hollow=not row.get("has_power", True))
        panel.rows.setdefault(row["task_label"], []).append(Mark(float(row[value]), low, high, how, "", beyond))
    return list(panels.values())


def _side_names(rows: pd.DataFrame) -> dict[Curve, str]:
    """Names of the curves of both sides of a table of pairs."""
    sides = []
    for side in "ab":
        own = rows[["task", "task_params", "task_label", *(f"{name}_{side}" for name in _SIDE)]]
        sides.append(own.rename(columns={f"{name}_{side}": name for name in _SIDE}).assign(family=""))
    both = pd.concat(sides, ignore_index=True).drop_duplicates()
    return curve_names(both[[*CURVE, "task_label", "family"]])


def _key(row: dict[Any, Any], side: str) -> Curve:
    return (row[f"backbone_{side}"], row[f"lora_rank_{side}"], row[f"recipe_{side}"])


def _sizes_between(rows: pd.DataFrame) -> list[float]:
    """Real sizes to mark: those that a curve begins, ends or first gets there at, and 1, 3, 10 ... between."""
    ends = {float(value) for name in ("smallest", "largest", "first_n_train") for value in rows[name].dropna()} - {0.0}
    low, high = min(ends, default=1.0), max(ends, default=10.0)
    steps = (step * 10.0**power for power in range(0, 8) for step in (1, 3))
    return sorted({low, high, *(step for step in steps if low < step < high)})


def _widened(sizes: Sequence[float]) -> tuple[float, float]:
    return sizes[0] / 1.5, sizes[-1] * 1.6


def _ratio_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Room for all dots and for finite intervals, but not for those of more than 30 times beyond all dots."""
    values = [float(value) for value in rows["ratio"] if 0 < value < math.inf] + [1.0]
    ends = [float(end) for name in ("low", "high") for end in rows[name] if 0 < end < math.inf]
    low = min([*values, *(end for end in ends if end > min(values) / 30)])
    high = max([*values, *(end for end in ends if end < max(values) * 30)])
    return low / 1.4, high * 1.4


def _seeds(rows: pd.DataFrame) -> str:
    """How many seeds and test problems."""
    seeds, n_test = rows["seeds"].dropna().astype(int), rows["n_test"].dropna().astype(int)
    if seeds.empty or n_test.empty:
        return ""
    return f"{value_range(seeds)} training seed{'s' * (int(seeds.max()) > 1)}, {value_range(n_test)} test problems."


def _meaningful() -> str:
    from orchestrator.analysis.paired import MEANINGFUL

    return f"{MEANINGFUL:g}"
