"""What a search has found so far, read from the tables: without Ray, and without running anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.search_plan import Point, studies, tried_points
from orchestrator.tables import TrialState
from orchestrator.threshold import ThresholdSearch
from orchestrator.trial_spec import TrialSpec

if TYPE_CHECKING:
    from orchestrator.specs import SweepSpec

THRESHOLD_COLUMNS = ("trial_id", "state", "exact_match")


@dataclass(frozen=True)
class BestPoint:
    """The best point of one study."""

    cell: TrialSpec
    """One of the study's cells: its backbone, task, n_train, and what else is not varied."""
    point: Point
    score: float
    """Mean over the seeds that are done."""
    seeds: tuple[int, ...]
    """Those seeds."""
    num_points: int
    """Points of which all seeds have ended."""
    num_samples: int

    def line(self, metric: str) -> str:
        """``causal_lm/tiny life n=3 r=4: exact_match 0.42 (2 seeds) with learning_rate=0.0003, best of 7 of 20``."""
        cell = self.cell
        axes = [f"n={cell.n_train}"] if cell.n_train else []
        axes += [f"r={cell.lora_rank}"] if cell.lora_rank and "lora_rank" not in self.point else []
        values = ", ".join(f"{name}={value}" for name, value in self.point.items())
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) != 1)}"
        study = " ".join([cell.backbone, cell.task.label(), *axes])
        counts = f"best of {self.num_points} of {self.num_samples} points"
        return f"{study}: {metric} {self.score:.3f} ({seeds}) with {values}, {counts}"


def best_points(sweep: SweepSpec, cells: Sequence[TrialSpec], rows: Sequence[Mapping[str, Any]]) -> list[BestPoint]:
    """The best point of each study of which all seeds have ended and one is done; without those that have none.

    A point one of whose seeds was pruned is none: what it scored is of other problems.

    Args:
        sweep: says what is varied, and by which score.
        cells: its cells, as ``expand`` gives them.
        rows: rows of ``trials`` with ``ROW_COLUMNS``, ``state`` and the score.
    """
    entry = sweep.search.optuna if sweep.search else None
    if entry is None:
        return []
    found, _ = studies(entry, cells)
    by_id = {row["trial_id"]: row for row in rows}
    best = []
    for study, points in zip(found, tried_points(found, rows), strict=True):
        candidates = []
        num_points = 0
        for point in points:
            ended = {trial.seed: by_id.get(trial.trial_id) for trial in study.trials(point)}
            num_points += None not in ended.values()
            if any(row is None or row["state"] == "pruned" for row in ended.values()):
                continue
            scores = {seed: row.get(entry.metric) for seed, row in ended.items() if row and row["state"] == "done"}
            known = {seed: score for seed, score in scores.items() if score is not None and not math.isnan(score)}
            if known:
                candidates.append((math.fsum(known.values()) / len(known), point, tuple(known)))
        if candidates:
            score, point, seeds = (max if entry.mode == "max" else min)(candidates, key=lambda each: each[0])
            best.append(BestPoint(study.cells[0], point, score, seeds, num_points, study.num_samples))
    return best


@dataclass(frozen=True)
class ThresholdProgress:
    """Where a threshold search stands."""

    search: ThresholdSearch
    """Told of every row there is."""
    wanted: tuple[TrialSpec, ...]
    """What it wants to know next; empty: it has ended."""
    trials: tuple[TrialSpec, ...]
    """The sweep's cells that have a row, and those that may still be asked for. Repeats are not among them."""


def threshold_progress(
    sweep: SweepSpec, cells: Sequence[TrialSpec], rows: Iterable[Mapping[str, Any]]
) -> ThresholdProgress:
    """Where the sweep's ``search: threshold`` stands by ``rows`` of ``trials`` with ``THRESHOLD_COLUMNS``."""
    entry = sweep.search.threshold if sweep.search else None
    assert entry is not None, "only for sweeps that search a threshold"
    known = {row["trial_id"]: (TrialState(row["state"]), row["exact_match"]) for row in rows}
    search = ThresholdSearch(cells, entry)

    def tell(trial: TrialSpec) -> None:
        state, exact_match = known[trial.trial_id]
        search.ended(trial, state, {"exact_match": exact_match} if state == TrialState.DONE else {})

    for trial in cells:
        if trial.trial_id in known:
            tell(trial)
    wanted: list[TrialSpec] = []
    while given := search.ready():  # a repeat, say, that has a row too
        wanted += [trial for trial in given if trial.trial_id not in known]
        for trial in given:
            if trial.trial_id in known:
                tell(trial)
    undecided = {
        (finding.backbone, finding.task, finding.seed, finding.lora_rank, finding.recipe): finding
        for finding in search.findings()
        if finding.state == "open"
    }
    trials = []
    for trial in cells:
        finding = undecided.get((trial.backbone, trial.task.label(), trial.seed, trial.lora_rank, trial.recipe_json()))
        is_open = finding is not None and (finding.largest_below or -1) < trial.n_train
        if finding is not None and finding.n_train is not None:
            is_open = is_open and trial.n_train < finding.n_train
        if trial.trial_id in known or is_open:
            trials.append(trial)
    return ThresholdProgress(search, tuple(wanted), tuple(trials))
