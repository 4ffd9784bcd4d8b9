"""ARC and ConceptARC by the official rules, and our cells beside the published ones."""

from __future__ import annotations

from functools import partial

import pandas as pd

from orchestrator.analysis.arc import arc_scores, concept_averages, concept_scores, solved_overlap
from orchestrator.analysis.published import compare_published
from orchestrator.report.figures_arc import arc_figure, concept_figure, concept_radar_figure, overlap_figure
from orchestrator.report.material import Material
from orchestrator.report.page_parts import Block, Figure, Section, extent_of, table
from orchestrator.report.sections_learning import MOST_CURVE_ROWS

IN_TABLE = "The table below has the numbers."


def arc(material: Material) -> Section | None:
    """Tasks solved, and who solves what."""
    scores = arc_scores(material.trials, material.predictions)
    if scores.empty:
        return None
    headings = {
        "dataset": "dataset",
        "curve": "backbone",
        "attempts": "attempts",
        "tasks_solved": "tasks solved",
        "num_tasks": "of",
        "share": "share [95 % interval]",
        "inputs_right": "inputs right",
        "num_inputs": "of inputs",
        "seeds": "seeds",
    }
    counts = {name: _whole(scores[name]) for name in ("tasks_solved", "inputs_right")}
    frame = scores.assign(curve=material.named(scores), **counts)
    made = table("arc_scores", "Tasks solved by number of attempts", frame, headings, estimate="share")
    blocks: list[Block] = [
        Figure("arc_scores", "Share of tasks solved", IN_TABLE, partial(arc_figure, scores)),
        made.of(scores),
    ]
    overlap = solved_overlap(material.trials, material.predictions)
    if len(overlap):
        pairs = overlap.assign(a=material.named(overlap, "_a"), b=material.named(overlap, "_b"))
        columns = {"dataset": "dataset", "a": "backbone a", "b": "backbone b", "only_a": "only a", "both": "both"}
        columns |= {"only_b": "only b", "neither": "neither", "num_tasks": "tasks"}
        blocks += [
            Figure("solved_overlap", "Tasks solved by either and both", IN_TABLE, partial(overlap_figure, overlap)),
            table("solved_overlap", "Overlap of the tasks solved", pairs, columns).of(overlap),
        ]
    unfinished = scores[scores["num_tasks"] < scores["num_expected"]]
    notes = ["Shares are of the tasks that have finished; of some models not all have."] if len(unfinished) else []
    return Section(
        "arc",
        "ARC",
        "A task counts as solved only if every one of its test inputs is answered rightly in one of the attempts.",
        blocks,
        extent=extent_of(scores),
        notes=notes,
    )


def concepts(material: Material) -> Section | None:
    """ConceptARC by concept."""
    scores = concept_scores(material.trials, material.predictions)
    if scores.empty:
        return None
    most = scores[scores["attempts"] == scores.groupby(["dataset", "backbone"])["attempts"].transform("max")]
    averages = concept_averages(scores)
    headings = {"concept": "concept", "curve": "backbone", "attempts": "attempts", "inputs_right": "inputs right"}
    headings |= {"num_inputs": "of", "share": "share [95 % interval]", "seeds": "seeds"}
    by_concept = table(
        "concept_scores",
        "Inputs answered rightly in any attempt, by concept",
        most.assign(curve=material.named(most)),
        headings,
        estimate="share",
        most_rows=MOST_CURVE_ROWS,
    )
    means = {"curve": "backbone", "attempts": "attempts", "share": "mean [95 % interval]", "concepts": "concepts"}
    named = averages.assign(curve=material.named(averages))
    return Section(
        "concepts",
        "ConceptARC",
        "An input counts as right if any of the attempts is; the average gives each concept the same weight.",
        [
            Figure(
                "concept_radar", "ConceptARC by concept", IN_TABLE, partial(concept_radar_figure, scores), narrow=True
            ),
            Figure("concepts", "ConceptARC by concept", IN_TABLE, partial(concept_figure, scores, averages)),
            table("concept_averages", "Average over concepts", named, means, estimate="share").of(averages),
            by_concept.of(scores),
        ],
        extent=extent_of(scores),
    )


def published(material: Material) -> Section | None:
    """Our cells beside the paper's, where they match."""
    compared = compare_published(material.trials, material.predictions)
    if compared.empty:
        return None
    frame = compared.assign(
        curve=material.named(compared),
        ours_text=[
            _with_interval(*row) for row in zip(*(compared[name] for name in ("ours", "low", "high")), strict=True)
        ],
        low=compared["difference_low"],
        high=compared["difference_high"],
    )
    headings = {
        "task_label": "task",
        "curve": "backbone",
        "n_train": "n_train",
        "metric": "metric",
        "attempts": "attempts",
        "ours_text": "ours",
        "published": "published",
        "difference": "ours − published [95 % interval]",
        "verdict": "verdict",
        "seeds": "seeds",
        "n_test": "test problems",
    }
    made = table("published", "Our cells beside the published ones", frame, headings, estimate="difference")
    counts = compared["verdict"].value_counts()
    words = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
    kinds = (
        ("deviations", "Where the recipe deviates from the stated one"),
        ("open_choices", "What the paper leaves open"),
    )
    notes = []
    for column, words_before in kinds:
        texts = dict.fromkeys(str(text) for listed in compared[column] for text in listed)
        notes += [f"{words_before}: {'; '.join(texts)}."] if texts else []
    return Section(
        "published",
        "Beside the published numbers",
        "Within says that the interval of the difference holds 0; about one cell in twenty is outside by chance alone.",
        [made.of(compared)],
        extent=extent_of(compared),
        sentences=[f"{len(compared):,} cells have a published counterpart: {words}."],
        notes=notes,
    )


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if pd.notna(low) else f"{value:.2f}"


def _whole(counts: pd.Series) -> pd.Series:
    """Counts as whole numbers, unless some are means over seeds."""
    return counts.astype("Int64") if (counts.dropna() % 1 == 0).all() else counts
