"""One trial from its spec to its numbers, without Ray: draw, load, train, answer, measure.

    python -m orchestrator.trial spec.json [--results FOLDER]

``spec.json`` is a ``TrialSpec``. With several workers start one process each with the same arguments, for instance by
``torchrun --nproc-per-node 2 -m orchestrator.trial spec.json``: every rank runs this same code, rank 0 writes.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator import results
from orchestrator.backbone_cache import BackboneCache
from orchestrator.checkpoints import ResultsCheckpoints
from orchestrator.failures import classify
from orchestrator.measure import peak_memory_bytes, reset_peak_memory
from orchestrator.problem_cache import ProblemCache
from orchestrator.pruning import PrunedError, RungReport, Rungs, RungWatch, validation_problems
from orchestrator.roundtrip import roundtrip_ceiling
from orchestrator.specs import TrialSpec
from orchestrator.sweep_yaml import one_line
from orchestrator.tables import TrialResult, TrialState
from orchestrator.time_limit import time_limit
from orchestrator.trial_row import Execution, failed_result, row_of, timeout_error
from task_generators.problem import Split
from task_generators.scoring import repeats_training_answer
from trainers import lora
from trainers.backbone import check_recipe
from trainers.checkpoint import Checkpoints
from trainers.engine import DEEPSPEED_STAGE_ON_SEVERAL_WORKERS, leave_process_group
from trainers.evaluate import Prediction, evaluate, summarise
from trainers.latent_store import LatentStore
from trainers.out_of_memory import TrainingOutOfMemoryError, free_memory
from trainers.recipe import TrainRecipe
from trainers.train import LossRow, train
from trainers.weights_source import check_available, located

Progress = Callable[[str, int, int], None]
"""Called as (phase, done, total) with the phases ``load``, ``train``, ``evaluate``."""


def run_trial(
    spec: TrialSpec,
    *,
    backbone_cache: BackboneCache | None = None,
    problem_cache: ProblemCache | None = None,
    progress: Progress | None = None,
    execution: Execution | None = None,
    results_uri: str | None = None,
    rungs: Rungs | None = None,
) -> tuple[TrialResult, list[Prediction], list[LossRow]]:
    """Run one trial: its row of numbers, its predictions, its losses. Writes no row, see ``record``.

    Where several workers share the trial (``WORLD_SIZE`` and ``RANK`` are set) every rank calls this with the same spec
    and gets the same numbers. ``results_uri`` is where ``placement`` has checkpoints and adapters kept.
    On one worker, training that runs out of memory begins again (or goes on from its checkpoint) with half the
    micro-batch. What fails is raised; from several, ``TrainingOutOfMemoryError`` on the rank that had too little.
    At ``rungs`` a training is judged, and may end with a ``PrunedError``; on one worker only.
    """
    import torch

    execution = execution or Execution.begin()
    cache = backbone_cache or BackboneCache()
    report = progress or (lambda phase, done, total: None)
    spec = _placed_on_ranks(spec)
    recipe, placement = spec.recipe, spec.placement
    torch.set_num_threads(max(1, int(placement.cpus_per_worker)))
    device = _device(spec)
    reset_peak_memory(device)

    problem_cache = problem_cache or ProblemCache()
    test_problems = problem_cache.get(spec.task, Split.TEST, 0, spec.n_test)
    train_problems = problem_cache.get(spec.task, Split.TRAIN, spec.seed, spec.n_train)

    report("load", 0, 1)
    started = time.perf_counter()
    backbone = cache.get(located(spec.backbone_spec, placement.weights_folder), recipe, device)
    load_s = time.perf_counter() - started

    test_task = spec.task.build(Split.TEST)
    store = None
    if getattr(backbone, "latent_store", None) is not None:  # its encodings are dear
        store = backbone.latent_store = LatentStore(_latents_folder(spec, results_uri))  # type: ignore[union-attr]
    started = time.perf_counter()
    examples = backbone.encode(spec.task.build(Split.TRAIN), train_problems, recipe)
    encode_s = time.perf_counter() - started
    checkpoints = _checkpoints(spec, results_uri)
    eval_batch_sizes: list[int] = []
    while True:
        try:
            with lora.attached(backbone, lora_rank=spec.lora_rank, recipe=recipe, seed=spec.seed):
                watch = None
                if rungs is not None and backbone.spec.trainable:
                    problems = validation_problems(spec, rungs.entry.n_validation, train_problems, problem_cache.get)
                    row = replace(
                        row_of(spec, execution, TrialState.PRUNED),
                        load_s=load_s,
                        encode_s=encode_s,
                        device=_device_name(device),
                    )
                    watch = RungWatch(rungs, spec, backbone, problems, row, partial(peak_memory_bytes, device))  # type: ignore[arg-type]
                trained = train(
                    backbone,
                    examples,
                    recipe,
                    placement,
                    seed=spec.seed,
                    on_step=partial(_after_step, report, recipe.max_steps, watch),
                    checkpoints=checkpoints,
                )
                report("evaluate", 0, spec.n_test)
                started = time.perf_counter()
                predictions = evaluate(
                    backbone,
                    test_task,
                    test_problems,
                    recipe,
                    placement,
                    on_batch_size=eval_batch_sizes.append,
                    keep_videos=placement.keep_videos,
                )
                eval_s = time.perf_counter() - started
                if placement.keep_adapters and backbone.spec.trainable:
                    _keep_adapter(backbone, spec.trial_id, results_uri)
            break
        except TrainingOutOfMemoryError as error:
            if placement.num_workers > 1 or error.smaller_micro_batch_size is None:
                raise
            placement = placement.model_copy(update={"micro_batch_size": error.smaller_micro_batch_size})
        if placement.zero_stage is not None:  # what DeepSpeed left of the module may be in pieces
            del backbone
            cache.clear()
            free_memory()
            backbone = cache.get(located(spec.backbone_spec, placement.weights_folder), recipe, device)
        free_memory()
    peak_bytes = peak_memory_bytes(device)
    try:
        roundtrip = roundtrip_ceiling(backbone, test_task, test_problems, recipe, placement, results_uri)
    except (RuntimeError, ValueError, OSError) as error:
        if placement.num_workers > 1:  # the other ranks are somewhere else by now
            raise
        warnings.warn(f"{spec.label()}: the ceiling of its VAE is not known: {error}", stacklevel=2)
        roundtrip = None
    cache.check_unchanged()
    report("evaluate", spec.n_test, spec.n_test)

    metrics = summarise(predictions, test_task)
    if train_problems:
        answers = [problem.answer for problem in train_problems]
        repeats = repeats_training_answer([prediction.predicted for prediction in predictions], answers)
        metrics["repeats_training_answer"] = sum(repeats) / len(repeats)
        predictions = [
            replace(prediction, scores={**prediction.scores, "repeats_training_answer": repeated})
            for prediction, repeated in zip(predictions, repeats, strict=True)
        ]
    zero_stage: int | None = placement.zero_stage
    if zero_stage is None and placement.num_workers > 1:
        zero_stage = DEEPSPEED_STAGE_ON_SEVERAL_WORKERS
    result = replace(
        row_of(spec, execution, TrialState.DONE),
        metrics=metrics,
        roundtrip_exact_match=roundtrip,
        num_trainable_params=trained.num_trainable_params,
        train_loss=trained.train_loss,
        train_steps=len(trained.losses),
        train_s=trained.train_s - (watch.spent_s if watch else 0.0),
        eval_s=eval_s,
        load_s=load_s,
        encode_s=encode_s,
        num_encoded=store.num_encoded if store else None,
        num_latents_reused=store.num_reused if store else None,
        peak_memory_bytes=peak_bytes,
        device=_device_name(device),
        zero_stage=zero_stage if backbone.spec.trainable else None,
        micro_batch_size=trained.micro_batch_size,
        eval_batch_size=eval_batch_sizes[-1],
        resumed_from_step=trained.resumed_from_step,
        finished_at=datetime.now(UTC),
    )
    return result, predictions, trained.losses


def _after_step(report: Progress, max_steps: int, watch: RungWatch | None, row: LossRow) -> None:
    report("train", row.step, max_steps)
    if watch is not None:
        watch.after_step(row)


def run_and_record(
    spec: TrialSpec,
    results_uri: str,
    *,
    backbone_cache: BackboneCache | None = None,
    problem_cache: ProblemCache | None = None,
    progress: Progress | None = None,
    execution: Execution | None = None,
    without_a_row: Collection[str] = (),
    rungs: Rungs | None = None,
) -> TrialResult:
    """``run_trial`` in this process, its rows written. What fails becomes a ``failed`` row and is raised again.

    ``without_a_row`` are kinds of failure that become none, because the caller will try again. That a trial was pruned
    is raised too, and its row is the caller's to write: see ``record_pruned``.
    """
    execution = execution or Execution.begin()
    cache = backbone_cache or BackboneCache()

    def write_timeout() -> None:
        results.write(results_uri, failed_result(spec, execution, timeout_error(spec)))

    try:
        with time_limit(spec.placement.timeout_s, write_timeout):
            result, predictions, losses = run_trial(
                spec,
                backbone_cache=cache,
                problem_cache=problem_cache,
                progress=progress,
                execution=execution,
                results_uri=results_uri,
                rungs=rungs,
            )
            record(results_uri, result, predictions, losses)
    except PrunedError:
        raise
    except Exception as error:
        cache.clear()  # what an error leaves of a backbone is nobody's to trust
        if classify(error) not in without_a_row:
            results.write(results_uri, failed_result(spec, execution, error))
        raise
    return result


def prefetch_problems(spec: TrialSpec, problem_cache: ProblemCache) -> None:
    """Have the problems of the trial that comes next drawn while another one trains; returns at once.

    Does nothing for a trial on processors alone: drawing would take from the training what it saves afterwards
    (measured by ``benchmarks/cpu_work.py``). A wrong spec raises nothing here, its own ``run_trial`` says so.
    """
    import torch

    asked = spec.placement.gpus_per_worker
    if torch.cuda.is_available() and (spec.backbone_spec.num_gpus if asked is None else asked) > 0:
        problem_cache.prefetch(spec.task, Split.TEST, 0, spec.n_test)
        problem_cache.prefetch(spec.task, Split.TRAIN, spec.seed, spec.n_train)


def record(results_uri: str, result: TrialResult, predictions: Sequence[Prediction], losses: Sequence[LossRow]) -> None:
    """Write the rows of a trial that is done, then remove its checkpoints: they are of no use any more."""
    results.write(results_uri, result, predictions, losses)
    ResultsCheckpoints(results_uri, result.trial_id).remove_all()


def record_pruned(results_uri: str, report: RungReport) -> None:
    """Write the rows of a trial that ended at a rung, then remove its checkpoints."""
    record(results_uri, report.result, [], report.losses)


def _placed_on_ranks(spec: TrialSpec) -> TrialSpec:
    """The spec with as many workers as were started; its identity stays."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    workers = spec.placement.num_workers
    if size == 1 and workers > 1:
        raise ValueError(f"placement.num_workers = {workers}: start that many, by torchrun --nproc-per-node {workers}")
    placement = spec.placement.model_copy(update={"num_workers": size})
    return spec.model_copy(update={"placement": placement})


def _device(spec: TrialSpec) -> str:
    asked = spec.placement.gpus_per_worker
    gpus = spec.backbone_spec.num_gpus if asked is None else asked
    if gpus == 0:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        if asked is None:
            return "cpu"
        raise ValueError(f"placement.gpus_per_worker = {asked:g}: no GPU is visible on {socket.gethostname()}")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return f"cuda:{local_rank if local_rank < torch.cuda.device_count() else 0}"


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name(device)


def _checkpoints(spec: TrialSpec, results_uri: str | None) -> Checkpoints | None:
    every_s = spec.placement.checkpoint_every_s
    if every_s is None or not spec.backbone_spec.trainable:
        return None
    if results_uri is None:
        raise ValueError(f"placement.checkpoint_every_s = {every_s:g}: needs a results folder to keep checkpoints in")
    return Checkpoints(ResultsCheckpoints(results_uri, spec.trial_id), every_s)


def _latents_folder(spec: TrialSpec, results_uri: str | None) -> Path | None:
    """Where ``placement.latents`` has encoded pictures kept; a folder of this node in place of a results URI."""
    where = spec.placement.latents
    if where == "off" or (where == "results" and results_uri is None):
        return None
    if where == "results" and results_uri is not None and "://" not in results_uri:
        return Path(results_uri, "latents")
    return Path(tempfile.gettempdir(), f"visual_sweep_latents_{os.getuid()}")


def _keep_adapter(backbone: Any, trial_id: str, results_uri: str | None) -> None:
    """Save the trained LoRA weights under ``<results>/adapters/<trial_id>``; all ranks take part, rank 0 stores."""
    if results_uri is None:
        raise ValueError("placement.keep_adapters = True: needs a results folder to keep them in")
    with tempfile.TemporaryDirectory() as folder:
        lora.save(backbone, Path(folder))
        if int(os.environ.get("RANK", "0")) == 0:
            results.store_folder(results_uri, f"adapters/{trial_id}", Path(folder))


def main(argv: list[str] | None = None) -> int:
    """``python -m orchestrator.trial``; exit status 1 when the trial failed, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.trial", description="Run one trial without Ray.")
    parser.add_argument("spec", help="TrialSpec as JSON")
    parser.add_argument("--results", help="folder or URI for its rows; without it they are only printed")
    arguments = parser.parse_args(argv)
    try:
        spec = _read_spec(Path(arguments.spec))
        if arguments.results:
            results.check_writable(arguments.results)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    is_first_rank = int(os.environ.get("RANK", "0")) == 0
    try:
        if arguments.results and is_first_rank:
            result = run_and_record(spec, arguments.results)
        else:
            result, _, _ = run_trial(spec, results_uri=arguments.results)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        leave_process_group()
    if is_first_rank:
        scores = "  ".join(f"{name}={value:.4g}" for name, value in result.metrics.items())
        print(f"{result.trial_id}  {spec.label()}  {scores}")
    return 0


def _read_spec(path: Path) -> TrialSpec:
    """The trial in a JSON file; as in a sweep, its recipe says what differs from the backbone's published one."""
    try:
        spec = TrialSpec.model_validate_json(path.read_text(encoding="utf-8"))
        recipe = TrainRecipe(**spec.backbone_spec.recipe | spec.recipe.model_dump(exclude_unset=True))
        check_recipe(spec.backbone_spec, recipe)
        check_available(located(spec.backbone_spec, spec.placement.weights_folder))
        return spec.model_copy(update={"recipe": recipe})
    except ValidationError as error:
        raise ValueError(f"{path}: {one_line(error, TrialSpec, None)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: the spec cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
