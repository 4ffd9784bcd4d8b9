import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from task_generators.grid_json import MAX_TEXT_CHARS, dumps, loads
from task_generators.problem import frozen_grid

GRID = [[0, 1], [2, 3]]
grids = arrays(np.int8, st.tuples(st.integers(1, 8), st.integers(1, 8)))


@given(grids)
def test_round_trip_is_compact_json(cells: np.ndarray) -> None:
    text = dumps(frozen_grid(cells))
    assert json.loads(text) == cells.tolist()
    assert " " not in text
    grid = loads(text)
    assert grid is not None
    assert np.array_equal(grid, cells)
    assert not grid.flags.writeable


@given(grids, st.text(st.characters(exclude_characters="[]"), max_size=30), st.text(max_size=30))
def test_finds_the_grid_in_prose(cells: np.ndarray, before: str, after: str) -> None:
    assert np.array_equal(loads(f"{before}{json.dumps(cells.tolist(), indent=1)}{after}"), cells)


@pytest.mark.parametrize(
    "text",
    [
        "[[0,1],[2,3]]",
        " [ [0 , 1] ,\n\t[2,3 ] ] ",
        "The answer is:\n```json\n[[0, 1],\n [2, 3]]\n```\nI hope this helps!",
        "Row [0, 1] comes first, so [[0,1],[2,3]] and not [[9,9],[9,9]].",
        "[[0,1],[2,3]",
        "[[0,1],[2,3",
        "[[0,1],[2,3],",
        "[[0,1],[2,3]\n```\ndone",
        "[[0,1],[2,3]\nThat is all.",
        "[[0,1,[2,3]]",
        "[[0,1][2,3]]",
        "[[0,1,],[2,3,],]",
        "[[[0,1],[2,3]]]",
        '{"grid": [[0,1],[2,3]]}',
        "[[0,1],[2]] is wrong, [[0,1],[2,3]] is right",
    ],
)
def test_forgives_what_surrounds_the_cells(text: str) -> None:
    grid = loads(text)
    assert grid is not None
    assert grid.tolist() == GRID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no grid",
        "[]",
        "[[]]",
        "[0,1]",
        "[[",
        "[[0,1],[2]]",
        "[[0,1],[2",
        "[[0,1],[2,128]]",
        "[[0,1],[2,-129]]",
        "[[0,1],[2,99999999999999999999999]]",
        "[[0,1],[2,30000",
        "[[0,1],[2,3.5]]",
        "[[0,1],[2,1e3]]",
        "[[0,1],[2,x]]",
        "[[0,1],[2,null]]",
        "[[0,1],[2 3]]",
        "[[0,1],[2,'3']]",
        "[[0,1],[2,٣]]",
        "[[0,1],[2,--3]]",
        "9" * 10_000,
        "[[0,1],[2,3]]".rjust(MAX_TEXT_CHARS + 1),
    ],
)
def test_guesses_no_cells(text: str) -> None:
    assert loads(text) is None


@given(st.text(alphabet='[],-0123456789 \n`"ax', max_size=200))
@settings(max_examples=500)
def test_never_raises(text: str) -> None:
    grid = loads(text)
    assert grid is None or (grid.ndim == 2 and grid.size > 0)


@pytest.mark.parametrize(
    "unit", ["[", "[[", "[ ", "[[1", "[[1,", "[[1,2],", "[[1]", "[[1] a", " ", "9", "1,", "[[[1,[", "-"]
)
def test_hostile_texts_take_time_in_proportion_to_their_length(unit: str) -> None:
    def seconds(num_chars: int) -> float:
        text = "[[1," + unit * (num_chars // len(unit))
        start = time.process_time()
        loads(text)
        return time.process_time() - start

    # A quadratic reader would take a hundred times as long, and minutes rather than the fraction of a second.
    assert seconds(200_000) < 40 * max(seconds(20_000), 0.005)
