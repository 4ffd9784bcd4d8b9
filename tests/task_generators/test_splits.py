import json
from typing import ClassVar

import numpy as np
import pytest

from task_generators.problem import Problem, Split, frozen_grid
from task_generators.render import Palette, RenderStyle
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems, in_test_partition
from task_generators.task import Task, TaskSpec

SIZES = [
    ({"elementary_ca": {"width": 12, "steps": 5}}, 64, 300),
    ({"sudoku": {"size": 4}}, 200, 300),
    ({"life": {"height": 6, "width": 6}}, 200, 300),
    ("life", 200, 300),
    ({"maze": {"height": 7, "width": 7}}, 64, 50),
    ({"maze": {"height": 13, "width": 13, "test": {"height": 21, "width": 21}}}, 64, 100),
]


@pytest.mark.parametrize(("named", "n_test", "n_train"), SIZES)
def test_usual_sizes_can_be_drawn_and_do_not_leak(named, n_test: int, n_train: int) -> None:
    spec = TaskSpec.model_validate(named)
    tested = draw_problems(spec, Split.TEST, 0, n_test)
    trained = draw_problems(spec, Split.TRAIN, 0, n_train)
    questions = [{problem.question.tobytes() for problem in drawn} for drawn in (tested, trained)]
    assert [len(distinct) for distinct in questions] == [n_test, n_train]
    keys = [
        set(spec.build(split).canonical_keys(np.stack([problem.question for problem in drawn])).tolist())
        for split, drawn in ((Split.TEST, tested), (Split.TRAIN, trained))
    ]
    assert not keys[0] & keys[1]


def test_the_cut_takes_the_tasks_share_of_the_space() -> None:
    task = TaskSpec(name="life").build()
    on_test_side = in_test_partition(task, np.stack([problem.question for problem in task.draw(10_000)]))
    assert abs(on_test_side.mean() - task.test_share) < 0.02


def test_a_space_too_small_for_the_test_set_is_an_error_that_says_so() -> None:
    spec = TaskSpec.model_validate({"maze": {"height": 5, "width": 5}})
    expected = (
        r"task maze\(height=5, width=5\): 64 distinct test problems asked for, only \d found; lower n_test or enlarge"
    )
    with pytest.raises(ValueError, match=expected):
        draw_problems(spec, Split.TEST, 0, 64)


def test_a_small_space_repeats_training_problems_but_keeps_them_nested() -> None:
    spec = TaskSpec.model_validate({"elementary_ca": {"width": 6, "steps": 2}})
    many = draw_problems(spec, Split.TRAIN, 0, 300)
    distinct = {problem.question.tobytes() for problem in many}
    assert len(distinct) < 64
    # Every problem of the space comes once before any comes twice.
    assert len({problem.question.tobytes() for problem in many[: len(distinct)]}) == len(distinct)
    few = draw_problems(spec, Split.TRAIN, 0, 100)
    assert [problem.question.tolist() for problem in few] == [problem.question.tolist() for problem in many[:100]]
    assert len({problem.problem_id for problem in many}) == 300


def test_test_knobs_apply_to_the_test_split_only() -> None:
    spec = TaskSpec.model_validate({"maze": {"height": 9, "width": 9, "test": {"height": 11, "width": 13}}})
    assert spec.problem(Split.TRAIN, 0, 0).question.shape == (9, 9)
    assert spec.problem(Split.TEST, 0, 0).question.shape == (11, 13)


class Given(Task):
    """Twelve given problems, and more that are drawn."""

    palette: ClassVar[Palette] = Palette(((0, 0, 0), (255, 255, 255)), ("off", "on"))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=4)

    def given_problems(self, split: Split) -> list[Problem]:
        grids = [frozen_grid([[number >> bit & 1 for bit in range(8)]]) for number in range(24)]
        return [Problem(grid, grid) for grid in grids[split == Split.TEST :: 2]]

    def generate(self, rng: np.random.Generator) -> Problem:
        grid = frozen_grid(rng.integers(0, 2, (1, 8)))
        return Problem(grid, grid)


class OnlyGiven(Given):
    generate = Task.generate


@pytest.fixture
def given_task(monkeypatch: pytest.MonkeyPatch) -> TaskSpec:
    monkeypatch.setattr(TaskSpec, "build", lambda spec, split=Split.TRAIN: Given())
    return TaskSpec(name="life")


def questions(problems: list[Problem]) -> list[bytes]:
    return [problem.question.tobytes() for problem in problems]


def test_given_problems_come_first_in_the_seeds_order_then_new_ones(given_task: TaskSpec) -> None:
    given = questions(Given().given_problems(Split.TRAIN))
    first, second = (questions(draw_problems(given_task, Split.TRAIN, seed, 40)) for seed in (0, 1))
    assert first[:12] != second[:12]
    assert set(first[:12]) == set(second[:12]) == set(given)
    assert len(set(first)) == 40
    assert questions(draw_problems(given_task, Split.TRAIN, 0, 15)) == first[:15]
    tested = questions(draw_problems(given_task, Split.TEST, 0, 12))
    assert tested == questions(Given().given_problems(Split.TEST))


def test_more_than_the_given_problems_of_a_task_that_generates_none_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TaskSpec, "build", lambda spec, split=Split.TRAIN: OnlyGiven())
    assert len(draw_problems(TaskSpec(name="life"), Split.TRAIN, 0, 12)) == 12
    with pytest.raises(ValueError, match="task life: 13 train problems asked for, it has 12; lower n_train"):
        draw_problems(TaskSpec(name="life"), Split.TRAIN, 0, 13)


@pytest.mark.parametrize("named", ["life", {"elementary_ca": {"width": 10, "steps": 2}}])
def test_batches_and_orders_of_drawing_change_nothing(named, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TaskSpec.model_validate(named)
    whole = questions(draw_problems(spec, Split.TRAIN, 3, 500))
    monkeypatch.setattr("task_generators.splits.BATCH_SIZE", 7)
    monkeypatch.setattr("task_generators.splits.REDRAWS_AT_ONCE", 3)
    assert questions(draw_problems(spec, Split.TRAIN, 3, 500)) == whole


def test_problems_are_those_of_drawing_one_after_the_other() -> None:
    """The definition, followed literally: index i is its first draw on the right side that is none of those before."""
    spec = TaskSpec.model_validate({"elementary_ca": {"width": 9, "steps": 2}})
    task = spec.build()
    key = (spec.name, task.generator_version, task.model_dump_json(exclude_defaults=True), "train", 5)
    expected: list[bytes] = []
    for index in range(250):
        for attempt in range(1000):
            batch = task.generate_many(problem_seeds(key, np.array([index]), attempt))
            question = batch.questions[0].tobytes()
            if not in_test_partition(task, batch.questions)[0] and question not in expected:
                break
        expected.append(question)
    assert questions(draw_problems(spec, Split.TRAIN, 5, 250)) == expected


def test_training_problems_keep_their_distance_from_the_test_set() -> None:
    near, far = (
        TaskSpec.model_validate({"life": {"height": 6, "width": 6, "min_test_distance": distance}})
        for distance in (0, 0.25)
    )
    assert far.label() == "life(height=6, width=6, min_test_distance=0.25)"
    assert TaskSpec.model_validate({"life": json.loads(far.params_json())}) == far
    tested = np.stack([problem.answer for problem in draw_problems(far, Split.TEST, 0, 200)])

    def nearest(spec: TaskSpec) -> float:
        trained = np.stack([problem.answer for problem in draw_problems(spec, Split.TRAIN, 0, 300)])
        return (trained[:, None] != tested).mean(axis=(2, 3)).min()

    assert nearest(near) < 0.25 <= nearest(far)
    for n in (50, 200):
        assert questions(draw_problems(far, Split.TEST, 0, n)) == questions(draw_problems(near, Split.TEST, 0, n))
    with pytest.raises(ValueError, match="min_test_distance is kept from 200 test problems, not 201"):
        draw_problems(far, Split.TEST, 0, 201)


def test_a_distance_that_no_problem_keeps_is_an_error() -> None:
    spec = TaskSpec.model_validate({"life": {"height": 6, "width": 6, "min_test_distance": 0.99}})
    with pytest.raises(ValueError, match="only 0 found; lower n_train or min_test_distance or enlarge the task"):
        draw_problems(spec, Split.TRAIN, 0, 3)


def test_the_paths_of_mazes_differ_by_their_jaccard_index() -> None:
    spec = TaskSpec.model_validate({"maze": {"height": 17, "width": 17, "min_test_distance": 0.5}})
    tested = [set(zip(*np.nonzero(p.answer == 4), strict=True)) for p in draw_problems(spec, Split.TEST, 0, 200)]
    for problem in draw_problems(spec, Split.TRAIN, 0, 30):
        path = set(zip(*np.nonzero(problem.answer == 4), strict=True))
        assert all(len(path & other) / len(path | other) <= 0.5 for other in tested)


OTHER_KEYS = [
    {"elementary_ca": {"width": 12, "steps": 1, "test": {"boundary": "fixed"}}},
    {"elementary_ca": {"width": 12, "steps": 1, "boundary": "fixed", "test": {"boundary": "periodic"}}},
    {"life": {"height": 4, "width": 4, "test": {"edges": "torus"}}},
    {"life": {"height": 4, "width": 4, "edges": "torus", "test": {"edges": "dead"}}},
    {"langton_ant": {"height": 4, "width": 4, "start": "center", "test": {"start": "random"}}},
    {"langton_ant": {"height": 3, "width": 3, "start": "random", "test": {"start": "center"}}},
]


@pytest.mark.parametrize("named", OTHER_KEYS)
def test_knobs_of_the_test_split_that_change_the_symmetries_let_nothing_leak(named) -> None:
    spec = TaskSpec.model_validate(named)
    tested = np.stack([problem.question for problem in draw_problems(spec, Split.TEST, 0, 15)])
    trained = np.stack([problem.question for problem in draw_problems(spec, Split.TRAIN, 0, 2000)])
    for task in (spec.build(split) for split in Split):
        assert not set(task.canonical_keys(tested).tolist()) & set(task.canonical_keys(trained).tolist())
    alone = TaskSpec(name=spec.name, params={**spec.params, **spec.test})
    ids = {problem.problem_id for drawn in (spec, alone) for problem in draw_problems(drawn, Split.TEST, 0, 15)}
    assert len(ids) == 30, "other problems, other names"


def test_the_distance_is_kept_from_as_many_test_problems_as_there_are() -> None:
    spec = TaskSpec.model_validate({"hanoi": {"disks": 3, "min_test_distance": 0.1}})
    assert len(draw_problems(spec, Split.TRAIN, 0, 2)) == 2
