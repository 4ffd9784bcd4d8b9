"""Life-like cellular automata: compute a later generation of a two-dimensional pattern."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from task_generators.problem import Batch, Grid, LazyStates, Problem, frozen_grid
from task_generators.render import ARC_COLORS, Palette, RenderStyle
from task_generators.rng import mixed
from task_generators.symmetry import dihedral_copies, smallest_torus_copy
from task_generators.task import Task

RULE_NAMES = {
    "conway": "B3/S23",
    "day_and_night": "B3678/S34678",
    "highlife": "B36/S23",
    "maze": "B3/S12345",
    "seeds": "B2/S",
}
PATTERNS = {
    "block": ("##", "##"),
    "beehive": (".##.", "#..#", ".##."),
    "blinker": ("###",),
    "toad": (".###", "###."),
    "beacon": ("##..", "##..", "..##", "..##"),
    "glider": (".#.", "..#", "###"),
    "lightweight_spaceship": (".#..#", "#....", "#...#", "####."),
    "r_pentomino": (".##", "##.", ".#."),
    "acorn": (".#.....", "...#...", "##..###"),
}
"""Still lifes, oscillators, spaceships and methuselahs of Conway's rule, # alive."""


class Life(Task):
    """The question is a random or a classic pattern, the answer the same pattern ``steps`` generations later."""

    palette: ClassVar[Palette] = Palette(colors=ARC_COLORS[:2], names=("dead", "alive"))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
    symmetries: ClassVar[str] = "rotations and reflections; on a torus translations as well"

    generator_version: ClassVar[int] = 2

    rule: str = Field(
        default="B3/S23",
        description="neighbours (of 8) with which a cell is Born and with which it Survives, as in B3/S23; or one of "
        + ", ".join(RULE_NAMES),
        examples=["B2/S", "highlife"],
    )
    height: int = Field(default=8, ge=3, le=60, description="rows", examples=[6])
    width: int = Field(default=8, ge=3, le=60, description="columns", examples=[6])
    density: float = Field(default=0.4, gt=0, lt=1, description="chance of each cell to start alive", examples=[0.7])
    pattern: Literal["random", *PATTERNS] = Field(  # type: ignore[valid-type]
        default="random",
        description="random cells, or one classic pattern anywhere on an empty board, turned or reflected at random",
        examples=["glider", "acorn"],
    )
    steps: int = Field(default=1, ge=1, le=1000, description="generations from question to answer", examples=[2])
    edges: Literal["dead", "torus"] = Field(
        default="dead",
        description="dead: nothing lives beyond; torus: opposite edges meet",
        examples=["torus"],
    )

    @field_validator("rule")
    @classmethod
    def _one_spelling(cls, rule: str) -> str:
        rule = RULE_NAMES.get(rule.strip().lower(), rule)
        match = re.fullmatch(r"B([0-8]*)/S([0-8]*)", rule.strip().upper())
        if match is None:
            raise ValueError(
                f"expected B, digits 0 to 8, /S, digits 0 to 8, as in B3/S23, or one of {', '.join(RULE_NAMES)}"
            )
        return f"B{''.join(sorted(set(match[1])))}/S{''.join(sorted(set(match[2])))}"

    @model_validator(mode="after")
    def _pattern_fits(self) -> Life:
        if self.pattern == "random":
            return self
        side = max(len(self._pattern), len(self._pattern[0]))
        if side > min(self.height, self.width):
            raise ValueError(f"pattern = {self.pattern!r}: needs a height and a width of at least {side}")
        if self.density != type(self).model_fields["density"].default:
            raise ValueError(f"density = {self.density:g}: leave it out, or leave out pattern = {self.pattern!r}")
        return self

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw patterns and run the rule on them; patterns that die or stand still are kept as they come."""
        from task_generators.cellular_automata import draw_boards

        questions = np.zeros((len(seeds), self.height, self.width), dtype=np.int8)
        if self.pattern == "random":
            draw_boards(seeds, self.density, questions.reshape(len(seeds), -1))
        else:
            for question, seed in zip(questions, mixed(seeds).tolist(), strict=True):
                self._place_pattern(question, seed)
        answers = self.after(questions, self.steps)
        if self.steps == 1:
            return Batch(questions, answers)
        return Batch(
            questions, answers, states=lambda place: LazyStates(partial(_generations_between, self, questions[place]))
        )

    def after(self, boards: npt.NDArray[np.int8], steps: int) -> npt.NDArray[np.int8]:
        """Boards (n, height, width) of zeros and ones, ``steps`` generations later."""
        from task_generators.cellular_automata import run_life

        born, survives = (sum(1 << int(count) for count in part[1:]) for part in self.rule.split("/"))
        later = np.empty_like(boards)
        run_life(np.require(boards, requirements=["C", "W"]), born, survives, steps, self.edges == "torus", later)
        return later

    def verify(self, problem: Problem) -> list[str]:
        """Compute every generation again from sets of living cells."""
        born, survives = ({int(count) for count in part[1:]} for part in self.rule.split("/"))
        alive = set(map(tuple, np.argwhere(problem.question).tolist()))
        if not problem.question.shape == problem.answer.shape == (self.height, self.width):
            return [f"the boards do not have {self.height} x {self.width} cells"]
        faults = []
        if self.pattern != "random" and len(alive) != "".join(PATTERNS[self.pattern]).count("#"):
            faults.append(f"the question is not one {self.pattern}")
        cells = [(row, column) for row in range(self.height) for column in range(self.width)]
        around = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if (down, across) != (0, 0)]
        for _ in range(self.steps):
            counts = Counter((row + down, column + across) for row, column in alive for down, across in around)
            if self.edges == "torus":
                wrapped: Counter[tuple[int, int]] = Counter()
                for (row, column), count in counts.items():
                    wrapped[row % self.height, column % self.width] += count
                counts = wrapped
            alive = {cell for cell in cells if counts[cell] in (survives if cell in alive else born)}
        if alive != set(map(tuple, np.argwhere(problem.answer).tolist())):
            faults.append(f"the answer is not the question {self.steps} generations later")
        return faults

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the questions up to ``symmetries``."""
        if self.edges == "torus":
            copies = [smallest_torus_copy(question) for question in questions]
            digests = [hashlib.blake2b(copy, digest_size=8).digest() for copy in copies]
            return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
        from task_generators.copy_hash import copy_hashes

        return copy_hashes(questions, dihedral_copies(self.height, self.width), len(self.palette.colors))

    def problem_space(self) -> str:
        """The number of boards."""
        if self.pattern == "random":
            return f"2^{self.height * self.width} boards"
        turned = {copy.tobytes() + bytes(copy.shape): copy.shape for copy in map(self._turned, range(8))}
        places = sum((self.height - height + 1) * (self.width - width + 1) for height, width in turned.values())
        return f"{places:,} boards"

    @property
    def _pattern(self) -> npt.NDArray[np.int8]:
        """Shape (rows, columns) of ones and zeros."""
        return np.array([[cell == "#" for cell in row] for row in PATTERNS[self.pattern]], dtype=np.int8)

    def _turned(self, orientation: int) -> npt.NDArray[np.int8]:
        """One of the pattern's 8 rotations and reflections."""
        turned = np.rot90(self._pattern, orientation % 4)
        return turned.T if orientation >= 4 else turned

    def _place_pattern(self, board: npt.NDArray[np.int8], seed: int) -> None:
        seed, orientation = divmod(seed, 8)
        turned = self._turned(orientation)
        height, width = turned.shape
        seed, top = divmod(seed, self.height - height + 1)
        left = seed % (self.width - width + 1)
        board[top : top + height, left : left + width] = turned


def _generations_between(task: Life, question: Grid) -> tuple[Grid, ...]:
    generations = question[None]
    between = []
    for _ in range(task.steps - 1):
        generations = task.after(generations, 1)
        between.append(frozen_grid(generations[0]))
    return tuple(between)
