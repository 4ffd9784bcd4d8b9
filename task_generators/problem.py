"""What a problem is: a question grid, its answer grid, and what the scorer needs to know; and many of them at once."""

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

    __slots__ = ("_build",)

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


@dataclass(frozen=True, eq=False, slots=True)
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


@dataclass(frozen=True, eq=False)
class Batch:
    """Problems as a generator makes them, many at once: one array of questions and one of answers.

    ``questions`` and ``answers``: int8 (n, rows, columns), frozen here. ``metadata`` and ``states`` make those of one
    problem from its place in the batch, and are called only for problems that a split keeps.
    """

    questions: npt.NDArray[np.int8]
    answers: npt.NDArray[np.int8]
    metadata: Callable[[int], Mapping[str, Any]] | None = None
    states: Callable[[int], Sequence[Grid]] | None = None

    def __post_init__(self) -> None:
        for grids in (self.questions, self.answers):
            assert grids.ndim == 3, "many grids of one shape"
            assert grids.dtype == np.int8
            assert len(grids) == len(self.questions)
            grids.setflags(write=False)

    def __len__(self) -> int:
        return len(self.questions)

    def problem(self, place: int, problem_id: str = "") -> Problem:
        """The problem at ``place``; its grids are views into the batch."""
        return Problem(
            self.questions[place],
            self.answers[place],
            {} if self.metadata is None else self.metadata(place),
            () if self.states is None else self.states(place),
            problem_id,
        )


def stacked(problems: Sequence[Problem]) -> Batch:
    """Problems of one shape as a batch. ValueError when their grids differ in shape."""
    return Batch(
        np.stack([problem.question for problem in problems]),
        np.stack([problem.answer for problem in problems]),
        metadata=lambda place: problems[place].metadata,
        states=lambda place: problems[place].states,
    )
