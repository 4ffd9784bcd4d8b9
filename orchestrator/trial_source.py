"""What a sweep runs: every cell of its grid, or what a search wants to know next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState


class TrialSource(Protocol):
    """Which trials a sweep runs, as results come in. Called from one thread."""

    def ready(self) -> list[TrialSpec]:
        """Trials that may start now and were not given out before. Asked again after every ``ended``."""

    def ended(self, trial: TrialSpec, state: TrialState, metrics: Mapping[str, float]) -> None:
        """A trial that was given out has its last row, of this run or of an earlier one.

        ``metrics`` are the scores of a ``done`` row (``exact_match``, ...), empty for a ``failed`` one.
        """

    def total(self) -> int:
        """How many trials it gives out at most, those that it has given out included."""


class Grid:
    """All trials at once, whatever their results are."""

    def __init__(self, trials: Sequence[TrialSpec]) -> None:
        self._trials = list(trials)
        self._given = False

    def ready(self) -> list[TrialSpec]:
        """Everything at the first call, nothing later."""
        if self._given:
            return []
        self._given = True
        return self._trials

    def ended(self, trial: TrialSpec, state: TrialState, metrics: Mapping[str, float]) -> None:
        """Changes nothing."""

    def total(self) -> int:
        """The number of trials."""
        return len(self._trials)
