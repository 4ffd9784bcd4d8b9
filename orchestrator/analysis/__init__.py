"""From tables to findings: pandas in, pandas out.

    from orchestrator import analysis
    study = analysis.load("results/quickstart")          # or several folders, or sweeps' YAMLs
    analysis.learning_curves(*study)
    analysis.samples_to_threshold(*study, accuracy=0.9)

Every function takes the ``trials`` table (``results.load_trials``) and, where it says so, the ``predictions`` table
with at least ``PREDICTION_COLUMNS`` (or ``Outcomes.of`` it, made once for many calls), and returns a new frame. A trial
counts when its state is ``done``. ``low`` and ``high`` are 95 % limits, the same for the same tables.
"""

from orchestrator.analysis.arc import arc_scores, concept_averages, concept_scores, solved_overlap
from orchestrator.analysis.baselines import path_scores, reference_scores, training_repeats
from orchestrator.analysis.curves import (
    CURVE,
    MAX_VARIANTS,
    MISSING,
    areas_under_curve,
    learning_curves,
    variants_label,
    with_missing,
)
from orchestrator.analysis.effects import pretraining_effects, rank_effects, recipe_effects, seed_effects
from orchestrator.analysis.findings import Finding, findings
from orchestrator.analysis.intervals import NORMAL_95, clustered_interval, seeds_interval, wilson_interval
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.paired import paired_differences
from orchestrator.analysis.published import compare_published
from orchestrator.analysis.published_table import published, published_curve, published_name
from orchestrator.analysis.study import PREDICTION_COLUMNS, Study, load
from orchestrator.analysis.thresholds import efficiency_ratios, samples_to_threshold

__all__ = [
    "CURVE",
    "MAX_VARIANTS",
    "MISSING",
    "NORMAL_95",
    "PREDICTION_COLUMNS",
    "Finding",
    "Outcomes",
    "Study",
    "arc_scores",
    "areas_under_curve",
    "clustered_interval",
    "compare_published",
    "concept_averages",
    "concept_scores",
    "efficiency_ratios",
    "findings",
    "learning_curves",
    "load",
    "paired_differences",
    "path_scores",
    "pretraining_effects",
    "published",
    "published_curve",
    "published_name",
    "rank_effects",
    "recipe_effects",
    "reference_scores",
    "samples_to_threshold",
    "seed_effects",
    "seeds_interval",
    "solved_overlap",
    "training_repeats",
    "variants_label",
    "wilson_interval",
    "with_missing",
]
