"""Which test problems each trial got right, as arrays: what intervals and paired comparisons are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd


class Outcomes(Mapping[str, npt.NDArray[np.float64]]):
    """``outcomes[trial_id]``: a trial's score on each test problem, (n_test,), by the problem's ``index``.

    For a yes-or-no score (``exact_match``, ``valid_solution``) 1.0 if any attempt has it, else 0.0; for another score
    the mean over attempts, not-a-number where no attempt has it. All trials of one task (``task`` and ``task_params``)
    answer the same problems in the same order, whatever their backbone, seed or n_train, so that arrays of such trials
    compare element by element; a trial with a smaller ``n_test`` has the first of them.
    """

    def __init__(self, by_trial: Mapping[str, npt.NDArray[np.float64]]) -> None:
        self._by_trial = dict(by_trial)

    @classmethod
    def of(cls, predictions: pd.DataFrame, score: str = "exact_match") -> Outcomes:
        """From the columns ``trial_id``, ``index`` and ``score`` (and nothing else) of the ``predictions`` table.

        A trial whose predictions are not whole (an index is missing) is left out.
        """
        if predictions.empty:
            return cls({})
        trial_codes, trial_ids = pd.factorize(predictions["trial_id"])
        index = predictions["index"].to_numpy(np.int64)
        column = predictions[score]
        if column.dtype == object:  # yes, no, or nothing
            known = column.dropna()
            column = column.astype("boolean" if len(known) and isinstance(known.iloc[0], bool) else "Float64")
        is_flag = str(column.dtype) in ("bool", "boolean")
        values = column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        order = np.lexsort((index, trial_codes))
        trial_codes, index, values = trial_codes[order], index[order], values[order]
        starts = np.flatnonzero(np.r_[True, (trial_codes[1:] != trial_codes[:-1]) | (index[1:] != index[:-1])])
        if is_flag:
            per_problem = np.fmax.reduceat(values, starts)
        else:
            counted = ~np.isnan(values)
            counts = np.add.reduceat(counted.astype(np.float64), starts)
            sums = np.add.reduceat(np.where(counted, values, 0.0), starts)
            per_problem = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
        trial_codes, index = trial_codes[starts], index[starts]
        bounds = np.flatnonzero(np.r_[True, trial_codes[1:] != trial_codes[:-1], True])
        by_trial = {}
        for start, end in pairwise(bounds):
            if index[start] == 0 and index[end - 1] == end - start - 1:
                by_trial[str(trial_ids[trial_codes[start]])] = per_problem[start:end]
        return cls(by_trial)

    def __getitem__(self, trial_id: str) -> npt.NDArray[np.float64]:
        return self._by_trial[trial_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_trial)

    def __len__(self) -> int:
        return len(self._by_trial)

    def stacked(self, trial_ids: Iterable[str]) -> npt.NDArray[np.float64]:
        """(S, N): a row for each of ``trial_ids`` that is known, of the first N problems that all of them answered."""
        rows: Sequence[npt.NDArray[np.float64]] = [self[trial] for trial in trial_ids if trial in self]
        shortest = min((len(row) for row in rows), default=0)
        return np.array([row[:shortest] for row in rows], dtype=np.float64).reshape(len(rows), shortest)
