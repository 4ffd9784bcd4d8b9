"""Merging the small files of a running sweep, so that ten thousand trials stay quick to read."""

from __future__ import annotations

import threading
import warnings

from orchestrator import results

COMPACT_ABOVE = 500
"""Small files of a table that are left alone."""
COMPACT_EVERY = 1000
"""Rows written between two compactions."""


class Compactor:
    """Compacts a results folder in a thread while rows come in, and once at the end of the block.

    Safe beside readers, writers and other compactions; a failure is a warning, for the rows are as they were.
    """

    def __init__(self, results_uri: str) -> None:
        self._uri = results_uri
        self._num_rows = 0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Compactor:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread is not None:
            self._thread.join()
        self._compact()

    def row_written(self) -> None:
        """Count a row; begin a compaction when it is time and none is under way."""
        self._num_rows += 1
        if self._num_rows >= COMPACT_EVERY and (self._thread is None or not self._thread.is_alive()):
            self._num_rows = 0
            self._thread = threading.Thread(target=self._compact, name="compactor", daemon=True)
            self._thread.start()

    def _compact(self) -> None:
        try:
            results.compact(self._uri, at_least=COMPACT_ABOVE)
        except (OSError, ValueError) as error:  # such as a full disk: the next compaction merges them
            warnings.warn(f"{self._uri} is not compacted: {error}", stacklevel=2)
