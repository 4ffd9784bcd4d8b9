"""Random numbers inside compiled code. Import this inside functions only: numba takes half a second to load."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled


@compiled
def next_random(state: npt.NDArray[np.uint64]) -> np.uint64:
    """The next 64 random bits of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

    ``state``: shape (1,), moved on by the call; seeded from ``problem_rng``, so that problems stay a function of it.
    """
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    bits = state[0]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
