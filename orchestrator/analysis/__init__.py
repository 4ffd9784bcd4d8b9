"""From tables to findings: pandas in, pandas out.

    from orchestrator import analysis
    study = analysis.load("results/quickstart")          # or several folders, or sweeps' YAMLs
    analysis.learning_curves(*study)
    analysis.samples_to_threshold(*study, accuracy=0.9)

Every function takes the ``trials`` table (``results.load_trials``) and, where it says so, the ``predictions`` table
with at least ``PREDICTION_COLUMNS``, and returns a new frame. A trial counts when its state is ``done``.
"""

from orchestrator.analysis.curves import CURVE, MAX_VARIANTS, MISSING, learning_curves, variants_label, with_missing
from orchestrator.analysis.intervals import NORMAL_95, wilson_interval
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.study import PREDICTION_COLUMNS, Study, load

__all__ = [
    "CURVE",
    "MAX_VARIANTS",
    "MISSING",
    "NORMAL_95",
    "PREDICTION_COLUMNS",
    "Outcomes",
    "Study",
    "learning_curves",
    "load",
    "variants_label",
    "wilson_interval",
    "with_missing",
]
