"""Between Ray Tune and the queue of trials: a Searcher that hands out chunks, a Callback that takes back what they did.

Tune is the scheduler: it places each chunk's actors, keeps them warm, sees them die. Which trials a chunk holds, and
what becomes of those that failed, is the queue's to say.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.experimental import internal_kv
from ray.tune.search import Searcher

from orchestrator import results
from orchestrator.claims import Claims
from orchestrator.failures import classify, signature
from orchestrator.progress import Progress
from orchestrator.sweep.cluster import Room, nodes, shape
from orchestrator.sweep.compactor import Compactor
from orchestrator.sweep.signals import StopSignals
from orchestrator.sweep.worker import Job, SpoiltWorkerError, Work, died_error, expected_key
from orchestrator.tables import TrialState
from orchestrator.trial import record_pruned
from orchestrator.trial_queue import Assignment, Chunk, TrialQueue
from orchestrator.trial_row import Execution, failed_result, timeout_error

LOOK_AT_NODES_EVERY_S = 5.0


class Dispatcher:
    """What the Searcher and the Callback of one run share: the queue, the room on the cluster, the display."""

    def __init__(
        self,
        job: Job,
        queue: TrialQueue,
        room: Room,
        progress: Progress,
        stop: StopSignals,
        claims: Claims | None,
        compactor: Compactor,
        *,
        flat_configs: bool = False,
    ) -> None:
        self.job = job
        self.queue, self.room, self.progress, self._stop, self._claims = queue, room, progress, stop, claims
        self._compactor, self._flat_configs = compactor, flat_configs
        self._looked_at_nodes = time.monotonic()
        self._at_start: Counter[str] | None = Counter()
        self.started: dict[str, datetime] = {}
        """When each execution began, by ``run_id``, as far as the driver knows."""

    def tick(self) -> None:
        """What is due while Tune waits: stop when asked, say that we live, see nodes come and go."""
        self._stop.check()
        if self._claims is not None:
            self._claims.beat()
        if time.monotonic() - self._looked_at_nodes > LOOK_AT_NODES_EVERY_S:
            self._looked_at_nodes = time.monotonic()
            self.room.update(nodes())

    def next_config(self) -> dict[str, Any] | str | None:
        """The config of the next Tune trial; None when there is none for now."""
        self.tick()
        chunk = self.queue.take(self.room.fits, num_workers=self.room.num_trials + 1)
        self.progress.total = self.queue.total() - self.queue.num_known
        while self.queue.ended_elsewhere:
            spec, state = self.queue.ended_elsewhere.pop()
            self.progress.ended_elsewhere(spec, state)
        if chunk is None:
            self._all_are_out()
            return Searcher.FINISHED if self.queue.finished else None
        self.room.take(id(chunk), chunk.bundles)
        if self._at_start is not None:
            self._at_start[shape(chunk.bundles)] += 1
        return {"work": Work(chunk)} | (self._flat(chunk.assignments[0]) if self._flat_configs else {})

    def _all_are_out(self) -> None:
        """Tell the first workers how many they are: see ``worker.wait_for_others``."""
        for each, count in (self._at_start or {}).items():
            internal_kv._internal_kv_put(expected_key(self.job, each), str(count).encode())
        self._at_start = None

    def begin(self, chunk: Chunk, place: int = 0) -> None:
        """The chunk's trial at ``place`` runs now."""
        if place < len(chunk.assignments):
            assignment = chunk.assignments[place]
            self.started.setdefault(assignment.run_id, datetime.now(UTC))
            self.progress.trial_started(assignment.spec)

    def chunk_ended(self, chunk: Chunk) -> None:
        """The chunk's worker is free, or gone."""
        for assignment in chunk.assignments:
            self.started.pop(assignment.run_id, None)
            self.progress.trial_returned(assignment.spec)
        self.room.give_back(id(chunk))
        self.queue.chunk_ended(chunk)

    def ended(
        self,
        assignment: Assignment,
        state: TrialState,
        detail: str,
        metrics: Mapping[str, float] | None = None,
        elapsed_s: float | None = None,
        failure_signature: str | None = None,
    ) -> None:
        """An execution wrote its row."""
        self.queue.ended(assignment, state, metrics, elapsed_s, failure_signature)
        self._compactor.row_written()
        self.progress.trial_ended(assignment.spec, state, elapsed_s, detail)

    def failed_in_passing(self, assignment: Assignment, kind: str, detail: str) -> None:
        """An execution failed for a reason that passes."""
        wait_s = self.queue.failed_in_passing(assignment, kind)
        self.progress.trial_retried(assignment.spec, detail, wait_s)

    @staticmethod
    def _flat(assignment: Assignment) -> dict[str, Any]:
        """What loggers such as TensorBoard show as the trial's hyperparameters."""
        spec = assignment.spec
        axes = {name: getattr(spec, name) for name in ("backbone", "seed", "n_train", "lora_rank", "n_test")}
        recipe = {f"recipe.{name}": str(value) for name, value in spec.recipe.model_dump(exclude_defaults=True).items()}
        return axes | {"task": spec.task.label(), "trial_id": spec.trial_id} | recipe


class ChunkSearcher(Searcher):
    """What Tune asks for its next trial. One of Tune's trials is a chunk of ours."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self._dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that never happens here."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next chunk, ``FINISHED``, or None: ask again later."""
        return self._dispatcher.next_config()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: ``Watch`` is told more."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the tables are all that a later run needs."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Watch(tune.Callback):
    """Takes back what Tune's trials did, and writes the row of a trial whose process died."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles callbacks for a restore that never happens here, and a display cannot be pickled."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See to what is due."""
        self._dispatcher.tick()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The first trial of a chunk runs."""
        self._dispatcher.begin(_chunk(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial of a chunk has ended, and the next one runs; or it is at a rung, and pruned where Tune is done."""
        chunk = _chunk(trial)
        if "rung" in result and not result["done"]:
            return
        place = next(i for i, each in enumerate(chunk.assignments) if each.run_id == result["run_id"])
        assignment, kind = chunk.assignments[place], result.get("passing_kind")
        if kind:
            self._dispatcher.failed_in_passing(assignment, kind, result["detail"])
        else:
            if "rung" in result:
                try:
                    record_pruned(self._dispatcher.job.results_uri, result["rung"].report)
                except OSError as full:  # no row: the next run of the sweep tries it again
                    result["detail"] += f" (its row could not be written: {full})"
            self._dispatcher.ended(
                assignment,
                TrialState(result["state"]),
                result["detail"],
                result.get("metrics"),
                result["elapsed_s"],
                result.get("signature"),
            )
        if not result["done"]:
            self._dispatcher.begin(chunk, place + 1)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The chunk has ended; its actor is free."""
        self._dispatcher.chunk_ended(_chunk(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The chunk's worker is gone: with a trial in hand, or after one that spoilt it."""
        chunk, error = _chunk(trial), _error_of(trial)
        cause = getattr(error, "cause", None) or error
        if not isinstance(cause, SpoiltWorkerError):
            running = self._dispatcher.queue.first_running(chunk)
            if running is not None:
                self._died(running, cause)
        self._dispatcher.chunk_ended(chunk)

    def _died(self, assignment: Assignment, cause: Exception | None) -> None:
        """A process died before it could say why: its row, if it wrote one, else ours, unless it may pass."""
        uri, spec = self._dispatcher.job.results_uri, assignment.spec
        ending = results.ending_of_run(uri, spec.trial_id, assignment.run_id)
        if ending is None:
            began = self._dispatcher.started.get(assignment.run_id, datetime.now(UTC))
            limit_s, elapsed = spec.placement.timeout_s, datetime.now(UTC) - began
            error: Exception = cause or RuntimeError("the worker ended without a word")
            if isinstance(cause, ray.exceptions.RayActorError) and not cause.actor_init_failed:
                error = died_error(cause)
                if limit_s is not None and elapsed.total_seconds() > limit_s:
                    error = timeout_error(spec)  # native code let nothing run, see time_limit
            kind = classify(error)
            if kind in assignment.retried:
                self._dispatcher.failed_in_passing(assignment, kind, f"{kind}: {error}".splitlines()[0])
                return
            execution = Execution(
                assignment.run_id, assignment.attempts, began, self._dispatcher.job.sweep, assignment.retries
            )
            ending = TrialState.FAILED, f"{kind}: {error}".splitlines()[0]
            try:
                results.write(uri, failed_result(spec, execution, error, kind))
            except OSError as full:  # no row: the next run of the sweep tries it again
                ending = TrialState.FAILED, f"{ending[1]} (its row could not be written: {full})"
            self._dispatcher.ended(assignment, *_with_detail(ending), failure_signature=signature(error))
            return
        self._dispatcher.ended(assignment, *_with_detail(ending))


def _error_of(trial: Any) -> Exception | None:
    """What ended one of Tune's trials. Tune keeps it in a file, which its own reader finds only once it was copied."""
    try:
        with open(trial.pickled_error_file, "rb") as file:
            error: Exception = cloudpickle.load(file)
    except (OSError, TypeError):  # no file; a disk that is full
        return None
    return error


def _with_detail(ending: tuple[TrialState, str | None]) -> tuple[TrialState, str]:
    return ending[0], ending[1] or ""


def _chunk(trial: Any) -> Chunk:
    chunk: Chunk = trial.config["work"].chunk
    return chunk
