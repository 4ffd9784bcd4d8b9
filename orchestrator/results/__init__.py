"""The results folder: rows written whole or not at all, read without duplicates, compacted under readers and writers.

Layout: ``<results>/{trials,predictions,losses,videos}/*.parquet``, one small file a trial and table (``videos`` only
where there are any) until ``compact`` merges them. Local folders and object stores (``s3://``, ``gs://``) alike,
through ``pyarrow.fs``. A file is never changed: it appears complete (dot-named temporary file, then a rename; an object
store's put is atomic by itself) and may disappear once a compacted file that holds its rows is there. **A trial counts
when its row in** ``trials`` **is there**, which is written last. A file holds whole executions (``run_id``), so a
duplicate is an execution that two files hold.
"""

from orchestrator.results.compaction import compact, set_aside_damaged
from orchestrator.results.folder import (
    ResultsFolder,
    absolute_uri,
    check_writable,
    open_folder,
    put_bytes,
    store_folder,
)
from orchestrator.results.reading import ending_of_run, load_losses, load_predictions, load_trials, load_videos
from orchestrator.results.states import TrialStates, TrialStatus, finished, trial_states
from orchestrator.results.writing import write

__all__ = [
    "ResultsFolder",
    "TrialStates",
    "TrialStatus",
    "absolute_uri",
    "check_writable",
    "compact",
    "ending_of_run",
    "finished",
    "load_losses",
    "load_predictions",
    "load_trials",
    "load_videos",
    "open_folder",
    "put_bytes",
    "set_aside_damaged",
    "store_folder",
    "trial_states",
    "write",
]
