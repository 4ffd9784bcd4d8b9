"""Running a sweep: what the tables lack goes to Ray Tune, chunk by chunk, on warm workers.

Resume is a set difference over the tables; Tune's own experiment state lies in a temporary folder and is never read
again.
"""

from __future__ import annotations

import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from orchestrator import results
from orchestrator.capacity import Bundles, bundles, gpus_per_worker
from orchestrator.claims import Claims
from orchestrator.failures import is_to_run
from orchestrator.progress import Progress
from orchestrator.specs import SweepSpec, TrialSpec
from orchestrator.sweep.callbacks import logger_callbacks, storage_folder
from orchestrator.sweep.cluster import Room, cpus_for, joined_ray, nodes, shape
from orchestrator.sweep.compactor import Compactor
from orchestrator.sweep.search import scheduler_of, source_of
from orchestrator.sweep.searcher import ChunkSearcher, Dispatcher, Watch
from orchestrator.sweep.signals import Stopped, StopSignals
from orchestrator.sweep.worker import Job, RunTrial, TrialWorker
from orchestrator.trial import run_and_record
from orchestrator.trial_queue import MAX_CHUNK, TrialQueue
from orchestrator.trial_source import Grid, TrialSource


@dataclass(frozen=True)
class SweepOutcome:
    """How a run ended: counts of trials it ran, and what stopped it, if something did."""

    done: int
    failed: int
    missing: int
    elapsed_s: float
    stopped_by: signal.Signals | None = None
    stop_reason: str | None = None
    """Why trials were given up."""
    ended_elsewhere: int = 0
    """Trials that another sweep on the same results folder ended meanwhile."""

    @property
    def exit_status(self) -> int:
        """0: all done; 1: a trial failed; 130 or 143: stopped by SIGINT or SIGTERM."""
        return 128 + self.stopped_by if self.stopped_by else int(self.failed > 0 or self.stop_reason is not None)


def run(
    sweep: SweepSpec,
    trials: Sequence[TrialSpec],
    *,
    source: TrialSource | None = None,
    retry_failed: Collection[str] | None = None,
    workers: int | None = None,
    quiet: bool = False,
    console: Console | None = None,
    seconds: Callable[[TrialSpec], float | None] = lambda trial: None,
    run_trial: RunTrial = run_and_record,
) -> SweepOutcome:
    """Run ``trials`` and write their rows to the sweep's results folder; those with a ``done`` row are left alone.

    A trial that fails, or whose process dies, does not stop the others. What fails for a passing reason is tried again
    after a growing wait; any other failure is a row. Another run on the same results folder, at the same time, shares
    the work. SIGINT and SIGTERM stop the sweep; finished rows stay. Ray is started on this machine, or joined where
    RAY_ADDRESS (or the caller) says so.

    Args:
        sweep: whose name and results folder the rows carry.
        trials: what is to run at most.
        source: which of them, as results come in; by default what the sweep's ``search`` says, or all.
        retry_failed: kinds of failure whose rows of earlier runs do not count; None: all kinds.
        workers: run at most so many trials at once; by default as many as there is room for.
        quiet: show no progress.
        console: where progress goes, by default standard output.
        seconds: what a trial will take where that is known, for chunks and order.
        run_trial: runs one trial and records its rows, for benchmarks and tests.

    Raises:
        ValueError: the folder cannot be written, or a trial asks for more than the cluster has. Nothing was started.
    """
    started = time.monotonic()
    uri = results.absolute_uri(sweep.results_uri)
    results.check_writable(uri)
    loggers = logger_callbacks(sweep)
    queue: TrialQueue | None = None
    with (
        StopSignals() as stop,
        Progress(console, quiet) as progress,
        suppress(Stopped),
        Compactor(uri) as compactor,
        joined_ray(cpus_for(trials, workers)),
        Claims(uri) as claims,
        tempfile.TemporaryDirectory(prefix="sweep-") as folder,
    ):
        stop.take_over()
        stop.check()
        room = Room(nodes(), workers)
        states = results.TrialStates(uri, set_aside_damaged=True)

        def bundles_of(spec: TrialSpec) -> Bundles:
            found = bundles(spec, gpus_per_worker(spec, room.has_gpus()))
            room.check(spec, found)
            return found

        source = source or source_of(sweep, trials, _num_slots(room, trials, bundles_of, workers))
        is_search = not isinstance(source, Grid)
        asha = sweep.search.optuna.asha if sweep.search and sweep.search.optuna else None
        queue = TrialQueue(
            source,
            read_states=lambda: _refreshed(states),
            read_metrics=lambda ids: _metrics(uri, ids) if is_search else {},
            bundles_of=bundles_of,
            settled=lambda status: not is_to_run(status, retry_failed),
            claims=claims,
            seconds=seconds,
            longest_chunk=1 if loggers or asha else MAX_CHUNK,
        )
        progress.expect(queue.waiting(), queue.total() - queue.num_known)
        job = Job(uuid.uuid4().hex, sweep.name, uri, run_trial, asha)
        dispatcher = Dispatcher(job, queue, room, progress, stop, claims, compactor, flat_configs=bool(loggers))
        _tune(dispatcher, loggers, storage_folder(sweep, folder), scheduler_of(sweep, source))
    missing = max(0, progress.total - progress.done - progress.failed - progress.elsewhere)
    return SweepOutcome(
        progress.done,
        progress.failed,
        missing,
        time.monotonic() - started,
        stop.received,
        queue.stop_reason if queue else None,
        progress.elsewhere,
    )


def _refreshed(states: results.TrialStates) -> dict[str, results.TrialStatus]:
    states.refresh()
    return states.statuses


def _num_slots(
    room: Room, trials: Sequence[TrialSpec], bundles_of: Callable[[TrialSpec], Bundles], workers: int | None
) -> int:
    """How many trials run at once at most, were each kind of worker alone on the cluster."""
    kinds = {(trial.backbone, id(trial.placement)): trial for trial in trials}
    shapes = {shape(bundles): bundles for bundles in map(bundles_of, kinds.values())}
    slots = sum(room.capacity(bundles, len(trials)) for bundles in shapes.values())
    return slots if workers is None else min(slots, workers)


def _metrics(uri: str, trial_ids: list[str]) -> dict[str, dict[str, float]]:
    """The numbers of some trials' rows."""
    rows = results.load_trials(uri, trial_ids=trial_ids).set_index("trial_id").select_dtypes("number")
    return {str(trial_id): row.dropna().to_dict() for trial_id, row in rows.iterrows()}  # type: ignore[misc]


def _tune(
    dispatcher: Dispatcher, loggers: Sequence[tune.Callback], folder: str, scheduler: TrialScheduler | None
) -> None:
    trainable = tune.with_resources(
        tune.with_parameters(TrialWorker, job=dispatcher.job),
        lambda config: tune.PlacementGroupFactory([dict(bundle) for bundle in config["work"].chunk.bundles]),
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=ChunkSearcher(dispatcher),
            scheduler=scheduler,
            num_samples=-1,  # as many as the searcher has
            reuse_actors=True,
            trial_name_creator=_row_name if loggers else _tune_id,
            trial_dirname_creator=_row_name if loggers else _tune_id,
        ),
        run_config=tune.RunConfig(
            name=dispatcher.job.sweep,
            storage_path=folder,
            callbacks=[Watch(dispatcher), *loggers],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),  # retries are the queue's
            log_to_file=False,
            verbose=0,
        ),
    )
    tuner.fit()


def _row_name(trial: Any) -> str:
    """What loggers call the only trial of a chunk: as its row is called in the tables."""
    assignment = trial.config["work"].chunk.assignments[0]
    return f"{assignment.spec.trial_id}-{assignment.run_id}"


def _tune_id(trial: Any) -> str:
    """Named by Tune itself. Functions of a module, as Tune pickles them for every trial."""
    return str(trial.trial_id)
