"""The only source of randomness for problems: a generator keyed by what the problem is, never by a global seed."""

from __future__ import annotations

import hashlib

import numpy as np


def problem_rng(*key: str | int) -> np.random.Generator:
    """A PCG64 generator that depends on ``key`` alone: the same on every platform, process and numpy >= 1.17.

    Keys are hashed, so neighbouring seeds or indices share nothing. The parts are length-prefixed, so ``("a", "bc")``
    and ``("ab", "c")`` differ, and so do the number 1 and the text "1".
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in key:
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest(), "little")))
