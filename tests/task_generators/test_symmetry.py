import numpy as np
import pytest

from task_generators.copy_hash import copy_hashes, grid_hashes
from task_generators.symmetry import dihedral_copies, mirror_copies, ring_copies, smallest_torus_copy


@pytest.mark.parametrize(("shape", "num_copies"), [((5, 5), 8), ((4, 6), 4), ((1, 7), 2)])
def test_dihedral_copies_are_the_group(shape: tuple[int, int], num_copies: int) -> None:
    grid = np.arange(np.prod(shape)).reshape(shape)
    copies = {tuple(copy) for copy in grid.ravel()[dihedral_copies(*shape)].tolist()}
    turned = [np.rot90(flipped, turns) for turns in range(4) for flipped in (grid, grid[::-1])]
    assert copies == {tuple(copy.ravel().tolist()) for copy in turned if copy.shape == shape}
    assert len(copies) == num_copies


def test_mirror_copies_exchange_left_and_right() -> None:
    grid = np.arange(12).reshape(3, 4)
    assert grid.ravel()[mirror_copies(3, 4)].reshape(2, 3, 4).tolist() == [grid.tolist(), grid[:, ::-1].tolist()]


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (8, 8)])
def test_hashes_are_the_same_for_copies_and_differ_otherwise(shape: tuple[int, int]) -> None:
    grids = np.random.default_rng(0).integers(0, 5, (200, *shape)).astype(np.int8)
    group = dihedral_copies(*shape)
    hashes = copy_hashes(grids, group, 5)
    assert hashes.dtype == np.uint64
    assert len(np.unique(hashes)) == 200
    for permutation in group:
        copies = grids.reshape(200, -1)[:, permutation].reshape(grids.shape)
        assert np.array_equal(copy_hashes(copies, group, 5), hashes)
    assert len(np.unique(grid_hashes(grids, 5))) == 200


def test_read_only_and_empty_batches_are_hashed() -> None:
    grids = np.ones((2, 3, 3), dtype=np.int8)
    grids.setflags(write=False)
    assert len(np.unique(grid_hashes(grids, 2))) == 1
    assert grid_hashes(grids[:0], 2).shape == (0,)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6)])
def test_torus_copies_share_a_key(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    keys = set()
    for _ in range(50):
        grid = rng.integers(0, 2, shape).astype(np.int8)
        keys.add(smallest_torus_copy(grid))
        for permutation in dihedral_copies(*shape):
            moved = np.roll(grid.ravel()[permutation].reshape(shape), tuple(rng.integers(0, shape)), axis=(0, 1))
            assert smallest_torus_copy(moved) == smallest_torus_copy(grid)
    assert len(keys) >= 49


def test_torus_key_counts_the_patterns_up_to_symmetry() -> None:
    grids = [np.array([n >> bit & 1 for bit in range(9)], dtype=np.int8).reshape(3, 3) for n in range(512)]
    # Burnside's lemma for the 72 symmetries of the 3x3 torus, OEIS A255016.
    assert len({smallest_torus_copy(grid) for grid in grids}) == 26


@pytest.mark.parametrize(("length", "num_bracelets"), [(3, 4), (6, 13), (10, 78), (12, 224)])
def test_ring_hashes_count_bracelets(length: int, num_bracelets: int) -> None:
    """The number of two-coloured bracelets is OEIS A000029."""
    rings = np.array([[n >> bit & 1 for bit in range(length)] for n in range(2**length)], dtype=np.int8)
    assert len(np.unique(copy_hashes(rings, ring_copies(length), 2))) == num_bracelets
