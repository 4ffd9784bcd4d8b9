"""The results folder: rows written whole or not at all, read without duplicates, compacted under readers and writers.

Layout: ``<results>/{trials,predictions,losses}/*.parquet``, one small file a trial and table until ``compact`` merges
them. Local folders and object stores (``s3://``, ``gs://``) alike, through ``pyarrow.fs``. A file is never changed: it
appears complete (dot-named temporary file, then a rename; an object store's put is atomic by itself) and may disappear
once a compacted file that holds its rows is there. **A trial counts when its row in** ``trials`` **is there**, which is
written last. A file holds whole executions (``run_id``), so a duplicate is an execution that two files hold.
"""

from __future__ import annotations

import os
import threading
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from orchestrator.tables import SCHEMAS, TrialResult, TrialState, losses_table, predictions_table, trials_table

if TYPE_CHECKING:
    import pandas as pd

    from trainers.evaluate import Prediction
    from trainers.train import LossRow

COMPACTED = "compacted-"
"""Begins the name of a file that holds the rows of many trials."""
COMPACT_AT_ONCE = 2000
"""Small files that go into one compacted file at most; bounds the memory that compaction takes."""
STALE_TEMPORARY = timedelta(days=1)
"""A temporary file older than this belongs to a process that is dead; compaction removes it."""
READ_THREADS = 8
RANKED = ["trial_id", "run_id", "state", "finished_at"]
"""Columns of ``trials`` that decide which execution of a trial counts."""


@dataclass(frozen=True)
class TrialStatus:
    """What the tables say of one trial: how it ended, how often it was started, why it failed."""

    state: TrialState
    attempts: int
    error_kind: str | None


@dataclass(frozen=True)
class ResultsFolder:
    """The results folder on its file system; ``root`` is its path there."""

    uri: str
    fs: pyarrow.fs.FileSystem
    root: str

    @property
    def local(self) -> bool:
        """Whether it lies on this machine's own file system."""
        return isinstance(self.fs, pyarrow.fs.LocalFileSystem)

    def files(self, table: str) -> list[pyarrow.fs.FileInfo]:
        """Visible Parquet files of one table, by name; none where the folder is not there yet."""
        selector = pyarrow.fs.FileSelector(f"{self.root}/{table}", allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        found = [info for info in infos if info.base_name.endswith(".parquet") and not info.base_name.startswith(".")]
        return sorted(found, key=lambda info: info.base_name)


def absolute_uri(results_uri: str | Path) -> str:
    """The same place named so that it means the same in every process: local folders become absolute."""
    text = str(results_uri)
    return text if "://" in text else str(Path(text).expanduser().absolute())


def check_writable(results_uri: str | Path) -> None:
    """Create the folder if need be and write to it. ValueError of one line when that cannot be done."""
    folder = open_folder(results_uri)
    probe = f"{folder.root}/.writable-{uuid.uuid4().hex}"
    try:
        folder.fs.create_dir(folder.root, recursive=True)
        with folder.fs.open_output_stream(probe) as stream:
            stream.write(b"")
        folder.fs.delete_file(probe)
    except OSError as error:
        raise ValueError(f"results folder {folder.uri} cannot be written: {_reason(error)}") from None
    _list_all(folder)


def write(
    results_uri: str | Path,
    trial_result: TrialResult,
    predictions: Sequence[Prediction] = (),
    losses: Sequence[LossRow] = (),
) -> None:
    """Write one execution of a trial: predictions and losses first, the row that makes it count last."""
    folder = open_folder(results_uri)
    trial_id, run_id = trial_result.trial_id, trial_result.run_id
    name = f"{trial_id}-{run_id}.parquet"
    if predictions:
        _put(folder, "predictions", name, predictions_table(trial_id, run_id, predictions))
    if losses:
        _put(folder, "losses", name, losses_table(trial_id, run_id, losses))
    _put(folder, "trials", name, trials_table(trial_result))


def store_folder(results_uri: str | Path, name: str, source: Path) -> None:
    """Copy the files of the local folder ``source`` to ``<results>/<name>``, over what may be there."""
    folder = open_folder(results_uri)
    target = f"{folder.root}/{name}"
    folder.fs.create_dir(target, recursive=True)
    pyarrow.fs.copy_files(str(source), target, pyarrow.fs.LocalFileSystem(), folder.fs)


def ending_of_run(results_uri: str | Path, trial_id: str, run_id: str) -> tuple[TrialState, str | None] | None:
    """How one execution ended by the row it wrote, with its error's kind and last line; None when it wrote none."""
    folder = open_folder(results_uri)
    info = folder.fs.get_file_info(f"{folder.root}/trials/{trial_id}-{run_id}.parquet")
    if info.type == pyarrow.fs.FileType.NotFound:
        return None
    content = _read_file(folder, info, columns=["trial_id", "run_id", "state", "error_kind", "error"])
    if content is None:
        return None
    row = content.to_pylist()[0]
    detail = f"{row['error_kind']}: {row['error'].splitlines()[-1]}" if row["error"] else None
    return TrialState(row["state"]), detail


def finished(results_uri: str | Path) -> set[str]:
    """Ids of the trials that have a ``done`` row. Empty where the folder is not there yet."""
    return {key for key, status in trial_states(results_uri).items() if status.state == TrialState.DONE}


def trial_states(results_uri: str | Path) -> dict[str, TrialStatus]:
    """What the tables say of every trial that has a row; ``done`` beats ``failed``, then the newest row counts."""
    columns = [*RANKED, "attempts", "error_kind"]
    table = _read(open_folder(results_uri), "trials", columns=columns)
    return {
        row["trial_id"]: TrialStatus(TrialState(row["state"]), row["attempts"] or 1, row["error_kind"])
        for row in _winning(table)
    }


def read_trials(results_uri: str | Path, trial_ids: Collection[str] | None = None) -> pd.DataFrame:
    """The ``trials`` table: one row a trial, failed ones included; ``trial_ids`` keeps only those."""
    table = _read(open_folder(results_uri), "trials")
    rows = _winning(table.select(RANKED))
    runs = [row["run_id"] for row in rows if trial_ids is None or row["trial_id"] in trial_ids]
    return _to_pandas(_of_runs(table, runs))


def read_predictions(
    results_uri: str | Path, columns: Sequence[str] | None = None, trial_ids: Collection[str] | None = None
) -> pd.DataFrame:
    """The ``predictions`` of finished trials, one row a (trial, problem, attempt); grids are nested lists."""
    return _read_rows_of_runs("predictions", results_uri, columns, trial_ids)


def read_losses(
    results_uri: str | Path, columns: Sequence[str] | None = None, trial_ids: Collection[str] | None = None
) -> pd.DataFrame:
    """The ``losses`` of finished trials, one row a (trial, step)."""
    return _read_rows_of_runs("losses", results_uri, columns, trial_ids)


def compact(results_uri: str | Path, at_least: int = 2) -> dict[str, int]:
    """Merge the small files of each table that has ``at_least`` so many; returns how many were merged, by table.

    Safe at any moment against readers, writers, another compaction and SIGKILL: the merged file is there before the
    small ones go, and readers drop what they see twice. Files that cannot be read stay where they are.
    """
    folder = open_folder(results_uri)
    losing_runs = _losing_runs(folder)
    merged = {}
    for table in ("predictions", "losses", "trials"):  # trials last: its rows say which executions lost
        small = [info for info in _list(folder, table) if not info.base_name.startswith(COMPACTED)]
        merged[table] = 0
        if len(small) < at_least:
            continue
        for start in range(0, len(small), COMPACT_AT_ONCE):
            merged[table] += _merge(folder, table, small[start : start + COMPACT_AT_ONCE], losing_runs)
        _remove_stale_temporaries(folder, table)
    return merged


def _merge(folder: ResultsFolder, table: str, infos: list[pyarrow.fs.FileInfo], losing_runs: set[str]) -> int:
    read: list[tuple[str, pa.Table]] = []
    for info in infos:
        try:
            content = _read_file(folder, info, columns=None)
        except FileNotFoundError:
            continue  # another compaction was faster
        if content is not None:
            read.append((info.path, content))
    if len(read) < 2:
        return 0
    whole = _unite(table, [content for _, content in read])
    if losing_runs:
        whole = _of_runs(whole, set(whole["run_id"].to_pylist()) - losing_runs)
    if whole.num_rows:
        _put(folder, table, f"{COMPACTED}{uuid.uuid4().hex}.parquet", whole.sort_by("trial_id"))
    for path, _ in read:
        try:
            folder.fs.delete_file(path)
        except FileNotFoundError:
            continue
    return len(read)


def _losing_runs(folder: ResultsFolder) -> set[str]:
    """Executions whose row lost to a better or newer one of the same trial; they can never win again."""
    table = _read(folder, "trials", columns=RANKED)
    return set(table["run_id"].to_pylist()) - {row["run_id"] for row in _winning(table)}


def _remove_stale_temporaries(folder: ResultsFolder, table: str) -> None:
    selector = pyarrow.fs.FileSelector(f"{folder.root}/{table}", allow_not_found=True)
    for info in folder.fs.get_file_info(selector):
        old = info.mtime is not None and datetime.now(UTC) - info.mtime > STALE_TEMPORARY
        if info.base_name.startswith(".") and info.base_name.endswith(".tmp") and old:
            folder.fs.delete_file(info.path)


# --- writing


def _put(folder: ResultsFolder, table: str, name: str, content: pa.Table) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(content, buffer, compression="zstd")
    put_bytes(folder, f"{folder.root}/{table}", name, buffer.getvalue())


def put_bytes(folder: ResultsFolder, directory: str, name: str, data: bytes | pa.Buffer) -> None:
    """Write ``<directory>/<name>`` so that it is there whole or not at all, over one that is there."""
    if not folder.local:
        with folder.fs.open_output_stream(f"{directory}/{name}") as stream:
            stream.write(data)
        return
    os.makedirs(directory, exist_ok=True)
    temporary = f"{directory}/.{name}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a machine that loses power could leave a renamed file without its bytes
        os.replace(temporary, f"{directory}/{name}")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# --- reading


def open_folder(results_uri: str | Path) -> ResultsFolder:
    """The folder that a path or URI names, there or not. ValueError when it is a file or pyarrow cannot open it."""
    uri = absolute_uri(results_uri)
    if "://" not in uri:
        if Path(uri).is_file():
            raise ValueError(f"results folder {uri} cannot be used: it is a file")
        return ResultsFolder(uri, pyarrow.fs.LocalFileSystem(), uri.rstrip("/") or "/")
    try:
        fs, root = pyarrow.fs.FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"results {uri!r} cannot be opened: {_reason(error)}") from None
    return ResultsFolder(uri, fs, root.rstrip("/"))


def _list(folder: ResultsFolder, table: str) -> list[pyarrow.fs.FileInfo]:
    try:
        return folder.files(table)
    except OSError as error:
        raise ValueError(f"results folder {folder.uri} cannot be read: {_reason(error)}") from None


def _list_all(folder: ResultsFolder) -> None:
    for table in SCHEMAS:
        _list(folder, table)


def _read(
    folder: ResultsFolder, table: str, columns: Sequence[str] | None = None, runs: Collection[str] | None = None
) -> pa.Table:
    """All rows of one table (of the executions ``runs``), each execution once."""
    while True:
        infos = _list(folder, table)
        try:
            contents = _in_threads(lambda info: _read_file(folder, info, columns), infos)
            break
        except FileNotFoundError:
            continue  # a compaction merged a file between listing and reading: its rows are in a file listed anew
    seen: set[str] = set()
    kept = []
    for content in contents:
        if content is None:
            continue
        here = set(pc.unique(content["run_id"]).to_pylist())
        wanted = (here if runs is None else here & set(runs)) - seen
        seen |= wanted
        if wanted != here:
            content = _of_runs(content, wanted)
        kept.append(content)
    return _unite(table, kept, columns)


def _of_runs(content: pa.Table, runs: Collection[str]) -> pa.Table:
    """The rows of the executions ``runs``."""
    return content.filter(pc.is_in(content["run_id"], value_set=pa.array(list(runs), pa.string())))


def _read_file(folder: ResultsFolder, info: pyarrow.fs.FileInfo, columns: Sequence[str] | None) -> pa.Table | None:
    """One file's rows; None, with a warning, when it is no Parquet file of ours. FileNotFoundError passes through."""
    try:
        with folder.fs.open_input_file(info.path) as source, pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            if not {"trial_id", "run_id"} <= set(names):
                raise pa.ArrowInvalid("it lacks the columns trial_id and run_id")
            return file.read(columns=None if columns is None else [name for name in columns if name in names])
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        warnings.warn(f"{info.path} is skipped: {_reason(error)}", stacklevel=2)
        return None


def _read_rows_of_runs(
    table: str, results_uri: str | Path, columns: Sequence[str] | None, trial_ids: Collection[str] | None
) -> pd.DataFrame:
    folder = open_folder(results_uri)
    runs = {
        row["run_id"]
        for row in _winning(_read(folder, "trials", columns=RANKED))
        if row["state"] == TrialState.DONE and (trial_ids is None or row["trial_id"] in trial_ids)
    }
    needed = None if columns is None else list(dict.fromkeys([*columns, "run_id", "trial_id"]))
    content = _read(folder, table, columns=needed, runs=runs)
    return _to_pandas(content if columns is None else content.select(list(columns)))


def _winning(trials: pa.Table) -> list[dict[str, Any]]:
    """One row a trial: ``done`` beats ``failed``, then the newest, then the larger run_id."""
    column = trials.column_names.index("finished_at")
    microseconds = trials["finished_at"].cast(pa.int64())  # as times they would make pyarrow import pandas: a second
    best: dict[str, tuple[tuple[bool, int, str], dict[str, Any]]] = {}
    for row in trials.set_column(column, "finished_at", microseconds).to_pylist():
        rank = (row["state"] == TrialState.DONE, row["finished_at"] or 0, row["run_id"])
        if row["trial_id"] not in best or rank > best[row["trial_id"]][0]:
            best[row["trial_id"]] = (rank, row)
    return [row for _, row in best.values()]


def _unite(table: str, contents: Iterable[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
    """Put tables that differ in their task's own columns into one; columns that a file lacks are null."""
    schema = SCHEMAS[table]
    if columns is not None:
        schema = pa.schema([field for field in schema if field.name in columns])
    nothing = pa.Table.from_batches([], pa.schema([field.with_nullable(True) for field in schema]))
    relaxed = [
        content.cast(pa.schema([field.with_nullable(True) for field in content.schema])).replace_schema_metadata(None)
        for content in contents
    ]
    return pa.concat_tables([nothing, *relaxed], promote_options="permissive")


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """Pandas with its nullable types where an integer or a truth value is missing, so that neither becomes a float."""
    import pandas as pd

    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame = table.to_pandas()
    for name in table.column_names:
        column = table[name]
        if column.null_count and column.type in nullable:
            frame[name] = column.to_pandas(types_mapper=nullable.get).array
    return frame


def _in_threads(read: Callable[[Any], pa.Table | None], items: Sequence[Any]) -> list[pa.Table | None]:
    if len(items) < 2:
        return [read(item) for item in items]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(read, items))


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
