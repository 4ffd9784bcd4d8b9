"""Which gain and offset a whole picture was drawn with, compiled. Import inside functions only (numba is slow to load).

A palette colour c is seen as clip(gain * c + offset, 0, 255), with one gain for the picture and an offset for each
channel. Neither is likely to be large, and both are bounded.

M observed colours, K palette colours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled

DEVIATION = 12.0
"""Standard deviation of an observed colour about what the palette, gain and offset say, in each channel."""
OUTLIER_COST = 9.0
"""What a colour costs at most: 51 away in RGB, it counts as damaged and says nothing of gain and offset."""
MAX_DARKENING, MAX_OFFSET = 0.3, 60.0
MAX_GROUP_WEIGHT = 5.0
"""Cells of one colour share their systematic errors (compression), so many of them are not many measurements."""


@compiled
def tint_cost(tint: npt.NDArray[np.float64]) -> float:
    """Prior cost of a tint (gain, offset red, green, blue); it grows fast beyond a gain of 0.7 and offsets of 60.

    Rises steeply from none, because most pictures have none: a picture of one colour is not explained by damage where
    none will do. Darkening alone is likelier than an offset, the same offset in all channels likelier than three, and
    a lot of both is unlikely.
    """
    darkening = max(0.0, 1.0 - tint[0]) / MAX_DARKENING
    offset = max(abs(tint[1]), abs(tint[2]), abs(tint[3])) / MAX_OFFSET
    common = (tint[1] + tint[2] + tint[3]) / 3.0
    squares = (tint[1] - common) ** 2 + (tint[2] - common) ** 2 + (tint[3] - common) ** 2
    spread = np.sqrt(squares / 3.0) / MAX_OFFSET
    cost = 0.5 * darkening / (darkening + 0.2) + 1.0 * offset / (offset + 0.2) + 1.5 * spread / (spread + 0.2)
    cost += 0.5 * (offset + spread)
    cost += 4.0 * darkening * offset + 40.0 * max(0.0, darkening * offset - 0.25)
    return cost + 30.0 * (max(0.0, darkening - 1.03) + max(0.0, offset - 1.03)) + 100.0 * max(0.0, tint[0] - 1.0)


@compiled
def total_cost(
    tint: npt.NDArray[np.float64],
    observed: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    colors: npt.NDArray[np.float64],
    num_cell_colors: int,
    num_lines: int,
    seen: npt.NDArray[np.float64],
    labeling: npt.NDArray[np.int64],
) -> float:
    """How badly a tint explains the observed colours (M, 3).

    Each may be any of the first ``num_cell_colors`` colours, but the last ``num_lines`` of them only the last colour,
    that of the border lines. ``seen``: room for (K, 3). ``labeling`` (1,) receives a number that stands for which
    observed colour was taken for which of the palette.
    """
    labels = 0
    num_colors = len(colors)
    for k in range(num_colors):
        for channel in range(3):
            seen[k, channel] = min(255.0, max(0.0, tint[0] * colors[k, channel] + tint[1 + channel]))
    cost = tint_cost(tint)
    scale = 0.5 / (DEVIATION * DEVIATION)
    for m in range(len(observed)):
        best, label = OUTLIER_COST / scale, num_colors
        is_line = m >= len(observed) - num_lines
        for k in range(num_colors - 1 if is_line else 0, num_colors if is_line else num_cell_colors):
            dr = observed[m, 0] - seen[k, 0]
            dg = observed[m, 1] - seen[k, 1]
            db = observed[m, 2] - seen[k, 2]
            distance = dr * dr + dg * dg + db * db
            if distance < best:
                best, label = distance, k
        labels = labels * 31 + label
        cost += weights[m] * best * scale
    labeling[0] = labels
    return cost


@compiled
def fit_tint(
    observed: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    colors: npt.NDArray[np.float64],
    num_cell_colors: int,
    num_lines: int,
    first_guesses: npt.NDArray[np.float64],
    tints: npt.NDArray[np.float64],
    tint_costs: npt.NDArray[np.float64],
) -> None:
    """Tints (gain, three offsets) of low ``total_cost``: fills in ``tints`` (T, 4) and what they cost (T,).

    Tries all ``first_guesses`` (G, 4), T or more, and improves by coordinate search the best T of those that take the
    observed colours for different colours of the palette.
    """
    num_refined = len(tints)
    seen = np.empty((len(colors), 3))
    costs = np.empty(len(first_guesses))
    labelings = np.empty(len(first_guesses), dtype=np.int64)
    labeling = np.empty(1, dtype=np.int64)
    candidate = np.empty(4)
    before = np.empty(4)
    for turn in range(len(first_guesses) + num_refined):
        # All guesses as they are, then the best ones left, refined: one call of the cost keeps compiling short.
        refining = turn >= len(first_guesses)
        guess = turn
        if refining:
            guess = 0
            for other in range(len(first_guesses)):
                if costs[other] < costs[guess]:
                    guess = other
        for part in range(4):
            candidate[part] = first_guesses[guess, part]
            before[part] = candidate[part]
        cost = 1e18
        step, move, improved = 8.0, -1, False
        while step >= 1.0:
            moved = total_cost(candidate, observed, weights, colors, num_cell_colors, num_lines, seen, labeling)
            if moved < cost - 1e-9:
                cost = moved
                improved = move >= 0
                for part in range(4):
                    before[part] = candidate[part]
            if not refining:
                break
            move += 1
            if move == 10:
                move = 0
                if not improved:
                    step /= 2.0
                improved = False
            sign = 1.0 - 2.0 * (move % 2)
            for part in range(4):
                candidate[part] = before[part]
                if move // 2 == part or (move >= 8 and part > 0):
                    candidate[part] += sign * step * (1.0 if part > 0 else 1.0 / 160.0)
        if not refining:
            costs[guess], labelings[guess] = cost, labeling[0]
        else:
            # Where nothing is left to refine, what is found again must not count twice.
            tint_costs[turn - len(first_guesses)] = cost if costs[guess] < 1e18 else 1e18
            for other in range(len(first_guesses)):
                if labelings[other] == labelings[guess]:
                    costs[other] = 1e18
            for part in range(4):
                tints[turn - len(first_guesses), part] = before[part]


@compiled
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
            for channel in range(3):
                groups[num_groups, channel] = cells[cell, channel]
            counts[num_groups] = 1.0
            num_groups += 1
        else:
            counts[nearest] += 1.0
            for channel in range(3):
                groups[nearest, channel] += (cells[cell, channel] - groups[nearest, channel]) / counts[nearest]
    return num_groups
