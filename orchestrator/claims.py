"""Which trials a running sweep has in hand, for other sweeps on the same results folder: nothing is run twice at once.

Every driver keeps one small file, ``<results>/claims/<driver>.json``, whole at every moment: the trials that it runs
(``held``), those it is about to take (``asked``), how many it has ended, and a number that grows while it lives. There
is no lock, and no clock but each driver's own monotonic one: a driver writes what it asks for, then reads the others'
files. Of two that ask for the same trial the one whose name sorts first takes it, and only once the other has let go.
A driver is dead when its process is (on this machine), or when its number has stood still for ``LEASE_S``.

What remains is a race that is bounded: a driver that stood still for longer than its lease and then goes on. The
tables cope with that: readers count one row a trial.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs

from orchestrator.results import open_folder, put_bytes

HEARTBEAT_S = 10.0
"""A driver's number grows at least this often."""
LEASE_S = 60.0
"""A driver whose number has stood still for so long is taken for dead."""
PATIENCE_S = 1.0
"""How long a driver waits for another to let go of what both ask for; then it leaves it for now."""
FORGET_AFTER_LEASES = 10
WORKERS_OUTLIVE_S = 3.0
"""So long may the workers of a driver that was killed go on, and write the row that they are at: Ray's look about once
a second whether to. What it held is free after that."""


@dataclass
class _Other:
    """What is known of another driver."""

    document: dict[str, Any]
    beat_seen_at: float
    gone_at: float | None = None
    """When its process was first seen to be gone; long ago where it was never seen alive."""

    def ids(self, kind: str) -> set[str]:
        return set(self.document[kind])


class Claims:
    """The claims of one driver, and its view of the others'. Use as a context: the end gives everything back."""

    def __init__(
        self, results_uri: str | Path, *, name: str | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = open_folder(results_uri)
        self._root = f"{self._folder.root}/claims"
        self._name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._monotonic = monotonic
        self._held: set[str] = set()
        self._asked: set[str] = set()
        self._beat = 0
        self._num_ended = 0
        self._written_at = float("-inf")
        self._looked_at = float("-inf")
        self._others: dict[str, _Other] = {}
        self._others_and_dead: dict[str, _Other] = {}
        self._ended_by_others: dict[str, int] = {}

    def __enter__(self) -> Claims:
        self._write()
        self._look()
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove(self._name)

    def take(self, trial_ids: Sequence[str]) -> set[str]:
        """Claim trials; returns those that are ours now. The rest is in another driver's hands."""
        self._asked = set(trial_ids) - self._held
        self._write()
        self._look()
        wanted = set(self._asked)
        for name, other in self._others.items():
            wanted -= other.ids("held")
            if self._name > name:
                wanted -= other.ids("asked")
        if wanted != self._asked:
            self._asked = set(wanted)
            self._write()
        deadline = self._monotonic() + PATIENCE_S
        while disputed := wanted & self._asked_by_others():
            if self._monotonic() > deadline:
                wanted -= disputed
                break
            time.sleep(0.02)
            self._look()
            wanted -= self._held_by_others()
        self._asked = set()
        self._held |= wanted
        if self._others:
            self._write()
        return wanted | (set(trial_ids) & self._held)

    def release(self, trial_id: str, *, ended: bool) -> None:
        """Give a trial back; ``ended``: its last row is written."""
        self._held.discard(trial_id)
        self._num_ended += ended
        if self._others:  # they wait for it
            self._write()

    def beat(self) -> None:
        """Say that this driver lives, if it is time to. Call it often."""
        if self._monotonic() - self._written_at >= HEARTBEAT_S:
            self._write()

    def held_by_others(self, at_most_old_s: float = 1.0) -> set[str]:
        """Trials that other living drivers have in hand, as far as was known ``at_most_old_s`` ago."""
        if self._monotonic() - self._looked_at > at_most_old_s:
            self._look()
        return self._held_by_others() | self._asked_by_others()

    def others_have_ended_trials(self) -> bool:
        """Whether, since the last call, another driver wrote rows (or went away, with rows or not): read them anew."""
        counts = {name: other.document["num_ended"] for name, other in self._others.items()}
        changed = counts != self._ended_by_others
        self._ended_by_others = counts
        return changed

    def _held_by_others(self) -> set[str]:
        return set().union(*(other.ids("held") for other in self._others.values()))

    def _asked_by_others(self) -> set[str]:
        return set().union(*(other.ids("asked") for other in self._others.values()))

    def _write(self) -> None:
        self._beat += 1
        document = {
            "beat": self._beat,
            "num_ended": self._num_ended,
            "held": sorted(self._held),
            "asked": sorted(self._asked),
            "process": _process(os.getpid()),
        }
        try:
            put_bytes(self._folder, self._root, f"{self._name}.json", json.dumps(document).encode())
        except OSError:
            return  # as a full disk: then no rows are written either, and the next beat comes soon
        self._written_at = self._monotonic()

    def _look(self) -> None:
        """Read the files of the other drivers; what is dead is left out, and removed once it surely is."""
        now = self._looked_at = self._monotonic()
        selector = pyarrow.fs.FileSelector(self._root, allow_not_found=True)
        seen: dict[str, _Other] = {}
        try:
            infos = self._folder.fs.get_file_info(selector)
        except OSError:
            return  # what was known of the others stays; their leases run on
        for info in infos:
            name = info.base_name.removesuffix(".json")
            if name == self._name or info.base_name.startswith(".") or not info.base_name.endswith(".json"):
                continue
            document = self._read(info.path)
            if document is None:
                continue
            before = self._others_and_dead.get(name)
            beat_seen_at = before.beat_seen_at if before and before.document["beat"] == document["beat"] else now
            gone_at = before.gone_at if before else float("-inf")
            if not _is_gone(document["process"]):
                gone_at = None
            elif gone_at is None:
                gone_at = now
            seen[name] = _Other(document, beat_seen_at, gone_at)
        self._others_and_dead = seen
        self._others = {}
        for name, other in seen.items():
            age_s = now - other.beat_seen_at
            is_gone = other.gone_at is not None and now - other.gone_at >= WORKERS_OUTLIVE_S
            if is_gone or age_s > FORGET_AFTER_LEASES * LEASE_S:
                self._remove(name)
            elif age_s <= LEASE_S:
                self._others[name] = other

    def _read(self, path: str) -> dict[str, Any] | None:
        """A driver's file; None where it has just gone, or is none of ours."""
        try:
            with self._folder.fs.open_input_file(path) as stream:
                document = json.loads(stream.read())
        except (OSError, ValueError):
            return None
        return document if _is_document(document) else None

    def _remove(self, name: str) -> None:
        try:
            self._folder.fs.delete_file(f"{self._root}/{name}.json")
        except OSError:
            return  # gone already, or out of reach: then its lease ends it


def _is_document(found: Any) -> bool:
    """Whether a file holds what drivers write, and not what some other version or program wrote."""
    if not isinstance(found, dict):
        return False
    lists = [found.get(kind) for kind in ("held", "asked")]
    process = found.get("process")
    return (
        all(isinstance(found.get(name), int) for name in ("beat", "num_ended"))
        and all(isinstance(ids, list) and all(isinstance(each, str) for each in ids) for ids in lists)
        and (process is None or (isinstance(process, dict) and isinstance(process.get("pid"), int)))
    )


def _process(pid: int) -> dict[str, Any] | None:
    """What tells this process from any other that ever had its id, on any machine; None where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        state, started = fields[0], fields[19]
    except (OSError, IndexError):
        return None
    if state in "ZX":  # it has ended, only its parent has not asked about it yet
        return None
    return {"boot": boot, "namespace": namespace, "pid": pid, "started": started}


def _is_gone(process: dict[str, Any] | None) -> bool:
    """Whether the process surely runs no more: it ran on this machine, and is not there."""
    here = _process(os.getpid())
    if process is None or here is None or any(process.get(key) != here[key] for key in ("boot", "namespace")):
        return False
    return _process(process["pid"]) != process
