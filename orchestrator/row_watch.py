"""The ``trials`` table as it grows: reads it once, then only the rows that are new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import results

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("trial_id", "sweep", "state", "backbone", "task", "task_params", "seed", "n_train", "n_test", "lora_rank"),
    *("recipe", "train_steps", "train_s", "eval_s", "load_s", "encode_s", "device", "num_workers"),
    *("error_kind", "attempts", "started_at", "finished_at", "exact_match"),
]
"""What plans and estimates are made of."""


class RowWatch:
    """One row a trial, the one that counts, with ``COLUMNS`` and ``error``."""

    def __init__(self, results_uri: str) -> None:
        """Reads nothing yet. ValueError when the folder cannot be opened."""
        self._uri = results_uri
        self._states = results.TrialStates(results_uri)
        self._rows: pd.DataFrame | None = None

    def refresh(self) -> bool:
        """Read what is new; whether anything was, or this is the first time."""
        changed = self._states.refresh()
        if self._rows is not None and not changed:
            return False
        rows = results.load_trials(self._uri, [*COLUMNS, "error"], changed)
        if self._rows is not None:
            import pandas as pd

            kept = self._rows.loc[[trial_id not in changed for trial_id in self._rows["trial_id"]]]
            rows = pd.concat([table for table in (kept, rows) if len(table)] or [rows], ignore_index=True)
        self._rows = rows
        return True

    def frame(self) -> pd.DataFrame:
        """The rows as they were at the last ``refresh``."""
        assert self._rows is not None, "refresh() comes first"
        return self._rows

    def states(self) -> dict[str, results.TrialStatus]:
        """What the rows say of every trial that has one."""
        return self._states.statuses
