"""``roundtrip_exact_match``, measured once for a results folder: it says nothing about a single trial.

One small file under ``<results>/roundtrips``, named after all that the number depends on (weights of the VAE, pictures,
how they become a video and are read), so nothing stale is ever read. Written whole and renamed; two workers that
measure at the same time write the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from orchestrator.results import open_folder, put_bytes
from task_generators.problem import Problem
from task_generators.task import Task
from trainers.engine import world
from trainers.recipe import Placement, TrainRecipe
from trainers.roundtrip import roundtrip_exact_match

FOLDER = "roundtrips"

_measured: dict[tuple[str | None, str], float | None] = {}
"""What this process has measured or read, by (results folder, key); also what did not fit its memory."""


def roundtrip_ceiling(
    backbone: Any,
    task: Task,
    problems: Sequence[Problem],
    recipe: TrainRecipe,
    placement: Placement,
    results_uri: str | None,
) -> float | None:
    """The ceiling of a backbone on test problems, measured now unless it was; see ``trainers.roundtrip``.

    None for backbones that answer by no video, and where the memory does not suffice. Where several ranks share the
    trial all call, and all get the number of rank 0. Without a results folder it is kept in this process alone.
    """
    if not problems or not hasattr(backbone, "roundtrip"):
        return None
    key = backbone.roundtrip_key(task, problems, recipe)
    is_known, ceiling = _from_first_rank(_known(results_uri, key))
    if not is_known:
        ceiling = roundtrip_exact_match(backbone, task, problems, recipe, placement)
        if ceiling is not None and results_uri is not None and world().rank == 0:
            content = {"roundtrip_exact_match": ceiling, "n_test": len(problems), "task": type(task).__name__}
            _write(results_uri, key, content)
    _measured[results_uri, key] = ceiling
    return ceiling


def _known(results_uri: str | None, key: str) -> tuple[bool, float | None]:
    """Whether the number is known here, and the number."""
    if (results_uri, key) in _measured:
        return True, _measured[results_uri, key]
    if results_uri is None or world().rank:
        return False, None
    folder = open_folder(results_uri)
    try:
        with folder.fs.open_input_stream(f"{folder.root}/{FOLDER}/{key}.json") as stream:
            return True, float(json.loads(stream.read())["roundtrip_exact_match"])
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        return False, None


def _write(results_uri: str, key: str, content: dict[str, Any]) -> None:
    folder = open_folder(results_uri)
    with suppress(OSError):  # a full disk: others measure again, and writing the trial's own rows says what is wrong
        put_bytes(folder, f"{folder.root}/{FOLDER}", f"{key}.json", json.dumps(content).encode())


def _from_first_rank(value: tuple[bool, float | None]) -> tuple[bool, float | None]:
    if world().size == 1:
        return value
    import torch

    shared: list[Any] = [value]
    torch.distributed.broadcast_object_list(shared, src=0)
    found: tuple[bool, float | None] = shared[0]
    return found
