"""Answer every test problem in batches, score every answer, and average."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from task_generators.problem import Grid, Problem
from task_generators.task import Task
from trainers.engine import world
from trainers.kept_video import KeptVideo, kept_video
from trainers.out_of_memory import forget_frames, free_memory, is_out_of_memory
from trainers.recipe import Placement, TrainRecipe

if TYPE_CHECKING:
    from task_generators.transition_video import Video
    from trainers.backbone import Backbone, UntrainedBackbone


@dataclass(frozen=True, eq=False)
class Prediction:
    """One test problem, one attempt: a row of the ``predictions`` table."""

    problem_id: str
    index: int
    """Place of the problem in the test set, from 0."""
    attempt: int
    """From 0."""
    parsed: bool
    """Whether the output could be read as a grid at all."""
    question: Grid
    answer: Grid
    predicted: Grid | None
    scores: dict[str, float | bool]
    """What ``Task.score`` says: ``exact_match``, ``cell_accuracy`` and the task's own."""
    video: KeptVideo | None = None
    """What the answer was read from, where it is a video and was to be kept."""


def evaluate(
    backbone: Backbone | UntrainedBackbone,
    task: Task,
    problems: Sequence[Problem],
    recipe: TrainRecipe,
    placement: Placement,
    *,
    on_batch_size: Callable[[int], None] | None = None,
    keep_videos: int = 0,
) -> list[Prediction]:
    """Answer each problem ``recipe.attempts`` times, ``placement.eval_batch_size`` at once, and score with ``task``.

    A batch that runs out of memory is halved, and so are all that follow; the error is raised when a single problem is
    too much. ``on_batch_size`` is told at the end how many problems were answered at once, at the least of all ranks.

    Sorted by problem, then attempt. Where several ranks share the trial each answers its part, every rank calls, and
    every rank gets the whole list. An answer depends on its problem and attempt alone, so neither the batch size nor
    the number of ranks changes which draws it uses.

    Another thread scores a batch while the backbone answers the next one. ``Task.score`` has its batches one at a time,
    in order. What it raises is raised here before anything that a later batch does.

    Where answers are videos those of the first ``keep_videos`` problems, at the first attempt, come along.
    """
    import torch

    if backbone.spec.trainable:
        backbone.module.eval()  # type: ignore[union-attr]
    here = world()
    largest_share = -(-len(problems) // here.size)
    batch_size = max(1, min(placement.eval_batch_size, largest_share))
    indices = range(here.rank, len(problems), here.size)
    with torch.inference_mode(), _Scorer(task, problems) as scorer:
        for attempt in range(recipe.attempts):
            start = 0
            while start < len(indices):
                batch = indices[start : start + batch_size]
                kept = [place for place, i in enumerate(batch) if attempt == 0 and i < keep_videos]
                answers = _answers(backbone, task, [problems[i] for i in batch], recipe, attempt, kept)
                if answers is None:
                    free_memory()
                    batch_size = len(batch) // 2
                    continue
                scorer.put(batch, attempt, *answers)
                start += len(batch)
    predictions = scorer.predictions
    if here.size > 1:
        parts: list[Any] = [None] * here.size
        torch.distributed.all_gather_object(parts, (predictions, batch_size))
        predictions = [prediction for part, _ in parts for prediction in part]
        batch_size = min(size for _, size in parts)
    if on_batch_size is not None:
        on_batch_size(batch_size)
    return sorted(predictions, key=lambda prediction: (prediction.index, prediction.attempt))


class _Scorer:
    """Scores batches in their order, in a thread of its own; ``predictions`` is whole when the block is left.

    Leaving the block, and ``put``, raise what ``Task.score`` raised for any batch before. Another ``Exception`` that
    leaves the block yields to it, because scoring came first; an interruption waits for nothing.
    """

    def __init__(self, task: Task, problems: Sequence[Problem]) -> None:
        self.predictions: list[Prediction] = []
        self._task, self._problems = task, problems
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="score answers")
        self._pending: deque[Future[list[Prediction]]] = deque()

    def __enter__(self) -> _Scorer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        try:
            while self._pending and not is_interrupted:
                self._take()
        finally:
            self._thread.shutdown(wait=not is_interrupted, cancel_futures=True)

    def put(
        self, indices: Sequence[int], attempt: int, grids: Sequence[Grid | None], videos: Mapping[int, Video]
    ) -> None:
        """Have the answers to the problems at ``indices`` scored; ``videos`` by the place in the batch."""
        while self._pending and self._pending[0].done():
            self._take()
        self._pending.append(self._thread.submit(self._scored, indices, attempt, grids, videos))

    def _take(self) -> None:
        self.predictions += self._pending.popleft().result()

    def _scored(
        self, indices: Sequence[int], attempt: int, grids: Sequence[Grid | None], videos: Mapping[int, Video]
    ) -> list[Prediction]:
        return [
            _prediction(self._task, self._problems[i], i, attempt, grid, videos.get(place))
            for place, (i, grid) in enumerate(zip(indices, grids, strict=True))
        ]


def summarise(predictions: Sequence[Prediction], task: Task) -> dict[str, float]:
    """Means over problems of every score and of ``parsed``, and what ``task`` makes of them for the whole trial.

    Empty for no predictions.

    Of several attempts at a problem, a yes-or-no score (``exact_match``, ``parsed`` ...) counts if any attempt has it;
    every other score is the mean of its attempts. A score that a problem lacks (or has as not-a-number) is left out of
    that score's mean.
    """
    columns: dict[str, list[float]] = defaultdict(list)
    by_problem = sorted(predictions, key=lambda prediction: prediction.index)
    for _, group in groupby(by_problem, key=lambda prediction: prediction.index):
        attempts: dict[str, list[float | bool]] = defaultdict(list)
        for prediction in group:
            for name, score in {**prediction.scores, "parsed": prediction.parsed}.items():
                if not math.isnan(score):
                    attempts[name].append(score)
        for name, scores in attempts.items():
            yes_or_no = all(isinstance(score, bool) for score in scores)
            columns[name].append(float(any(scores)) if yes_or_no else math.fsum(scores) / len(scores))
    means = {name: math.fsum(values) / len(values) for name, values in columns.items()}
    return {**means, **task.trial_scores(means)} if means else {}


def _answers(
    backbone: Backbone | UntrainedBackbone,
    task: Task,
    problems: Sequence[Problem],
    recipe: TrainRecipe,
    attempt: int,
    kept: Sequence[int],
) -> tuple[list[Grid | None], Mapping[int, Video]] | None:
    """The answers to one batch, and the videos of those at the places ``kept``; None when several problems at once were
    too much for the memory."""
    videos: Mapping[int, Video] = {}
    try:
        if kept and hasattr(backbone, "answer_with_videos"):
            grids, videos = backbone.answer_with_videos(task, problems, recipe, attempt, kept)
        else:
            grids = backbone.answer(task, problems, recipe, attempt)
    except Exception as error:
        if len(problems) == 1 or not is_out_of_memory(error):
            raise
        forget_frames(error)
        return None
    assert len(grids) == len(problems), f"{backbone.spec.name}: {len(grids)} answers to {len(problems)} problems"
    return grids, videos


def _prediction(
    task: Task, problem: Problem, index: int, attempt: int, grid: Grid | None, video: Video | None
) -> Prediction:
    return Prediction(
        problem_id=problem.problem_id,
        index=index,
        attempt=attempt,
        parsed=grid is not None,
        question=problem.question,
        answer=problem.answer,
        predicted=grid,
        scores=task.score(problem, grid),
        video=None if video is None else kept_video(video),
    )
