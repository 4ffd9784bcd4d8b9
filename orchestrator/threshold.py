"""``search: threshold``: the smallest n_train of a sweep's list that reaches an accuracy, in few and cheap trials.

The cells of a sweep that differ in n_train alone are one group: a learning curve. Each group keeps a bracket, the
largest size known to miss the accuracy below the smallest known to reach it, and asks for the size in between that
makes the search cheapest on average (``orchestrator.curve_belief``), until nothing is left in between, or until it is
so probable that the sizes left miss it too that measuring them is not worth its price: "never" is then ``inferred``,
with its chance. A size that is said to reach the accuracy was measured, and so was the one below it.
On a curve that falls back below the accuracy after reaching it, the answer is one of its crossings.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.curve_belief import Curve, CurveBelief
from orchestrator.search_entries import ThresholdEntry
from orchestrator.tables import TrialState
from orchestrator.trial_spec import TrialSpec, task_json

METRIC = "exact_match"
NORMAL_95 = 1.959963984540054
REPEAT_SEED_STEP = 10_000
"""Repeat r of seed s runs with seed ``s + r * REPEAT_SEED_STEP``: a seed that belongs to no other group and does not
depend on which seeds the sweep has."""
ROUNDING = 1e-9


def num_problems(trial: TrialSpec) -> float:
    """The price of a trial where nothing better is known: the problems that it trains on and those that it answers."""
    return float(trial.n_train + trial.n_test)


@dataclass(frozen=True)
class Finding:
    """What a search found of one group."""

    backbone: str
    task: str
    seed: int
    lora_rank: int
    recipe: str
    """JSON of the recipe's fields that differ from the defaults."""
    n_train: int | None
    """The smallest size that reaches the accuracy; None: none does."""
    largest_below: int | None
    """The largest size below ``n_train`` that was seen to miss the accuracy; None: none was."""
    state: str
    """``found``, ``never`` (the largest size misses it), ``open`` (trials are to come), or ``gap`` (trials failed, so
    that sizes between ``largest_below`` and ``n_train`` are not known)."""
    num_trials: int
    """Trials that it has used, repeats included."""
    unknown: tuple[int, ...] = ()
    """Sizes whose trials failed and which could be the answer."""
    basis: str = "measured"
    """``measured`` on both sides, or ``inferred``: the largest size was not run."""
    chance: float = 1.0
    """Of an inferred answer: how probable it is that measuring would have told the same."""


@dataclass
class _Cell:
    """One size of a group: the sweep's own trial, and repeats of it with other seeds."""

    trial: TrialSpec
    scores: dict[int, float] = field(default_factory=dict)
    """By repeat; 0 is the trial itself."""
    failed: set[int] = field(default_factory=set)

    def reaches(self, accuracy: float, repeats: int) -> bool | None:
        """Whether the mean score is at least ``accuracy``; None while it is not known well enough.

        It is known once the 95 % interval (Wilson) of all answers together does not contain ``accuracy``, or no repeat
        is left. A cell whose own trial failed is not known.
        """
        if 0 not in self.scores:
            return None
        mean = self.mean()
        if self.next_repeat(repeats) is not None:
            low, high = wilson_interval(mean, self.trial.n_test * len(self.scores))
            if low <= accuracy <= high:
                return None
        return mean >= accuracy - ROUNDING

    def mean(self) -> float:
        """Of all scores; there is one at least."""
        return sum(self.scores.values()) / len(self.scores)

    def next_repeat(self, repeats: int) -> int | None:
        """The first repeat that has not ended; None: all have."""
        return next((r for r in range(1, repeats + 1) if r not in self.scores and r not in self.failed), None)


@dataclass(frozen=True)
class _Inferred:
    """An answer that was not measured on both sides."""

    at: int
    """Index of the first cell that reaches the accuracy; the number of cells where none does."""
    chance: float


@dataclass
class _Group:
    curve: Curve
    cells: list[_Cell]
    """Ascending in n_train."""
    waits_for: str | None = None
    """``trial_id`` of the trial that it gave out last, until that has ended."""
    inferred: _Inferred | None = None
    remaining: int = 0
    """Trials that it may still give out."""


class ThresholdSearch:
    """Finds each group's smallest n_train that reaches an accuracy; a ``TrialSource``.

    ``price`` is what a trial costs, in any unit. ``max_running`` bounds how many trials are out at once: with more
    than the workers can run, first trials start before anything is known of their relatives. A group has one trial out
    at a time. Deterministic: equal results in equal order, equal trials.
    """

    def __init__(
        self,
        trials: Sequence[TrialSpec],
        entry: ThresholdEntry,
        price: Callable[[TrialSpec], float] = num_problems,
        max_running: int | None = None,
    ) -> None:
        self._entry = entry
        self._price = price
        self._max_running = max_running
        dearest = max(map(price, trials), default=0.0)
        self._loss = dearest / (1 - entry.confidence) if entry.confidence < 1 else math.inf
        """The price of a wrong answer: one that saves the dearest trial may be inferred with ``confidence``, one that
        saves less has to be surer."""
        self._belief = CurveBelief(entry.accuracy)
        self._groups = _grouped(trials)
        self._by_key = {_key(group.cells[0].trial): group for group in self._groups}
        self._fresh = deque(self._groups)
        self._continued: deque[_Group] = deque()
        self._waiting: dict[str, list[_Group]] = {}
        self._given: set[str] = set()
        self._observed: set[str] = set()
        for group in self._groups:
            group.remaining = self._most_trials(group)
        self._most_to_come = sum(group.remaining for group in self._groups)

    def ready(self) -> list[TrialSpec]:
        """Trials to start now: the next of every group that waits for none, groups that have begun before others."""
        trials: list[TrialSpec] = []
        while (self._continued or self._fresh) and not self._is_full():
            group = (self._continued or self._fresh).popleft()
            if group.waits_for is not None:
                continue
            trial = self._next(group)
            if trial is None:
                self._count(group)
                continue
            group.waits_for = trial.trial_id
            self._waiting.setdefault(trial.trial_id, []).append(group)
            if trial.trial_id not in self._given:
                self._given.add(trial.trial_id)
                trials.append(trial)
                self._count(group)
        return trials

    def ended(self, trial: TrialSpec, state: TrialState, metrics: Mapping[str, float]) -> None:
        """A trial has its last row, be it of this run or of an earlier one; one of another sweep changes nothing.

        A ``done`` row without ``exact_match`` counts as failed.
        """
        waiting = self._waiting.pop(trial.trial_id, [])
        for group in waiting:
            group.waits_for = None
        score = metrics.get(METRIC)
        if state is not TrialState.DONE or (score is not None and math.isnan(score)):
            score = None
        for group, cell, repeat in self._cells_of(trial):
            if score is not None:
                cell.scores[repeat] = score
                cell.failed.discard(repeat)
            elif repeat not in cell.scores:
                cell.failed.add(repeat)
            low, high = self._bracket(group)
            if group.inferred is not None and not low < group.inferred.at <= high:
                group.inferred = None
            if score is not None and trial.trial_id not in self._observed:
                self._observed.add(trial.trial_id)
                self._belief.observe(group.curve, trial.n_train, score, trial.n_test)
            if group.waits_for is None:
                self._continued.append(group)
            self._given.add(trial.trial_id)
            self._count(group)

    def total(self) -> int:
        """How many trials it gives out at most, those included that it has given out or that had ended before."""
        return len(self._given) + self._most_to_come

    def findings(self) -> list[Finding]:
        """What is known of each group, in the order of the sweep."""
        return [self._finding(group) for group in self._groups]

    def _is_full(self) -> bool:
        return self._max_running is not None and len(self._waiting) >= self._max_running

    def _next(self, group: _Group) -> TrialSpec | None:
        """The trial that a group needs next; None when its answer is known or inferred, or cannot be known. Nothing is
        inferred beside sizes whose trials failed, or before repeats have told the ends of the bracket."""
        if group.inferred is not None:
            return None
        between, unsure = self._choices(group)
        if between:
            cells = [group.cells[index] for index in between]
            sizes = [cell.trial.n_train for cell in cells]
            outlook = self._belief.outlook(group.curve, sizes, cells[0].trial.n_test)
            prices = [self._price(cell.trial) for cell in cells]
            low, high = self._bracket(group)
            is_gap = any(0 in cell.failed for cell in group.cells[low + 1 : high])
            # All that is ever inferred is that the largest sizes miss it too, of a curve of which two are seen to: its
            # relatives alone answer for no curve, least of all for one that has done what they did not.
            may_infer = not is_gap and high == len(group.cells)
            probe = outlook.next_probe(prices, self._entry.confidence, self._loss if may_infer else math.inf)
            if probe is None and sum(bool(cell.scores) for cell in group.cells) < 2:
                probe = outlook.next_probe(prices)
            if probe is not None:
                return cells[probe].trial
            if not unsure:
                group.inferred = _Inferred(between[-1] + 1, float(outlook.chances()[-1]))
                return None
        if not unsure:
            return None
        cell = group.cells[unsure[0]]
        repeat = cell.next_repeat(self._repeats(cell.trial))
        assert repeat is not None, "a size without repeats left is not unsure"
        return _repeated(cell.trial, repeat)

    def _choices(self, group: _Group) -> tuple[list[int], list[int]]:
        """Indices of the cells whose trials would tell a group more, and of those that repeats would.

        Sizes within their interval of the accuracy count as their mean says until nothing is left between them; only
        those at the ends of what is then left are repeated, the cheaper first.
        """
        low, high = first, last = self._bracket(group)
        scored = [index for index in range(low + 1, high) if 0 in group.cells[index].scores]
        high = next((index for index in scored if group.cells[index].mean() >= self._entry.accuracy - ROUNDING), high)
        low = max((index for index in scored if index < high), default=low)
        between = [index for index in range(low + 1, high) if 0 not in group.cells[index].failed]
        return between, [index for index in (low, high) if first < index < last]

    def _bracket(self, group: _Group) -> tuple[int, int]:
        """Indices of the smallest size that reaches the accuracy (the number of sizes where none does), and of the
        largest below it that misses it (-1 where none does)."""
        verdicts = [cell.reaches(self._entry.accuracy, self._repeats(cell.trial)) for cell in group.cells]
        high = next((index for index, verdict in enumerate(verdicts) if verdict is True), len(verdicts))
        low = next((index for index in reversed(range(high)) if verdicts[index] is False), -1)
        return low, high

    def _repeats(self, trial: TrialSpec) -> int:
        if self._entry.repeats == 0:
            return 0
        return self._entry.repeats if "seed" in trial.backbone_spec.varies_with else 0

    def _most_trials(self, group: _Group) -> int:
        """How many more trials a group gives out at most."""
        if group.inferred is not None:
            return 0
        low, high = self._bracket(group)
        most = 0
        for cell in group.cells[low + 1 : high]:
            if 0 not in cell.failed:
                ended = len(cell.scores) + len(cell.failed)
                most += 1 + self._repeats(cell.trial) - ended
        return max(most - (group.waits_for is not None), 0)

    def _count(self, group: _Group) -> None:
        self._most_to_come -= group.remaining
        group.remaining = self._most_trials(group)
        self._most_to_come += group.remaining

    def _cells_of(self, trial: TrialSpec) -> list[tuple[_Group, _Cell, int]]:
        """The cells that a trial belongs to with their groups, and which repeat of each it is: its own cell first."""
        found = []
        for repeat in range(self._entry.repeats + 1):
            group = self._by_key.get(_key(trial, trial.seed - repeat * REPEAT_SEED_STEP))
            cells = group.cells if group else ()
            found += [(group, cell, repeat) for cell in cells if group and cell.trial.n_train == trial.n_train]
        return found

    def _finding(self, group: _Group) -> Finding:
        low, high = self._bracket(group)
        cells, trial = group.cells, group.cells[0].trial
        failed = tuple(cell.trial.n_train for cell in cells[low + 1 : high])
        inferred = group.inferred if failed else None
        if inferred is not None:
            high, failed = inferred.at, ()
        if inferred is None and any(self._choices(group)):
            state = "open"
        elif failed:
            state = "gap"
        else:
            state = "found" if high < len(cells) else "never"
        return Finding(
            backbone=trial.backbone,
            task=trial.task.label(),
            seed=trial.seed,
            lora_rank=trial.lora_rank,
            recipe=trial.recipe_json(),
            n_train=cells[high].trial.n_train if high < len(cells) else None,
            largest_below=cells[low].trial.n_train if low >= 0 else None,
            state=state,
            num_trials=sum(len(cell.scores) + len(cell.failed) for cell in cells),
            unknown=failed if state == "gap" else (),
            basis="measured" if inferred is None else "inferred",
            chance=1.0 if inferred is None else inferred.chance,
        )


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95 % score interval (Wilson, 1927) of an observed ``share`` of ``n`` answers: lower and upper bound. The twin of
    ``orchestrator.analysis.wilson_interval`` for single numbers, without pandas."""
    z = NORMAL_95
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


_Key = tuple[str, str, int, int, int, str]


def _key(trial: TrialSpec, seed: int | None = None) -> _Key:
    """What the cells of one group share."""
    own_seed = trial.seed if seed is None else seed
    return (trial.backbone, task_json(trial.task), own_seed, trial.lora_rank, trial.n_test, trial.recipe_json())


def _grouped(trials: Sequence[TrialSpec]) -> list[_Group]:
    """The groups in the order of their first trials."""
    groups: dict[_Key, list[_Cell]] = {}
    for trial in trials:
        groups.setdefault(_key(trial), []).append(_Cell(trial))
    tasks, backbones = _Numbers(), _Numbers()
    return [
        _Group(Curve(tasks[key[1]], backbones[key[0]], index), sorted(cells, key=lambda cell: cell.trial.n_train))
        for index, (key, cells) in enumerate(groups.items())
    ]


class _Numbers(dict[str, int]):
    """Numbers names in the order in which they are first asked for."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


def _repeated(trial: TrialSpec, repeat: int) -> TrialSpec:
    """The same trial with another seed."""
    fields = {name: getattr(trial, name) for name in TrialSpec.model_fields}
    return TrialSpec.model_construct(**fields | {"seed": trial.seed + repeat * REPEAT_SEED_STEP})
