"""Intervals of an accuracy: over test problems, over training seeds, and over both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NORMAL_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(
    share: npt.ArrayLike, n: npt.ArrayLike, z: float = NORMAL_95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Wilson's score interval (Wilson 1927) of an observed ``share`` (0 to 1) of ``n`` draws: lower, upper bounds."""
    share, n = np.asarray(share, dtype=float), np.asarray(n, dtype=float)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
