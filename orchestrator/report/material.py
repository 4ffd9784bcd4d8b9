"""What all sections are made from: the tables, and what several of them need, worked out once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from orchestrator.analysis import Outcomes
from orchestrator.analysis.curves import learning_curves
from orchestrator.analysis.thresholds import efficiency_ratios, samples_to_threshold
from orchestrator.report.looks import Curve, curve_names, curves_of


@dataclass(frozen=True)
class Material:
    """The study, and what is asked of it."""

    trials: pd.DataFrame
    predictions: pd.DataFrame
    outcomes: Outcomes
    accuracy: float
    """Exact match that samples are counted to."""

    @cached_property
    def curves(self) -> pd.DataFrame:
        """``learning_curves`` of the study."""
        return learning_curves(self.trials, self.outcomes)

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
        """(task_label, curve, its rows of ``curves``), task by task, trained backbones first."""
        by_task = self.curves.groupby("task_label", sort=False)
        return [(str(label), key, rows) for label, of_task in by_task for key, rows in curves_of(of_task)]

    @cached_property
    def names(self) -> dict[Curve, str]:
        """What each curve is called, everywhere the same."""
        return curve_names(self.curves)

    @cached_property
    def commonest(self) -> set[Curve]:
        """Of each backbone the rank and recipe that it has most trials of; of equals the first."""
        which = ["backbone", "lora_rank", "recipe"]
        counts = self.trials.groupby(which, sort=False).size().reset_index(name="trials")
        first = counts.sort_values("trials", ascending=False, kind="stable").drop_duplicates("backbone")
        return {(str(row[0]), int(row[1]), str(row[2])) for row in first[which].itertuples(index=False)}

    def few_pairs(self, pairs: pd.DataFrame, most: int) -> pd.DataFrame:
        """Rows of a frame of pairs (``backbone_a`` ...) that a figure has room for: all where there are at most
        ``most``, else those of the first backbone with each other one, at the commonest rank and recipe of both."""
        if len(pairs) <= most:
            return pairs
        which = ("backbone", "lora_rank", "recipe")
        a, b = (zip(*(pairs[f"{name}_{side}"] for name in which), strict=True) for side in "ab")
        common = [one in self.commonest and other in self.commonest for one, other in zip(a, b, strict=True)]
        first = str(pairs["backbone_a"].iloc[0])
        of_first = (pairs["backbone_a"] == first) | (pairs["backbone_b"] == first)
        return pairs[of_first.to_numpy(bool) & np.array(common)]

    def named(self, frame: pd.DataFrame, side: str = "") -> list[str]:
        """The name of the curve of each row, from ``backbone``, ``lora_rank`` and ``recipe`` (with ``side`` behind)."""
        keys = zip(*(frame[name + side] for name in ("backbone", "lora_rank", "recipe")), strict=True)
        return [self.names.get((str(key[0]), int(key[1]), str(key[2])), str(key[0])) for key in keys]
