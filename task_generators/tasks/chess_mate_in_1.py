"""Chess, mate in one: white to move, exactly one move mates; the answer is the board after it."""

from __future__ import annotations

from typing import ClassVar

from task_generators.chess_mate import ChessMate


class ChessMateInOne(ChessMate):
    """The question is a position in which white has exactly one move that mates."""

    mate_in: ClassVar[int] = 1
