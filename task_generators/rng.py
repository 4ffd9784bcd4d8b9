"""The only source of randomness for problems: keyed by what the problem is, never by a global seed."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def problem_rng(*key: str | int) -> np.random.Generator:
    """A PCG64 generator that depends on ``key`` alone: the same on every platform, process and numpy >= 1.17.

    Keys are hashed, so neighbouring seeds or indices share nothing. The parts are length-prefixed, so ``("a", "bc")``
    and ``("ab", "c")`` differ, and so do the number 1 and the text "1".
    """
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest(key), "little")))


def problem_seeds(
    key: tuple[str | int, ...], indices: npt.NDArray[np.int64], attempts: npt.NDArray[np.int64] | int = 0
) -> npt.NDArray[np.uint64]:
    """One 64-bit seed for each (key, index, attempt), shape of ``indices``: hashed, so neighbours share nothing.

    A thousand seeds cost what one ``problem_rng`` does. Kernels start ``split_mix.next_random`` from them.
    """
    base = np.frombuffer(_digest(key)[:16], dtype="<u8").astype(np.uint64)
    seeds = mixed(indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + base[0])
    return mixed((seeds ^ base[1]) + np.asarray(attempts, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03))


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit values one to one (the finaliser of SplitMix64), so that close values come to lie anywhere."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _digest(key: tuple[str | int, ...]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for part in key:
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
