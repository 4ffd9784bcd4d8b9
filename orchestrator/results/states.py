"""What the tables say of every trial: which execution counts, how it ended, and what is new since one last looked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs

from orchestrator.results import folder as folders
from orchestrator.results.files import DamagedError, of_each, read_file
from orchestrator.tables import TrialState

RANK = {TrialState.FAILED: 0, TrialState.PRUNED: 1, TrialState.DONE: 2}
"""Which of two executions of one trial counts, whatever the clocks of their machines said: the larger."""
RANKED = ("trial_id", "run_id", "state", "finished_at", "attempts", "error_kind")
"""Columns of ``trials`` that an ``Ending`` is made of."""


@dataclass(frozen=True)
class TrialStatus:
    """What the tables say of one trial: how it ended, how often it was started, why it failed."""

    state: TrialState
    attempts: int
    error_kind: str | None


class Ending(NamedTuple):
    """One execution's row in ``trials``; of two of one trial the larger ``rank`` counts."""

    trial_id: str
    run_id: str
    rank: tuple[int, int, str]
    status: TrialStatus


@dataclass
class _File:
    size: int | None
    mtime_ns: int | None
    endings: list[Ending] = field(default_factory=list)

    def is_still(self, info: pyarrow.fs.FileInfo) -> bool:
        return self.size == info.size and self.mtime_ns == info.mtime_ns


class TrialStates:
    """The endings of all trials in a results folder, kept up to date by reading only files that are new.

    A file counts as known by its path, size and time of change. Not for several threads at once.
    """

    def __init__(self, results_uri: str | Path, set_aside_damaged: bool = False) -> None:
        """Reads nothing yet.

        Args:
            results_uri: the folder, there or not.
            set_aside_damaged: move files that are no tables into ``trials/.damaged`` instead of skipping them.
        """
        self._folder = folders.open_folder(results_uri)
        self._set_aside_damaged = set_aside_damaged
        self._files: dict[str, _File] = {}
        self._best: dict[str, Ending] = {}

    @property
    def statuses(self) -> dict[str, TrialStatus]:
        """By trial id; ``done`` beats ``pruned`` beats ``failed``, then the newest row counts."""
        return {trial_id: ending.status for trial_id, ending in self._best.items()}

    def status(self, trial_id: str) -> TrialStatus | None:
        """Of one trial; None where it has no row."""
        ending = self._best.get(trial_id)
        return ending and ending.status

    def counting(self) -> dict[str, Ending]:
        """The execution of each trial that counts, by trial id."""
        return dict(self._best)

    def losing_runs(self) -> set[str]:
        """Executions that lost to a better or newer one of the same trial; they can never count again."""
        return {ending.run_id for ending in self._all()} - {ending.run_id for ending in self._best.values()}

    def refresh(self) -> set[str]:
        """Read what is new; the ids of trials whose status is another than before (or whose row is new, or gone).

        DamagedError files are skipped and reported once, as a warning.

        Raises:
            ValueError: the folder cannot be read.
            OSError: the file system failed.
        """
        while True:
            infos = {info.path: info for info in self._folder.files("trials")}
            new = [i for path, i in infos.items() if path not in self._files or not self._files[path].is_still(i)]
            read = of_each(self._folder, self._read, new)
            added = {info.path: file for info, file in zip(new, read, strict=True) if file is not None}
            if len(added) == len(new):
                break  # else a compaction merged a file between listing and reading: its rows are in a new file
            self._files |= {path: file for path, file in added.items() if path not in self._files}
        before = self._best
        lost = [path for path in self._files if path not in infos or path in added]
        for path in lost:
            del self._files[path]
        self._files |= added
        known = self._all() if lost else before.values()
        self._best = best_endings(chain(known, *(file.endings for file in added.values())))
        changed = {i for i, ending in self._best.items() if i not in before or before[i].status != ending.status}
        return changed | (before.keys() - self._best.keys())

    def _all(self) -> Iterator[Ending]:
        return (ending for file in self._files.values() for ending in file.endings)

    def _read(self, info: pyarrow.fs.FileInfo) -> _File | None:
        """One file; without endings when it is damaged, None when it is gone."""
        try:
            endings = endings_in(read_file(self._folder, "trials", info, RANKED))
        except FileNotFoundError:
            return None
        except DamagedError as damage:
            endings = []
            if self._set_aside_damaged:
                folders.set_aside(self._folder, info.path, str(damage))
            else:
                warnings.warn(f"{info.path} is skipped: {damage}", stacklevel=2)
        return _File(info.size, info.mtime_ns, endings)


def trial_states(results_uri: str | Path) -> dict[str, TrialStatus]:
    """What the tables say of every trial that has a row, as ``TrialStates`` that is asked once."""
    states = TrialStates(results_uri)
    states.refresh()
    return states.statuses


def finished(results_uri: str | Path) -> set[str]:
    """Ids of the trials that have a ``done`` row. Empty where the folder is not there yet."""
    return {key for key, status in trial_states(results_uri).items() if status.state == TrialState.DONE}


def best_endings(endings: Iterable[Ending]) -> dict[str, Ending]:
    """The one that counts of each trial: ``done``, then ``pruned``, then the newest, then the larger ``run_id``."""
    best: dict[str, Ending] = {}
    for ending in endings:
        if ending.trial_id not in best or ending.rank > best[ending.trial_id].rank:
            best[ending.trial_id] = ending
    return best


def endings_in(trials: pa.Table) -> list[Ending]:
    """Of rows of ``trials`` with the columns ``RANKED``. ``DamagedError`` where a row's state is none."""
    lists = []
    for name in RANKED:
        column = trials[name] if name in trials.column_names else pa.nulls(trials.num_rows)
        as_integers = name == "finished_at"  # times would make pyarrow import pandas: a second
        lists.append((column.cast(pa.int64()) if as_integers else column).to_pylist())
    endings = []
    for trial_id, run_id, state, finished_at, attempts, error_kind in zip(*lists, strict=True):
        if state not in RANK:
            raise DamagedError(f"a row's state is {state!r}, expected one of {', '.join(RANK)}")
        rank = (RANK[state], finished_at or 0, run_id)
        endings.append(Ending(trial_id, run_id, rank, TrialStatus(TrialState(state), attempts or 1, error_kind)))
    return endings
