"""One Parquet file of a table: encoded, checked, read by column and trial.

Compacted files are sorted by trial, and a row group of theirs holds whole executions, so that the statistics of
``trial_id`` say which row groups a reader of some trials needs. A small file is named after its one execution.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from orchestrator.results.folder import ResultsFolder, is_compacted, reason
from orchestrator.tables import SCHEMAS

KEYS = ("trial_id", "run_id")
ROWS_PER_GROUP = 2000
"""Rows of a row group of a compacted file, at least; fewer would make footers large, more would make filters coarse."""
VIDEOS_PER_GROUP = 100
"""As ``ROWS_PER_GROUP``; a row of ``videos`` takes kilobytes, and whoever looks at some of them wants few."""
READ_WHOLE_BYTES = 1 << 20
"""A file up to this size is read in one go."""
READ_THREADS = 8
EXECUTION_NAME = re.compile(r"(?P<trial_id>.+)-[0-9a-f]{16}\.parquet")
KEY = pa.dictionary(pa.int32(), pa.string())
OWN_SCORE = pa.float64()
"""Type of a column that only some tasks have."""
TYPES = {
    table: {field.name: KEY if field.name in KEYS else field.type for field in schema}
    for table, schema in SCHEMAS.items()
}
AS_WRITTEN = {
    table: pa.schema([field.with_type(TYPES[table][field.name]) for field in schema])
    for table, schema in SCHEMAS.items()
}


class DamagedError(Exception):
    """A file that is no table of ours: truncated, garbage, or with other columns. The text says what is wrong."""


def execution_name(trial_id: str, run_id: str) -> str:
    """Name of the file that holds one execution's rows."""
    return f"{trial_id}-{run_id}.parquet"


def encode_execution(table: pa.Table) -> pa.Buffer:
    """The Parquet file of one execution.

    Of a single row most of a file would be statistics, dictionaries and a second copy of the schema; without them it
    is written and opened in half the time.
    """
    sink = pa.BufferOutputStream()
    single = table.num_rows == 1
    pq.write_table(
        table,
        sink,
        compression="none" if single else "zstd",
        use_dictionary=not single,
        write_statistics=False,
        store_schema=not single,
        write_page_checksum=True,
    )
    return sink.getvalue()


def rows_per_group(table: str) -> int:
    """Rows of a row group of a compacted file of the table, at least."""
    return VIDEOS_PER_GROUP if table == "videos" else ROWS_PER_GROUP


def encode_executions(whole: pa.Table, lengths: Sequence[int], group_rows: int | None = None) -> pa.Buffer:
    """The Parquet file of many executions, whose rows follow each other; equal input gives equal bytes.

    Args:
        whole: their rows.
        lengths: how many rows each has.
        group_rows: rows of a row group, at least; None for ``ROWS_PER_GROUP``.
    """
    group_rows = ROWS_PER_GROUP if group_rows is None else group_rows
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, whole.schema, compression="zstd", write_page_checksum=True) as writer:
        start = rows = 0
        for length in lengths:
            rows += length
            if rows >= group_rows:
                writer.write_table(whole.slice(start, rows), row_group_size=rows)
                start, rows = start + rows, 0
        if rows:
            writer.write_table(whole.slice(start, rows), row_group_size=rows)
    return sink.getvalue()


def may_hold(info: pyarrow.fs.FileInfo, trial_ids: Collection[str] | None) -> bool:
    """Whether the file's name leaves it possible that it holds rows of one of the trials (None: of any)."""
    named = None if is_compacted(info) else EXECUTION_NAME.fullmatch(info.base_name)
    return trial_ids is None or named is None or named["trial_id"] in trial_ids


def read_file(
    folder: ResultsFolder,
    table: str,
    info: pyarrow.fs.FileInfo,
    columns: Collection[str] | None = None,
    trial_ids: Sequence[str] | None = None,
) -> pa.Table:
    """Rows of one file as ``SCHEMAS[table]`` has them; ``trial_id`` and ``run_id`` always, as dictionaries.

    Args:
        folder: where it lies.
        table: whose file it is.
        info: which file.
        columns: read these, as far as the file has them; None for all.
        trial_ids: sorted; row groups that hold none of these are left out. Others' rows may come along.

    Raises:
        FileNotFoundError: it is gone (a compaction merged it).
        ValueError: this user may not read it.
        OSError: the file system failed; the file may be as it should.
        DamagedError: it is no table of ours.
    """
    try:
        if info.size is not None and info.size <= READ_WHOLE_BYTES:
            return _parse(pa.BufferReader(_content(folder, info)), table, columns, trial_ids)
        try:
            with folder.fs.open_input_file(info.path) as source:
                return _parse(source, table, columns, trial_ids)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException):
            # The file or the way to it? pyarrow raises the same errors for a broken page and a broken connection.
            content = _content(folder, info)
        return _parse(pa.BufferReader(content), table, columns, trial_ids)
    except PermissionError as error:
        raise ValueError(f"results file {info.path} cannot be read: {reason(error)}") from None


def _content(folder: ResultsFolder, info: pyarrow.fs.FileInfo) -> pa.Buffer:
    if folder.local:
        with open(info.path, "rb") as file:
            return pa.py_buffer(file.read())
    with folder.fs.open_input_file(info.path) as source:
        return source.read_buffer()


def _parse(
    source: pa.NativeFile, table: str, columns: Collection[str] | None, trial_ids: Sequence[str] | None
) -> pa.Table:
    in_memory = isinstance(source, pa.BufferReader)
    try:
        with pq.ParquetFile(source, read_dictionary=list(KEYS), page_checksum_verification=True) as file:
            present = file.schema_arrow.names
            lacking = [field.name for field in SCHEMAS[table] if not field.nullable and field.name not in present]
            if lacking:
                raise DamagedError(f"it lacks the columns {', '.join(lacking)}")
            wanted = present if columns is None else [name for name in present if name in columns or name in KEYS]
            if trial_ids is None or file.num_row_groups == 1:
                content = file.read(columns=wanted, use_threads=not in_memory)
            else:
                groups = _groups_with(file.metadata, present.index("trial_id"), trial_ids)
                content = file.read_row_groups(groups, columns=wanted, use_threads=not in_memory)
            return _normalized(table, content)
    except KeyError as error:  # what ParquetFile raises where a column that is to be a dictionary is none of the file's
        name = error.args[0]
        raise DamagedError(f"it lacks the column {name.decode() if isinstance(name, bytes) else name}") from None
    except (OSError, pa.ArrowException) as error:
        if in_memory:
            raise DamagedError(reason(error)) from None
        raise


def _groups_with(metadata: pq.FileMetaData, column: int, trial_ids: Sequence[str]) -> list[int]:
    """Row groups that may hold one of the sorted ``trial_ids``; flat columns come first, so an index is a position."""
    groups = []
    for index in range(metadata.num_row_groups):
        statistics = metadata.row_group(index).column(column).statistics
        if statistics is not None and statistics.has_min_max:
            first = bisect_left(trial_ids, statistics.min)
            if first == len(trial_ids) or trial_ids[first] > statistics.max:
                continue
        groups.append(index)
    return groups


def _normalized(table: str, content: pa.Table) -> pa.Table:
    """The table with the types of our schema; a task's own scores are float64. Arrow's error where that cannot be."""
    if content.schema.equals(AS_WRITTEN[table]):
        return content
    arrays, fields = [], []
    for name, column in zip(content.column_names, content.columns, strict=True):
        expected = TYPES[table].get(name, OWN_SCORE)
        arrays.append(column if column.type == expected else column.cast(expected))
        fields.append(pa.field(name, expected))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def unite(table: str, contents: Iterable[pa.Table], columns: Collection[str] | None = None) -> pa.Table:
    """Normalized tables in one, with all of the schema's columns (of ``columns``); what a file lacks is null."""
    types = {name: kind for name, kind in TYPES[table].items() if columns is None or name in columns}
    nothing = pa.schema(list(types.items())).empty_table()
    whole = pa.concat_tables([nothing, *contents], promote_options="default")
    for name in KEYS:
        whole = whole.set_column(whole.column_names.index(name), name, whole[name].cast(pa.string()))
    return whole


def of_each(folder: ResultsFolder, read: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """``read`` of every item, in order; several at once where files are far away.

    Of files on this machine it would take twice the processor time and no less of the clock: opening a small Parquet
    file is work for the interpreter, not for the disk (measured with 500 files and four threads).
    """
    if folder.local or len(items) < 2:
        return [read(item) for item in items]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(read, items))


def of_runs(content: pa.Table, runs: Collection[str]) -> pa.Table:
    """The rows of the executions ``runs``."""
    run_ids = content["run_id"].cast(pa.string())
    mask = pc.is_in(run_ids, value_set=pa.array(sorted(runs), pa.string()))
    return content if pc.all(mask, min_count=0).as_py() else content.filter(mask)
