import hashlib
from collections import deque
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from task_generators.problem import Grid, Split
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.hanoi import Hanoi, optimal_states

KNOBS = [
    {},
    {"steps": 3},
    {"steps": 511},
    {"steps": None},
    {"disks": 5, "steps": None},
    {"disks": 2, "steps": 2},
    {"start": "first_peg", "steps": 4},
    {"start": "first_peg", "steps": None, "disks": 6},
]

State = tuple[tuple[int, ...], ...]
"""The disks of each peg, from the bottom."""


def seeds(number: int) -> np.ndarray:
    return problem_seeds(("hanoi",), np.arange(number))


def state(grid: Grid) -> State:
    """Read a grid from the bottom up; fails when it is no state of the game."""
    pegs = []
    for column in grid.T.tolist():
        disks = [code for code in column if code]
        assert column == [0] * (len(column) - len(disks)) + disks, "no disk in the air"
        assert disks == sorted(set(disks)), "no disk on a smaller one"
        pegs.append(tuple(reversed(disks)))
    assert sorted(disk for peg in pegs for disk in peg) == list(range(1, len(grid) + 1))
    return tuple(pegs)


def moves(pegs: State) -> list[State]:
    """All states after one move of a top disk."""
    after = []
    for source in range(3):
        for target in range(3):
            if pegs[source] and source != target and (not pegs[target] or pegs[target][-1] > pegs[source][-1]):
                moved = list(pegs)
                moved[source], moved[target] = pegs[source][:-1], (*pegs[target], pegs[source][-1])
                after.append(tuple(moved))
    return after


def ways_to_end(num_disks: int) -> dict[State, tuple[int, int]]:
    """For each state how many moves the end is away, and how many shortest ways there are."""
    end: State = ((), (), tuple(range(num_disks, 0, -1)))
    ways, queue = {end: (0, 1)}, deque([end])
    while queue:
        pegs = queue.popleft()
        distance, number = ways[pegs]
        for after in moves(pegs):
            if after not in ways:
                ways[after] = (distance + 1, 0)
                queue.append(after)
            if ways[after][0] == distance + 1:
                ways[after] = (distance + 1, ways[after][1] + number)
    return ways


@pytest.mark.parametrize("num_disks", range(2, 7))
def test_all_states_have_one_shortest_way(num_disks: int) -> None:
    ways = ways_to_end(num_disks)
    assert len(ways) == 3**num_disks
    assert {number for _, number in ways.values()} == {1}
    assert max(distance for distance, _ in ways.values()) == 2**num_disks - 1


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_answers_lie_on_the_shortest_way(knobs: dict) -> None:
    task = Hanoi(**knobs)
    number = 20 if (task.steps or 511) > 100 else 300
    batch = task.generate_many(seeds(number))
    for place in range(number):
        problem = batch.problem(place)
        way = optimal_states(problem.question, task.steps)
        assert problem.answer.tolist() == way[-1].tolist()
        assert task.verify(problem) == []
        if place < 5:
            assert [grid.tolist() for grid in problem.states] == [grid.tolist() for grid in way[:-1]]
            grids = [problem.question, *problem.states, problem.answer]
            assert all(state(after) in moves(state(before)) for before, after in pairwise(grids))


@pytest.mark.parametrize("num_disks", [2, 4, 6])
def test_the_verifier_agrees_with_the_count_of_moves(num_disks: int) -> None:
    ways = ways_to_end(num_disks)
    for question in Hanoi(disks=num_disks).generate_many(seeds(100)).questions:
        way = optimal_states(question)
        assert len(way) == ways[state(question)][0]
        assert state(way[-1]) == ((), (), tuple(range(num_disks, 0, -1)))


@pytest.mark.parametrize(
    "rows",
    [[[2, 0, 0], [1, 0, 0]], [[1, 0, 0], [0, 2, 0]], [[0, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 3, 0]], [[0, 1], [0, 2]]],
)
def test_the_verifier_refuses_what_is_no_state(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="each of 2 disks once"):
        optimal_states(np.array(rows, dtype=np.int8))


@pytest.mark.parametrize(
    "knobs", [{}, {"steps": 10}, {"steps": 15}, {"start": "first_peg"}, {"start": "first_peg", "steps": 9}]
)
def test_all_states_occur_equally_often(knobs: dict) -> None:
    task = Hanoi(disks=4, **knobs)
    _, counts = np.unique(task.generate_many(seeds(16_000)).questions.reshape(16_000, -1), axis=0, return_counts=True)
    assert task.problem_space().startswith(f"{len(counts)} ")
    mean = 16_000 / len(counts)
    assert np.abs(counts - mean).max() < 5 * mean**0.5


def test_the_classic_game_starts_on_the_first_peg() -> None:
    task = Hanoi(disks=4, start="first_peg", steps=15)
    (problem,) = {problem.tobytes(): problem for problem in task.generate_many(seeds(20)).questions}.values()
    assert state(problem) == ((4, 3, 2, 1), (), ())
    on_the_way = {grid.tobytes() for grid in (problem, *optimal_states(problem)[:-1])}
    questions = Hanoi(disks=4, start="first_peg").generate_many(seeds(500)).questions
    assert {question.tobytes() for question in questions} == on_the_way


def test_each_promise_is_verified() -> None:
    batch = Hanoi(disks=4).generate_many(seeds(100))
    problems = [batch.problem(place) for place in range(100)]
    classic = {state.tobytes() for state in Hanoi(disks=4, start="first_peg").generate_many(seeds(500)).questions}
    for problem in problems:
        faults = Hanoi(disks=4, start="first_peg").verify(problem)
        assert faults == (
            [] if problem.question.tobytes() in classic else ["the question is no state of the classic game"]
        )
        assert Hanoi(disks=4, steps=2).verify(problem)
        assert Hanoi(disks=5).verify(problem) == ["the question has not 5 rows and 3 columns"]
        legal = moves(state(problem.question))
        wrong = [grid for grid in batch.questions if state(grid) in legal and not np.array_equal(grid, problem.answer)]
        for answer in (problem.question, *wrong):
            faults = Hanoi(disks=4).verify(replace(problem, answer=answer))
            assert faults == ["the answer is not the state 1 optimal moves later"]
    end = replace(problems[0], question=optimal_states(problems[0].question)[-1])
    assert Hanoi(disks=4, steps=None).verify(end) == ["the question is the end already"]


def test_solved_is_the_end() -> None:
    for answer in Hanoi(disks=3, steps=None).generate_many(seeds(20)).answers:
        assert answer.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 3]]


def test_the_published_split_exists_and_shares_no_copy() -> None:
    spec = TaskSpec(name="hanoi")
    tested, trained = (
        np.stack([problem.question for problem in draw_problems(spec, split, 0, number)])
        for split, number in ((Split.TEST, 200), (Split.TRAIN, 5000))
    )
    assert len(np.unique(tested, axis=0)) == 200
    assert len(np.unique(trained, axis=0)) == 5000
    copies = {copy.tobytes() for question in tested for copy in (question, question[:, [1, 0, 2]])}
    assert copies.isdisjoint(question.tobytes() for question in trained)
    keys = Hanoi().canonical_keys
    assert np.array_equal(keys(trained), keys(trained[:, :, [1, 0, 2]]))


def test_more_steps_than_the_longest_way_are_refused() -> None:
    with pytest.raises(ValueError, match="steps = 16: expected at most 15, the longest way with 4 disks, or null"):
        TaskSpec(name="hanoi", params={"disks": 4, "steps": 16})


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    batch = Hanoi(steps=3).generate_many(problem_seeds(("pinned",), np.arange(20)))
    digest = hashlib.sha256(batch.questions.tobytes() + batch.answers.tobytes()).hexdigest()[:16]
    assert (Hanoi.generator_version, digest) == (1, "614467fcf875340b")
