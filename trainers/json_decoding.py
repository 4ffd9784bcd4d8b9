"""Decoding that can write nothing but a grid: at each step only the tokens that continue a compact JSON grid are left.

A grid is a list of rows, each a list of whole numbers from 0 to 127, without spaces, and all rows as long as the first:
``[[0,1],[2,3]]``. The end token comes after the last bracket and nowhere else, so every answer that ends can be read.

Rows of one length are beyond the context-free grammars of the libraries for constrained decoding. Of a vocabulary of
150,000 tokens a thousand at most can be part of a grid, and these few are read character by character, once for each
thing that can have been written before.

Shapes: B sequences, T tokens so far, V vocabulary, C candidates: tokens that can be part of a grid, and end tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from task_generators import grid_json
from task_generators.problem import frozen_grid

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessor, PreTrainedTokenizerBase

LARGEST_NUMBER = 127
"""Cells of a grid are int8."""
CHARACTERS = "0123456789,[]"
_PIECE = re.compile(r"[▁Ġ]?[0-9,\[\]]*")
"""Tokens as vocabularies spell them; both signs stand for a space, in SentencePiece and in byte-level BPE."""


class Written(NamedTuple):
    """What has been written of a grid, as far as it decides what may follow."""

    expects: Literal["space", "grid", "row", "number", "digit", "row_or_end", "end"]
    """``space``: a space, or as ``grid``; ``digit``: one more, or the end of the number."""
    number: int = 0
    """The number being written, when a digit may follow."""
    num_cells: int = 0
    """Cells of the row being written, that one included."""
    width: int = 0
    """Cells of the first row; 0 while that is being written."""

    def then(self, character: str) -> Written | None:
        """What is written after one more character; None when this character cannot follow."""
        follows = None
        if self.expects in ("space", "grid"):
            if character == "[":
                follows = Written("row")
            elif character == " " and self.expects == "space":
                follows = Written("grid")
        elif self.expects == "row" and character == "[":
            follows = self._replace(expects="number", num_cells=0)
        elif self.expects == "number" and character.isdigit():
            follows = Written("digit", _tail(int(character)), self.num_cells + 1, self.width)
        elif self.expects == "digit":
            follows = self._after_digit(character)
        elif self.expects == "row_or_end" and character in ",]":
            follows = Written("row", width=self.width) if character == "," else Written("end")
        return follows

    def _after_digit(self, character: str) -> Written | None:
        if character.isdigit():
            number = 10 * self.number + int(character)
            return self._replace(number=_tail(number)) if self.number > 0 and number <= LARGEST_NUMBER else None
        if character == "," and self.num_cells != self.width:
            return Written("number", num_cells=self.num_cells, width=self.width)
        if character == "]" and self.width in (0, self.num_cells):
            return Written("row_or_end", width=self.num_cells)
        return None

    def then_text(self, text: str) -> Written | None:
        """``then`` for each character of ``text``."""
        written: Written | None = self
        for character in text:
            written = None if written is None else written.then(character)
        return written


def _tail(number: int) -> int:
    """``number``, or another in its place that the same digits can follow: few numbers make few things to remember."""
    if 2 <= number <= 11:
        return 2  # any one digit can follow
    return number if number in (1, 12) else 0  # none can follow 0 (JSON has no 007), nor what passes 127 with any digit


class GridTokens:
    """The tokens of a tokenizer that can be part of a grid, and which of them can follow what has been written."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        special = set(tokenizer.all_special_ids)
        self._texts = {
            token_id: re.sub("[▁Ġ]", " ", piece)
            for piece, token_id in tokenizer.get_vocab().items()
            if piece and token_id not in special and _PIECE.fullmatch(piece)
        }
        self.token_ids = sorted(self._texts)
        sample = grid_json.dumps(frozen_grid([[0, 1, 23], [45, 67, 89], [110, 10, 127]]))
        spelled: list[int] = tokenizer(sample, add_special_tokens=False).input_ids
        begins_with_space = self._texts.get(spelled[0], "").startswith(" ")
        self.start = Written("space" if begins_with_space else "grid")
        self._following: dict[Written, dict[int, Written]] = {}
        # With every character to be had alone, something can always follow.
        missing = set(CHARACTERS) - set(self._texts.values())
        if missing or self.read(spelled) != Written("end") or tokenizer.decode(spelled).strip() != sample:
            raise ValueError(
                f"recipe.decoding = json: {tokenizer.name_or_path!r} has a tokenizer that cannot spell grids"
            )

    def following(self, written: Written) -> dict[int, Written]:
        """Tokens that can follow, and what is written with each."""
        if written not in self._following:
            followed = ((token_id, written.then_text(text)) for token_id, text in self._texts.items())
            self._following[written] = {token_id: then for token_id, then in followed if then is not None}
        return self._following[written]

    def read(self, token_ids: Iterable[int]) -> Written | None:
        """What is written with these tokens; None when they begin no grid."""
        written: Written | None = self.start
        for token_id in token_ids:
            written = None if written is None else self.following(written).get(token_id)
        return written


@lru_cache(maxsize=2)
def grid_tokens(tokenizer: PreTrainedTokenizerBase) -> GridTokens:
    """``GridTokens`` of this tokenizer object, made once. ValueError when the tokenizer cannot spell a grid."""
    return GridTokens(tokenizer)


def grid_processor(tokenizer: PreTrainedTokenizerBase, stop_token_ids: Iterable[int]) -> LogitsProcessor:
    """A processor for one call of ``generate``: minus infinity for every token that does not continue a grid.

    ``stop_token_ids`` can be chosen once the grid is closed, and nothing else then. ValueError when the tokenizer
    cannot spell a grid.
    """
    import torch
    from transformers import LogitsProcessor

    tokens = grid_tokens(tokenizer)
    ends = sorted(set(stop_token_ids))
    candidates_C = torch.tensor([*tokens.token_ids, *ends])
    masks_C: dict[Written, torch.Tensor] = {}

    def allowed(written: Written, device: torch.device) -> torch.Tensor:
        if written not in masks_C:
            possible = tokens.following(written).keys() if written.expects != "end" else set(ends)
            mask = [token_id in possible for token_id in candidates_C.tolist()]
            masks_C[written] = torch.tensor(mask, device=device)
        return masks_C[written]

    class GridProcessor(LogitsProcessor):
        def __init__(self) -> None:
            self.written_B: list[Written] | None = None

        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
            nonlocal candidates_C
            if self.written_B is None:
                self.written_B = [tokens.start] * len(input_ids)
                candidates_C = candidates_C.to(scores.device)
            else:
                # A sequence that has ended gets padding, which no grid has: it stays as it is.
                self.written_B = [
                    tokens.following(written).get(token_id, written)
                    for written, token_id in zip(self.written_B, input_ids[:, -1].tolist(), strict=True)
                ]
            mask_BC = torch.stack([allowed(written, scores.device) for written in self.written_B])
            left_BV = torch.full_like(scores, -torch.inf)
            left_BV[:, candidates_C] = scores[:, candidates_C].masked_fill(~mask_BC, -torch.inf)
            return left_BV

    return GridProcessor()
