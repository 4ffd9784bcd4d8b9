"""Which trials a sweep runs: every cell, or what its ``search`` wants to know next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator import results
from orchestrator.search_plan import ROW_COLUMNS
from orchestrator.specs import SweepSpec, TrialSpec
from orchestrator.threshold import ThresholdSearch
from orchestrator.trial_source import Grid, TrialSource

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


def source_of(sweep: SweepSpec, cells: Sequence[TrialSpec], max_running: int | None = None) -> TrialSource:
    """The source of a sweep's trials.

    Args:
        sweep: says whether, and how, it searches.
        cells: its cells, as ``expand`` gives them.
        max_running: as many trials as there is room for at once, as far as is known.
    """
    search = sweep.search
    if search is None:
        return Grid(cells)
    if search.threshold is not None:
        return ThresholdSearch(cells, search.threshold, max_running=max_running)
    assert search.optuna is not None
    from orchestrator.sweep.optuna_search import OptunaTrials  # optuna: only where it is asked for

    rows = results.load_trials(sweep.results_uri, columns=ROW_COLUMNS)
    return OptunaTrials(cells, search.optuna, rows.to_dict("records"))  # type: ignore[arg-type]


def scheduler_of(sweep: SweepSpec, source: TrialSource) -> TrialScheduler | None:
    """What decides which trials go on at their rungs; None: all run to their end."""
    optuna = sweep.search.optuna if sweep.search else None
    if optuna is None or optuna.asha is None:
        return None
    from orchestrator.sweep.asha import StudyAsha
    from orchestrator.sweep.optuna_search import OptunaTrials

    assert isinstance(source, OptunaTrials), "asha is a key of optuna"
    return StudyAsha(optuna.asha, optuna.metric, optuna.mode, source.study_of)
