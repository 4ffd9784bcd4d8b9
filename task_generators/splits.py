"""Test set and nested training sets that share no problem, not even a symmetric copy of one.

The problem space is cut once, by a hash of each problem's ``canonical_key``: a fixed share of it belongs to the test
split, the rest to the training split. A draw that lands on the wrong side, or repeats an earlier problem of the same
split, is redrawn. So leakage is impossible by construction, without comparing pairs, and problem i depends on nothing
but (task, params, split, seed, i): not on n_test, n_train, other tasks or other processes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from task_generators.problem import Problem, Split
from task_generators.rng import problem_rng

if TYPE_CHECKING:
    from task_generators.task import Task, TaskSpec

MAX_REDRAWS = 1000
"""Redraws for one index before the space counts as used up. A repeat is then an error in a test set, and accepted in a
training set (a small space cannot give 5,000 distinct problems), whose later problems are then drawn without looking
for new ones."""


def in_test_partition(task: Task, problem: Problem) -> bool:
    """Whether the problem, with all its symmetric copies, lies on the test side of the cut."""
    digest = hashlib.blake2b(task.canonical_key(problem), digest_size=8, person=b"split").digest()
    return int.from_bytes(digest, "little") < task.test_share * 2**64


def draw_problems(spec: TaskSpec, split: Split, seed: int, n: int) -> list[Problem]:
    """The first ``n`` problems of a split. n=30 is the first 30 of n=100. The test split ignores ``seed``.

    ValueError when fewer than ``n`` distinct test problems can be found.
    """
    task = spec.build(split)
    knobs = task.model_dump_json(exclude_defaults=True)
    key = (spec.name, task.generator_version, knobs, split.value, 0 if split == Split.TEST else seed)
    prefix = "/".join([spec.name, hashlib.blake2b(knobs.encode(), digest_size=4).hexdigest(), split.value])
    if split == Split.TRAIN:
        prefix += f"/{seed}"
    seen: set[bytes] = set()
    problems: list[Problem] = []
    is_used_up = False
    for index in range(n):
        repeat: Problem | None = None
        for attempt in range(MAX_REDRAWS):
            problem = task.generate(problem_rng(*key, index, attempt))
            if in_test_partition(task, problem) != (split == Split.TEST):
                continue
            question = bytes(problem.question.shape) + problem.question.tobytes()
            if is_used_up or question not in seen:
                break
            repeat = repeat or problem
        else:
            if split == Split.TEST or repeat is None:
                raise ValueError(
                    f"task {spec.label()}: {n} distinct {split} problems asked for, only {index} found; "
                    f"lower n_{split} or enlarge the task"
                )
            problem, is_used_up = repeat, True
        seen.add(question)
        problems.append(replace(problem, problem_id=f"{prefix}/{index}"))
    return problems
