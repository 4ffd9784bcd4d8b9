"""What a VAE made of a picture or a video, kept under its content, so that no trial encodes what another one did.

The key is a hash of the encoder's weights, its precision and kind of device, and the pixels. So trials of all training
set sizes, LoRA ranks, seeds and backbones that share an encoder share its work, and nothing stale is ever read.
One file a picture or video, written whole and renamed: several workers may read and write at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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

    def fetch(self, keys: Sequence[str], encode: Callable[[list[int]], list[Batch]]) -> list[Batch]:
        """One batch of tensors a key, on the CPU; ``encode`` makes those at the given positions that are not there.

        A file that cannot be read counts as not there, and one that cannot be written (a full disk) is left out.
        """
        found = [self._read(key) for key in keys]
        missing = [index for index, tensors in enumerate(found) if tensors is None]
        first_position = {keys[index]: index for index in reversed(missing)}  # equal pictures are encoded once
        positions = sorted(first_position.values())
        for index, tensors in zip(positions, encode(positions) if positions else [], strict=True):
            found[index] = tensors
            self._write(keys[index], tensors)
        self.num_encoded += len(positions)
        self.num_reused += len(keys) - len(positions)
        whole = (tensors or found[first_position[key]] for key, tensors in zip(keys, found, strict=True))
        return [tensors for tensors in whole if tensors is not None]

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
            temporary.unlink(missing_ok=True)
