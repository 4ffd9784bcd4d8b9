"""The sections of the page, in their order; one that the data do not have is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from orchestrator.report import provenance
from orchestrator.report.material import Material
from orchestrator.report.page_parts import Section, counted
from orchestrator.report.sections_arc import arc, concepts, published
from orchestrator.report.sections_effects import paths, pretraining, ranks, recipes, references, repeats, seeds
from orchestrator.report.sections_learning import efficiency, headline, learning, pairs, thresholds

_IN_ORDER: Sequence[Callable[[Material], Section | None]] = (
    headline,
    learning,
    thresholds,
    efficiency,
    pairs,
    references,
    pretraining,
    ranks,
    seeds,
    recipes,
    arc,
    concepts,
    published,
    paths,
    repeats,
)


def sections(material: Material) -> Iterator[Section]:
    """All sections but the gallery and the provenance, which come last; one at a time, as each takes its time."""
    for make in _IN_ORDER:
        section = make(material)
        if section is not None:
            yield section
    for section in (provenance.failures(material.trials), provenance.costs(material.trials)):
        if section is not None:
            yield section


def scope(trials: pd.DataFrame) -> str:
    """``7 backbones and 3 baselines on 30 tasks; n_train from 3 to 5,000; 200 test problems; 1 seed.``"""
    baseline = trials["family"] == "baseline"
    trained = trials[~baseline]
    who = [
        counted(rows["backbone"].nunique(), noun)
        for rows, noun in ((trained, "backbone"), (trials[baseline], "baseline"))
        if len(rows)
    ]
    num_tasks = len(trials[["task", "task_params"]].drop_duplicates())
    parts = [f"{' and '.join(who)} on {counted(num_tasks, 'task')}"]
    sizes = trained.loc[trained["n_train"] > 0, "n_train"]
    if len(sizes):
        parts.append(f"n_train {_range(sizes)}")
    parts.append(f"{_range(trials['n_test'])} test problems a task")
    if len(trained):
        parts.append(counted(trained["seed"].nunique(), "training seed"))
    return "; ".join(parts) + "."


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
