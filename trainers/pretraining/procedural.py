"""A fixed library of generic grid transitions, on which the tiny backbones are pretrained.

``LIBRARY`` holds two hundred rules drawn once from fixed seeds, ``SHORT_LIBRARY`` a third as many: automata of
three colours in space (one step) and in time (rows that grow), offsets, shifts, mirrors, gravity, sorting, flooding,
rays, outlines. Each rule is one "caption": given the caption and a question, the answer is determined, so a model has
to learn to look at neighbours, count them, copy, move and propagate.

None of the tasks is in it. Every automaton here has three states, and its table mixes all three: a table that maps some
two of its states to themselves (and would so hold a two-state automaton such as an elementary or a Life-like rule) is
drawn again. There are no mazes, no shortest paths, no number puzzles and no board games.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt

from task_generators.render import ARC_COLORS, MAZE_PALETTE
from task_generators.rng import problem_rng

Cells = npt.NDArray[np.int8]
"""Cell codes, shape (height, width)."""
Transform = Callable[[np.random.Generator, tuple[int, int]], tuple[Cells, Cells]]
"""Draws one (question, answer) pair of the given (height, width)."""

COLOR_POOL = tuple(dict.fromkeys((*ARC_COLORS, *MAZE_PALETTE.colors)))
NUM_STATES = 3
UNSEEN = 3  # the code of cells that a growing process has not reached yet
NUM_CODES = 4
MOORE = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))
VON_NEUMANN = ((-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True)
class Rule:
    """One caption of the library: its family's name, the RGB colours of codes 0..3, and how a pair is drawn."""

    family: str
    colors: tuple[tuple[int, int, int], ...]
    draw: Transform


@dataclass(frozen=True)
class TransitionBatch:
    """B pairs of one shape: ``questions`` and ``answers`` (B, H, W) codes 0..3, ``rules`` (B,) into its library."""

    questions: Cells
    answers: Cells
    rules: npt.NDArray[np.int64]


def _neighbours(cells: Cells, offset: tuple[int, int], torus: bool, outside: int = 0) -> Cells:
    """For every cell the code at ``offset`` (rows down, columns right) from it; ``outside`` beyond a hard edge."""
    down, right = offset
    if torus:
        return np.roll(cells, (-down, -right), axis=(0, 1))
    height, width = cells.shape
    reach = max(abs(down), abs(right))
    padded = np.pad(cells, reach, constant_values=outside)
    return padded[reach + down : reach + down + height, reach + right : reach + right + width]


def _random_cells(rng: np.random.Generator, shape: tuple[int, ...]) -> Cells:
    """Three-colour noise of random densities in which every colour occurs."""
    rarest = rng.uniform(0.02, 0.33)
    second = rng.uniform(0.25, 0.65) * (1 - rarest)
    cells = rng.choice(NUM_STATES, size=shape, p=rng.permutation([rarest, second, 1 - rarest - second])).astype(np.int8)
    places = rng.choice(cells.size, size=NUM_STATES, replace=False)
    cells.reshape(-1)[places] = np.arange(NUM_STATES)
    return cells


def _holds_two_state_rule(table: npt.NDArray[np.int8], own_axes: int) -> bool:
    """Whether some two states are closed under ``table``, whose first ``own_axes`` axes are indexed by states."""
    for pair in combinations(range(NUM_STATES), 2):
        outputs = table[np.ix_(*[list(pair)] * own_axes, *[range(n) for n in table.shape[own_axes:]])]
        if np.isin(outputs, pair).all():
            return True
    return False


def _count_rule(rng: np.random.Generator) -> Transform:
    """One step of a three-state automaton: own state and the number of neighbours in state 1 decide."""
    offsets = MOORE if rng.random() < 0.75 else VON_NEUMANN
    torus = rng.random() < 0.3
    while True:
        if rng.random() < 0.5:  # two thresholds a state: smooth tables, as in cyclic or excitable media
            low, high = np.sort(rng.integers(0, len(offsets) + 2, size=(2, NUM_STATES)), axis=0)
            counts = np.arange(len(offsets) + 1)
            inside = (counts >= low[:, None]) & (counts <= high[:, None])
            values = rng.integers(0, NUM_STATES, size=(NUM_STATES, 2))
            table = np.where(inside, values[:, :1], values[:, 1:]).astype(np.int8)
        else:
            table = rng.integers(0, NUM_STATES, size=(NUM_STATES, len(offsets) + 1), dtype=np.int8)
        if len(np.unique(table)) == NUM_STATES and not _holds_two_state_rule(table, 1):
            break

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Cells, Cells]:
        question = _random_cells(rng, shape)
        counts = sum((_neighbours(question, offset, torus) == 1).astype(np.int8) for offset in offsets)
        return question, table[question, counts]

    return draw


def _row_rule(rng: np.random.Generator, at_most: int = 5) -> Transform:
    """A three-state automaton on a ring, a row a step, for a few steps; some grow upwards or sideways."""
    offsets = [(-1, 0, 1), (-1, 0, 1), (-1, 1), (-1, 0), (0, 1)][rng.integers(5)]
    steps, turns = int(rng.integers(min(2, at_most - 2), at_most + 1)), int(rng.choice([0, 0, 0, 1, 2, 3]))
    while True:
        table = rng.integers(0, NUM_STATES, size=(NUM_STATES,) * len(offsets), dtype=np.int8)
        if len(np.unique(table)) == NUM_STATES and not _holds_two_state_rule(table, len(offsets)):
            break

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Cells, Cells]:
        height, width = shape if turns % 2 == 0 else shape[::-1]
        question = np.full((height, width), UNSEEN, dtype=np.int8)
        question[0] = _random_cells(rng, (width,))
        answer = question.copy()
        for row in range(min(steps, height - 1)):
            answer[row + 1] = table[tuple(np.roll(answer[row], -offset) for offset in offsets)]
        return np.rot90(question, turns).copy(), np.rot90(answer, turns).copy()

    return draw


def _offset_rule(rng: np.random.Generator) -> Transform:
    """A cell and the one at a fixed offset, up to two away, decide."""
    offset = rng.integers(-2, 3, size=2)
    torus = rng.random() < 0.5
    while True:
        table = rng.integers(0, NUM_STATES, size=(NUM_STATES,) * 2, dtype=np.int8)
        if offset.any() and not _holds_two_state_rule(table, 2):
            break
        offset = rng.integers(-2, 3, size=2)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Cells, Cells]:
        question = _random_cells(rng, shape)
        return question, table[question, _neighbours(question, (int(offset[0]), int(offset[1])), torus)]

    return draw


def _move_rule(rng: np.random.Generator) -> Transform:
    """Shift, mirror, recolour, let things fall, or sort lines."""
    kind = ["shift", "mirror", "recolor", "gravity", "sort"][rng.integers(5)]
    axis = int(rng.integers(2))
    shift = (int(rng.integers(-2, 3)), int(rng.integers(-2, 3)))
    permutation = rng.permutation(NUM_STATES).astype(np.int8)
    flip = bool(rng.integers(2))

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Cells, Cells]:
        question = _random_cells(rng, shape)
        if kind == "shift":
            answer = np.roll(question, shift, axis=(0, 1))
        elif kind == "mirror":
            answer = np.flip(question, axis=axis)
        elif kind == "recolor":
            answer = permutation[question]
        elif kind == "gravity":  # the colours other than 0 fall, keeping their order
            order = np.argsort((question != 0) ^ flip, axis=axis, kind="stable")
            answer = np.take_along_axis(question, order, axis=axis)
        else:
            answer = np.sort(question, axis=axis)
            answer = np.flip(answer, axis=axis) if flip else answer
        return question, answer.copy()

    return draw


def _spread_rule(rng: np.random.Generator) -> Transform:
    """Colour 1 floods the connected cells of colour 0 (up to some steps), shoots rays, or outlines what is not 0."""
    kind = ["flood", "ray", "outline"][rng.integers(3)]
    offsets = MOORE if rng.random() < 0.3 else VON_NEUMANN
    direction = VON_NEUMANN[rng.integers(4)]
    steps = int(rng.integers(1, 5)) if rng.random() < 0.7 else 100

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Cells, Cells]:
        question = np.where(rng.random(shape) < rng.uniform(0.1, 0.45), 2, 0).astype(np.int8)
        places = rng.choice(question.size, size=int(rng.integers(1, 4)), replace=False)
        question.reshape(-1)[places] = 1
        answer = question.copy()
        reach = offsets if kind != "ray" else (direction,)
        for _ in range(1 if kind == "outline" else steps):
            source = answer > 0 if kind == "outline" else answer == 1
            grown = np.zeros(shape, dtype=bool)
            for down, right in reach:
                grown |= _neighbours(source.astype(np.int8), (-down, -right), torus=False).astype(bool)
            reached = grown & (answer == 0)
            if not reached.any():
                break
            answer[reached] = UNSEEN if kind == "outline" else 1
        return question, answer

    return draw


Families = dict[str, tuple[Callable[[np.random.Generator], Transform], int]]
"""Family name -> (maker of one rule, how many rules of it a library holds)."""

FAMILIES: Families = {
    "count": (_count_rule, 72),
    "row": (_row_rule, 72),
    "offset": (_offset_rule, 24),
    "move": (_move_rule, 24),
    "spread": (_spread_rule, 16),
}
# A model of a million parameters follows the captions of a third as many rules, and learns more from them.
SHORT_FAMILIES: Families = {
    "count": (_count_rule, 26),
    "row": (partial(_row_rule, at_most=3), 20),
    "offset": (_offset_rule, 8),
    "move": (_move_rule, 5),
    "spread": (_spread_rule, 5),
}


def library(families: Families) -> tuple[Rule, ...]:
    """The rules of ``families``, in order; rule i of a family does not depend on how many there are."""
    rules = []
    for family, (maker, count) in families.items():
        for index in range(count):
            rng = problem_rng("procedural", family, index)
            colors = tuple(COLOR_POOL[i] for i in rng.choice(len(COLOR_POOL), size=NUM_CODES, replace=False))
            rules.append(Rule(family, colors, maker(rng)))
    return tuple(rules)


LIBRARY = library(FAMILIES)
SHORT_LIBRARY = library(SHORT_FAMILIES)


def sample_batch(
    rng: np.random.Generator,
    batch_size: int,
    shape: tuple[int, int],
    rules_from: Sequence[Rule] = LIBRARY,
    family: str | None = None,
) -> TransitionBatch:
    """Draw ``batch_size`` pairs of grids of ``shape`` (height, width >= 3), each by a rule of the library at random.

    ``family`` keeps to the rules of one family. ``rules`` of the batch index ``rules_from``.
    """
    choices = [index for index, rule in enumerate(rules_from) if family in (None, rule.family)]
    rules = np.array(choices)[rng.integers(0, len(choices), size=batch_size)]
    pairs = [rules_from[rule].draw(rng, shape) for rule in rules]
    return TransitionBatch(np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs]), rules)
