"""Stopping trials early, where a search asks for it (``asha``): what a trial says at its rungs, and how it waits there.

At each rung (``AshaEntry.rungs``, shares of the trial's own steps) a trial answers *validation* problems, which are
neither its training problems nor of the test set, says what it scored, and waits to be told to go on or that it is
pruned. Nothing of that changes its numbers: a trial that is not pruned has the row it has without rungs, but for what
it took of time and memory. Ray-free; one process, no ZeRO.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from queue import Queue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orchestrator.search_entries import AshaEntry
from orchestrator.tables import TrialResult
from orchestrator.trial_spec import TrialSpec, num_given
from task_generators.problem import Problem, Split
from trainers import lora
from trainers.train import mean_train_loss

if TYPE_CHECKING:
    from trainers.backbone import Backbone
    from trainers.train import LossRow

VALIDATION = "validation_"
"""Before the names of the scores of a pruned trial: of validation problems, never of the test set."""
VALIDATION_SEED = 2**31 - 1
"""Of the training split's problems that trials are judged by: the same for all seeds."""

T = TypeVar("T")


class PrunedError(Exception):
    """Raised at a rung of a trial that is not to go on. No failure: its row is the rung's report."""


@dataclass(frozen=True)
class RungReport:
    """What a trial says at a rung."""

    share: float
    """Of its steps that are done."""
    result: TrialResult
    """Its row, were it pruned now: the numbers up to here, and the scores of the validation problems."""
    losses: tuple[LossRow, ...]
    """Of the steps that this execution computed."""


@dataclass(frozen=True)
class Rungs:
    """Where trials are judged, by what, and who is told. ``report`` raises ``PrunedError`` where a trial ends."""

    entry: AshaEntry
    report: Callable[[RungReport], None]


class RungWatch:
    """Follows the training of one trial, and reports at its rungs.

    Args:
        rungs: where, and to whom.
        spec: the trial.
        backbone: with the trial's adapter attached; its module is in training mode between steps.
        problems: the validation problems.
        row: the row of the trial if it is pruned, with all that training does not change.
        measure: the memory in use at most so far, in bytes.
    """

    def __init__(
        self,
        rungs: Rungs,
        spec: TrialSpec,
        backbone: Backbone,
        problems: Sequence[Problem],
        row: TrialResult,
        measure: Callable[[], int | None],
    ) -> None:
        self._rungs, self._spec, self._backbone, self._problems = rungs, spec, backbone, problems
        self._row, self._measure = row, measure
        self._shares = rung_steps(rungs.entry, spec.recipe.max_steps)
        self._losses: list[LossRow] = []
        self._started = time.perf_counter()
        self.spent_s = 0.0
        """Seconds spent at rungs, on answering and on waiting."""

    def after_step(self, row: LossRow) -> None:
        """To be called after every optimizer step. Raises what ``report`` raises."""
        self._losses = [*self._losses, row] if not self._losses or row.step > self._losses[-1].step else [row]
        share = self._shares.get(row.step)
        if share is None:
            return
        began = time.perf_counter()
        train_s = began - self._started - self.spent_s
        metrics = {f"{VALIDATION}{name}": score for name, score in self._scores().items()}
        result = replace(
            self._row,
            metrics=metrics,
            num_trainable_params=lora.num_trainable_params(self._backbone.module),
            train_loss=mean_train_loss(self._losses),
            train_steps=row.step,
            train_s=train_s,
            eval_s=time.perf_counter() - began,
            peak_memory_bytes=self._measure(),
            finished_at=datetime.now(UTC),
        )
        self._rungs.report(RungReport(share, result, tuple(self._losses)))
        self.spent_s += time.perf_counter() - began

    def _scores(self) -> dict[str, float]:
        """Means over the validation problems; leaves the module in training mode, and torch's generators as they
        were."""
        import torch

        from trainers.engine import module_device
        from trainers.evaluate import evaluate, summarise

        module, spec = self._backbone.module, self._spec
        task = spec.task.build(Split.TRAIN)
        device = module_device(module)
        module.eval()
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                predictions = evaluate(self._backbone, task, self._problems, spec.recipe, spec.placement)
        finally:
            module.train()
        return summarise(predictions, task)


def rung_steps(entry: AshaEntry, max_steps: int) -> dict[int, float]:
    """The optimizer steps (from 1) after which a trial is judged, and the share of ``max_steps`` that each stands
    for: none at its end, and where there are fewer steps than rungs the later rung of a step."""
    steps = {math.ceil(share * max_steps - 1e-9): share for share in entry.rungs()}
    return {step: share for step, share in steps.items() if step < max_steps}


def validation_problems(
    spec: TrialSpec,
    n_validation: int,
    training: Sequence[Problem],
    draw: Callable[[Any, Split, int, int], list[Problem]],
) -> list[Problem]:
    """Up to ``n_validation`` problems of the training split whose questions are none of ``training``.

    Args:
        spec: the trial; its task.
        n_validation: how many; where the task has too few, those that there are.
        training: the problems it trains on.
        draw: as ``draw_problems``.

    Raises:
        ValueError: the trial trains on all that there are.
    """
    trained_on = {_question(problem) for problem in training}
    given = num_given(spec.task, Split.TRAIN)
    most = n_validation + len(training)
    most = most if given is None else min(most, given)
    asked = min(n_validation, most)
    while True:
        drawn = draw(spec.task, Split.TRAIN, VALIDATION_SEED, asked)
        distinct = {_question(problem): problem for problem in reversed(drawn)}
        kept = [distinct[key] for key in reversed(distinct) if key not in trained_on][:n_validation]
        if len(kept) == n_validation or asked == most:
            break
        asked = min(most, 2 * asked)
    if not kept:
        raise ValueError(
            f"search.optuna.asha: {spec.label()} trains on all the problems there are, none is left to judge it by; "
            "lower n_train, or leave out asha"
        )
    return kept


def _question(problem: Problem) -> tuple[tuple[int, ...], bytes]:
    return problem.question.shape, problem.question.tobytes()


class SteppedRun(Generic[T]):
    """Work that reports now and then, in a thread of its own, and stops there until it is told to go on.

    One piece of work at a time; the thread is kept for the next one.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trial with rungs")
        self._reports: Queue[RungReport | None] = Queue()
        self._answers: Queue[bool] = Queue()
        self._future: Future[T] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is work that has not ended: it waits at a report."""
        return self._future is not None

    def start(self, work: Callable[[Callable[[RungReport], None]], T]) -> RungReport | T:
        """Begin ``work``, which gets the function it is to report by; its first report, or what it returned."""
        assert not self.is_running
        self._future = self._thread.submit(work, self._report)
        self._future.add_done_callback(lambda _: self._reports.put(None))
        return self._next()

    def go_on(self) -> RungReport | T:
        """Let the work go on: its next report, or what it returned. Raises what it raises."""
        assert self.is_running
        self._answers.put(True)
        return self._next()

    def prune(self) -> None:
        """End the work where it waits, by a ``PrunedError``, and return once it has cleared up. Raises what it then
        raises instead."""
        while self._future is not None:
            self._answers.put(False)
            try:
                self._next()
            except PrunedError:
                return

    def _next(self) -> RungReport | T:
        assert self._future is not None
        report = self._reports.get()
        if report is not None:
            return report
        future, self._future = self._future, None
        return future.result()

    def _report(self, report: RungReport) -> None:
        self._reports.put(report)
        if not self._answers.get():
            raise PrunedError
