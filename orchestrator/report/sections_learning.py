"""How accuracy grows with training problems: headline, curves, samples-to-threshold, ratios, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from orchestrator.analysis import CURVE
from orchestrator.analysis.paired import MEANINGFUL, paired_differences
from orchestrator.report.curve_figures import (
    ceilings_of,
    curve_caption,
    learning_curve_figure,
    published_points,
    task_curve_figure,
)
from orchestrator.report.figures_thresholds import efficiency_figure, paired_figure, threshold_figure
from orchestrator.report.material import Material
from orchestrator.report.page_parts import Cell, Column, Figure, Section, Table, counted, extent_of, table
from orchestrator.report.table_files import cell

MOST_CURVE_ROWS = 400
MOST_MARKS = 120
"""Pairs in a figure; where there are more it has those of the first backbone alone."""


def headline(material: Material) -> Section | None:
    """What was found, in sentences, and the end of each curve."""
    curves = material.learnt
    finished = curves[curves["exact_match"].notna()]
    reading = "Shares are of test problems answered right in every cell; in brackets are 95 % intervals."
    sentences = [f"{finding.text}." for finding in material.findings]
    if finished.empty:
        any_finished = material.curves["exact_match"].notna().any()
        return Section("headline", "Findings", reading, [], sentences=sentences) if any_finished else None
    ends = [rows.sort_values("n_train").dropna(subset="exact_match").iloc[-1:] for _, _, rows in material.groups]
    last = pd.concat(ends)
    samples = material.samples.set_index(CURVE)
    texts = {key: samples_text(row) for key, row in zip(samples.index, samples.to_dict("records"), strict=True)}
    keys = list(last[CURVE].itertuples(index=False, name=None))
    frame = last.assign(
        curve=material.named(last),
        n_train=last["n_train"].where(last["n_train"] > 0).astype("Int64"),
        samples=[texts.get(key, "") for key in keys],
    )
    numbers = pd.Series([samples["samples"].get(key) for key in keys], dtype="float64")
    whole = frame.drop(columns="samples").assign(samples=numbers.to_numpy())
    headings = {
        "task_label": "task",
        "curve": "backbone",
        "n_train": "n_train",
        "exact_match": "exact match [95 % interval]",
        "samples": f"n_train to reach {material.accuracy:g}",
        "seeds": "seeds",
        "n_test": "test problems",
    }
    caption = "Exact match with the most training problems, and how many it takes"
    made = table("headline", caption, frame, headings, estimate="exact_match", most_rows=MOST_CURVE_ROWS)
    return Section(
        "headline",
        "Findings",
        reading,
        [made.of(whole)],
        extent=extent_of(finished),
        sentences=sentences,
    )


def learning(material: Material) -> Section | None:
    """Learning curves: a figure a task, and all the numbers."""
    curves = material.learnt
    if curves["exact_match"].notna().sum() == 0:
        return None
    published, ceilings = published_points(curves), ceilings_of(material.trials)
    overview = partial(learning_curve_figure, material.trials, curves=curves, published=published)
    blocks: list[Figure | Table] = [
        Figure("learning_curves", "Learning curves", "All tasks side by side.", overview, on_page=False)
    ]
    for place, (label, of_task) in enumerate(curves.groupby("task_label", sort=False)):
        if of_task["exact_match"].notna().any():
            draw = partial(
                task_curve_figure, of_task, names=material.names[str(label)], published=published, ceilings=ceilings
            )
            description = _curve_words(material, str(label))
            blocks.append(Figure(f"learning_curve_{place + 1:02d}", str(label), description, draw, narrow=True))
    blocks.append(_curve_table(material))
    lines = curve_caption(material.trials, curves)
    reading = "A curve that is higher, or rises further to the left, learns the task from fewer examples."
    return Section("learning-curves", "Learning curves", reading, blocks, notes=lines)


def thresholds(material: Material) -> Section | None:
    """Samples to reach the accuracy."""
    samples = material.samples
    if samples.empty:
        return None
    texts = [samples_text(row) for row in samples.to_dict("records")]
    frame = samples.assign(curve=material.named(samples), text=texts)
    headings = {
        "task_label": "task",
        "curve": "backbone",
        "text": f"n_train to reach {material.accuracy:g} [95 % interval]",
        "first_n_train": "first n_train measured there",
        "largest": "largest n_train",
        "seeds": "seeds",
        "n_test": "test problems",
    }
    caption = f"Training problems needed for an exact match of {material.accuracy:g}"
    made = table("samples_to_threshold", caption, frame, headings, most_rows=MOST_CURVE_ROWS)
    made = _sorted_by(made, frame, "text", samples["samples"].where(samples["censored"] != "right", math.inf))
    return Section(
        "samples",
        "Samples to threshold",
        f"How many training problems a backbone needs to reach {material.accuracy:g}, read off its curve between the "
        "sizes that were measured; > means that it never did, ≤ that it did so at the smallest size.",
        [
            Figure(
                "samples_to_threshold",
                f"Training problems to reach {material.accuracy:g}",
                "The table below has the numbers.",
                partial(threshold_figure, samples, accuracy=material.accuracy),
            ),
            made.of(samples),
        ],
        extent=extent_of(samples),
    )


def efficiency(material: Material) -> Section | None:
    """How many times fewer training problems one backbone needs than another."""
    ratios = material.ratios
    known = ratios[ratios["ratio"].notna()]
    if known.empty:
        return None
    frame = known.assign(
        a=material.named(known, "_a"),
        b=material.named(known, "_b"),
        text=[ratio_text(row) for row in known.to_dict("records")],
    )
    headings = {"task_label": "task", "a": "backbone", "text": "times fewer [95 % interval]", "b": "than"}
    headings |= {"seeds": "seeds", "n_test": "test problems"}
    caption = f"Training problems to reach {material.accuracy:g}: how many times fewer"
    made = _sorted_by(table("efficiency_ratios", caption, frame, headings), frame, "text", known["ratio"])
    few = material.few_pairs(ratios, MOST_MARKS)
    unknown = len(ratios) - len(known)
    notes = [f"{counted(unknown, 'pair')} left out: neither reached {material.accuracy:g}."] if unknown else []
    return Section(
        "efficiency",
        "Data efficiency",
        "A ratio of 4 says that the first backbone gets there with a quarter of the training problems that the "
        "second needs; an interval that holds 1 tells no difference.",
        [
            Figure(
                "efficiency_ratios",
                f"How many times fewer training problems{_part(few, ratios)}",
                "The table below has the numbers.",
                partial(efficiency_figure, few, accuracy=material.accuracy),
            ),
            made.of(ratios),
        ],
        extent=extent_of(known),
        notes=notes,
    )


def pairs(material: Material) -> Section | None:
    """Differences on the very same test problems, and which cells could not have told one."""
    differences = paired_differences(material.trials, material.outcomes)
    if differences.empty:
        return None
    weak = differences[~found_one(differences) & ~differences["has_power"].fillna(False).astype(bool)]
    sentences = []
    if len(weak):
        sentences.append(
            f"{len(weak):,} of {counted(len(differences), 'comparison')} (all n_train) found no difference and would "
            f"hardly have found one of {MEANINGFUL:g}: from these it does not follow that two backbones are alike."
        )
    caption = "Difference in exact match on the same test problems, at the largest n_train that both have"
    return Section(
        "paired",
        "Paired differences",
        "Both backbones answered the same problems, so the difference is of problem against problem; detectable is the "
        f"smallest true difference that the cell would find in 80 % of repetitions, power whether it is {MEANINGFUL:g} "
        "or less; both are for cells whose interval holds 0. Intervals are over test problems alone, of these seeds.",
        [
            difference_figure(material, "paired_differences", "Paired differences", differences),
            pair_table(material, "paired_differences", caption, differences),
        ],
        extent=extent_of(differences),
        sentences=sentences,
    )


def difference_figure(material: Material, name: str, title: str, differences: pd.DataFrame) -> Figure:
    """The figure of a frame like that of ``paired_differences``, at the largest n_train of each pair."""
    largest = at_largest(differences)
    shown = material.few_pairs(largest, MOST_MARKS)
    description = "Differences in exact match with 95 % intervals; the table below has the numbers."
    return Figure(name, f"{title}{_part(shown, largest)}", description, partial(paired_figure, shown))


def found_one(differences: pd.DataFrame) -> pd.Series:
    """Whether each interval leaves out 0: what the cell could have found is then no question any more."""
    return (differences["low"] > 0) | (differences["high"] < 0)


def at_largest(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of each pair's largest n_train."""
    identity = ["task", "task_params", *(f"{column}_{side}" for side in "ab" for column in CURVE[2:])]
    largest = differences.groupby(identity, sort=False)["n_train"].transform("max") == differences["n_train"]
    return differences[largest]


def pair_table(
    material: Material, name: str, caption: str, differences: pd.DataFrame, ours: Mapping[str, str] | None = None
) -> Table:
    """A frame like that of ``paired_differences``, at the largest n_train of each pair; ``ours`` are more columns."""
    shown = at_largest(differences)
    shown = shown.assign(**{name: shown[name].mask(found_one(shown)) for name in ("detectable", "has_power")})
    shown = shown.assign(a=material.named(shown, "_a"), b=material.named(shown, "_b"))
    same = (shown["backbone_a"] == shown["backbone_b"]).all()
    who = {"backbone_a": "backbone"} if same else {"a": "backbone a", "b": "backbone b"}
    headings = {"task_label": "task", **who, **(ours or {})}
    headings |= {
        "n_train": "n_train",
        "difference": "a − b [95 % interval]",
        "only_a": "only a right",
        "only_b": "only b right",
        "p_adjusted": "p (Holm)",
        "detectable": "detectable",
        "has_power": "power",
        "seeds": "seeds",
        "n_test": "test problems",
    }
    return table(name, caption, shown, headings, estimate="difference").of(differences)


def _part(shown: pd.DataFrame, pairs: pd.DataFrame) -> str:
    return f" ({len(shown):,} of {len(pairs):,} pairs; the files have all)" if len(shown) < len(pairs) else ""


def samples_text(row: dict[Any, Any]) -> str:
    """``24 [18, 31]``, ``> 100`` where it was never reached, ``≤ 3`` where it was at the smallest size."""
    low, high = float(row["low"]), float(row["high"])
    if row["censored"] == "right":
        return f"> {row['largest']:,}"
    if row["censored"] == "left":
        return f"≤ {row['smallest']:,}"
    ends = [
        f"< {row['smallest']:,}" if low < row["smallest"] else cell(round(low)),
        f"> {row['largest']:,}" if math.isinf(high) or high > row["largest"] else cell(round(high)),
    ]
    return f"{_count(row['samples'])} [{ends[0]}, {ends[1]}]"


def ratio_text(row: dict[Any, Any]) -> str:
    """``4.0 [2.1, 8.3]``; ``at least 3.2 [1.9, ∞]`` where one of the two never got there."""
    number = f"{row['ratio']:.2g}" if row["ratio"] < 10 else f"{row['ratio']:.0f}"
    low, high = (cell(float(row[name]), 1) for name in ("low", "high"))
    return f"{row['censored']} {number} [{low}, {high}]".strip()


def _count(samples: float) -> str:
    return f"{samples:.1f}" if samples < 10 else f"{samples:,.0f}"


def _curve_table(material: Material) -> Table:
    """Rows are curves, columns n_train; baselines that ignore the training set stand under ``any``."""
    curves = material.learnt
    sizes = sorted({int(size) for size in curves["n_train"]})
    columns = [Column("task", False), Column("backbone", False)]
    columns += [Column("any n_train" if size == 0 else f"n={size:,}", True) for size in sizes]
    rows = []
    for label, key, curve in material.groups:
        by_size = {int(row["n_train"]): _accuracy(row) for row in curve.to_dict("records")}
        name = material.names[label][key]
        rows.append([Cell(label, label), Cell(name, name), *(by_size.get(size, Cell("", "")) for size in sizes)])
    caption = "Exact match by n_train, with its 95 % interval"
    more = max(0, len(rows) - MOST_CURVE_ROWS)
    return Table("learning_curves", caption, columns, rows[:MOST_CURVE_ROWS], curves, "exact_match", more=more)


def _accuracy(row: dict[Any, Any]) -> Cell:
    if not row["done"]:
        return Cell("failed" if row["failed"] else "missing" if row["missing"] else "", "")
    of = row["done"] + row["failed"] + row["missing"]
    partial = f" ({row['done']} of {of})" if row["done"] < of else ""
    interval = f" [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] == row["low"] else ""
    return Cell(f"{row['exact_match']:.2f}{interval}{partial}", repr(float(row["exact_match"])))


def _curve_words(material: Material, label: str) -> str:
    """What the figure of one task shows, for people who do not see it; the table has all numbers."""
    parts = []
    for key, curve in ((key, curve) for task, key, curve in material.groups if task == label):
        finished = curve[curve["exact_match"].notna()].sort_values("n_train")
        if finished.empty:
            continue
        first, last = finished.iloc[0], finished.iloc[-1]
        start = f"{first['exact_match']:.2f}"
        if len(finished) == 1:
            parts.append(f"{material.names[label][key]} {start}")
        else:
            end = f"{last['exact_match']:.2f}"
            parts.append(
                f"{material.names[label][key]} from {start} at n={first['n_train']} to {end} at n={last['n_train']}"
            )
    return "Exact match against n_train: " + "; ".join(parts) + "."


def _sorted_by(made: Table, frame: pd.DataFrame, column: str, numbers: pd.Series) -> Table:
    """The table with the numbers behind a column of text as what it is sorted by."""
    heading = next(place for place, cells in enumerate(made.columns) if "[" in cells.heading)
    rows = [
        [*row[:heading], Cell(row[heading].text, str(number).replace("inf", "Infinity")), *row[heading + 1 :]]
        for row, number in zip(made.rows, numbers, strict=False)
    ]
    return replace(made, rows=rows)
