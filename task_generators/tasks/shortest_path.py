"""Shortest paths: mark a shortest way from start to end between obstacles."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from task_generators.marked_path import (
    END,
    SOLUTION,
    START,
    WALL,
    growing_path,
    marked_path_length,
    neighbours,
    path_distances,
    steps_from,
)
from task_generators.problem import Batch, Grid, LazyStates, Problem
from task_generators.render import MAZE_PALETTE, Palette, RenderStyle
from task_generators.scoring import grid_scores
from task_generators.symmetry import dihedral_copies
from task_generators.task import Task


class Layout(NamedTuple):
    """The knobs of a layout, each with a value. Pairs are the least and the greatest number, both included."""

    height: int
    width: int
    obstacle_density: float
    num_barriers: int
    barrier_holes: tuple[int, int]
    num_blocks: tuple[int, int]
    block_sides: tuple[int, int]
    endpoints: Literal["any", "corners"]
    min_distance: int


# From the published reference code: the sizes, densities, numbers and distances of "any_to_any" and "corner_to_corner";
# no barriers, the sides of blocks and the distance of "blocks". That one's size, density and number of blocks are not
# known and are those of "any_to_any" here. A corner-to-corner course needs no least distance.
LAYOUTS = {
    "any_to_any": Layout(15, 15, 0.05, 3, (8, 14), (3, 8), (2, 3), "any", 15),
    "blocks": Layout(15, 15, 0.05, 0, (8, 14), (3, 8), (2, 5), "any", 16),
    "corner_to_corner": Layout(21, 21, 0.08, 8, (3, 5), (1, 4), (2, 3), "corners", 2),
}


class ShortestPath(Task):
    """The answer marks the cells strictly between start and end on a shortest path of moves up, right, down and left.

    How a course is drawn, where the reference code is silent (and so our choice): within a border of walls each cell is
    a wall with the chance ``obstacle_density``. Then come the barriers: lines of walls across the whole inside, along a
    row or a column drawn uniformly, with ``barrier_holes`` of their cells left as they were (a line that is no longer
    than the holes are many adds nothing). Then the blocks: squares of walls, anywhere inside. Later walls lie over
    earlier ones, nothing opens a cell again. So the share of walls is above ``obstacle_density``: about .26, .35 and
    .36 in the three layouts. Start and end are a pair drawn uniformly among the pairs of open cells that are far enough
    apart, or the inner corners at the top left and bottom right, which are then open. Where no way leads from start to
    end, all is drawn anew.

    Nearly every course has several shortest paths. Which one is stored follows from the question: from the start
    onwards, each move is the first of up, right, down, left that leads nearer to the end. So the stored path keeps to
    the top and right of the others; ``exact_match`` asks for it, ``valid_solution`` takes any.
    """

    palette: ClassVar[Palette] = MAZE_PALETTE
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=16)
    symmetries: ClassVar[str] = "rotations and reflections, also with start and end exchanged"

    layout: Literal["any_to_any", "blocks", "corner_to_corner"] = Field(
        default="any_to_any",
        description="preset of the knobs below, as published: any_to_any, blocks (no barriers), corner_to_corner; "
        "a knob that is null has the value of the layout, listed here for the three in this order",
        examples=["blocks", "corner_to_corner"],
    )
    height: int | None = Field(
        default=None, ge=5, le=255, description="rows, the border included; null: 15 15 21", examples=[17]
    )
    width: int | None = Field(
        default=None, ge=5, le=255, description="columns, the border included; null: 15 15 21", examples=[17]
    )
    obstacle_density: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="chance of each cell to be a wall before barriers and blocks; null: .05 .05 .08",
        examples=[0.15],
    )
    num_barriers: int | None = Field(
        default=None, ge=0, le=1000, description="lines of walls with holes; null: 3 0 8", examples=[0]
    )
    barrier_holes: tuple[int, int] | None = Field(
        default=None,
        description="least and greatest number of holes in a barrier; null: [8, 14] [8, 14] [3, 5]",
        examples=[(3, 5)],
    )
    num_blocks: tuple[int, int] | None = Field(
        default=None,
        description="least and greatest number of square blocks of walls; null: [3, 8] [3, 8] [1, 4]",
        examples=[(0, 0)],
    )
    block_sides: tuple[int, int] | None = Field(
        default=None,
        description="least and greatest side of a block in cells; null: [2, 3] [2, 5] [2, 3]",
        examples=[(4, 4)],
    )
    endpoints: Literal["any", "corners"] | None = Field(
        default=None,
        description="any: two open cells; corners: from the top left to the bottom right; null: any any corners",
        examples=["corners"],
    )
    min_distance: int | None = Field(
        default=None,
        ge=2,
        description="least rows + columns from start to end, where endpoints are any; null: 15 16 2",
        examples=[20],
    )

    @model_validator(mode="after")
    def _one_spelling(self) -> ShortestPath:
        # What the layout says anyway is null however it was written, so that it is one task.
        for knob, value in LAYOUTS[self.layout]._asdict().items():
            if getattr(self, knob) == value:
                object.__setattr__(self, knob, None)
        return self

    @model_validator(mode="after")
    def _possible(self) -> ShortestPath:
        layout = self._layout()
        for knob, least in (("barrier_holes", 0), ("num_blocks", 0), ("block_sides", 1)):
            low, high = getattr(layout, knob)
            if not least <= low <= high <= 1000:
                raise ValueError(
                    f"{knob} = {[low, high]}: expected two whole numbers from {least} to 1000, least first"
                )
        inner = min(layout.height, layout.width) - 2
        if layout.num_blocks[1] and layout.block_sides[1] > inner:
            raise ValueError(f"block_sides = {list(layout.block_sides)}: expected at most {inner}, the cells within")
        furthest = layout.height + layout.width - 6
        if layout.endpoints == "corners" and self.min_distance is not None:
            raise ValueError(f"min_distance = {self.min_distance}: expected null where endpoints are corners")
        if layout.endpoints == "any" and layout.min_distance > furthest:
            raise ValueError(
                f"min_distance = {layout.min_distance}: expected at most {furthest}, the distance of opposite corners"
            )
        return self

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw courses and solve them. ValueError when the knobs leave no way from start to end."""
        from task_generators.obstacles import MAX_COURSES, draw_courses

        layout = self._layout()
        courses = draw_courses(
            seeds, *layout[:7], corner_to_corner=layout.endpoints == "corners", min_distance=layout.min_distance
        )
        if courses is None:
            raise ValueError(
                f"shortest_path: {MAX_COURSES} courses drawn and none has a start and an end that are connected; "
                "lower obstacle_density, num_barriers, num_blocks or min_distance"
            )
        questions, answers = courses.questions, courses.answers
        numbers = list(zip(courses.optimal_lengths.tolist(), courses.num_optimal_paths.tolist(), strict=True))
        return Batch(
            questions,
            answers,
            metadata=lambda place: dict(zip(("optimal_length", "num_optimal_paths"), numbers[place], strict=True)),
            states=lambda place: LazyStates(partial(growing_path, questions[place], answers[place])),
        )

    def score(self, problem: Problem, grid: Grid | None) -> dict[str, float | bool]:
        """Beside the usual scores (exact match is with the stored path): ``valid_solution``, any shortest path;
        ``path_success`` (its mean is the published PSR), any path; and of a path its ``relative_path_length`` (its mean
        is the published RPL), moves over the fewest possible, which is left out where there is no path.

        A path is what ``marked_path_length`` takes for one: all marked cells belong to it, all other cells are those of
        the question. The paper defines it no closer.
        """
        length = None if grid is None else marked_path_length(problem.question, grid)
        optimal_length = problem.metadata["optimal_length"]
        scores = grid_scores(problem.answer, grid)
        scores["valid_solution"] = length == optimal_length
        scores["path_success"] = length is not None
        if length is not None:
            scores["relative_path_length"] = length / optimal_length
        return scores

    def verify(self, problem: Problem) -> list[str]:
        """Check border and distance, and search the course for the stored path, the fewest moves and all paths."""
        question, faults, layout = problem.question, [], self._layout()
        if question.shape != (layout.height, layout.width):
            faults.append("the grid has not the size that the knobs say")
        frame = question.copy()
        frame[1:-1, 1:-1] = WALL
        if (frame != WALL).any():
            faults.append("the border has a gap")
        if (question == SOLUTION).any():
            faults.append("the question shows a part of the solution")
        starts, ends = (
            [(row, column) for row, column in np.argwhere(question == code).tolist()] for code in (START, END)
        )
        if len(starts) != 1 or len(ends) != 1:
            return [*faults, "there is not one start and one end"]
        start, end = starts[0], ends[0]
        if layout.endpoints == "corners":
            if start != (1, 1) or end != (layout.height - 2, layout.width - 2):
                faults.append("start and end are not the corners")
        elif abs(start[0] - end[0]) + abs(start[1] - end[1]) < layout.min_distance:
            faults.append("start and end are too close")
        steps = steps_from(question, end)
        if start not in steps:
            return [*faults, "no way leads from start to end"]
        if problem.metadata["optimal_length"] != steps[start]:
            faults.append("optimal_length is wrong")
        num_paths = {end: 1}
        for cell in sorted(steps, key=lambda cell: steps[cell])[1:]:
            num_paths[cell] = sum(num_paths[near] for near in neighbours(cell) if steps.get(near) == steps[cell] - 1)
        if problem.metadata["num_optimal_paths"] != min(num_paths[start], 10**15):
            faults.append("num_optimal_paths is wrong")
        expected = question.copy()
        cell = start
        while steps[cell] > 1:
            cell = next(near for near in neighbours(cell) if steps.get(near) == steps[cell] - 1)
            expected[cell] = SOLUTION
        if not np.array_equal(expected, problem.answer):
            faults.append("the answer is not the first shortest path")
        return faults

    def distances(self, batch: Batch, other: Problem) -> npt.NDArray[np.float64]:
        """1 - Jaccard index of the marked paths."""
        return path_distances(batch.answers, other.answer)

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the questions up to ``symmetries``: start and end are told apart no more."""
        from task_generators.copy_hash import copy_hashes

        same_ends = np.where(questions == END, np.int8(START), questions)
        return copy_hashes(same_ends, dihedral_copies(*questions.shape[1:]), len(self.palette.colors))

    def problem_space(self) -> str:
        """What bounds the number of courses; nobody has counted them."""
        layout = self._layout()
        digits = _digits_of_draws(layout)
        return f"not counted; up to about 10^{digits:.0f} courses of {layout.height} x {layout.width} cells"

    def _layout(self) -> Layout:
        preset = LAYOUTS[self.layout]
        own: dict[str, Any] = {knob: getattr(self, knob) for knob in Layout._fields}
        return preset._replace(**{knob: value for knob, value in own.items() if value is not None})


def _digits_of_draws(layout: Layout) -> float:
    """log10 of how many equally likely draws have the entropy of a course's draws, which is more than its own."""
    inner_rows, inner_columns = layout.height - 2, layout.width - 2
    inner_cells = inner_rows * inner_columns
    density = layout.obstacle_density
    nats = 0.0
    if density > 0:
        nats -= inner_cells * (density * math.log(density) + (1 - density) * math.log1p(-density))
    lines = sum(
        math.comb(line, min(holes, line))
        for line, others in ((inner_columns, inner_rows), (inner_rows, inner_columns))
        for _ in range(others)
        for holes in range(layout.barrier_holes[0], layout.barrier_holes[1] + 1)
    )
    nats += layout.num_barriers * math.log(lines)
    squares = sum(
        (inner_rows - side + 1) * (inner_columns - side + 1)
        for side in range(layout.block_sides[0], layout.block_sides[1] + 1)
        if layout.num_blocks[1]
    )
    nats += layout.num_blocks[1] * math.log(max(squares, 1))
    if layout.endpoints == "any":
        nats += 2 * math.log(inner_cells)
    return nats / math.log(10)
