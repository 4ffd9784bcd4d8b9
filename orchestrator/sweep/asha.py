"""Ray Tune's ASHA (Li et al., 2020), which compares each trial with the trials of its own study alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from orchestrator.pruning import VALIDATION
from orchestrator.search_entries import AshaEntry
from orchestrator.specs import TrialSpec

ROUNDING = 1e-9
"""Tune computes its rungs by powers, we ours by products: what we report lies just above."""


class StudyAsha(FIFOScheduler):
    """One of Tune's ``ASHAScheduler`` for each study: scores on another task, or another size, say nothing.

    Time is the share of a trial's own steps, so that trials of unlike length are compared.

    Args:
        entry: the rungs.
        metric: the score of the search, which is read of validation problems.
        mode: ``max`` or ``min``.
        study_of: the study that a trial belongs to; None: it is never stopped.
    """

    _supports_buffered_results = False

    def __init__(self, entry: AshaEntry, metric: str, mode: str, study_of: Callable[[TrialSpec], int | None]) -> None:
        super().__init__()
        self._entry, self._score, self._mode, self._study_of = entry, f"{VALIDATION}{metric}", mode, study_of
        self._of_study: dict[int, ASHAScheduler] = {}
        self._of_trial: dict[str, ASHAScheduler] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is about to start."""
        study = self._study_of(trial.config["work"].chunk.assignments[0].spec)
        if study is None:
            return
        if study not in self._of_study:
            self._of_study[study] = ASHAScheduler(
                time_attr="share",
                metric=self._score,
                mode=self._mode,
                max_t=1.0,  # type: ignore[arg-type]  # a share; Tune only compares and divides it
                grace_period=self._entry.grace_period,  # type: ignore[arg-type]
                reduction_factor=self._entry.reduction_factor,
            )
        self._of_trial[trial.trial_id] = self._of_study[study]
        self._of_trial[trial.trial_id].on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial that is at a rung goes on."""
        asha = self._of_trial.get(trial.trial_id)
        score = result.get(f"metrics/{self._score}")
        if asha is None or "rung" not in result or score is None:
            return TrialScheduler.CONTINUE
        seen = {"share": result["share"] * (1 + ROUNDING), self._score: score}
        return asha.on_trial_result(tune_controller, trial, seen)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial has ended: its rungs keep what it scored there."""
        self._of_trial.pop(trial.trial_id, None)
