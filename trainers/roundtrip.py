"""The ceiling of a video backbone on a test set: what the way through its VAE alone leaves of the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from task_generators.problem import Grid, Problem
from task_generators.task import Task
from trainers.engine import world
from trainers.evaluate import evaluate, summarise
from trainers.out_of_memory import forget_frames, free_memory, is_out_of_memory
from trainers.recipe import Placement, TrainRecipe
from trainers.video_backbone import VideoBackbone


class _ThroughTheVae:
    """Answers a problem with what comes of its own answer, and goes on where that is too much for the memory."""

    def __init__(self, backbone: VideoBackbone) -> None:
        self.spec = backbone.spec
        self.module = backbone.module
        self.did_not_fit = False
        self._backbone = backbone

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """See ``VideoBackbone.roundtrip``; a single problem that does not fit has no answer."""
        if self.did_not_fit:
            return [None] * len(problems)
        try:
            return self._backbone.roundtrip(task, problems, recipe)
        except Exception as error:
            if len(problems) > 1 or not is_out_of_memory(error):
                raise
            forget_frames(error)
        self.did_not_fit = True  # not raised: other ranks would wait for this one
        free_memory()
        return [None]


def roundtrip_exact_match(
    backbone: VideoBackbone, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, placement: Placement
) -> float | None:
    """Share of the problems whose own answer comes back whole from drawing, encoding, decoding and reading; 0 to 1.

    No sampled video is expected to be right more often. ``placement.eval_batch_size`` at once, halved where memory runs
    out; None when a single problem is too much for some rank. Where several ranks share the trial all call, and all get
    the same number.
    """
    import torch

    through = _ThroughTheVae(backbone)
    answering: Any = through
    predictions = evaluate(answering, task, problems, recipe.model_copy(update={"attempts": 1}), placement)
    here = world()
    if here.size > 1:
        parts: list[Any] = [None] * here.size
        torch.distributed.all_gather_object(parts, through.did_not_fit)
        through.did_not_fit = any(parts)
    return None if through.did_not_fit else summarise(predictions, task).get("exact_match")
