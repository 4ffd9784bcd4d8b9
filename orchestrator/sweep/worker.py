"""What runs inside Ray's processes: ``TrialWorker`` (a Tune actor that runs trial after trial) and the rank actors.

A trial of one worker runs in the Tune actor itself, which keeps its frozen backbone. A trial of several runs in one
actor a rank, each in its own bundle of the *trial's* placement group, so that Tune's books are exact; the Tune actor
only waits for them, in the first bundle but without resources of its own. Every rank runs ``run_trial`` as torchrun
would start it; rank 0 writes.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray import tune
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator import results
from orchestrator.failures import TRANSIENT, classify, signature
from orchestrator.pruning import VALIDATION, RungReport, Rungs, SteppedRun
from orchestrator.search_entries import AshaEntry
from orchestrator.specs import TrialSpec
from orchestrator.sweep.cluster import shape
from orchestrator.tables import TrialResult, TrialState
from orchestrator.trial_queue import Assignment, Chunk
from orchestrator.trial_row import Execution, failed_result, timeout_error

START_BARRIER_S = 30.0
"""Longest wait of a new worker for the others of its kind to start."""
RANK_PING_S = 2.0
_NODE_DIED = re.compile(r"node (?:has|had) died|node was (?:terminated|drained)|node is dead", re.IGNORECASE)
"""Ray says it in words only."""

RunTrial = Callable[..., TrialResult]
"""Called as ``orchestrator.trial.run_and_record``."""


@dataclass(frozen=True)
class Job:
    """What workers need to know of a sweep, shipped to each once."""

    name: str
    sweep: str
    results_uri: str
    run: RunTrial
    """What runs a trial and records its rows: ``run_and_record`` but for benchmarks and tests."""
    asha: AshaEntry | None = None
    """Where trials stop to be judged; the driver says which of them go on."""


class Work:
    """A chunk as Tune's configs carry it: Tune prints, flattens and copies what is in them."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk

    def __repr__(self) -> str:
        return f"{len(self.chunk.assignments)} trials"

    def __deepcopy__(self, memo: dict[int, Any]) -> Work:
        return self  # the driver asks which chunk a result belongs to by identity


class Report:
    """A rung's report as Tune's results carry it."""

    def __init__(self, report: RungReport) -> None:
        self.report = report

    def __repr__(self) -> str:
        return f"at {self.report.share:.3g}"


class SpoiltWorkerError(RuntimeError):
    """A trial failed in a way after which its process is not to be trusted; Tune starts another one."""


class TrialWorker(tune.Trainable):
    """Runs the trials of a chunk, then, re-used by Tune, those of the next. One ``step`` is one whole trial."""

    def setup(self, config: dict[str, Any], job: Job | None = None) -> None:
        """Called once an actor: wait for the others of this kind, or the first one up would take every trial."""
        assert job is not None, "shipped by tune.with_parameters"
        self._job = job
        self._ranks: list[Any] = []
        self._begin(config)
        spec = self._chunk.assignments[0].spec
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(spec.placement.cpus_per_worker)))  # read when torch is imported
        if spec.backbone_spec.trainable:
            import torch  # noqa: F401  # seconds: not to be counted as part of the first trial

        import orchestrator.trial as trial

        self._trial = trial
        self._cache = trial.BackboneCache()
        self._problems = trial.ProblemCache()
        self._stepped: SteppedRun[TrialResult] = SteppedRun()
        _wait_for_others(job, shape(self._chunk.bundles))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next chunk on the warm actor, which a pruned trial may still have."""
        try:
            self._stepped.prune()
        except Exception:
            self._begin(new_config)
            self._spoilt = True
        else:
            self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._chunk: Chunk = config["work"].chunk
        self._place = 0
        self._spoilt = False

    def step(self) -> dict[str, Any]:
        """Run the chunk's next trial to its row, and say how it ended; or to its next rung, and say how it does."""
        if self._spoilt:
            raise SpoiltWorkerError("the trial before failed and may have spoilt this process")
        if not self._stepped.is_running:
            self._place += 1
            self._started = time.perf_counter()
        assignment, started = self._chunk.assignments[self._place - 1], self._started
        ending: dict[str, Any]
        try:
            result = self._run(assignment)
            if isinstance(result, RungReport):
                scores = result.result.metrics
                said = f"{VALIDATION}exact_match={scores.get(VALIDATION + 'exact_match', float('nan')):.3f}"
                ending = {"state": TrialState.PRUNED.value, "rung": Report(result), "share": result.share}
                ending |= {"metrics": dict(scores), "detail": f"{said} after {result.result.train_steps} steps"}
                ending |= {"run_id": assignment.run_id, "elapsed_s": time.perf_counter() - started}
                return ending | {"done": False}
            # Only numbers that say something of the answers, and under names that are none of Tune's own.
            ending = {"state": TrialState.DONE.value, "metrics": dict(result.metrics)}
            ending["detail"] = f"exact_match={result.metrics.get('exact_match', float('nan')):.3f}"
        except Exception as error:
            ending = self._failure(assignment, error)
        last = self._place == len(self._chunk.assignments)
        ending |= {"run_id": assignment.run_id, "elapsed_s": time.perf_counter() - started}
        return ending | {"done": last and not self._spoilt}

    def _run(self, assignment: Assignment) -> TrialResult | RungReport:
        if self._stepped.is_running:
            return self._stepped.go_on()
        execution = Execution.begin(self._job.sweep, assignment.attempts, assignment.run_id, assignment.retries)
        if assignment.spec.placement.num_workers > 1:
            return self._run_on_ranks(assignment, execution)
        following = self._following()
        if following is not None:
            self._trial.prefetch_problems(following, self._problems)
        run = partial(
            self._job.run,
            assignment.spec,
            self._job.results_uri,
            backbone_cache=self._cache,
            problem_cache=self._problems,
            execution=execution,
            without_a_row=assignment.retried,
        )
        asha = self._job.asha
        if asha is None:
            return run()
        return self._stepped.start(lambda report: run(rungs=Rungs(asha, report)))

    def _following(self) -> TrialSpec | None:
        """The trial that this worker will probably run next."""
        rest = self._chunk.assignments[self._place :]
        return rest[0].spec if rest else self._chunk.upcoming

    def _failure(self, assignment: Assignment, error: Exception) -> dict[str, Any]:
        """What the driver is told of a failure: whether its row is written, and whether it may pass."""
        kind = classify(error)
        detail = f"{kind}: {error}".splitlines()[0]
        if kind in TRANSIENT:
            # Ranks were ended, files are whole or not there: this process is as good as before.
            passing_kind = kind if kind in assignment.retried else ""
            return {"state": TrialState.FAILED.value, "detail": detail, "passing_kind": passing_kind}
        self._spoilt = not isinstance(error, ValueError) and assignment.spec.placement.num_workers == 1
        return {"state": TrialState.FAILED.value, "detail": detail, "signature": signature(error)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a trial is its row. Tune asks for this when a trial ends, and the default raises."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def cleanup(self) -> None:
        """End the rank actors, and a pruned trial."""
        self._stepped.prune()
        self._end_ranks()

    def _run_on_ranks(self, assignment: Assignment, execution: Any) -> TrialResult:
        """Every rank's trial to rank 0's result; ranks that run out of memory start anew with half the micro-batch."""
        spec, uri = assignment.spec, self._job.results_uri
        limit_s, deadline = spec.placement.timeout_s, None
        while True:
            try:
                if not self._ranks:
                    self._ranks = _start_ranks(spec)
                if limit_s is not None and deadline is None:  # the first start of the processes is not the trial's
                    deadline = time.monotonic() + limit_s
                pending = [rank.run.remote(spec, uri, execution) for rank in self._ranks]
                result = _first_result(pending, deadline)
                if result is None:
                    raise timeout_error(spec)
                return result
            except Exception as error:
                cause = getattr(error, "cause", None) or error  # Ray wraps what an actor raised
                # A rank that lost its partner may say so before Ray says that the partner is dead.
                if classify(cause) == "connection":
                    cause = self._death_of_a_rank() or cause
                # The other ranks wait for the one that failed, maybe in native code: nothing but their end stops them.
                self._end_ranks()
                smaller = getattr(cause, "smaller_micro_batch_size", None)
                if smaller is None:
                    if isinstance(cause, ray.exceptions.RayActorError):
                        cause = died_error(cause)
                    if classify(cause) not in assignment.retried:
                        results.write(uri, failed_result(spec, execution, cause))
                    raise cause from None
            placement = spec.placement.model_copy(update={"micro_batch_size": smaller})
            spec = spec.model_copy(update={"placement": placement})

    def _death_of_a_rank(self) -> Exception | None:
        """The error of a rank whose process is gone; None when all live."""
        answers = [rank.__ray_ready__.remote() for rank in self._ranks]
        answered, _ = ray.wait(answers, num_returns=len(answers), timeout=RANK_PING_S)  # those at work are silent
        for answer in answered:
            try:
                ray.get(answer)
            except ray.exceptions.RayActorError as error:
                return error
        return None

    def _end_ranks(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)
        self._ranks = []


@ray.remote
class RankActor:
    """One of the processes that share a trial; its environment is what torchrun would set."""

    def __init__(self, rank: int, world_size: int, cpus: float) -> None:
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_RANK": "0",  # Ray shows each actor its own GPU only
            "OMP_NUM_THREADS": str(max(1, int(cpus))),
        }
        import orchestrator.trial as trial

        self._trial = trial
        self._cache = trial.BackboneCache()
        self._problems = trial.ProblemCache()

    def address(self) -> tuple[str, int]:
        """Where rank 0 will listen: this node's address and a port that is free now."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            return ray.util.get_node_ip_address(), listener.getsockname()[1]

    def meet_at(self, address: str, port: int) -> None:
        """Set where rank 0 listens."""
        os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}

    def run(self, spec: TrialSpec, results_uri: str, execution: Any) -> TrialResult:
        """Run the trial together with the other ranks; rank 0 writes its rows."""
        result, predictions, losses = self._trial.run_trial(
            spec,
            backbone_cache=self._cache,
            problem_cache=self._problems,
            execution=execution,
            results_uri=results_uri,
        )
        if os.environ["RANK"] == "0":
            self._trial.record(results_uri, result, predictions, losses)
        return result


def died_error(error: ray.exceptions.RayActorError) -> Exception:
    """Ray's word for a process that is gone, as an error of ours with an ``error_kind``."""
    if error.preempted:
        return WorkerGoneError("preempted", "the node was preempted")
    if _NODE_DIED.search(str(error)):
        return WorkerGoneError("node_died", "the node of the worker died")
    return WorkerGoneError("worker_died", "the worker process died; the operating system ends it when memory runs out")


class WorkerGoneError(RuntimeError):
    """A worker process that ran (a part of) a trial is gone; ``error_kind`` says with what."""

    def __init__(self, error_kind: str, reason: str) -> None:
        super().__init__(reason)
        self.error_kind = error_kind


def _start_ranks(spec: TrialSpec) -> list[Any]:
    group = ray.util.get_current_placement_group()
    assert group is not None, "Tune runs a trial in a placement group"
    workers, ranks = spec.placement.num_workers, []
    for rank in range(workers):
        bundle = group.bundle_specs[rank]
        options = RankActor.options(  # type: ignore[attr-defined]
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        )
        ranks.append(options.remote(rank, workers, spec.placement.cpus_per_worker))
    address, port = ray.get(ranks[0].address.remote())
    ray.get([rank.meet_at.remote(address, port) for rank in ranks])
    return ranks


def _first_result(pending: list[Any], deadline: float | None) -> TrialResult | None:
    """Rank 0's result once all are there, None at the deadline (of ``time.monotonic``).

    Any rank's error is raised at once, because the others may wait for it for ever.
    """
    first = pending[0]
    while pending:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, pending = ray.wait(pending, num_returns=1, timeout=left_s)
        if not ready:
            return None
        ray.get(ready)
    result: TrialResult = ray.get(first)
    return result


def expected_key(job: Job, worker_shape: str) -> bytes:
    """Under which the driver says how many workers of a shape it has asked for at the start."""
    return f"{job.name}/expected/{worker_shape}".encode()


def _wait_for_others(job: Job, worker_shape: str) -> None:
    """Return once the workers of this shape that the driver asked for at first have started, or one of them has waited
    long enough.

    Without it, trials shorter than a worker's start all go to the first worker: Tune hands a free actor the next trial
    before it lets another actor start.
    """
    prefix = f"{job.name}/{worker_shape}/"
    opened, expected = f"{prefix}open".encode(), expected_key(job, worker_shape)
    internal_kv._internal_kv_put(f"{prefix}{os.uname().nodename}-{os.getpid()}".encode(), b"1")
    deadline = time.monotonic() + START_BARRIER_S
    while not internal_kv._internal_kv_exists(opened):
        count = internal_kv._internal_kv_get(expected)
        arrived = len(internal_kv._internal_kv_list(prefix.encode()))
        if (count is not None and arrived >= int(count)) or time.monotonic() > deadline:
            internal_kv._internal_kv_put(opened, b"1")
            return
        time.sleep(0.02)
