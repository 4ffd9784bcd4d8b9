"""Why trials fail: the ``error_kind`` of an error, and whether it passes."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection
from typing import TYPE_CHECKING

from trainers.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from orchestrator.results import TrialStatus

TRANSIENT: dict[str, int | None] = {
    "node_died": None,
    "preempted": None,
    "worker_died": 3,
    "connection": 3,
    "file_system": 5,
}
"""Kinds that are not the trial's fault, and how often one run of a sweep retries a trial for each; None: for ever. What
is lost with its node says nothing of the trial; a process that dies alone may well be killed by its trial."""

ERROR_KINDS = (
    *TRANSIENT,
    "out_of_memory",
    "timeout",
    "non_finite_loss",
    "bad_spec",
    "assertion",
    "error",
)
"""What the column ``error_kind`` may say. ``error`` is any other."""

_CONNECTION = re.compile(
    r"connection (?:reset|closed|refused|aborted)|broken pipe|socket (?:timeout|closed)|remote process exited"
    r"|connectFullMesh failed|ncclRemoteError|timed? ?out .*(?:rendezvous|store|gloo)",
    re.IGNORECASE,
)
"""What gloo and NCCL say on a rank whose partner went away."""


def is_transient(error_kind: str | None) -> bool:
    """Whether a trial that failed so may well end the next time."""
    return error_kind in TRANSIENT


def is_to_run(status: TrialStatus | None, retry_failed: Collection[str] | None) -> bool:
    """Whether a trial is to run, by what its row says: it has none, or one of a failure of a kind in ``retry_failed``.

    None retries every kind.
    """
    if status is None:
        return True
    return status.state == "failed" and (retry_failed is None or status.error_kind in retry_failed)


def classify(error: BaseException) -> str:
    """The ``error_kind`` of an error: its own attribute of that name, or one of a few words by what it is."""
    own = getattr(error, "error_kind", None)
    if isinstance(own, str):
        return own
    text = str(error)
    if is_out_of_memory(error) or "out of memory" in text.lower():
        return "out_of_memory"
    if isinstance(error, (ConnectionError, RuntimeError)) and _CONNECTION.search(text):
        return "connection"
    kinds = {
        TimeoutError: "timeout",
        ConnectionError: "connection",
        OSError: "file_system",
        ValueError: "bad_spec",
        AssertionError: "assertion",
    }
    return next((kind for cls, kind in kinds.items() if isinstance(error, cls)), "error")


def signature(error: BaseException) -> str:
    """The same text for errors of one cause: where it was raised, and its message without numbers."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__} {place} {re.sub(r'[0-9]+', '#', str(error))}"
