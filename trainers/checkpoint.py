"""Checkpoints of a training: a killed trial goes on from the last one and ends with the same numbers.

A checkpoint holds the LoRA weights, the optimizer's state and the losses so far. No random state: every draw is keyed
by its step. Each rank stores its own part; the checkpoint becomes the current one when all parts are there, so a kill
at any moment leaves the one before. Where it is stored is ``CheckpointStorage``'s affair.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from trainers.engine import Engine, world

PROGRESS_FILE = "progress.json"
READ_AT_ONCE_BYTES = 2**22


class CheckpointStorage(Protocol):
    """Where the checkpoints of one trial are kept; every rank has one of its own, all on the same place."""

    def store(self, name: str, folder: Path) -> None:
        """Add the files of the local ``folder`` (and below) to the checkpoint ``name``."""

    def make_current(self, manifest: Mapping[str, Any]) -> None:
        """Keep ``manifest`` in place of the one before, at once and whole."""

    def current(self) -> dict[str, Any] | None:
        """The manifest kept last; None when there is none that can be read."""

    def fetch(self, name: str, folder: Path) -> None:
        """Copy the checkpoint ``name`` into the local ``folder``; OSError when it is not there or cannot be read."""

    def remove_others(self, name: str) -> None:
        """Remove every checkpoint but ``name``."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training had come."""

    losses: list[dict[str, Any]]
    """Fields of each step's ``LossRow``."""
    train_s: float
    """Seconds spent on training up to the checkpoint, over all executions."""


class Checkpoints:
    """The checkpoints of one training. Every method is collective: all ranks call it at the same step."""

    def __init__(self, storage: CheckpointStorage, every_s: float) -> None:
        """``every_s``: least time between the starts of two checkpoints, by rank 0's clock."""
        self._storage = storage
        self._every_s = every_s
        self._last_s = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another one: rank 0 decides."""
        due: bool = _from_rank_0(time.monotonic() - self._last_s >= self._every_s)
        return due

    def save(self, engine: Engine, progress: TrainingProgress, key: Mapping[str, Any]) -> None:
        """Store the engine's state and ``progress``, then remove older checkpoints. ``key``: as in ``restore``."""
        self._last_s = time.monotonic()
        name = _from_rank_0(f"step-{len(progress.losses):06d}-{uuid.uuid4().hex[:8]}")
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            engine.save(folder)
            if world().rank == 0:
                (folder / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))
            digests = _digests(folder)
            self._storage.store(name, folder)
        parts = _from_all_ranks(digests)  # so every part is stored when any rank goes on from here
        if world().rank == 0:
            files = {path: digest for part in parts for path, digest in part.items()}
            self._storage.make_current({"name": name, "key": dict(key), "files": files})
            self._storage.remove_others(name)

    def restore(self, engine: Engine, key: Mapping[str, Any]) -> TrainingProgress | None:
        """Bring a fresh engine, and the weights, to the current checkpoint; None when no usable one is there.

        One that was written under another ``key``, or that is damaged, is none. All ranks come to the same answer.
        """
        manifest = _from_rank_0(self._storage.current())
        if manifest is None or manifest.get("key") != dict(key):
            return None
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            try:
                self._storage.fetch(manifest["name"], folder)
                whole = _digests(folder).items() >= manifest["files"].items()
            except OSError:
                whole = False
            if not all(_from_all_ranks(whole)):
                return None
            engine.load(folder)
            return TrainingProgress(**json.loads((folder / PROGRESS_FILE).read_text()))


def _digests(folder: Path) -> dict[str, str]:
    """Hash of each file below ``folder``, by its path in there."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = hashlib.blake2b(digest_size=16)
            with path.open("rb") as file:
                while block := file.read(READ_AT_ONCE_BYTES):
                    digest.update(block)
            digests[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return digests


def _from_rank_0(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if world().size == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _from_all_ranks(value: Any) -> Sequence[Any]:
    """Every rank's value, by rank, on every rank."""
    if world().size == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world().size
    dist.all_gather_object(values, value)
    return values
