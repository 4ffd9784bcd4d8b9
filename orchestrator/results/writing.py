"""Putting the rows of one execution into the results folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from orchestrator.results import folder as folders
from orchestrator.results.files import encode_execution, execution_name
from orchestrator.tables import TrialResult, losses_table, predictions_table, trials_table, videos_table

if TYPE_CHECKING:
    from trainers.evaluate import Prediction
    from trainers.train import LossRow


def write(
    results_uri: str | Path,
    trial_result: TrialResult,
    predictions: Sequence[Prediction] = (),
    losses: Sequence[LossRow] = (),
) -> None:
    """Write one execution of a trial: predictions, losses and videos first, the row that makes it count last.

    The videos are those that predictions carry; without any there is no file of them.

    Raises:
        OSError: the file system failed (a full disk, ...). Rows that were there are as they were, and nothing that
            counts has been added.
    """
    folder = folders.open_folder(results_uri)
    trial_id, run_id = trial_result.trial_id, trial_result.run_id
    tables: dict[str, pa.Table] = {}
    if predictions:
        tables["predictions"] = predictions_table(trial_id, run_id, predictions)
    if losses:
        tables["losses"] = losses_table(trial_id, run_id, losses)
    if any(prediction.video is not None for prediction in predictions):
        tables["videos"] = videos_table(trial_id, run_id, predictions)
    tables["trials"] = trials_table(trial_result)
    name, written = execution_name(trial_id, run_id), []
    try:
        for table, content in tables.items():
            folders.put_bytes(folder, f"{folder.root}/{table}", name, encode_execution(content))
            written.append(f"{folder.root}/{table}/{name}")
    except OSError:
        for path in written:  # rows of an execution that never counts would only take room on a disk that is full
            with suppress(OSError):
                folder.fs.delete_file(path)
        raise
