"""Which gain and offset a whole picture was drawn with, compiled. Import inside functions only (numba is slow to load).

A palette colour c is seen as clip(gain * c + offset, 0, 255), with one gain for the picture and an offset for each
channel. Neither is likely to be large, and both are bounded.

M observed colours, K palette colours.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

DEVIATION = 12.0
"""Standard deviation of an observed colour about what the palette, gain and offset say, in each channel."""
OUTLIER_COST = 9.0
"""What a colour costs at most: 51 away in RGB, it counts as damaged and says nothing of gain and offset."""
FULL_TINT_COST = 3.0
"""What the largest gain and offset cost: a picture of one colour is not explained by damage where none will do."""
MAX_DARKENING, MAX_OFFSET, MAX_TINT = 0.3, 60.0, 1.15


@numba.njit(cache=True)
def tint_cost(tint: npt.NDArray[np.float64]) -> float:
    """Prior cost of a tint (gain, offset red, green, blue): a budget that gain and offset share; huge beyond it."""
    offset = max(abs(tint[1]), abs(tint[2]), abs(tint[3])) / MAX_OFFSET
    darkening = (1.0 - tint[0]) / MAX_DARKENING
    spent = abs(darkening) + offset
    squares = (tint[1] ** 2 + tint[2] ** 2 + tint[3] ** 2) / (3.0 * MAX_OFFSET**2)
    cost = FULL_TINT_COST * (darkening * darkening + squares)
    return cost if spent <= MAX_TINT else cost + 40.0 * (spent - MAX_TINT)


@numba.njit(cache=True)
def total_cost(
    tint: npt.NDArray[np.float64],
    observed: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    colors: npt.NDArray[np.float64],
    last_only: int,
    seen: npt.NDArray[np.float64],
) -> float:
    """How badly a tint explains the observed colours (M, 3). The last ``last_only`` of them may only be the last colour.

    ``seen``: room for (K, 3).
    """
    num_colors = len(colors)
    for k in range(num_colors):
        for channel in range(3):
            seen[k, channel] = min(255.0, max(0.0, tint[0] * colors[k, channel] + tint[1 + channel]))
    cost = tint_cost(tint)
    scale = 0.5 / (DEVIATION * DEVIATION)
    for m in range(len(observed)):
        best = OUTLIER_COST / scale
        for k in range(num_colors - 1 if m >= len(observed) - last_only else 0, num_colors):
            dr = observed[m, 0] - seen[k, 0]
            dg = observed[m, 1] - seen[k, 1]
            db = observed[m, 2] - seen[k, 2]
            best = min(best, dr * dr + dg * dg + db * db)
        cost += weights[m] * best * scale
    return cost


@numba.njit(cache=True)
def fit_tint(
    observed: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    colors: npt.NDArray[np.float64],
    last_only: int,
    first_guesses: npt.NDArray[np.float64],
    num_refined: int,
    tint: npt.NDArray[np.float64],
) -> float:
    """The tint (gain, three offsets) of least ``total_cost``, filled in; returns that cost.

    Tries all ``first_guesses`` (G, 4) and improves the best ``num_refined`` of them by coordinate search.
    """
    seen = np.empty((len(colors), 3))
    costs = np.empty(len(first_guesses))
    for g in range(len(first_guesses)):
        costs[g] = total_cost(first_guesses[g], observed, weights, colors, last_only, seen)
    best_cost = 1e18
    candidate = np.empty(4)
    for _ in range(min(num_refined, len(first_guesses))):
        start = np.argmin(costs)
        cost = costs[start]
        costs[start] = 1e18
        candidate[:] = first_guesses[start]
        step = 8.0
        while step >= 1.0:
            improved = False
            for move in range(10):
                axis, sign = move // 2, 1.0 - 2.0 * (move % 2)
                before = candidate.copy()
                if axis == 0:
                    candidate[0] += sign * step / 160.0
                elif axis < 4:
                    candidate[axis] += sign * step
                else:
                    candidate[1:] += sign * step
                moved = total_cost(candidate, observed, weights, colors, last_only, seen)
                if moved < cost - 1e-9:
                    cost = moved
                    improved = True
                else:
                    candidate[:] = before
            if not improved:
                step /= 2.0
        if cost < best_cost:
            best_cost = cost
            tint[:] = candidate
    return best_cost


@numba.njit(cache=True)
def group_colors(
    cells: npt.NDArray[np.float64],
    radius: float,
    groups: npt.NDArray[np.float64],
    counts: npt.NDArray[np.float64],
) -> int:
    """Join like colours of ``cells`` (cells, 3) into means ``groups`` (at most M, 3); returns how many there are."""
    num_groups = 0
    for cell in range(len(cells)):
        nearest, best = -1, 1e18
        for group in range(num_groups):
            distance = 0.0
            for channel in range(3):
                distance += (cells[cell, channel] - groups[group, channel]) ** 2
            if distance < best:
                nearest, best = group, distance
        if best > radius * radius and num_groups < len(groups):
            groups[num_groups] = cells[cell]
            counts[num_groups] = 1.0
            num_groups += 1
        else:
            counts[nearest] += 1.0
            for channel in range(3):
                groups[nearest, channel] += (cells[cell, channel] - groups[nearest, channel]) / counts[nearest]
    return num_groups
