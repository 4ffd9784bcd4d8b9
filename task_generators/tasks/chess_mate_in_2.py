"""Chess, mate in two: white to move, exactly one move forces mate with the next; the answer is the board after it."""

from __future__ import annotations

from typing import ClassVar

from task_generators.chess_mate import ChessMate


class ChessMateInTwo(ChessMate):
    """White cannot mate at once, and has exactly one move after which every reply allows a mate."""

    mate_in: ClassVar[int] = 2
