"""The bank of chess positions with exactly one mate in one or in two moves, in ``data/chess_mates.parquet``.

Made by: ``python -m task_generators.chess_bank --mate-in-1 12000 --mate-in-2 12000``, which adds to the file what it
lacks. Row ``draw`` of a kind is ``random_mate`` of ``problem_rng("chess_bank", mate_in, draw)``; of positions that are
equal, or mirror images, the first stays. Columns: ``board`` (first field of a FEN), ``move`` (UCI), ``san``,
``mate_in``, ``draw``. Rows lie in the order of a hash, so the order tells nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from task_generators.chess_positions import (
    MatePosition,
    board_from_fen,
    boards_from_fens,
    canonical_board,
    fen_from_board,
    random_mate,
)
from task_generators.rng import problem_rng

if TYPE_CHECKING:
    import pandas as pd

BANK_PATH = Path(__file__).parent / "data" / "chess_mates.parquet"
_SAVE_EVERY = 200


@cache
def bank_positions(mate_in: int) -> tuple[MatePosition, ...]:
    """The bank's positions with one mate in ``mate_in`` (1 or 2) moves, no two of them equal or mirror images."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(
        BANK_PATH, filters=[("mate_in", "==", mate_in)], columns=["board", "move", "san"]
    )
    boards = boards_from_fens(table["board"].to_pylist())
    return tuple(map(MatePosition, boards, table["move"].to_pylist(), table["san"].to_pylist()))


def extend_bank(bank: pd.DataFrame, mate_in: int, num_positions: int) -> pd.DataFrame:
    """The bank with further positions of one kind drawn into it, until it holds ``num_positions`` of that kind."""
    import pandas as pd

    kind = bank[bank["mate_in"] == mate_in]
    seen = {canonical_board(board_from_fen(board)) for board in kind["board"]}
    draw = int(kind["draw"].max()) + 1 if len(kind) else 0
    rows = []
    while len(seen) < num_positions:
        position = random_mate(problem_rng("chess_bank", mate_in, draw), mate_in)
        key = canonical_board(position.board)
        if key not in seen:
            seen.add(key)
            board = fen_from_board(position.board).split()[0]
            rows.append((board, position.move, position.san, mate_in, draw))
        draw += 1
    return pd.concat([bank, pd.DataFrame(rows, columns=bank.columns)], ignore_index=True)


def _save(bank: pd.DataFrame, path: Path) -> None:
    bank = bank.astype({"mate_in": "int8", "draw": "int32"})
    order = bank["board"].map(lambda board: hashlib.blake2b(board.encode()).digest()).sort_values(kind="stable").index
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name("." + path.name)
    bank.loc[order].to_parquet(
        unfinished, index=False, compression="zstd", compression_level=19, use_dictionary=["move", "san"]
    )
    unfinished.rename(path)


def main() -> None:
    """Command line: add positions to the bank; what is there already stays."""
    import pandas as pd

    parser = argparse.ArgumentParser(description="Add positions to the bank of chess mates.")
    parser.add_argument("--mate-in-1", type=int, default=0, metavar="N", help="positions of this kind to end up with")
    parser.add_argument("--mate-in-2", type=int, default=0, metavar="N", help="positions of this kind to end up with")
    parser.add_argument("--path", type=Path, default=BANK_PATH, help="the Parquet file (default: the package's own)")
    arguments = parser.parse_args()
    bank = pd.DataFrame(columns=["board", "move", "san", "mate_in", "draw"])
    if arguments.path.exists():
        bank = pd.read_parquet(arguments.path)
    for mate_in, wanted in ((1, arguments.mate_in_1), (2, arguments.mate_in_2)):
        start_s = time.monotonic()
        held = int((bank["mate_in"] == mate_in).sum())
        while held < wanted:
            held = min(wanted, held + _SAVE_EVERY)
            bank = extend_bank(bank, mate_in, held)
            _save(bank, arguments.path)
            print(f"mate in {mate_in}: {held} of {wanted} after {time.monotonic() - start_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
