"""Test set and nested training sets that share no problem, not even a symmetric copy of one.

The problem space is cut once, by a hash of each problem's canonical key: a fixed share of it belongs to the test
split, the rest to the training split. A draw that lands on the wrong side, or repeats an earlier problem of the same
split, is redrawn. So leakage is impossible by construction, without comparing pairs, and problem i depends on nothing
but (task, params, split, seed, i): not on n_test, n_train, other tasks or other processes.

A task may bring problems of its own (``Task.given_problems``). They come first, training problems in an order that the
seed decides; it keeps them on their sides itself. ``TaskSpec.min_test_distance`` turns away training problems that are
near a test problem.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from task_generators.problem import Batch, Problem, Split, stacked
from task_generators.rng import mixed, problem_rng, problem_seeds

if TYPE_CHECKING:
    from task_generators.task import Task, TaskSpec

MAX_REDRAWS = 1000
"""Redraws for one index before the space counts as used up. A repeat is then an error in a test set, and accepted in a
training set (a small space cannot give 5,000 distinct problems), whose later problems are then drawn without looking
for new ones."""
BATCH_SIZE = 1024
"""Problems generated at once. Changes the speed, never a problem."""
REDRAWS_AT_ONCE = 16
DISTANT_FROM = 200
"""``min_test_distance`` is kept from this many test problems, the published test set: so it makes no difference to the
training problems how many of them a trial is tested on."""


def in_test_partition(task: Task, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Whether each question of (n, rows, columns), with all its symmetric copies, lies on the test side of the cut."""
    return mixed(task.canonical_keys(questions)) < np.uint64(int(task.test_share * 2**64))


def draw_problems(spec: TaskSpec, split: Split, seed: int, n: int) -> list[Problem]:
    """The first ``n`` problems of a split. n=30 is the first 30 of n=100. The test split ignores ``seed``.

    ValueError when fewer than ``n`` distinct test problems can be found, or fewer than ``n`` training problems of a
    task that generates none, or at ``min_test_distance``.
    """
    return SplitProblems(spec, split, seed).first(n)


class SplitProblems:
    """The problems of one split in their order. Those that were asked for stay: a longer start of the order draws only
    what is new, and gives the same problems as ``draw_problems``.

    For one thread at a time; of no use any more once ``first`` raised.
    """

    def __init__(self, spec: TaskSpec, split: Split, seed: int) -> None:
        self._spec, self._split = spec, split
        task = spec.build(split)
        seed = 0 if split == Split.TEST else seed
        cuts = _cuts(spec, split)
        knobs = "".join(each.model_dump_json(exclude_defaults=True) for each in cuts)
        key = (spec.name, task.generator_version, knobs, split.value, seed)
        self._prefix = "/".join([spec.name, hashlib.blake2b(knobs.encode(), digest_size=4).hexdigest(), split.value])
        if split == Split.TRAIN:
            self._prefix += f"/{seed}"
        given = task.given_problems(split)
        away_from: list[Problem] = []
        if spec.min_test_distance and split == Split.TRAIN:
            away_from = SplitProblems(spec, Split.TEST, 0)._up_to(DISTANT_FROM)
            if given:
                is_far = _is_far(task, stacked(given), away_from, spec.min_test_distance)
                given = [problem for problem, keeps in zip(given, is_far.tolist(), strict=True) if keeps]
        self._given = given
        self._order: Sequence[int] = range(len(given))
        if given and split == Split.TRAIN:
            self._order = problem_rng(*key, "order").permutation(len(given)).tolist()
        self._stream: _Stream | None = None
        if task.can_generate():
            self._stream = _Stream(cuts, key, split, given, away_from, spec.min_test_distance)
        self._problems: list[Problem] = []

    def __len__(self) -> int:
        """How many problems are drawn by now."""
        return len(self._problems)

    def first(self, n: int) -> list[Problem]:
        """The first ``n`` problems; ValueError as ``draw_problems``."""
        spec, split = self._spec, self._split
        problems = self._up_to(n)
        task = f"task {spec.label()}"
        if spec.min_test_distance and split == Split.TEST and n > DISTANT_FROM:
            raise ValueError(f"{task}: min_test_distance is kept from {DISTANT_FROM} test problems, not {n}")
        if len(problems) == n:
            return problems
        if self._stream is None:
            raise ValueError(f"{task}: {n} {split} problems asked for, it has {len(problems)}; lower n_{split}")
        raise ValueError(
            f"{task}: {n} distinct {split} problems asked for, only {len(problems)} found; "
            f"lower n_{split}{' or min_test_distance' if spec.min_test_distance else ''} or enlarge the task"
        )

    def _up_to(self, n: int) -> list[Problem]:
        """As ``first``, but fewer where there are fewer."""
        problems = self._problems
        for index in range(len(problems), min(n, len(self._given))):
            given = self._given[self._order[index]]
            problems.append(
                Problem(given.question, given.answer, given.metadata, given.states, f"{self._prefix}/{index}")
            )
        while len(problems) < n and self._stream is not None:
            indices = range(len(problems), min(n, len(problems) + BATCH_SIZE))
            found = self._stream.draw(indices)
            problems += [
                batch.problem(place, f"{self._prefix}/{index}")
                for index, (batch, place) in zip(indices, found, strict=False)
            ]
            if len(found) < len(indices):
                break
        return problems[:n]


def _cuts(spec: TaskSpec, split: Split) -> list[Task]:
    """The split's task; and the other split's, if its knobs give questions of the same shape other canonical keys. A
    question is then for tests only if both say so, and for training only if neither does."""
    task = spec.build(split)
    if not spec.test or not task.can_generate():
        return [task]
    other = spec.build(Split.TRAIN if split == Split.TEST else Split.TEST)
    mine, others = (_a_few_questions(each) for each in (task, other))
    if mine.shape[1:] != others.shape[1:]:
        return [task]
    is_same = np.array_equal(task.canonical_keys(mine), other.canonical_keys(mine))
    return [task] if is_same else [task, other]


def _a_few_questions(task: Task) -> npt.NDArray[np.int8]:
    given = task.given_problems(Split.TRAIN)
    problems = given[:64] if given else task.draw(64, "keys")
    return np.stack([problem.question for problem in problems])


class _Stream:
    """Generated problems of one split in their order: index i is its first draw that lies on the split's side and is
    none of those before it."""

    def __init__(
        self,
        cuts: Sequence[Task],
        key: tuple[str | int, ...],
        split: Split,
        given: Sequence[Problem],
        away_from: Sequence[Problem],
        min_distance: float,
    ) -> None:
        from task_generators.copy_hash import grid_hashes

        self._task, self._cuts, self._key, self._split = cuts[0], cuts, key, split
        num_codes = len(self._task.palette.colors)
        self._hashes = lambda questions: grid_hashes(questions, num_codes).tolist()
        self._taken: set[int] = set()
        if given:
            self._taken.update(self._hashes(np.stack([problem.question for problem in given])))
        self._is_used_up = False
        self._away_from, self._min_distance = away_from, min_distance

    def draw(self, indices: range) -> list[tuple[Batch, int]]:
        """The problems of consecutive indices, each as its place in a batch; fewer where no more can be found."""
        found: list[tuple[Batch, int, int]] = [(None, 0, 0)] * len(indices)  # type: ignore[list-item]
        pending = np.arange(indices.start, indices.stop)
        attempts = np.zeros(len(pending), dtype=np.int64)
        drawn_in = attempts.copy()
        for attempt in range(MAX_REDRAWS):
            batch, on_side = self._batch(pending, attempt)
            (places,) = on_side.nonzero()
            hashes = self._hashes(batch.questions[places])
            at = pending[places] - indices.start
            drawn_in[at] = attempt
            for place, index, question in zip(places.tolist(), at.tolist(), hashes, strict=True):
                found[index] = (batch, place, question)
            pending = pending[~on_side]
            if len(pending) == 0:
                break
        else:
            found = found[: int(pending[0]) - indices.start]
        questions = [question for _, _, question in found]
        if not self._is_used_up:
            if len(set(questions)) < len(questions) or not self._taken.isdisjoint(questions):
                return self._without_repeats(indices, found, drawn_in)
            self._taken.update(questions)
        return [(batch, place) for batch, place, _ in found]

    def _without_repeats(
        self, indices: range, found: list[tuple[Batch, int, int]], drawn_in: npt.NDArray[np.int64]
    ) -> list[tuple[Batch, int]]:
        kept: list[tuple[Batch, int]] = []
        for index, attempt, (batch, place, question) in zip(indices, drawn_in.tolist(), found, strict=False):
            if question in self._taken and not self._is_used_up:
                redrawn = self._redraw(index, attempt + 1)
                if redrawn is not None:
                    batch, place, question = redrawn
                elif self._split == Split.TEST:
                    break
                else:
                    self._is_used_up = True
            self._taken.add(question)
            kept.append((batch, place))
        return kept

    def _redraw(self, index: int, first_attempt: int) -> tuple[Batch, int, int] | None:
        """The first further draw of an index that is on the split's side and new; None: the space is used up."""
        for attempt in range(first_attempt, MAX_REDRAWS, REDRAWS_AT_ONCE):
            attempts = np.arange(attempt, min(MAX_REDRAWS, attempt + REDRAWS_AT_ONCE))
            batch, on_side = self._batch(np.full(len(attempts), index), attempts)
            for place, question in zip(range(len(batch)), self._hashes(batch.questions), strict=True):
                if on_side[place] and question not in self._taken:
                    return batch, place, question
        return None

    def _batch(
        self, indices: npt.NDArray[np.int64], attempts: npt.NDArray[np.int64] | int
    ) -> tuple[Batch, npt.NDArray[np.bool_]]:
        batch = self._task.generate_many(problem_seeds(self._key, indices, attempts))
        is_right = np.ones(len(batch), dtype=np.bool_)
        for task in self._cuts:
            is_right &= in_test_partition(task, batch.questions) == (self._split == Split.TEST)
        return batch, is_right & _is_far(self._task, batch, self._away_from, self._min_distance)


def _is_far(task: Task, batch: Batch, others: Sequence[Problem], min_distance: float) -> npt.NDArray[np.bool_]:
    """Whether each problem of a batch is ``min_distance`` or more from all others, as ``Task.distances`` measures."""
    is_far = np.ones(len(batch), dtype=np.bool_)
    for problem in others:
        is_far &= task.distances(batch, problem) >= min_distance
    return is_far
