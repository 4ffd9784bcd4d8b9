"""Pure scoring functions on grids. An answer that could not be read is None and scores zero."""

from __future__ import annotations

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
