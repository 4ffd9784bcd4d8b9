import numpy as np

from task_generators.problem import frozen_grid
from task_generators.scoring import cell_accuracy, exact_match, grid_scores, repeats_training_answer

ANSWER = frozen_grid([[1, 2], [3, 4]])


def test_equal_grids() -> None:
    assert grid_scores(ANSWER, frozen_grid([[1, 2], [3, 4]])) == {"exact_match": True, "cell_accuracy": 1.0}


def test_each_wrong_cell_costs_its_share() -> None:
    assert cell_accuracy(ANSWER, frozen_grid([[1, 2], [3, 0]])) == 0.75
    assert exact_match(ANSWER, frozen_grid([[1, 2], [3, 0]])) is False


def test_missing_or_misshapen_answers_score_zero() -> None:
    for predicted in (None, frozen_grid([[1, 2]]), frozen_grid([[1, 2, 3, 4]]), np.zeros((2, 0), np.int8)):
        assert grid_scores(ANSWER, predicted) == {"exact_match": False, "cell_accuracy": 0.0}


def test_an_output_repeats_a_training_answer_that_equals_it_cell_by_cell() -> None:
    training_answers = [frozen_grid([[0, 0, 0, 0]]), ANSWER, ANSWER]
    outputs = [ANSWER, frozen_grid([[1, 2], [3, 0]]), frozen_grid([[1, 2, 3, 4]]), None, np.zeros((1, 4), np.uint8)]
    assert repeats_training_answer(outputs, training_answers) == [True, False, False, False, True]


def test_shape_counts_where_the_cells_are_the_same() -> None:
    outputs = [frozen_grid(np.zeros(shape)) for shape in ((1, 4), (4, 1), (2, 2))]
    assert repeats_training_answer(outputs, [frozen_grid(np.zeros((4, 1)))]) == [False, True, False]


def test_nothing_repeats_what_was_not_trained_on() -> None:
    assert repeats_training_answer([ANSWER, None], []) == [False, False]
    assert repeats_training_answer([], [ANSWER]) == []
