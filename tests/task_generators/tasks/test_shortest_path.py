import hashlib
from collections import Counter
from dataclasses import replace
from math import comb

import numpy as np
import pytest

from task_generators.marked_path import marked_path_length
from task_generators.problem import Grid, Problem, Split, frozen_grid
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.shortest_path import ShortestPath

WALL, OPEN, END, START, SOLUTION = range(5)
UP, RIGHT, DOWN, LEFT = MOVES = [(-1, 0), (0, 1), (1, 0), (0, -1)]
BARE = {"obstacle_density": 0, "num_barriers": 0, "num_blocks": (0, 0)}

Cell = tuple[int, int]


def cells_of(grid: Grid, code: int) -> list[Cell]:
    return [
        (row, column) for row, cells in enumerate(grid.tolist()) for column, cell in enumerate(cells) if cell == code
    ]


def distances_by_waves(question: Grid, source: Cell) -> dict[Cell, int]:
    """Moves from a cell to all that can be reached: wave after wave of sets."""
    free = {cell for code in (OPEN, START, END) for cell in cells_of(question, code)}
    wave, distances, moves = {source}, {}, 0
    while wave:
        distances |= dict.fromkeys(wave, moves)
        wave = {(row + down, column + right) for row, column in wave for down, right in MOVES} & free - distances.keys()
        moves += 1
    return distances


def all_shortest_paths(question: Grid) -> list[tuple[Cell, ...]]:
    """Every one, in the order up, right, down, left of the first move in which two differ."""
    (start,), (end,) = cells_of(question, START), cells_of(question, END)
    to_end = distances_by_waves(question, end)
    paths: list[tuple[Cell, ...]] = [(start,)]
    for left in range(to_end[start] - 1, -1, -1):
        paths = [
            (*path, (path[-1][0] + down, path[-1][1] + right))
            for path in paths
            for down, right in MOVES
            if to_end.get((path[-1][0] + down, path[-1][1] + right)) == left
        ]
    return paths


def marked(question: Grid, cells: object) -> Grid:
    grid = question.copy()
    for cell in cells:
        grid[cell] = SOLUTION
    return frozen_grid(grid)


LAYOUTS = [
    {},
    {"layout": "blocks"},
    {"layout": "corner_to_corner"},
    {"height": 9, "width": 14, "min_distance": 4},
    {"height": 5, "width": 5, "min_distance": 2},
    {"layout": "blocks", "height": 12, "width": 30, "obstacle_density": 0.3, "min_distance": 10},
]


@pytest.mark.parametrize("knobs", LAYOUTS)
def test_answers_are_the_first_shortest_path_and_all_are_counted(knobs: dict) -> None:
    num_enumerated = 0
    for problem in ShortestPath(**knobs).draw(60):
        question = problem.question
        (start,), (end,) = cells_of(question, START), cells_of(question, END)
        distances = distances_by_waves(question, start)
        assert problem.metadata["optimal_length"] == distances[end]
        ways = Counter({start: 1})
        for cell in distances:  # in the order of their distance
            for down, right in MOVES:
                after = cell[0] + down, cell[1] + right
                if distances.get(after) == distances[cell] + 1:
                    ways[after] += ways[cell]
        assert problem.metadata["num_optimal_paths"] == ways[end]
        if ways[end] < 300:
            paths = all_shortest_paths(question)
            assert len(paths) == ways[end]
            assert np.array_equal(problem.answer, marked(question, paths[0][1:-1]))
            num_enumerated += 1
    assert num_enumerated > 5


@pytest.mark.parametrize("knobs", LAYOUTS)
def test_start_and_end_lie_where_the_knobs_say(knobs: dict) -> None:
    least = knobs.get("min_distance", {"blocks": 16}.get(knobs.get("layout"), 15))
    for problem in ShortestPath(**knobs).draw(200):
        question = problem.question
        assert (question[[0, -1]] == WALL).all()
        assert (question[:, [0, -1]] == WALL).all()
        (start,), (end,) = cells_of(question, START), cells_of(question, END)
        if knobs.get("layout") == "corner_to_corner":
            assert (question.shape, start, end) == ((21, 21), (1, 1), (19, 19))
        else:
            assert abs(start[0] - end[0]) + abs(start[1] - end[1]) >= least


def test_every_pair_that_is_far_enough_apart_is_equally_likely() -> None:
    task = ShortestPath(height=5, width=5, min_distance=3, **BARE)
    inner = [(row, column) for row in (1, 2, 3) for column in (1, 2, 3)]
    pairs = {(a, b) for a in inner for b in inner if abs(a[0] - b[0]) + abs(a[1] - b[1]) >= 3}
    expected = 100
    drawn = task.draw(expected * len(pairs))
    counts = Counter((cells_of(p.question, START)[0], cells_of(p.question, END)[0]) for p in drawn)
    assert counts.keys() == pairs
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = len(pairs) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


def inner_walls(problem: Problem) -> list[Cell]:
    return cells_of(problem.question[1:-1, 1:-1], WALL)


def test_density_is_the_share_of_walls_before_barriers_and_blocks() -> None:
    for density in (0.02, 0.1):
        task = ShortestPath(**{**BARE, "obstacle_density": density}, min_distance=2)
        # Start and end are never walls, and courses without a way are few at these densities.
        share = np.mean([len(inner_walls(problem)) for problem in task.draw(500)]) / (13 * 13 - 2)
        assert abs(share - density) < 0.005


def test_a_barrier_is_a_line_with_holes() -> None:
    task = ShortestPath(**{**BARE, "num_barriers": 1}, barrier_holes=(2, 5), height=12, width=17, min_distance=2)
    lines, num_holes, holes_at = Counter(), Counter(), Counter()
    for problem in task.draw(3000):
        walls = inner_walls(problem)
        rows, columns = ({wall[axis] for wall in walls} for axis in (0, 1))
        is_row = len(rows) == 1
        assert is_row or len(columns) == 1
        lines["row" if is_row else "column", min(rows if is_row else columns)] += 1
        num_holes[(15 if is_row else 10) - len(walls)] += 1
        if is_row:
            holes_at.update(set(range(15)) - columns)
    assert lines.keys() == {("row", row) for row in range(10)} | {("column", column) for column in range(15)}
    assert abs(sum(count for (kind, _), count in lines.items() if kind == "row") - 1500) < 150
    assert num_holes.keys() == {2, 3, 4, 5}
    assert min(num_holes.values()) > 600
    assert max(holes_at.values()) < 1.4 * min(holes_at.values())


def test_a_line_that_is_no_longer_than_its_holes_adds_nothing() -> None:
    task = ShortestPath(**{**BARE, "num_barriers": 5}, barrier_holes=(13, 14))
    assert all(inner_walls(problem) == [] for problem in task.draw(50))


def test_blocks_are_squares() -> None:
    task = ShortestPath(**{**BARE, "num_blocks": (1, 1)}, block_sides=(2, 4))
    sides = Counter()
    for problem in task.draw(300):
        walls = inner_walls(problem)
        (top, left), (bottom, right) = walls[0], walls[-1]
        side = bottom - top + 1
        assert side == right - left + 1
        assert len(walls) == side**2
        sides[side] += 1
    assert sides.keys() == {2, 3, 4}
    assert min(sides.values()) > 60
    areas = {len(inner_walls(problem)) for problem in task.model_copy(update={"num_blocks": (0, 1)}).draw(50)}
    assert areas == {0, 4, 9, 16}


def test_layouts_differ_as_published() -> None:
    """The share of optimal answers that are the only one, and the median number of answers: near the published data's
    1 to 2 % and 172 to 218."""
    for layout in ("any_to_any", "blocks"):
        counts = [problem.metadata["num_optimal_paths"] for problem in ShortestPath(layout=layout).draw(2000)]
        assert 0.004 < np.mean(np.array(counts) == 1) < 0.03
        assert 100 < np.median(counts) < 400


def test_the_count_of_paths_is_capped() -> None:
    for side, count in ((20, comb(34, 17)), (42, 10**15)):
        (problem,) = ShortestPath(layout="corner_to_corner", height=side, width=side, **BARE).draw(1)
        assert problem.metadata == {"optimal_length": 2 * side - 6, "num_optimal_paths": count}
        assert ShortestPath(layout="corner_to_corner", height=side, width=side, **BARE).verify(problem) == []


def test_every_shortest_path_is_valid_and_only_the_stored_one_exact() -> None:
    task = ShortestPath()
    for problem in task.draw(20):
        paths = all_shortest_paths(problem.question)[:200]
        for path in (paths[0], *paths[1::20]):
            score = task.score(problem, marked(problem.question, path[1:-1]))
            assert score["exact_match"] is (path == paths[0])
            assert score["valid_solution"] is True
            assert score["path_success"] is True
            assert score["relative_path_length"] == 1


def course(picture: str) -> Grid:
    return frozen_grid([["#.ES*".index(cell) for cell in line] for line in picture.split()])


QUESTION = course("####### #S....# #.....# #.#..E# #######")


@pytest.mark.parametrize(
    ("picture", "length"),
    [
        ("####### #S****# #....*# #.#..E# #######", 6),
        ("####### #S....# #*****# #.#..E# #######", 6),
        ("####### #S***.# #*****# #.#..E# #######", None),  # two ways at once
        ("####### #S**..# #***..# #.#**E# #######", 8),
        ("####### #S.***# #***.*# #.#..E# #######", 8),
        ("####### #S***.# #..**.# #.#.*E# #######", None),  # a cell to spare
        ("####### #S****# #..***# #.#**E# #######", 10),  # runs along itself
        ("####### #S....# #*.***# #*#*.E# #######", None),  # a gap
        ("####### #S....# #*....# #***.E# #######", None),  # through a wall
        ("####### #*****# #....*# #.#..E# #######", None),  # no start
        ("####### #S****# #....*# #.#..*# #######", None),  # no end
        ("####### #S****# #....*# #...E.# #######", None),  # another course
        ("####### #S****# #....*# #....E# #######", None),  # a wall has gone
        ("####### #S**..# #..**.# #*#.*E# #######", None),  # a cell apart
        ("####### #S*...# #.....# #.#.*E# #######", None),
        ("####### #S....# #.....# #.#..E# #######", None),
    ],
)
def test_what_is_a_path(picture: str, length: int | None) -> None:
    task = ShortestPath(height=5, width=7, min_distance=2)
    problem = Problem(QUESTION, marked(QUESTION, all_shortest_paths(QUESTION)[0][1:-1]), {"optimal_length": 6})
    grid = course(picture)
    assert marked_path_length(QUESTION, grid) == length
    score = task.score(problem, grid)
    assert score["path_success"] is (length is not None)
    assert score["valid_solution"] is (length == 6)
    assert ("relative_path_length" in score) == (length is not None)
    assert length is None or score["relative_path_length"] == length / 6


@pytest.mark.parametrize("no_answer", [None, QUESTION[:-1], np.zeros((2, 90), dtype=np.int8)])
def test_unreadable_answers_score_nothing(no_answer: Grid | None) -> None:
    score = ShortestPath().score(Problem(QUESTION, QUESTION, {"optimal_length": 6}), no_answer)
    assert score == {"exact_match": False, "cell_accuracy": 0.0, "valid_solution": False, "path_success": False}


def has_walk(cells: frozenset[Cell], at: Cell, end: Cell) -> bool:
    """Whether all cells can be walked one after the other: every order is tried."""
    if not cells:
        return abs(at[0] - end[0]) + abs(at[1] - end[1]) == 1
    after = [(at[0] + down, at[1] + right) for down, right in MOVES]
    return any(has_walk(cells - {cell}, cell, end) for cell in after if cell in cells)


def test_random_marks_are_paths_when_some_order_of_them_is() -> None:
    rng = np.random.default_rng(0)
    num_paths = 0
    for problem in ShortestPath(height=6, width=6, min_distance=3, **BARE).draw(1500):
        (start,), (end,) = cells_of(problem.question, START), cells_of(problem.question, END)
        # The stored path, a few cells flipped: mostly near a path.
        flips = rng.random(problem.answer.shape) < 0.1
        cells = {cell for cell in cells_of(problem.question, OPEN) if (problem.answer[cell] == SOLUTION) != flips[cell]}
        expected = len(cells) + 1 if has_walk(frozenset(cells), start, end) else None
        assert marked_path_length(problem.question, marked(problem.question, cells)) == expected
        num_paths += expected is not None
    assert 200 < num_paths < 1400


def test_whole_areas_are_given_up_in_time() -> None:
    """A search to its end would outlast the sun. Colours are no hindrance: rows walked to and fro would be a path."""
    (problem,) = ShortestPath(height=31, width=31, endpoints="corners", **BARE).draw(1)
    everything = np.where(problem.question == OPEN, SOLUTION, problem.question)
    assert marked_path_length(problem.question, everything) in (None, 29 * 29 - 1)


def test_states_grow_the_path_cell_by_cell_from_the_start() -> None:
    for problem in ShortestPath().draw(10):
        path = all_shortest_paths(problem.question)[0][1:-1]
        assert len(problem.states) == len(path) - 1
        for length, state in enumerate(problem.states, 1):
            assert np.array_equal(state, marked(problem.question, path[:length]))


def copies(question: Grid) -> list[Grid]:
    exchanged = question.copy()
    exchanged[question == START], exchanged[question == END] = END, START
    turned = [np.rot90(grid, turns) for grid in (question, exchanged) for turns in range(4)]
    copies = [np.ascontiguousarray(grid) for flipped in turned for grid in (flipped, flipped.T)]
    return [grid for grid in copies if grid.shape == question.shape]


@pytest.mark.parametrize(("knobs", "num_copies"), [({}, 16), ({"height": 12, "min_distance": 8}, 8)])
def test_symmetric_copies_share_a_key(knobs: dict, num_copies: int) -> None:
    task = ShortestPath(**knobs)
    keys = set()
    for problem in task.draw(50):
        turned = copies(problem.question)
        assert len({grid.tobytes() for grid in turned}) == num_copies
        (key,) = set(task.canonical_keys(np.stack(turned)).tolist())
        keys.add(key)
    assert len(keys) == 50


def test_no_symmetric_copy_of_a_test_problem_is_trained_on() -> None:
    spec = TaskSpec.model_validate(
        {"shortest_path": {"height": 5, "width": 5, "min_distance": 2, "block_sides": (1, 1)}}
    )
    tested = draw_problems(spec, Split.TEST, 0, 50)
    trained = {problem.question.tobytes() for problem in draw_problems(spec, Split.TRAIN, 0, 500)}
    all_copies = {grid.tobytes() for problem in tested for grid in copies(problem.question)}
    assert len(all_copies) > 150
    assert not all_copies & trained


def test_problems_are_as_far_apart_as_their_paths() -> None:
    spec = TaskSpec.model_validate({"shortest_path": {"min_test_distance": 0.5}})
    paths = {
        split: [set(cells_of(problem.answer, SOLUTION)) for problem in draw_problems(spec, split, 0, n)]
        for split, n in ((Split.TEST, 20), (Split.TRAIN, 100))
    }
    assert all(1 - len(a & b) / len(a | b) >= 0.5 for a in paths[Split.TEST] for b in paths[Split.TRAIN])


def test_what_the_layout_says_anyway_is_one_task() -> None:
    spelt = {"layout": "blocks", "height": 15, "num_barriers": 0, "block_sides": [2, 5], "min_distance": 16}
    assert TaskSpec(name="shortest_path", params=spelt).params == {"layout": "blocks"}
    spec = TaskSpec.model_validate({"shortest_path": {"test": {"height": 21, "width": 21}}})
    assert [problem.question.shape for problem in draw_problems(spec, Split.TEST, 0, 2)] == [(21, 21)] * 2
    assert [problem.question.shape for problem in draw_problems(spec, Split.TRAIN, 0, 2)] == [(15, 15)] * 2


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"barrier_holes": (5, 3)},
            r"barrier_holes = \[5, 3\]: expected two whole numbers from 0 to 1000",
        ),
        ({"num_blocks": (-1, 3)}, r"num_blocks = \[-1, 3\]"),
        ({"block_sides": (0, 3)}, r"block_sides = \[0, 3\]"),
        ({"block_sides": (3, 14)}, r"block_sides = \[3, 14\]: expected at most 13"),
        ({"height": 8, "width": 8}, r"min_distance = 15: expected at most 10"),
        ({"min_distance": 25}, r"min_distance = 25: expected at most 24"),
        ({"endpoints": "corners", "min_distance": 9}, r"min_distance = 9: expected null where endpoints are corners"),
    ],
)
def test_impossible_knobs_are_one_line(knobs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        TaskSpec(name="shortest_path", params=knobs).build()
    assert "shortest_path" in str(caught.value)


@pytest.mark.parametrize("knobs", [{"obstacle_density": 0.99}, {"obstacle_density": 0.8, "endpoints": "corners"}])
def test_knobs_that_leave_no_way_are_an_error(knobs: dict) -> None:
    with pytest.raises(ValueError, match="lower obstacle_density"):
        ShortestPath(**knobs).draw(3)


def test_the_furthest_pairs_can_be_asked_for() -> None:
    for problem in ShortestPath(min_distance=24).draw(20):
        assert {*cells_of(problem.question, START), *cells_of(problem.question, END)} <= {
            (1, 1),
            (1, 13),
            (13, 1),
            (13, 13),
        }


def test_the_verifier_sees_each_kind_of_fault() -> None:
    task = ShortestPath()
    for problem in task.draw(15):
        paths = all_shortest_paths(problem.question)
        if len(paths) == 1:
            continue
        other = marked(problem.question, paths[1][1:-1])
        assert task.verify(replace(problem, answer=other)) == ["the answer is not the first shortest path"]
        metadata = {**problem.metadata, "num_optimal_paths": len(paths) + 1}
        assert task.verify(replace(problem, metadata=metadata)) == ["num_optimal_paths is wrong"]
        cut = problem.question.copy()
        for down, right in MOVES:
            ((row, column),) = cells_of(problem.question, START)
            cut[row + down, column + right] = WALL
        assert task.verify(replace(problem, question=cut)) == ["no way leads from start to end"]
        assert ShortestPath(min_distance=24).verify(problem) or problem.metadata["optimal_length"] >= 24


def test_published_picture_is_240_px() -> None:
    assert ShortestPath.style.size_px((15, 15)) == (240, 240)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    digest = hashlib.sha256()
    for layout in ("any_to_any", "blocks", "corner_to_corner"):
        for problem in ShortestPath(layout=layout).draw(20, "pinned"):
            digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (ShortestPath.generator_version, digest.hexdigest()[:16]) == (1, "e1dc43b2d2d5e83d")
