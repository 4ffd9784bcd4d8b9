"""Torch generators keyed by what they are for: the twin of ``task_generators.rng`` for weights, noise and sampling."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def hashed_seed(*key: str | int) -> int:
    """A 63-bit seed that depends on ``key`` alone; keys that differ in one part share nothing."""
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def torch_generator(*key: str | int) -> torch.Generator:
    """A CPU generator seeded by ``hashed_seed(*key)``: draw on it, then move the result to the device."""
    import torch

    return torch.Generator().manual_seed(hashed_seed(*key))
