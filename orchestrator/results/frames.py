"""Arrow tables as pandas people expect them: nullable integers, grids as arrays, rows in one order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types

from orchestrator.tables import GRID

if TYPE_CHECKING:
    import pandas as pd

ObjectArray = npt.NDArray[np.object_]


def to_pandas(content: pa.Table) -> pd.DataFrame:
    """Pandas with its nullable types where an integer or a truth value is missing, so that neither becomes a float.

    A column of grids holds 2-D int8 arrays that cannot be written to, and None where a grid is missing.
    """
    import pandas as pd

    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    series: dict[str, Any] = {}
    for name, column in zip(content.column_names, content.columns, strict=True):
        if column.type == GRID:
            series[name] = pd.Series(grids(column), dtype=object)
        elif column.null_count and column.type in nullable:
            series[name] = column.to_pandas(types_mapper=nullable.get)
        else:
            series[name] = column.to_pandas()
    return pd.DataFrame(series, copy=False)


def grids(column: pa.ChunkedArray) -> ObjectArray:
    """Each nested list as a 2-D int8 array, a view of the column's own memory; None where it is null.

    Nested arrays, as pyarrow gives them, would be one Python object a row of a grid: 18 million for 2 million grids of
    9 rows. A list whose rows differ in length stays nested.
    """
    found = [_grids_of_chunk(chunk) for chunk in column.chunks]
    return np.concatenate(found) if found else np.empty(0, dtype=object)


def _grids_of_chunk(chunk: pa.ListArray) -> ObjectArray:
    result = np.full(len(chunk), None, dtype=object)
    valid = np.flatnonzero(chunk.is_valid().to_numpy(zero_copy_only=False))
    present = chunk.drop_null() if len(valid) < len(chunk) else chunk
    if not len(present):
        return result
    rows = present.flatten()
    values = rows.flatten().to_numpy(zero_copy_only=False)
    row_ends = np.cumsum(rows.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    row_starts = np.concatenate([[0], row_ends[:-1]]).astype(np.int64)
    heights = present.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.cumsum(heights, dtype=np.int64)
    starts = ends - heights
    widths = np.zeros(len(present), dtype=np.int64)
    filled = heights > 0
    lengths = row_ends - row_starts
    widths[filled] = lengths[starts[filled]]
    ragged = lengths != np.repeat(widths, heights)
    if ragged.any():
        result[valid] = _nested(present)
        return result
    values.flags.writeable = False
    changes = np.flatnonzero((np.diff(heights) != 0) | (np.diff(widths) != 0)) + 1
    parts = []
    offset = 0
    for first, last in zip([0, *changes], [*changes, len(present)], strict=True):
        shape = (int(last - first), int(heights[first]), int(widths[first]))
        size = shape[0] * shape[1] * shape[2]
        block = values[offset : offset + size].reshape(shape)
        parts.append(np.fromiter(block, dtype=object, count=shape[0]))
        offset += size
    result[valid] = np.concatenate(parts)
    return result


def _nested(present: pa.ListArray) -> ObjectArray:
    return np.fromiter((grid.as_py() for grid in present), dtype=object, count=len(present))


def order_of(trial_ids: pa.ChunkedArray) -> npt.NDArray[np.int64] | None:
    """The positions that put rows in the order of their trial's id, as they were within a trial; None: they are."""
    if not len(trial_ids):
        return None
    encoded = trial_ids.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    ids = encoded.dictionary.to_pylist()
    place = np.empty(len(ids), dtype=np.int64)
    place[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    places = place[encoded.indices.to_numpy(zero_copy_only=False)]
    if np.all(places[1:] >= places[:-1]):
        return None
    return np.argsort(places, kind="stable")
