from functools import partial

import numpy as np
import pytest

from task_generators.problem import LazyStates, frozen_grid


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
