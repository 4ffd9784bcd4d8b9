"""The row of a trial: what names an execution, what every row says, and the row of one that failed."""

from __future__ import annotations

import socket
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.failures import classify
from orchestrator.measure import versions
from orchestrator.tables import TrialResult, TrialState, new_run_id
from orchestrator.trial_spec import TrialSpec

ERROR_LINES = 30
"""Last lines of a traceback that a failed row keeps."""


@dataclass(frozen=True)
class Execution:
    """One start of a trial: names the rows it will write."""

    run_id: str
    attempts: int
    started_at: datetime
    sweep: str | None = None
    retries: int = 0
    """How often the trial was retried for passing reasons; these do not count as attempts."""

    @classmethod
    def begin(
        cls, sweep: str | None = None, attempts: int = 1, run_id: str | None = None, retries: int = 0
    ) -> Execution:
        """An execution that starts now; ``attempts`` counts it and those before. ``run_id`` is drawn unless given."""
        return cls(run_id or new_run_id(), attempts, datetime.now(UTC), sweep, retries)


def timeout_error(spec: TrialSpec) -> TimeoutError:
    """What a trial ends with that took longer than its placement allows."""
    return TimeoutError(f"the trial took longer than placement.timeout_s = {spec.placement.timeout_s:g} s")


def failed_result(
    spec: TrialSpec, execution: Execution, error: BaseException, error_kind: str | None = None
) -> TrialResult:
    """The row of a trial that ended with ``error``; no number in it but those of the spec."""
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    if len(lines) > ERROR_LINES + 1:
        lines = [lines[0], "...", *lines[-ERROR_LINES:]]
    return replace(
        row_of(spec, execution, TrialState.FAILED),
        error_kind=error_kind or classify(error),
        error="\n".join(lines),
        finished_at=datetime.now(UTC),
    )


def row_of(spec: TrialSpec, execution: Execution, state: TrialState) -> TrialResult:
    """What a row says before anything was measured."""
    return TrialResult(
        trial_id=spec.trial_id,
        run_id=execution.run_id,
        sweep=execution.sweep,
        state=state,
        backbone=spec.backbone,
        family=spec.backbone_spec.family,
        task=spec.task.name,
        task_params=spec.task.params_json(),
        seed=spec.seed,
        n_train=spec.n_train,
        n_test=spec.n_test,
        lora_rank=spec.lora_rank,
        recipe=spec.recipe_json(),
        num_workers=spec.placement.num_workers,
        attempts=execution.attempts,
        retries=execution.retries,
        host=socket.gethostname(),
        started_at=execution.started_at,
        versions=versions(),
    )
