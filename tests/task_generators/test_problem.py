from functools import partial

import numpy as np
import pytest

from task_generators.problem import Batch, LazyStates, Problem, frozen_grid, stacked


def test_frozen_grid_copies_and_checks() -> None:
    cells = np.ones((2, 3), dtype=np.int64)
    grid = frozen_grid(cells)
    cells[0, 0] = 5
    assert grid.tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(ValueError, match="read-only"):
        grid[0, 0] = 2
    with pytest.raises(ValueError, match="two dimensions, not 1"):
        frozen_grid([1, 2])
    for cell in (128, -129, 0.5):
        with pytest.raises(ValueError, match="whole numbers from -128 to 127"):
            frozen_grid([[cell]])


def test_lazy_states_are_a_sequence() -> None:
    grids = tuple(frozen_grid([[code]]) for code in range(4))
    states = LazyStates(partial(tuple, grids))
    assert len(states) == 4
    assert [state.item() for state in states] == [0, 1, 2, 3]
    assert states[-1].item() == 3
    assert [state.item() for state in states[1:3]] == [1, 2]


def test_a_batch_makes_the_parts_of_a_problem_only_when_asked() -> None:
    questions = np.arange(8, dtype=np.int8).reshape(2, 2, 2)
    asked: list[int] = []

    def metadata(place: int) -> dict[str, int]:
        asked.append(place)
        return {"place": place}

    batch = Batch(questions, questions + 1, metadata=metadata)
    assert len(batch) == 2
    assert asked == []
    problem = batch.problem(1, "life/1")
    assert (problem.problem_id, problem.metadata, problem.states) == ("life/1", {"place": 1}, ())
    assert problem.question.tolist() == [[4, 5], [6, 7]]
    assert not problem.question.flags.writeable
    again = stacked([batch.problem(0), problem]).problem(1)
    assert (again.question.tolist(), again.metadata) == ([[4, 5], [6, 7]], {"place": 1})
    with pytest.raises(ValueError, match="same shape"):
        stacked([problem, Problem(frozen_grid([[1]]), frozen_grid([[1]]))])
