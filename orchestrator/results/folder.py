"""Where results lie: a local folder or an object store, its files, and how one of them is put there or set aside."""

from __future__ import annotations

import os
import threading
import uuid
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from orchestrator.tables import SCHEMAS

COMPACTED = "compacted-"
"""Begins the name of a file that holds the rows of many trials."""
DAMAGED = ".damaged"
"""Folder within a table's folder for files that are no tables; dot-named, so that no Parquet reader looks into it."""
STALE_TEMPORARY = timedelta(days=1)
"""A temporary file that is older by this than the newest file beside it belongs to a process that is dead."""
PUT_ATTEMPTS = 3
LIST_ATTEMPTS = 10
EPOCH = ".epoch"
"""File of a table's folder that every compaction gives another content."""


@dataclass(frozen=True)
class ResultsFolder:
    """The results folder on its file system; ``root`` is its path there."""

    uri: str
    fs: pyarrow.fs.FileSystem
    root: str

    @property
    def local(self) -> bool:
        """Whether it lies on this machine's own file system."""
        return isinstance(self.fs, pyarrow.fs.LocalFileSystem)

    def files(self, table: str) -> list[pyarrow.fs.FileInfo]:
        """Visible Parquet files of one table, by name, at one moment; none where the folder is not there yet.

        Listing a folder is not atomic: while it lasts, a compaction may add the merged file where the listing has
        passed and remove the small ones where it has not come to yet. So every compaction changes ``EPOCH`` after it
        wrote its merged file and before it removes anything: a listing during which that stayed the same is whole.

        Raises:
            ValueError: the folder cannot be listed.
        """
        while True:
            before = self._epoch(table)
            found = self._files(table)
            if self._epoch(table) == before:
                return found

    def _epoch(self, table: str) -> bytes | None:
        try:
            with self.fs.open_input_stream(f"{self.root}/{table}/{EPOCH}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(f"results folder {self.uri} cannot be read: {reason(error)}") from None

    def _files(self, table: str) -> list[pyarrow.fs.FileInfo]:
        found = [
            info
            for info in self.everything(table)
            if info.is_file and info.base_name.endswith(".parquet") and not info.base_name.startswith(".")
        ]
        return sorted(found, key=lambda info: info.base_name)

    def everything(self, table: str) -> list[pyarrow.fs.FileInfo]:
        """All files of one table, hidden ones included. ValueError when the folder cannot be listed."""
        selector = pyarrow.fs.FileSelector(f"{self.root}/{table}", allow_not_found=True)
        for left in reversed(range(LIST_ATTEMPTS)):
            try:
                return list(self.fs.get_file_info(selector))
            except FileNotFoundError:  # the folder appeared in the middle of looking whether it is there
                if not left:
                    raise
            except OSError as error:
                raise ValueError(f"results folder {self.uri} cannot be read: {reason(error)}") from None
        raise AssertionError("unreachable")


def is_compacted(info: pyarrow.fs.FileInfo) -> bool:
    """Whether compaction wrote the file."""
    return bool(info.base_name.startswith(COMPACTED))


def absolute_uri(results_uri: str | Path) -> str:
    """The same place named so that it means the same in every process: local folders become absolute."""
    text = str(results_uri)
    return text if "://" in text else str(Path(text).expanduser().absolute())


def open_folder(results_uri: str | Path) -> ResultsFolder:
    """The folder that a path or URI names, there or not. ValueError when it is a file or pyarrow cannot open it."""
    uri = absolute_uri(results_uri)
    if "://" not in uri:
        above = next((path for path in (Path(uri), *Path(uri).parents) if path.is_file()), None)
        if above is not None:
            what = "it is a file" if above == Path(uri) else f"{above} is a file"
            raise ValueError(f"results folder {uri} cannot be used: {what}")
        return ResultsFolder(uri, pyarrow.fs.LocalFileSystem(), uri.rstrip("/") or "/")
    try:
        fs, root = pyarrow.fs.FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"results {uri!r} cannot be opened: {reason(error)}") from None
    return ResultsFolder(uri, fs, root.rstrip("/"))


def check_writable(results_uri: str | Path) -> None:
    """Create the folder if need be and write to it. ValueError of one line when that cannot be done."""
    folder = open_folder(results_uri)
    probe = f"{folder.root}/.writable-{uuid.uuid4().hex}"
    try:
        folder.fs.create_dir(folder.root, recursive=True)
        with folder.fs.open_output_stream(probe) as stream:
            stream.write(b"")
        folder.fs.delete_file(probe)
    except OSError as error:
        raise ValueError(f"results folder {folder.uri} cannot be written: {reason(error)}") from None
    for table in SCHEMAS:
        folder.everything(table)


def store_folder(results_uri: str | Path, name: str, source: Path) -> None:
    """Copy the files of the local folder ``source`` to ``<results>/<name>``, over what may be there."""
    folder = open_folder(results_uri)
    target = f"{folder.root}/{name}"
    folder.fs.create_dir(target, recursive=True)
    pyarrow.fs.copy_files(str(source), target, pyarrow.fs.LocalFileSystem(), folder.fs)


def put_bytes(folder: ResultsFolder, directory: str, name: str, data: bytes | pa.Buffer) -> None:
    """Write ``<directory>/<name>`` so that it is there whole or not at all, over one that is there.

    Raises:
        OSError: it could not be written (a full disk, ...); nothing of it is visible then.
    """
    if not folder.local:
        with folder.fs.open_output_stream(f"{directory}/{name}") as stream:
            stream.write(data)
        return
    for left in reversed(range(PUT_ATTEMPTS)):
        try:
            _put_local(directory, name, data)
            return
        except FileNotFoundError:  # a clock that jumped made the temporary file look stale to a compaction
            if not left:
                raise


def _put_local(directory: str, name: str, data: bytes | pa.Buffer) -> None:
    os.makedirs(directory, exist_ok=True)
    temporary = f"{directory}/.{name}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a machine that loses power could leave a renamed file without its bytes
        os.replace(temporary, f"{directory}/{name}")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_directory(folder: ResultsFolder, directory: str) -> None:
    """Return once the names in ``directory`` are on the disk, so that what they replace may go."""
    if not folder.local:
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_temporaries(folder: ResultsFolder, table: str) -> None:
    """Remove what processes that died while writing have left.

    Ages are differences between files of one folder, never to this machine's clock, which may have jumped. A file in
    use that looks stale nevertheless is written again by ``put_bytes``.
    """
    infos = [info for info in folder.everything(table) if info.mtime is not None]
    newest = max((info.mtime for info in infos), default=None)
    for info in infos:
        temporary = info.base_name.startswith(".") and info.base_name.endswith(".tmp")
        if temporary and newest - info.mtime > STALE_TEMPORARY:
            with suppress(FileNotFoundError):
                folder.fs.delete_file(info.path)


def set_aside(folder: ResultsFolder, path: str, why: str) -> str | None:
    """Move a damaged file into ``.damaged`` beside it and warn; its new path, None where another did so before."""
    directory, _, name = path.rpartition("/")
    folder.fs.create_dir(f"{directory}/{DAMAGED}", recursive=True)
    target = f"{directory}/{DAMAGED}/{name}"
    if folder.fs.get_file_info(target).type != pyarrow.fs.FileType.NotFound:
        target += f".{uuid.uuid4().hex[:8]}"
    try:
        folder.fs.move(path, target)
    except FileNotFoundError:
        return None
    warnings.warn(f"{path} is set aside in {DAMAGED}: {why}", stacklevel=3)
    return target


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
