"""Merging small files into larger ones, while others read and write.

Safe at any moment against readers, writers, another compaction and SIGKILL: the merged file is there before the files
it replaces go, and readers drop what they see twice. A merged file is named after its content, so two compactions that
do the same work write the same file.

Files grow in tiers of their size in memory: ``FAN_IN`` files of one tier become one of the next, so a row is written
once a tier and never again once its file is full. Memory stays within a few times ``FULL_BYTES``.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from orchestrator.results import folder as folders
from orchestrator.results.files import (
    READ_WHOLE_BYTES,
    DamagedError,
    encode_executions,
    of_each,
    of_runs,
    read_file,
    rows_per_group,
    unite,
)
from orchestrator.results.folder import COMPACTED, ResultsFolder, is_compacted, set_aside
from orchestrator.results.states import TrialStates
from orchestrator.tables import SCHEMAS

FULL_BYTES = 192 << 20
"""A file whose rows take this much in memory is never merged again."""
FAN_IN = 4
TIERS = 3
"""Tiers below full: a file of tier t takes at most FULL_BYTES / FAN_IN ** (TIERS - 1 - t)."""
READ_AT_ONCE = 256
"""Small files read together; bounds what a merge holds beyond ``FULL_BYTES``."""
TIERED_NAME = re.compile(re.escape(COMPACTED) + r"(\d)-[0-9a-f]+\.parquet")


def compact(results_uri: str | Path, at_least: int = 2) -> dict[str, int]:
    """Merge the small files of each table that has ``at_least`` so many; returns how many were merged, by table.

    Compacted files that are not full are merged as well once there are ``FAN_IN`` of a size. DamagedError files are set
    aside in ``<table>/.damaged``, with a warning. Rows of executions that lost to a better or newer one of the same
    trial are dropped.

    Raises:
        ValueError: the folder cannot be read.
        OSError: the file system failed (a full disk, ...); no row is lost, and the next compaction goes on.
    """
    folder = folders.open_folder(results_uri)
    states = TrialStates(results_uri, set_aside_damaged=True)
    states.refresh()
    losing_runs = states.losing_runs()
    merged = {}
    for table in ("predictions", "losses", "videos", "trials"):  # trials last: its rows say which executions lost
        small = [info for info in folder.files(table) if not is_compacted(info)]
        merged[table] = 0
        if len(small) >= at_least:
            merged[table] = _merge(folder, table, small, losing_runs)
        _merge_tiers(folder, table, losing_runs)
        folders.remove_stale_temporaries(folder, table)
    return merged


def set_aside_damaged(results_uri: str | Path) -> list[str]:
    """Move the files of all tables that are no tables of ours into ``<table>/.damaged``; their new paths.

    Looks at the end of every file, where Parquet says what it holds, and at all of a small one.
    """
    folder = folders.open_folder(results_uri)
    moved = []
    for table in SCHEMAS:
        for info in folder.files(table):
            try:
                read_file(folder, table, info, None if (info.size or 0) <= READ_WHOLE_BYTES else ("trial_id",))
            except DamagedError as damage:
                moved.append(set_aside(folder, info.path, str(damage)))
            except FileNotFoundError:
                continue
    return [path for path in moved if path is not None]


def _merge_tiers(folder: ResultsFolder, table: str, losing_runs: set[str]) -> None:
    for tier in range(TIERS):
        infos = [info for info in folder.files(table) if _tier_of(info) == tier]
        if len(infos) >= FAN_IN:
            _merge(folder, table, infos, losing_runs)


def _tier(size_bytes: int) -> int:
    """Tier of a file whose rows take ``size_bytes`` in memory; ``TIERS`` for one that is full."""
    return next((t for t in range(TIERS) if size_bytes < FULL_BYTES // FAN_IN ** (TIERS - 1 - t)), TIERS)


def _tier_of(info: pyarrow.fs.FileInfo) -> int | None:
    if not is_compacted(info):
        return None
    named = TIERED_NAME.fullmatch(info.base_name)
    return int(named[1]) if named else TIERS


def _merge(folder: ResultsFolder, table: str, infos: Sequence[pyarrow.fs.FileInfo], losing_runs: set[str]) -> int:
    """Merge the files, into several where they are more than one may hold; how many were merged."""
    count = 0
    contents: list[pa.Table] = []
    seen: set[str] = set()
    paths: list[str] = []
    size_bytes = 0
    for start in range(0, len(infos), READ_AT_ONCE):
        batch = infos[start : start + READ_AT_ONCE]
        for info, content in zip(batch, of_each(folder, lambda info: _read(folder, table, info), batch), strict=True):
            if content is None:
                continue
            paths.append(info.path)
            size_bytes += content.nbytes
            here = set(pc.unique(content["run_id"]).to_pylist())
            kept = here - losing_runs - seen
            seen |= kept
            if kept:
                contents.append(content if kept == here else of_runs(content, kept))
            if size_bytes >= FULL_BYTES:
                count += _replace(folder, table, paths, contents)
                contents, seen, paths, size_bytes = [], set(), [], 0
        if len(contents) > 1:  # a table of few rows and many columns takes far more room than its values
            together = pa.concat_tables(contents, promote_options="default")
            contents = [together.unify_dictionaries().combine_chunks()]
    return count + _replace(folder, table, paths, contents)


def _read(folder: ResultsFolder, table: str, info: pyarrow.fs.FileInfo) -> pa.Table | None:
    try:
        return read_file(folder, table, info)
    except FileNotFoundError:
        return None  # another compaction was faster
    except DamagedError as damage:
        set_aside(folder, info.path, str(damage))
        return None


def _replace(folder: ResultsFolder, table: str, paths: Sequence[str], contents: Sequence[pa.Table]) -> int:
    """Write the rows as one file, execution by execution, then remove the files at ``paths`` that they are from."""
    if len(paths) < 2:
        return 0
    directory = f"{folder.root}/{table}"
    target = None
    if contents:
        united = unite(table, contents)
        keys = pa.table(
            [united["trial_id"], united["run_id"], pa.array(range(united.num_rows))], ["trial", "run", "row"]
        )
        order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
        united = united.take(order)
        lengths = pc.run_end_encode(united["run_id"].cast(pa.string()).combine_chunks()).run_ends.to_numpy()
        data = encode_executions(united, np.diff(lengths, prepend=0).tolist(), rows_per_group(table))
        digest = hashlib.sha256(data).hexdigest()[:24]
        name = f"{COMPACTED}{_tier(united.nbytes)}-{digest}.parquet"
        target = f"{directory}/{name}"
        folders.put_bytes(folder, directory, name, data)
        folders.sync_directory(folder, directory)
    folders.put_bytes(folder, directory, folders.EPOCH, uuid.uuid4().hex.encode())
    for path in paths:
        if path != target:
            with suppress(FileNotFoundError):
                folder.fs.delete_file(path)
    return len(paths)
