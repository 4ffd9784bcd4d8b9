"""Problems that are drawn once a process, and those of the next trial while this one trains.

A worker runs trial after trial of one task: the same test set, and training sets of which the larger begin with the
smaller. Drawing them anew costs a trial 10 to 500 ms of processor time, a process's first ones of a compiled task about
a second more (``benchmarks/cpu_work.py``).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, NamedTuple

from task_generators.problem import Problem, Split
from task_generators.splits import SplitProblems
from task_generators.task import TaskSpec

MAX_PROBLEMS = 20_000
"""Problems kept a process: four training sets of 5,000 mazes take 54 MB."""
SMALLEST_SIZE = 200
"""As many problems a split counts at the least: with ``min_test_distance`` it holds as many test problems."""


class _Key(NamedTuple):
    task: str
    params: str
    split: Split
    seed: int


class _Kept:
    """The problems of one split as far as they are drawn, and whose turn it is to draw more."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.problems: SplitProblems | None = None
        self.size = 0
        """Problems it counts as."""


class ProblemCache:
    """``draw_problems`` for a process that asks for the same ones again and again; safe for several threads.

    Whatever was asked for before, problems are bitwise those of ``draw_problems``: the cache changes the time alone.
    The splits asked for last are kept, ``max_problems`` in all (always the last one, however large).
    """

    def __init__(self, max_problems: int = MAX_PROBLEMS) -> None:
        self._max_problems = max_problems
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._wanted: deque[tuple[TaskSpec, Split, int, int]] = deque()
        self._drawer: Thread | None = None
        self._lock = Lock()

    def get(self, task: TaskSpec, split: Split, seed: int, n: int) -> list[Problem]:
        """The first ``n`` problems of a split, as ``draw_problems`` gives them, and its errors.

        Waits for a prefetch that is drawing this very split. What a problem holds that can be changed is the caller's
        own copy.
        """
        return [
            Problem(problem.question, problem.answer, _own_copy(problem.metadata), problem.states, problem.problem_id)
            for problem in self._draw(task, split, seed, n)
        ]

    def prefetch(self, task: TaskSpec, split: Split, seed: int, n: int) -> None:
        """Draw in the background what ``get`` will be asked for, after what was asked for before; returns at once.

        Raises nothing: what goes wrong here goes wrong again, or does not, in the ``get`` that needs the problems.
        """
        with self._lock:
            self._wanted.append((task, split, seed, n))
            if self._drawer is None:
                self._drawer = Thread(target=self._draw_wanted, name="prefetch problems", daemon=True)
                self._drawer.start()

    def _draw(self, task: TaskSpec, split: Split, seed: int, n: int) -> list[Problem]:
        key = _Key(task.name, task.params_json(), split, 0 if split == Split.TEST else seed)
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
        with kept.lock:
            try:
                if kept.problems is None:
                    kept.problems = SplitProblems(task, split, seed)
                problems = kept.problems.first(n)
            except BaseException:
                kept.problems = None  # an interrupted draw is nothing to go on from
                raise
            finally:
                kept.size = SMALLEST_SIZE if kept.problems is None else max(SMALLEST_SIZE, len(kept.problems))
        self._forget_oldest()
        return problems

    def _draw_wanted(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._drawer = None
                    return
                wanted = self._wanted.popleft()
            with suppress(Exception):  # forgotten by then; whoever needs the problems meets it
                self._draw(*wanted)

    def _forget_oldest(self) -> None:
        with self._lock:
            size = sum(kept.size for kept in self._kept.values())
            while size > self._max_problems and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                size -= oldest.size


def _own_copy(value: Any) -> Any:
    """A copy of JSON-able ``value`` that shares nothing that can be changed; a fifth of the time of ``deepcopy``."""
    if isinstance(value, Mapping):
        return {name: _own_copy(held) for name, held in value.items()}
    return type(value)(map(_own_copy, value)) if isinstance(value, list | tuple) else value
