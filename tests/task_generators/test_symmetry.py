import numpy as np
import pytest

from task_generators.problem import frozen_grid
from task_generators.symmetry import (
    dihedral_copies,
    smallest_dihedral_copy,
    smallest_ring_copy,
    smallest_torus_copy,
)


@pytest.mark.parametrize(("shape", "num_copies"), [((5, 5), 8), ((4, 6), 4), ((1, 7), 4)])
def test_dihedral_copies_are_the_group(shape: tuple[int, int], num_copies: int) -> None:
    grid = np.arange(np.prod(shape), dtype=np.int8).reshape(shape)
    copies = {copy.tobytes() for copy in dihedral_copies(grid)}
    turned = [np.rot90(flipped, turns) for turns in range(4) for flipped in (grid, grid[::-1])]
    assert copies == {copy.tobytes() for copy in turned if copy.shape == shape}
    assert len(copies) == (num_copies if 1 not in shape else 2)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (8, 8)])
def test_keys_are_the_same_for_copies_and_differ_otherwise(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    plain, torus = set(), set()
    for _ in range(50):
        grid = frozen_grid(rng.integers(0, 2, shape))
        plain.add(smallest_dihedral_copy(grid))
        torus.add(smallest_torus_copy(grid))
        for copy in dihedral_copies(grid):
            assert smallest_dihedral_copy(copy) == smallest_dihedral_copy(grid)
            moved = np.roll(copy, tuple(rng.integers(0, shape)), axis=(0, 1))
            assert smallest_torus_copy(moved) == smallest_torus_copy(grid)
    assert len(plain) >= 49
    assert len(torus) >= 49


def test_torus_key_counts_the_patterns_up_to_symmetry() -> None:
    grids = [np.array([n >> bit & 1 for bit in range(9)], dtype=np.int8).reshape(3, 3) for n in range(512)]
    # Burnside's lemma for the 72 symmetries of the 3x3 torus, OEIS A255016.
    assert len({smallest_torus_copy(grid) for grid in grids}) == 26


@pytest.mark.parametrize(("length", "num_bracelets"), [(3, 4), (6, 13), (10, 78), (12, 224)])
def test_ring_key_counts_bracelets(length: int, num_bracelets: int) -> None:
    """The number of two-coloured bracelets is OEIS A000029."""
    rings = [np.array([n >> bit & 1 for bit in range(length)], dtype=np.int8) for n in range(2**length)]
    assert len({smallest_ring_copy(ring) for ring in rings}) == num_bracelets
