"""What a VAE made of a picture or a video, kept under its content, so that no trial encodes what another one did.

The key is a hash of the encoder's weights, its precision and kind of device, and the pixels. So trials of all training
set sizes, LoRA ranks, seeds and backbones that share an encoder share its work, and nothing stale is ever read.
One file a picture or video, written whole and renamed: several workers may read and write at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.backbone import Batch


class LatentStore:
    """A folder of encoded pictures, or, without a folder, the plain way to the encoder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.num_encoded = 0
        """Pictures and videos that went through the encoder."""
        self.num_reused = 0
        """Those that were there already."""

    def fetch(self, keys: Sequence[str], encode: Callable[[list[int]], list[Batch]], at_once: int = 1) -> list[Batch]:
        """One dict of tensors a key, on the CPU; ``encode`` makes those at the given positions that are not there.

        It is called for ``at_once`` positions at a time, and what it makes is stored at once. Every process begins at
        another place, so that ranks of one trial, or workers on trials of the same problems, share the work without a
        word. A file that cannot be read counts as not there; one that cannot be written (a full disk) is left out.
        """
        found: dict[str, Batch] = {}
        for key in keys:
            tensors = None if key in found else self._read(key)
            if tensors is not None:
                found[key] = tensors
        self.num_reused += len(found)
        positions = {key: position for position, key in enumerate(keys) if key not in found}  # equal pictures: once
        missing = list(positions.values())
        blocks = [missing[start : start + at_once] for start in range(0, len(missing), at_once)]
        first = os.getpid() % max(1, len(blocks)) if self._folder else 0
        for number, block in enumerate(blocks[first:] + blocks[:first]):
            for position in block if number else ():  # what other processes have stored meanwhile
                tensors = self._read(keys[position])
                if tensors is not None:
                    found[keys[position]] = tensors
                    self.num_reused += 1
            left = [position for position in block if keys[position] not in found]
            for position, made in zip(left, encode(left) if left else [], strict=True):
                found[keys[position]] = made
                self._write(keys[position], made)
            self.num_encoded += len(left)
        return [found[key] for key in keys]

    def _file(self, folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> Batch | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self._folder is None:
            return None
        try:
            return load_file(self._file(self._folder, key))
        except (OSError, SafetensorError):
            return None

    def _write(self, key: str, tensors: Batch) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if self._folder is None:
            return
        file = self._file(self._folder, key)
        temporary = file.with_name(f".{file.name}.{os.uname().nodename}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
            temporary.replace(file)
        except (OSError, SafetensorError):
            with suppress(OSError):
                temporary.unlink()
