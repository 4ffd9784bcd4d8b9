"""What runs next: the trials of a source, in the order that keeps workers warm and busy, until each has its last row.

Ray-free, so that every rule can be tried without a cluster:

- **Nothing twice.** A trial that the tables know is never handed out; one that another driver has in hand waits until
  that driver has ended it, or is dead.
- **Warm.** A worker that comes back gets trials of the backbone it holds, as long as there are any; then those of the
  backbone with the most work left for each worker that is at it.
- **Balanced.** Of a backbone's tasks, once each was tried, the one with the longest trials comes first, so that no long
  trial is left alone at the end.
- **Chunks.** Trials known to be short are handed out several at once: scheduling costs milliseconds a chunk.
- **Retries.** What failed for a passing reason comes back after a growing wait; what failed for its own is over.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator.capacity import Bundles
from orchestrator.claims import Claims
from orchestrator.failures import TRANSIENT
from orchestrator.results import TrialStatus
from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState, new_run_id
from orchestrator.trial_source import TrialSource

CHUNK_S = 2.0
"""Trials that take less are handed out together, up to about so many seconds of work."""
MAX_CHUNK = 64
CHUNKS_LEFT_PER_WORKER = 4
"""Towards the end chunks get smaller, so that all workers end at about the same time."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
"""Back-off of retries: doubles from the first to the longest."""
SAME_FAILURES = 5
"""So many trials that all failed alike, before any was done, stop the sweep: the rest would fail as well."""

WarmKey = tuple[Any, ...]


@dataclass(frozen=True)
class Assignment:
    """One execution of a trial: names the rows it will write."""

    spec: TrialSpec
    run_id: str
    attempts: int
    """Counts this execution and those before that ended in a row."""
    retries: int
    """How often it was retried for passing reasons, in this run of the sweep."""
    retried: frozenset[str]
    """Kinds of failure after which it will be tried again; any other becomes its row."""


@dataclass(frozen=True)
class Chunk:
    """What one worker gets at once: executions, one after the other."""

    assignments: tuple[Assignment, ...]
    bundles: Bundles
    warm_key: WarmKey
    upcoming: TrialSpec | None = None
    """What will probably come after it."""


@dataclass
class _Work:
    """The waiting trials that one kind of worker can run without loading anything anew, by task."""

    bundles: Bundles
    by_task: dict[str, deque[TrialSpec]] = field(default_factory=dict)
    workers: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.by_task.values()))


@dataclass
class _Mean:
    total_s: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.total_s, self.count = self.total_s + seconds, self.count + 1


class TrialQueue:
    """Hands out what a source gives, in chunks, and takes back what became of it. Used from one thread.

    Args:
        source: the trials.
        read_states: what the tables say now of every trial that has a row.
        bundles_of: the resources of a trial; raises ValueError when no cluster will ever have them.
        settled: whether a row means that its trial is not to run again, such as ``done``.
        read_metrics: the scores of the ``done`` rows of some trials; asked only when the source may want them.
        claims: what other drivers are told and ask; None: there are none.
        seconds: what a trial will take, where that is known from measurement.
        longest_chunk: 1 where every trial has to be a Ray Tune trial of its own.
        monotonic: a clock in seconds.
    """

    def __init__(
        self,
        source: TrialSource,
        *,
        read_states: Callable[[], Mapping[str, TrialStatus]],
        bundles_of: Callable[[TrialSpec], Bundles],
        settled: Callable[[TrialStatus], bool],
        read_metrics: Callable[[list[str]], Mapping[str, Mapping[str, float]]] = lambda ids: {},
        claims: Claims | None = None,
        seconds: Callable[[TrialSpec], float | None] = lambda trial: None,
        longest_chunk: int = MAX_CHUNK,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._read_states, self._read_metrics = read_states, read_metrics
        self._bundles_of, self._settled = bundles_of, settled
        self._claims, self._seconds = claims, seconds
        self._longest_chunk, self._monotonic = longest_chunk, monotonic
        self._states = read_states()
        self._work: dict[WarmKey, _Work] = {}
        self._freed: list[WarmKey] = []
        self._delayed: list[tuple[float, int, TrialSpec]] = []
        self._order = itertools.count()
        self._elsewhere: dict[str, TrialSpec] = {}
        self._running: dict[str, Assignment] = {}
        self._tries: dict[str, Counter[str]] = {}
        self._took: dict[tuple[WarmKey, str], _Mean] = {}
        self._took_warm: dict[WarmKey, _Mean] = {}
        self._failures: Counter[str] = Counter()
        self._num_done = 0
        self.ended_elsewhere: list[tuple[TrialSpec, TrialState]] = []
        """Trials that another driver ended, or a worker that had been given up, for the display to take."""
        self.num_known = 0
        """Trials that the tables knew when the source gave them."""
        self.stop_reason: str | None = None
        """Why nothing is handed out any more, though there are trials left."""
        self._collect()

    @property
    def finished(self) -> bool:
        """Whether everything has ended, or the sweep is to stop."""
        if self._running:
            return False
        return self.stop_reason is not None or not (len(self) or self._delayed or self._elsewhere)

    def __len__(self) -> int:
        """Trials that wait and may start now."""
        return sum(map(len, self._work.values()))

    def waiting(self) -> list[TrialSpec]:
        """Trials that may start now, those of the same kind of worker together."""
        return [spec for work in self._work.values() for trials in work.by_task.values() for spec in trials]

    @property
    def num_elsewhere(self) -> int:
        """Trials that another driver has in hand."""
        return len(self._elsewhere)

    @property
    def num_delayed(self) -> int:
        """Trials that wait for their next try."""
        return len(self._delayed)

    def take(self, fits: Callable[[Bundles], bool], num_workers: int = 1) -> Chunk | None:
        """The next chunk for a worker that ``fits`` finds room for; None when there is none for now."""
        self._collect()
        while self.stop_reason is None:
            chosen = self._choose(fits)
            if chosen is None:
                return None
            warm_key, work = chosen
            specs = self._ours(self._cut(warm_key, work, num_workers))
            if specs:
                work.workers += 1
                assignments = tuple(self._assign(spec) for spec in specs)
                longest = self._longest_task(warm_key, work)
                upcoming = longest[1][0] if longest else None
                return Chunk(assignments, work.bundles, warm_key, upcoming)
        return None

    def first_running(self, chunk: Chunk) -> Assignment | None:
        """The first of a chunk's executions of which no end is known: if its worker dies, the one that it was at."""
        return next((each for each in chunk.assignments if self._running.get(each.spec.trial_id) is each), None)

    def total(self) -> int:
        """How many trials there will be at most, those that had ended before included."""
        return self._source.total()

    def chunk_ended(self, chunk: Chunk) -> None:
        """The worker of a chunk is free again; what it did not begin goes back to the front."""
        work = self._work[chunk.warm_key]
        work.workers -= 1
        self._freed.append(chunk.warm_key)
        for assignment in reversed(chunk.assignments):
            spec = assignment.spec
            if self._running.get(spec.trial_id) is assignment:
                self._give_back(spec, ended=False)
                self._put(spec, front=True)

    def ended(
        self,
        assignment: Assignment,
        state: TrialState,
        metrics: Mapping[str, float] | None = None,
        elapsed_s: float | None = None,
        signature: str | None = None,
    ) -> None:
        """An execution has written its trial's last row. ``signature`` is the same for failures of one cause."""
        spec = assignment.spec
        self._give_back(spec, ended=True)
        if state == TrialState.DONE:
            self._num_done += 1
            if elapsed_s is not None:
                key = self._warm_key(spec)
                self._took.setdefault((key, spec.task.label()), _Mean()).add(elapsed_s)
                self._took_warm.setdefault(key, _Mean()).add(elapsed_s)
        elif state == TrialState.FAILED and signature is not None:
            self._failures[signature] += 1
            if not self._num_done and len(self._failures) == 1 and self._failures[signature] >= SAME_FAILURES:
                why = " ".join(signature.split())
                self.stop_reason = f"the first {SAME_FAILURES} trials failed alike, so the rest is not tried: {why}"
        self._source.ended(spec, state, metrics or {})

    def failed_in_passing(self, assignment: Assignment, kind: str) -> float:
        """An execution failed for a reason that passes, without a row: seconds until it is tried again."""
        assert kind in assignment.retried, f"{kind} is not retried any more"
        spec = assignment.spec
        self._give_back(spec, ended=False)
        tries = self._tries.setdefault(spec.trial_id, Counter())
        tries[kind] += 1
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(tries.total() - 1, 20))
        heapq.heappush(self._delayed, (self._monotonic() + wait_s, next(self._order), spec))
        return wait_s

    # --- what may start

    def _collect(self) -> None:
        """Sort in what the source gives, what waited long enough, and what other drivers let go."""
        now = self._monotonic()
        if self._delayed and self._delayed[0][0] <= now:
            self._read_states_again()  # a worker that was taken for dead, as its node was, may have written its row
        while self._delayed and self._delayed[0][0] <= now:
            spec = heapq.heappop(self._delayed)[2]
            if self._is_settled(spec.trial_id):
                self._was_ended_elsewhere(spec)
            else:
                self._put(spec, front=True)
        if self._claims is not None and self._elsewhere:
            held = self._claims.held_by_others()
            if self._claims.others_have_ended_trials():
                self._read_states_again()
            for trial_id in list(self._elsewhere):
                if self._is_settled(trial_id):
                    self._was_ended_elsewhere(self._elsewhere.pop(trial_id))
                elif trial_id not in held:
                    self._put(self._elsewhere.pop(trial_id))
        while given := self._source.ready():
            known = [spec for spec in given if self._is_settled(spec.trial_id)]
            for spec in given:
                if not self._is_settled(spec.trial_id):
                    self._put(spec)
            if not known:
                return
            self.num_known += len(known)
            metrics = self._read_metrics([spec.trial_id for spec in known])
            for spec in known:  # a search may want more trials now
                self._source.ended(spec, self._states[spec.trial_id].state, metrics.get(spec.trial_id, {}))

    def _read_states_again(self) -> None:
        with suppress(OSError, ValueError):  # a file system that fails for now: what was known stays
            self._states = self._read_states()

    def _is_settled(self, trial_id: str) -> bool:
        return trial_id in self._states and self._settled(self._states[trial_id])

    def _put(self, spec: TrialSpec, front: bool = False) -> None:
        key = self._warm_key(spec)
        if key not in self._work:
            self._work[key] = _Work(self._bundles_of(spec))
        trials = self._work[key].by_task.setdefault(spec.task.label(), deque())
        (trials.appendleft if front else trials.append)(spec)

    def _warm_key(self, spec: TrialSpec) -> WarmKey:
        """Equal for trials that one worker can run one after the other without loading anything anew."""
        placement = spec.placement
        resources = (placement.num_workers, placement.cpus_per_worker, placement.gpus_per_worker)
        return (spec.backbone, spec.recipe.precision, spec.recipe.prompt, placement.weights_folder, *resources)

    # --- what starts next

    def _choose(self, fits: Callable[[Bundles], bool]) -> tuple[WarmKey, _Work] | None:
        while self._freed:
            key = self._freed.pop()
            if len(self._work[key]) and fits(self._work[key].bundles):
                return key, self._work[key]
        waiting = [(key, work) for key, work in self._work.items() if len(work) and fits(work.bundles)]
        if not waiting:
            return None
        return max(waiting, key=lambda item: self._left_s(*item) / (1 + item[1].workers))

    def _left_s(self, key: WarmKey, work: _Work) -> float:
        return sum(len(trials) * self._trial_s(key, task, trials) for task, trials in work.by_task.items())

    def _trial_s(self, key: WarmKey, task: str, trials: deque[TrialSpec]) -> float:
        """Seconds that a trial takes as far as is known, by its task, else its backbone; where nothing is, a chunk."""
        mean = self._took.get((key, task)) or self._took_warm.get(key)
        if mean is not None:
            return mean.total_s / mean.count
        known = self._seconds(trials[0]) if trials else None
        return CHUNK_S if known is None else known

    def _longest_task(self, key: WarmKey, work: _Work) -> tuple[float, deque[TrialSpec]] | None:
        """A task of which nothing is known, else that with the longest trials: seconds of one, and those that wait."""
        tasks = [(task, trials) for task, trials in work.by_task.items() if trials]
        if not tasks:
            return None
        seconds = {task: self._trial_s(key, task, trials) for task, trials in tasks}
        task, trials = max(tasks, key=lambda item: (not self._is_known(key, *item), seconds[item[0]]))
        return seconds[task], trials

    def _is_known(self, key: WarmKey, task: str, trials: deque[TrialSpec]) -> bool:
        return (key, task) in self._took or self._seconds(trials[0]) is not None

    def _cut(self, key: WarmKey, work: _Work, num_workers: int) -> list[TrialSpec]:
        """Take the next trials of a kind off the queue: about ``CHUNK_S`` of work, less towards the end."""
        share = math.ceil(len(work) / (CHUNKS_LEFT_PER_WORKER * max(1, num_workers)))
        most = max(1, min(self._longest_chunk, share))
        specs: list[TrialSpec] = []
        room_s = CHUNK_S
        while len(specs) < most and (longest := self._longest_task(key, work)):
            took_s, trials = longest
            if specs and took_s > room_s:
                break
            while trials and len(specs) < most and (not specs or took_s <= room_s):
                specs.append(trials.popleft())
                room_s -= took_s
        return specs

    def _ours(self, specs: list[TrialSpec]) -> list[TrialSpec]:
        """Those of ``specs`` that no other driver has in hand or has ended; the rest waits for what becomes of it."""
        if self._claims is None:
            return specs
        taken = self._claims.take([spec.trial_id for spec in specs])
        if self._claims.others_have_ended_trials():
            self._states = self._read_states()
        ours = []
        for spec in specs:
            if self._is_settled(spec.trial_id):
                if spec.trial_id in taken:
                    self._claims.release(spec.trial_id, ended=False)
                self._was_ended_elsewhere(spec)
            elif spec.trial_id in taken:
                ours.append(spec)
            else:
                self._elsewhere[spec.trial_id] = spec
        return ours

    def _was_ended_elsewhere(self, spec: TrialSpec) -> None:
        state = self._states[spec.trial_id].state
        self.ended_elsewhere.append((spec, state))
        self._num_done += state == TrialState.DONE
        self._source.ended(spec, state, self._read_metrics([spec.trial_id]).get(spec.trial_id, {}))

    def _assign(self, spec: TrialSpec) -> Assignment:
        status, tries = self._states.get(spec.trial_id), self._tries.get(spec.trial_id, Counter())
        attempts = 1 + (status.attempts if status else 0)
        again = frozenset(kind for kind, limit in TRANSIENT.items() if limit is None or tries[kind] < limit)
        assignment = Assignment(spec, new_run_id(), attempts, tries.total(), again)
        self._running[spec.trial_id] = assignment
        return assignment

    def _give_back(self, spec: TrialSpec, *, ended: bool) -> None:
        del self._running[spec.trial_id]
        if self._claims is not None:
            self._claims.release(spec.trial_id, ended=ended)
