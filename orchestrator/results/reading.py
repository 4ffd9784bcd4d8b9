"""The tables as pandas frames: every trial once, and of one trial the rows of the execution that counts."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results import folder as folders
from orchestrator.results.files import KEYS, DamagedError, may_hold, of_each, of_runs, read_file, unite
from orchestrator.results.folder import ResultsFolder, is_compacted
from orchestrator.results.frames import order_of, to_pandas
from orchestrator.results.states import RANKED, TrialStates, best_endings, endings_in
from orchestrator.tables import TrialState

if TYPE_CHECKING:
    import pandas as pd

WITH_ROWS = (TrialState.DONE, TrialState.PRUNED)
"""How a trial ended that has predictions and losses."""


def load_trials(
    results_uri: str | Path, columns: Sequence[str] | None = None, trial_ids: Iterable[str] | None = None
) -> pd.DataFrame:
    """The ``trials`` table: one row a trial, failed ones included, sorted by ``trial_id``.

    Args:
        results_uri: the results folder, there or not.
        columns: these columns, in this order; None for all. ``orchestrator.tables.MEANINGS`` says what they are.
        trial_ids: only these trials; a list, a set, a pandas column ... None for all.

    Raises:
        ValueError: the folder cannot be read, or there is no such column.
        OSError: the file system failed.
    """
    folder = folders.open_folder(results_uri)
    wanted = _wanted(trial_ids)
    content = _read(folder, "trials", None if columns is None else {*columns, *RANKED}, wanted)
    best = best_endings(endings_in(content))
    runs = [ending.run_id for ending in best.values() if wanted is None or ending.trial_id in wanted]
    return _frame("trials", of_runs(content, runs), columns)


def load_predictions(
    results_uri: str | Path, columns: Sequence[str] | None = None, trial_ids: Iterable[str] | None = None
) -> pd.DataFrame:
    """The ``predictions`` of trials that are done (or pruned), one row a (trial, problem, attempt), by ``trial_id``.

    ``question``, ``answer`` and ``predicted`` are 2-D int8 arrays, ``predicted`` None where nothing could be read. In
    a folder of thousands of trials name the columns or the trials that you need: grids take most of the time.

    Args and errors as ``load_trials``.
    """
    return _load_rows("predictions", results_uri, columns, trial_ids)


def load_losses(
    results_uri: str | Path, columns: Sequence[str] | None = None, trial_ids: Iterable[str] | None = None
) -> pd.DataFrame:
    """The ``losses`` of trials that are done (or pruned), one row a (trial, step), by ``trial_id``.

    Args and errors as ``load_trials``.
    """
    return _load_rows("losses", results_uri, columns, trial_ids)


def load_videos(
    results_uri: str | Path, columns: Sequence[str] | None = None, trial_ids: Iterable[str] | None = None
) -> pd.DataFrame:
    """The ``videos`` that are kept of trials that are done, one row a (trial, problem, attempt), by ``trial_id``.

    ``strip`` holds the bytes of a WebP picture, ``num_frames`` frames side by side. Empty where no trial kept any. In a
    folder of thousands of trials name the columns or the trials that you need: strips take most of the time.

    Args and errors as ``load_trials``.
    """
    return _load_rows("videos", results_uri, columns, trial_ids)


def ending_of_run(results_uri: str | Path, trial_id: str, run_id: str) -> tuple[TrialState, str | None] | None:
    """How one execution ended by the row it wrote, with its error's kind and last line; None when it wrote none."""
    folder = folders.open_folder(results_uri)
    rows = _read(folder, "trials", {"state", "error_kind", "error"}, {trial_id})
    for row in rows.filter(pc.equal(rows["run_id"], run_id)).to_pylist():
        detail = f"{row['error_kind']}: {row['error'].splitlines()[-1]}" if row["error"] else None
        return TrialState(row["state"]), detail
    return None


def _load_rows(
    table: str, results_uri: str | Path, columns: Sequence[str] | None, trial_ids: Iterable[str] | None
) -> pd.DataFrame:
    folder = folders.open_folder(results_uri)
    wanted = _wanted(trial_ids)
    states = TrialStates(results_uri)
    states.refresh()
    while True:
        runs = {
            ending.run_id: trial_id
            for trial_id, ending in states.counting().items()
            if ending.status.state in WITH_ROWS and (wanted is None or trial_id in wanted)
        }
        needed = None if columns is None else set(columns)
        content = of_runs(_read(folder, table, needed, None if wanted is None else set(runs.values())), runs)
        states.refresh()
        still = states.counting()
        if all(trial_id in still and still[trial_id].run_id == run_id for run_id, trial_id in runs.items()):
            return _frame(table, content, columns)
        # a better execution of a trial came while we read, and a compaction may have dropped the rows we came for


def _wanted(trial_ids: Iterable[str] | None) -> set[str] | None:
    if isinstance(trial_ids, str):
        raise ValueError(f"trial_ids: expected several ids, such as [{trial_ids!r}], got the text {trial_ids!r}")
    return None if trial_ids is None else set(trial_ids)


def _read(
    folder: ResultsFolder, table: str, columns: Collection[str] | None, trial_ids: Collection[str] | None
) -> pa.Table:
    """Every execution once; those of ``trial_ids`` at least. DamagedError files are skipped with a warning."""
    trials = None if trial_ids is None else sorted(trial_ids)
    contents: dict[str, pa.Table | None] = {}

    def read(path: str) -> bool:
        try:
            contents[path] = read_file(folder, table, infos[path], columns, trials)
        except FileNotFoundError:
            return False
        except DamagedError as damage:
            warnings.warn(f"{path} is skipped: {damage}", stacklevel=2)
            contents[path] = None
        return True

    while True:
        infos = {info.path: info for info in folder.files(table) if may_hold(info, trial_ids)}
        new = [info for path, info in infos.items() if path not in contents]
        large = [info.path for info in new if is_compacted(info)]  # pyarrow reads the columns of one in threads
        small = [info.path for info in new if not is_compacted(info)]
        if all([read(path) for path in large] + of_each(folder, read, small)):
            break  # else a compaction merged a file between listing and reading: its rows are in a file listed anew
    kept = []
    seen: set[str] = set()
    for path in sorted(contents):
        content = contents[path]
        if content is None or not content.num_rows:
            continue
        here = set(pc.unique(content["run_id"]).to_pylist())
        if here & seen:
            content = of_runs(content, here - seen)
        seen |= here
        kept.append(content)
    return unite(table, kept, None if columns is None else {*columns, *KEYS})


def _frame(table: str, content: pa.Table, columns: Sequence[str] | None) -> pd.DataFrame:
    unknown = [name for name in columns or () if name not in content.column_names]
    if unknown:
        raise ValueError(f"columns: {table} has no {', '.join(map(repr, unknown))}")
    order = order_of(content["trial_id"])
    frame = to_pandas(content if columns is None else content.select(list(columns)))
    if order is None:
        return frame
    return frame.take(np.asarray(order)).reset_index(drop=True)
