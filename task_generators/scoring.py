"""Pure scoring functions on grids. An answer that could not be read is None and scores zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from task_generators.problem import Grid


def exact_match(answer: Grid, predicted: Grid | None) -> bool:
    """True when shape and every cell agree."""
    return predicted is not None and np.array_equal(answer, predicted)


def cell_accuracy(answer: Grid, predicted: Grid | None) -> float:
    """Share of equal cells, 0 to 1; 0.0 when the prediction is missing or of another shape."""
    if predicted is None or predicted.shape != answer.shape:
        return 0.0
    return float(np.mean(answer == predicted))


def grid_scores(answer: Grid, predicted: Grid | None) -> dict[str, float | bool]:
    """The scores every task reports."""
    return {"exact_match": exact_match(answer, predicted), "cell_accuracy": cell_accuracy(answer, predicted)}


def repeats_training_answer(predicted: Sequence[Grid | None], training_answers: Sequence[Grid]) -> list[bool]:
    """Whether each output is the answer of some training problem: of its shape, and equal in every cell.

    The mean over all outputs is the rate of verbatim training outputs (arXiv 2510.24448, table 11). An output that
    could not be read (None) repeats nothing, but counts as an output. The test problem's own answer plays no part:
    where it is a training answer as well, a right output repeats it.
    """
    seen = {_cells(grid) for grid in training_answers}
    return [grid is not None and _cells(grid) in seen for grid in predicted]


def _cells(grid: Grid) -> tuple[tuple[int, ...], bytes]:
    return grid.shape, np.asarray(grid, dtype=np.int64).tobytes()
