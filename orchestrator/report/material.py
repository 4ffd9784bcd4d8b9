"""What all sections are made from: the tables, and what several of them need, worked out once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from orchestrator.analysis import CURVE, Outcomes, Study
from orchestrator.analysis.curves import learning_curves
from orchestrator.analysis.findings import Finding, findings_of, is_given
from orchestrator.analysis.thresholds import efficiency_ratios, samples_to_threshold
from orchestrator.report.looks import Curve, curve_names, curves_of

TASK = CURVE[:2]


@dataclass(frozen=True)
class Material:
    """The study, and what is asked of it."""

    trials: pd.DataFrame
    predictions: pd.DataFrame
    outcomes: Outcomes
    accuracy: float
    """Exact match that samples are counted to."""

    @classmethod
    def of(cls, study: Study, accuracy: float = 0.9) -> Material:
        """Of a study, as ``analysis.load`` gives it. ValueError for an ``accuracy`` that is none."""
        if not 0 < accuracy <= 1:
            raise ValueError(f"accuracy: expected a share above 0 and up to 1, got {accuracy}")
        return cls(study.trials, study.predictions, Outcomes.of(study.predictions), accuracy)

    @cached_property
    def findings(self) -> list[Finding]:
        """``findings`` of the study."""
        return findings_of(
            self.trials,
            self.outcomes,
            curves=self.curves,
            samples=self.samples,
            ratios=self.ratios,
            accuracy=self.accuracy,
        )

    @cached_property
    def curves(self) -> pd.DataFrame:
        """``learning_curves`` of the study."""
        return learning_curves(self.trials, self.outcomes)

    @cached_property
    def learnt(self) -> pd.DataFrame:
        """``curves`` but for those of tasks that bring their own training sets (ARC): they have one point each, over
        all their variants, and sections of their own."""
        return self.curves[~is_given(self.curves)]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """``samples_to_threshold`` of the study."""
        return samples_to_threshold(self.trials, self.outcomes, accuracy=self.accuracy)

    @cached_property
    def ratios(self) -> pd.DataFrame:
        """``efficiency_ratios`` of the study."""
        return efficiency_ratios(self.trials, self.outcomes, accuracy=self.accuracy)

    @cached_property
    def groups(self) -> list[tuple[str, Curve, pd.DataFrame]]:
        """(task_label, curve, its rows of ``learnt``), task by task, trained backbones first."""
        by_task = self.learnt.groupby("task_label", sort=False)
        return [(str(label), key, rows) for label, of_task in by_task for key, rows in curves_of(of_task)]

    @cached_property
    def names(self) -> dict[str, dict[Curve, str]]:
        """What each curve of a task (by its label) is called: with rank and recipe only where they tell apart there, as
        recipes may differ from task to task."""
        return {str(label): curve_names(rows) for label, rows in self.curves.groupby("task_label", sort=False)}

    @cached_property
    def commonest(self) -> set[tuple[str, str, str, int, str]]:
        """The values of ``CURVE`` with the most trials of each task and backbone; of equals the first."""
        counts = self.trials.groupby(CURVE, sort=False).size().reset_index(name="trials")
        first = counts.sort_values("trials", ascending=False, kind="stable").drop_duplicates(
            ["task", "task_params", "backbone"]
        )
        return set(first[CURVE].itertuples(index=False, name=None))

    def few_pairs(self, pairs: pd.DataFrame, most: int) -> pd.DataFrame:
        """Rows of a frame of pairs (``backbone_a`` ...) that a figure has room for: all where there are at most
        ``most``, else those of the first backbone with each other one, at the commonest rank and recipe of both."""
        if len(pairs) <= most:
            return pairs
        common = [
            [
                key in self.commonest
                for key in pairs[[name if name in TASK else name + side for name in CURVE]].itertuples(
                    index=False, name=None
                )
            ]
            for side in ("_a", "_b")
        ]
        first = next((str(name) for name in self.trials.loc[self.trials["family"] == "video", "backbone"]), "")
        first = first or str(pairs["backbone_a"].iloc[0])
        of_first = (pairs["backbone_a"] == first) | (pairs["backbone_b"] == first)
        return pairs[of_first.to_numpy(bool) & np.all(common, axis=0)]

    def named(self, frame: pd.DataFrame, side: str = "") -> list[str]:
        """The name of the curve of each row, from ``backbone``, ``lora_rank`` and ``recipe`` (with ``side`` behind)."""
        labels = frame["task_label"] if "task_label" in frame.columns else [""] * len(frame)
        keys = zip(labels, *(frame[name + side] for name in CURVE[len(TASK) :]), strict=True)
        return [
            self.names.get(str(label), {}).get((str(backbone), int(rank), str(recipe)), str(backbone))
            for label, backbone, rank, recipe in keys
        ]
