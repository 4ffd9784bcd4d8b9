"""Checkpoints of trials in the results folder: ``<results>/checkpoints/<trial_id>/``.

Each checkpoint is a folder there, and ``current.json`` names the one that is whole. Local folders and object stores
alike, shared by the ranks of a trial. What they hold is only of use until the trial's row is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs

from orchestrator.results import open_folder, put_bytes

CURRENT = "current.json"


class ResultsCheckpoints:
    """The ``trainers.checkpoint.CheckpointStorage`` of one trial; see there for what the methods promise."""

    def __init__(self, results_uri: str, trial_id: str) -> None:
        self._folder = open_folder(results_uri)
        self._root = f"{self._folder.root}/checkpoints/{trial_id}"

    def store(self, name: str, folder: Path) -> None:
        """See ``CheckpointStorage.store``."""
        self._folder.fs.create_dir(f"{self._root}/{name}", recursive=True)
        pyarrow.fs.copy_files(str(folder), f"{self._root}/{name}", pyarrow.fs.LocalFileSystem(), self._folder.fs)

    def make_current(self, manifest: Mapping[str, Any]) -> None:
        """See ``CheckpointStorage.make_current``."""
        put_bytes(self._folder, self._root, CURRENT, json.dumps(manifest).encode())

    def current(self) -> dict[str, Any] | None:
        """See ``CheckpointStorage.current``."""
        try:
            with self._folder.fs.open_input_file(f"{self._root}/{CURRENT}") as stream:
                manifest = json.loads(stream.read())
        except (OSError, ValueError):
            return None
        is_manifest = isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and "name" in manifest
        return manifest if is_manifest else None

    def fetch(self, name: str, folder: Path) -> None:
        """See ``CheckpointStorage.fetch``."""
        source = f"{self._root}/{name}"
        if self._folder.fs.get_file_info(source).type != pyarrow.fs.FileType.Directory:
            raise FileNotFoundError(f"{source} is not there")
        pyarrow.fs.copy_files(source, str(folder), self._folder.fs, pyarrow.fs.LocalFileSystem())

    def remove_others(self, name: str) -> None:
        """See ``CheckpointStorage.remove_others``."""
        for info in self._folder.fs.get_file_info(pyarrow.fs.FileSelector(self._root, allow_not_found=True)):
            if info.type == pyarrow.fs.FileType.Directory and info.base_name != name:
                self._remove(info.path)

    def remove_all(self) -> None:
        """Remove every checkpoint of the trial, if there is one."""
        self._remove(self._root)

    def _remove(self, path: str) -> None:
        try:
            self._folder.fs.delete_dir(path)
        except OSError:
            return  # not there, or another process is at it: what stays only takes room
