import numpy as np
import pytest

from task_generators.problem import Split
from task_generators.splits import draw_problems, in_test_partition
from task_generators.task import TaskSpec

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
        {spec.build(split).canonical_key(problem) for problem in drawn}
        for split, drawn in ((Split.TEST, tested), (Split.TRAIN, trained))
    ]
    assert not keys[0] & keys[1]


def test_the_cut_takes_the_tasks_share_of_the_space() -> None:
    task = TaskSpec(name="life").build()
    rng = np.random.default_rng(0)
    drawn = [in_test_partition(task, task.generate(rng)) for _ in range(2000)]
    assert abs(np.mean(drawn) - task.test_share) < 0.04


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
