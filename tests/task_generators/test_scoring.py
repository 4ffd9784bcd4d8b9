import numpy as np

from task_generators.problem import frozen_grid
from task_generators.scoring import cell_accuracy, exact_match, grid_scores

ANSWER = frozen_grid([[1, 2], [3, 4]])


def test_equal_grids() -> None:
    assert grid_scores(ANSWER, frozen_grid([[1, 2], [3, 4]])) == {"exact_match": True, "cell_accuracy": 1.0}


def test_each_wrong_cell_costs_its_share() -> None:
    assert cell_accuracy(ANSWER, frozen_grid([[1, 2], [3, 0]])) == 0.75
    assert exact_match(ANSWER, frozen_grid([[1, 2], [3, 0]])) is False


def test_missing_or_misshapen_answers_score_zero() -> None:
    for predicted in (None, frozen_grid([[1, 2]]), frozen_grid([[1, 2, 3, 4]]), np.zeros((2, 0), np.int8)):
        assert grid_scores(ANSWER, predicted) == {"exact_match": False, "cell_accuracy": 0.0}
