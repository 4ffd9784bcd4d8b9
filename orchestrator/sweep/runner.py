"""Running a sweep: what is missing in the tables goes to Ray Tune, trial by trial, on warm workers.

Resume is a set difference over the tables; Tune's own experiment state lies in a temporary folder and is never read
again. Only this folder imports ray.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from rich.console import Console

from orchestrator import results
from orchestrator.progress import Progress
from orchestrator.specs import SweepSpec, TrialSpec
from orchestrator.sweep.worker import Assignment, Job, TrialWorker, bundles
from orchestrator.tables import TrialState, new_run_id
from orchestrator.trial import Execution, failed_result, timeout_error

OBJECT_STORE_BYTES = 256 * 1024**2
"""Of a Ray started here. Only specs travel through it; Ray's default is a third of the machine's memory."""
COMPACT_ABOVE = 500
"""A run that ends with more small files than this in a table merges them."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

QUIET_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files a trial double the overhead
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours stops within a second and keeps the rows
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # Tune's state is never read again
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints its banner at any verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 starves trials beside anything else on the machine
}


@dataclass(frozen=True)
class SweepOutcome:
    """How a run ended: counts of trials it ran, and the signal that stopped it, if one did."""

    done: int
    failed: int
    missing: int
    elapsed_s: float
    stopped_by: signal.Signals | None = None

    @property
    def exit_status(self) -> int:
        """0: all done; 1: a trial failed; 130 or 143: stopped by SIGINT or SIGTERM."""
        return 128 + self.stopped_by if self.stopped_by else int(self.failed > 0)


class _Stopped(BaseException):
    """A signal asked the sweep to stop. No Exception, or Tune would handle it."""


class _StopSignals:
    """Within the block the first SIGINT or SIGTERM is noted; a second one acts as it did before.

    Noted, not raised where it arrives: that may be within Ray's native code, which turns it into a SystemError.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _StopSignals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no signals
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def take_over(self) -> None:
        """Put our handlers back where starting Ray replaced them."""
        for number in self._before:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raise ``_Stopped`` when a signal was noted."""
        if self.received:
            raise _Stopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__()


def run(
    sweep: SweepSpec,
    trials: Sequence[TrialSpec],
    *,
    workers: int | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> SweepOutcome:
    """Run ``trials`` and write their rows to the sweep's results folder.

    A trial that fails, or whose process dies, becomes a failed row and does not stop the others. SIGINT and SIGTERM
    stop the sweep; finished rows stay. Ray is started on this machine, or joined where RAY_ADDRESS (or the caller)
    says so.

    Args:
        sweep: whose name and results folder the rows carry.
        trials: what is to run, in this order.
        workers: run at most so many trials at once; by default as many as there is room for.
        quiet: show no progress.
        console: where progress goes, by default standard output.

    Raises:
        ValueError: the folder cannot be written, or a trial asks for more than the cluster has. Nothing was started.
    """
    started = time.monotonic()
    uri = results.absolute_uri(sweep.results_uri)
    results.check_writable(uri)
    states = results.trial_states(uri)
    with (
        _StopSignals() as stop,
        Progress(trials, console, quiet) as progress,
        suppress(_Stopped),
        _ray(trials, workers),
        tempfile.TemporaryDirectory(prefix="sweep-") as folder,
    ):
        stop.take_over()
        stop.check()
        job = _job(sweep, trials, uri, states, workers)
        _tune(job, _Watch(job, progress, stop), folder, workers)
    results.compact(uri, at_least=COMPACT_ABOVE)
    missing = len(trials) - progress.done - progress.failed
    return SweepOutcome(progress.done, progress.failed, missing, time.monotonic() - started, stop.received)


def _job(
    sweep: SweepSpec,
    trials: Sequence[TrialSpec],
    uri: str,
    states: Mapping[str, results.TrialStatus],
    workers: int | None,
) -> Job:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node.get("GPU", 0) > 0 for node in nodes)
    assignments = []
    checked: set[str] = set()
    for spec in trials:
        attempts = states[spec.trial_id].attempts + 1 if spec.trial_id in states else 1
        assignment = Assignment(spec, bundles(spec, _gpus_per_worker(spec, has_gpus)), new_run_id(), attempts)
        if assignment.shape not in checked:
            _check_fits(assignment, nodes)
            checked.add(assignment.shape)
        assignments.append(assignment)
    at_start = {}
    for assignment in assignments:
        if assignment.shape not in at_start:
            count = sum(other.shape == assignment.shape for other in assignments)
            at_start[assignment.shape] = min(count, _capacity(assignment, nodes), workers or count)
    return Job(uuid.uuid4().hex, sweep.name, uri, assignments, at_start)


def _tune(job: Job, watch: _Watch, folder: str, workers: int | None) -> None:
    groups = [[dict(bundle) for bundle in assignment.bundles] for assignment in job.assignments]
    trainable = tune.with_resources(
        tune.with_parameters(TrialWorker, job=job), lambda config: tune.PlacementGroupFactory(groups[config["index"]])
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"index": tune.grid_search(list(range(len(job.assignments))))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=job.sweep,
            storage_path=folder,
            callbacks=[watch],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
            log_to_file=False,
            verbose=0,
        ),
    )
    tuner.fit()


class _Watch(tune.Callback):
    """Passes what Tune sees on to the display, writes the row of a trial whose process died, and stops when asked."""

    def __init__(self, job: Job, progress: Progress, stop: _StopSignals) -> None:
        self._job = job
        self._progress = progress
        self._stop = stop
        self._executions: dict[int, Execution] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles callbacks for a restore that never happens here, and a display cannot be pickled."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._stop.check()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._progress.trial_started(self._begin(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        state, elapsed_s, detail = TrialState(result["state"]), result["elapsed_s"], result["detail"]
        self._progress.trial_ended(trial.config["index"], state, elapsed_s, detail)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        index = self._begin(trial)  # a worker may die before Tune counts its trial as started
        assignment = self._job.assignments[index]
        uri, spec = self._job.results_uri, assignment.spec
        ending = results.ending_of_run(uri, spec.trial_id, assignment.run_id)
        error: Exception
        if ending is None:  # the process died before it could say why
            execution = self._executions[index]
            limit_s, elapsed = spec.placement.timeout_s, datetime.now(UTC) - execution.started_at
            if limit_s is not None and elapsed.total_seconds() > limit_s:  # native code let nothing run, see time_limit
                kind, error = "timeout", timeout_error(spec)
            else:
                reason = "the worker process died; the operating system ends it when memory runs out"
                kind, error = "worker_died", RuntimeError(reason)
            results.write(uri, failed_result(spec, execution, error, kind))
            ending = TrialState.FAILED, f"{kind}: {error}"
        self._progress.trial_ended(index, ending[0], detail=ending[1])

    def _begin(self, trial: Any) -> int:
        index: int = trial.config["index"]
        if index not in self._executions:
            assignment = self._job.assignments[index]
            self._executions[index] = Execution.begin(self._job.sweep, assignment.attempts, assignment.run_id)
        return index


@contextmanager
def _ray(trials: Sequence[TrialSpec], workers: int | None) -> Iterator[None]:
    """A Ray to run on: the caller's, the one RAY_ADDRESS names, or one started here that ends with the block."""
    if ray.is_initialized():
        yield
        return
    for name, value in QUIET_TUNE.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, **quiet)
    else:
        num_cpus = None
        if workers:
            num_cpus = max(os.cpu_count() or 1, round(workers * max(t.placement.cpus_per_worker for t in trials)))
        _make_importable_in_workers()
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what failed is a row and a line of the display
    try:
        yield
    finally:
        ray.shutdown()


def node_resources(address: str) -> list[dict[str, float]]:
    """Join the Ray at ``address`` (``local``: start a small one), run a task, and leave (end) it: resources by node.

    For a process of its own, such as ``sweep doctor`` starts: raises whatever Ray raises, and may wait long for it.
    """
    for name, value in QUIET_TUNE.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"num_cpus": 1, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    ray.init(address=address, **options)
    try:
        ray.get(ray.remote(lambda: None).remote())
        return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()


def _make_importable_in_workers() -> None:
    """A Ray started here inherits this environment: let its workers find this very checkout, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])


def _gpus_per_worker(spec: TrialSpec, has_gpus: bool) -> float:
    asked = spec.placement.gpus_per_worker
    if asked is not None:
        return asked
    return spec.backbone_spec.num_gpus if has_gpus else 0.0


def _check_fits(assignment: Assignment, nodes: Sequence[Mapping[str, float]]) -> None:
    """ValueError when the trial's bundles find no room on an idle cluster: its placement group would wait for ever."""
    room = [dict(node) for node in nodes]
    for bundle in sorted(assignment.bundles, key=lambda bundle: -sum(bundle.values())):
        node = next((n for n in room if all(n.get(name, 0) >= amount for name, amount in bundle.items())), None)
        if node is None:
            asked = ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())
            has = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
            placement = assignment.spec.placement
            raise ValueError(
                f"placement: {assignment.spec.label()} asks for {placement.num_workers} x ({asked}), which do not fit "
                f"on {len(nodes)} node(s) of ({has}); lower num_workers, cpus_per_worker or gpus_per_worker"
            )
        for name, amount in bundle.items():
            node[name] -= amount


def _capacity(assignment: Assignment, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials of this shape an idle cluster holds, at least 1."""
    total: dict[str, float] = {}
    for bundle in assignment.bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0) + amount
    if len(assignment.bundles) == 1:
        return max(1, sum(min(int(node.get(name, 0) // amount) for name, amount in total.items()) for node in nodes))
    whole = {name: sum(node.get(name, 0) for node in nodes) for name in total}  # an estimate: bundles do not split
    return max(1, min(int(whole[name] // amount) for name, amount in total.items()))
