"""What runs inside Ray's processes: ``TrialWorker`` (a Tune actor that runs trial after trial) and the rank actors.

A trial of one worker runs in the Tune actor itself, which keeps its frozen backbone. A trial of several runs in one
actor a rank, each in its own bundle of the *trial's* placement group, so that Tune's books are exact; the Tune actor
only waits for them, in the first bundle but without resources of its own. Every rank runs ``run_trial`` as torchrun
would start it; rank 0 writes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator import results
from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialResult, TrialState

START_BARRIER_S = 30.0
"""Longest wait of a new worker for the others of its kind to start."""


@dataclass(frozen=True)
class Assignment:
    """One trial that is to run: its spec, the name of this execution, how often it was started (this time included)."""

    spec: TrialSpec
    bundles: tuple[dict[str, float], ...]
    run_id: str
    attempts: int

    @property
    def shape(self) -> str:
        """The same text for assignments that the same workers can run."""
        return ";".join(
            ",".join(f"{name}:{amount:g}" for name, amount in sorted(bundle.items())) for bundle in self.bundles
        )


@dataclass(frozen=True)
class Job:
    """Everything workers need to know of a sweep, shipped to each once. Tune's configs are indices of its list."""

    name: str
    sweep: str
    results_uri: str
    assignments: Sequence[Assignment]
    workers_at_start: dict[str, int]
    """How many workers of each resource shape find room at the start, by ``Assignment.shape``."""


def bundles(spec: TrialSpec, gpus_per_worker: float) -> tuple[dict[str, float], ...]:
    """The trial's placement group: the Tune actor's bundle first, which is empty where it only waits for ranks."""
    worker = {"CPU": spec.placement.cpus_per_worker} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    count = spec.placement.num_workers
    return (worker,) if count == 1 else ({}, *[worker] * count)


class TrialWorker(tune.Trainable):
    """Runs the trial at ``config["index"]``, then, re-used by Tune, the next one. One ``step`` is one whole trial."""

    def setup(self, config: dict[str, Any], job: Job | None = None) -> None:
        """Called once an actor: wait for the others of this kind, or the first one up would take every trial."""
        assert job is not None, "shipped by tune.with_parameters"
        self._job = job
        self._index: int = config["index"]
        self._ranks: list[Any] = []
        cpus = self._assignment.spec.placement.cpus_per_worker
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus)))  # read once, when torch is imported below
        import torch  # noqa: F401  # seconds: not to be counted as part of the first trial

        import orchestrator.trial as trial

        self._trial = trial
        self._cache = trial.BackboneCache()
        _wait_for_others(job, self._assignment.shape)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial on the warm actor."""
        self._index = new_config["index"]
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial to its row. An error of the spec's own making keeps this worker; any other ends it."""
        assignment = self._assignment
        started = time.perf_counter()
        execution = self._trial.Execution.begin(self._job.sweep, assignment.attempts, assignment.run_id)
        try:
            if assignment.spec.placement.num_workers > 1:
                result = self._run_on_ranks(assignment, execution)
            else:
                result = self._trial.run_and_record(
                    assignment.spec, self._job.results_uri, backbone_cache=self._cache, execution=execution
                )
        except ValueError as error:
            return self._report(TrialState.FAILED, started, f"{self._trial.classify(error)}: {error}")
        return self._report(TrialState.DONE, started, f"exact_match={result.metrics['exact_match']:.3f}")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a trial is its row. Tune asks for this when a trial ends, and the default raises."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def cleanup(self) -> None:
        """End the rank actors."""
        self._end_ranks()

    @property
    def _assignment(self) -> Assignment:
        return self._job.assignments[self._index]

    def _report(self, state: TrialState, started: float, detail: str) -> dict[str, Any]:
        elapsed_s = time.perf_counter() - started
        return {"done": True, "state": state.value, "elapsed_s": elapsed_s, "detail": detail}

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
                    raise self._trial.timeout_error(spec)
                return result
            except Exception as error:
                # The other ranks wait for the one that failed, maybe in native code: nothing but their end stops them.
                self._end_ranks()
                cause = getattr(error, "cause", None) or error  # Ray wraps what an actor raised
                smaller = getattr(cause, "smaller_micro_batch_size", None)
                if smaller is None:
                    kind = "worker_died" if isinstance(cause, ray.exceptions.RayActorError) else None
                    results.write(uri, self._trial.failed_result(spec, execution, cause, kind))
                    raise cause from None
            placement = spec.placement.model_copy(update={"micro_batch_size": smaller})
            spec = spec.model_copy(update={"placement": placement})

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
            spec, backbone_cache=self._cache, execution=execution, results_uri=results_uri
        )
        if os.environ["RANK"] == "0":
            self._trial.record(results_uri, result, predictions, losses)
        return result


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


def _wait_for_others(job: Job, shape: str) -> None:
    """Return once as many workers of this shape have started as find room, or one of them has waited long enough.

    Without it, trials shorter than a worker's start all go to the first worker: Tune hands a free actor the next trial
    before it lets another actor start.
    """
    prefix = f"{job.name}/{shape}/"
    opened = f"{prefix}open".encode()
    internal_kv._internal_kv_put(f"{prefix}{os.uname().nodename}-{os.getpid()}".encode(), b"1")
    deadline = time.monotonic() + START_BARRIER_S
    while not internal_kv._internal_kv_exists(opened):
        arrived = len(internal_kv._internal_kv_list(prefix.encode()))
        if arrived >= job.workers_at_start.get(shape, 1) or time.monotonic() > deadline:
            internal_kv._internal_kv_put(opened, b"1")
            return
        time.sleep(0.02)
