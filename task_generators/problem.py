"""What a problem is: a question grid, its answer grid, and what the scorer needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

Grid: TypeAlias = npt.NDArray[np.int8]
"""2-D int8 array of cell codes, shape (height, width), not writeable once it is part of a problem."""


class Split(StrEnum):
    """Which side of the train/test partition a problem belongs to."""

    TRAIN = "train"
    TEST = "test"


def frozen_grid(cells: npt.ArrayLike) -> Grid:
    """Copy ``cells`` (height, width) into a read-only int8 grid; ValueError when it is not 2-D or does not fit int8."""
    array = np.asarray(cells)
    if array.ndim != 2:
        raise ValueError(f"a grid has two dimensions, not {array.ndim}")
    grid = array.astype(np.int8)
    if not np.array_equal(grid, array):
        raise ValueError("a grid holds whole numbers from -128 to 127")
    grid.setflags(write=False)
    return grid


class LazyStates(Sequence[Grid]):
    """Grids that are built anew whenever they are looked at: a maze has a hundred, and most trials use none of them.

    ``build`` must be picklable (a ``functools.partial`` of a module's function), because problems travel to workers.
    """

    def __init__(self, build: Callable[[], Sequence[Grid]]) -> None:
        self._build = build

    @overload
    def __getitem__(self, index: int) -> Grid: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Grid]: ...
    def __getitem__(self, index: int | slice) -> Grid | Sequence[Grid]:
        return self._build()[index]

    def __len__(self) -> int:
        return len(self._build())

    def __iter__(self) -> Iterator[Grid]:
        return iter(self._build())


@dataclass(frozen=True, eq=False)
class Problem:
    """One question and its stored answer.

    ``metadata`` is JSON-able and holds what ``Task.score`` needs beyond the answer; ``states`` are the grids that a
    process passes through strictly between question and answer (empty where there is no such process).
    ``problem_id`` is empty until the problem is drawn as part of a split (see ``task_generators.splits``).
    """

    question: Grid
    answer: Grid
    metadata: Mapping[str, Any] = field(default_factory=dict)
    states: Sequence[Grid] = ()
    problem_id: str = ""
