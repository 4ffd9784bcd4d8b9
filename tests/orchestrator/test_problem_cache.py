"""Problems from the cache are those of draw_problems, whoever asked for what before, and in which thread."""

import threading

import numpy as np
import pytest

from orchestrator import problem_cache
from orchestrator.problem_cache import ProblemCache
from orchestrator.specs import TrialSpec
from orchestrator.trial import prefetch_problems, run_trial
from task_generators.problem import Problem, Split, frozen_grid
from task_generators.splits import SplitProblems, draw_problems
from task_generators.task import TaskSpec, task_names
from trainers.recipe import Placement

LIFE = TaskSpec(name="life", params={"height": 6, "width": 6})
SMALL_SPACE = TaskSpec(name="elementary_ca", params={"width": 6, "steps": 2})
FAR = TaskSpec.model_validate({"life": {"height": 6, "width": 6, "min_test_distance": 0.25}})
LARGER_TESTS = TaskSpec.model_validate({"maze": {"height": 7, "width": 7, "test": {"height": 9, "width": 9}}})


def whole(problems):
    """Everything of the problems that a trial can see."""
    return [
        (p.problem_id, p.question.tobytes(), p.question.shape, p.answer.tobytes(), p.metadata, [*map(bytes, p.states)])
        for p in problems
    ]


def same(cache, *arguments):
    return whole(cache.get(*arguments)) == whole(draw_problems(*arguments))


@pytest.fixture
def drawn(monkeypatch):
    """Names the splits that are begun, with their seeds, in order."""
    begun = []

    class Recorded(SplitProblems):
        def __init__(self, spec, split, seed):
            begun.append((spec.name, str(split), seed))
            super().__init__(spec, split, seed)

    monkeypatch.setattr(problem_cache, "SplitProblems", Recorded)
    return begun


def wait_for_prefetch(cache):
    thread = cache._drawer
    if thread is not None:
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.mark.parametrize("task", [LIFE, SMALL_SPACE, FAR, LARGER_TESTS], ids=TaskSpec.label)
@pytest.mark.parametrize("sizes", [(3, 10, 30, 100, 30), (100, 3), (1, 2, 3, 99, 100)], ids=str)
def test_problems_do_not_depend_on_what_was_asked_for_before(task, sizes):
    cache = ProblemCache()
    assert all(same(cache, task, Split.TRAIN, seed, n) for n in sizes for seed in (0, 1))


@pytest.mark.parametrize("name", task_names())
def test_every_task_can_be_drawn_bit_by_bit(name):
    cache, task = ProblemCache(), TaskSpec(name=name)
    assert all(same(cache, task, Split.TRAIN, 5, n) for n in ((1, 2) if name == "arc" else (2, 3, 12)))
    assert same(cache, task, Split.TEST, 0, 1)


def test_extending_across_batches_and_into_a_used_up_space(monkeypatch):
    monkeypatch.setattr("task_generators.splits.BATCH_SIZE", 16)
    cache = ProblemCache()
    for n in (10, 40, 150):  # fewer than 64 distinct problems: the later ones repeat
        assert same(cache, SMALL_SPACE, Split.TRAIN, 0, n)


def test_a_split_is_drawn_once_and_the_test_split_for_all_seeds(drawn):
    cache = ProblemCache()
    for seed in (0, 1):
        for n in (3, 10):
            cache.get(LIFE, Split.TEST, seed, 20)
            cache.get(LIFE, Split.TRAIN, seed, n)
    assert drawn == [("life", "test", 0), ("life", "train", 0), ("life", "train", 1)]


@pytest.mark.parametrize("other", [FAR, LIFE.model_copy(update={"test": {"height": 8}}), TaskSpec(name="life")])
def test_every_knob_counts(other):
    cache = ProblemCache()
    cache.get(LIFE, Split.TRAIN, 0, 20)
    assert same(cache, other, Split.TRAIN, 0, 20)
    cache.get(LIFE, Split.TEST, 0, 20)
    assert same(cache, other, Split.TEST, 0, 20)


def test_what_one_trial_does_to_its_problems_no_other_sees():
    cache, chess = ProblemCache(), TaskSpec(name="chess_mate_in_1")
    problems = cache.get(chess, Split.TEST, 0, 3)
    problems[0].metadata["fen"] = "mine"
    problems.clear()
    assert same(cache, chess, Split.TEST, 0, 3)
    for problem in cache.get(chess, Split.TEST, 0, 3):
        with pytest.raises(ValueError, match="read-only"):
            problem.question[0, 0] = 1


def test_nested_metadata_is_copied_as_it_is():
    value = {"moves": [["a", 1], (2, 3)], "none": None}
    copied = problem_cache._own_copy(value)
    assert copied == value
    copied["moves"][0].append("more")
    assert value["moves"][0] == ["a", 1]


def test_the_oldest_splits_are_forgotten(drawn):
    cache = ProblemCache(max_problems=3 * problem_cache.SMALLEST_SIZE)
    for seed in (0, 1, 2, 0, 3, 0, 1):
        assert len(cache.get(LIFE, Split.TRAIN, seed, 5)) == 5
    assert [seed for _, _, seed in drawn] == [0, 1, 2, 3, 1]
    few = ProblemCache(max_problems=1)
    assert [len(few.get(LIFE, Split.TRAIN, 0, n)) for n in (5, 300)] == [5, 300]


@pytest.mark.parametrize("prefetched", [False, True])
def test_errors_are_those_of_drawing_each_time(prefetched):
    task = TaskSpec.model_validate({"maze": {"height": 5, "width": 5}})
    with pytest.raises(ValueError, match=r"only \d found") as drawing:
        draw_problems(task, Split.TEST, 0, 64)
    cache = ProblemCache()
    for _ in range(2):
        if prefetched:
            cache.prefetch(task, Split.TEST, 0, 64)
            wait_for_prefetch(cache)
        with pytest.raises(ValueError, match=r"only \d found") as caught:
            cache.get(task, Split.TEST, 0, 64)
        assert str(caught.value) == str(drawing.value)
        assert same(cache, task, Split.TEST, 0, 1)


def test_an_interrupted_draw_leaves_nothing_behind(monkeypatch):
    cache = ProblemCache()
    cache.get(LIFE, Split.TRAIN, 0, 10)
    life = type(LIFE.build())
    generate_many, calls = life.generate_many, []

    def interrupted(self, seeds):
        calls.append(len(seeds))
        if len(calls) == 2:
            raise MemoryError
        return generate_many(self, seeds)

    monkeypatch.setattr(life, "generate_many", interrupted)
    cache.prefetch(LIFE, Split.TRAIN, 0, 300)
    wait_for_prefetch(cache)
    assert len(calls) == 2
    assert same(cache, LIFE, Split.TRAIN, 0, 300)


class Gated:
    """Stands in for a split that is drawn once ``gate`` is open, and knows how many are being drawn at once."""

    def __init__(self, gate):
        self.gate, self.at_once, self.most_at_once = gate, 0, 0

    def __call__(self, spec, split, seed):
        return GatedSplit(self, seed)


class GatedSplit:
    def __init__(self, shared, seed):
        self.shared, self.seed, self.problems = shared, seed, []

    def __len__(self):
        return len(self.problems)

    def first(self, n):
        self.shared.at_once += 1
        self.shared.most_at_once = max(self.shared.most_at_once, self.shared.at_once)
        assert self.shared.gate.wait(timeout=30)
        grid = frozen_grid(np.full((1, 1), self.seed))
        self.problems += [Problem(grid, grid, {}, (), str(i)) for i in range(len(self.problems), n)]
        self.shared.at_once -= 1
        return self.problems[:n]


def test_prefetch_draws_behind_the_caller_one_split_at_a_time(monkeypatch):
    gated = Gated(threading.Event())
    monkeypatch.setattr(problem_cache, "SplitProblems", gated)
    cache = ProblemCache()
    for seed in range(3):
        cache.prefetch(LIFE, Split.TRAIN, seed, 5)
    assert cache._drawer.daemon, "a process may end while it draws"
    gated.gate.set()  # it got here before: prefetch waits for nothing
    wait_for_prefetch(cache)
    assert gated.most_at_once == 1
    cache.prefetch(LIFE, Split.TRAIN, 3, 5)  # the thread had ended; another begins
    wait_for_prefetch(cache)
    assert {key.seed for key in cache._kept} == {0, 1, 2, 3}


def test_a_split_that_is_being_prefetched_is_waited_for(monkeypatch):
    gated = Gated(threading.Event())
    monkeypatch.setattr(problem_cache, "SplitProblems", gated)
    cache = ProblemCache()
    cache.prefetch(LIFE, Split.TRAIN, 7, 5)
    found = []
    asking = threading.Thread(target=lambda: found.extend(cache.get(LIFE, Split.TRAIN, 7, 5)))
    asking.start()
    asking.join(timeout=0.2)
    assert found == []
    gated.gate.set()
    asking.join(timeout=30)
    assert [problem.question[0, 0] for problem in found] == [7] * 5
    assert gated.most_at_once == 1


def test_many_threads_get_the_same_problems():
    cache, task = ProblemCache(), TaskSpec(name="sudoku", params={"size": 4})
    sizes = [3, 50, 10, 100, 30, 70]
    found = {}

    def ask(n):
        cache.prefetch(task, Split.TRAIN, 0, n + 5)
        found[n] = whole(cache.get(task, Split.TRAIN, 0, n))

    threads = [threading.Thread(target=ask, args=(n,)) for n in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = whole(draw_problems(task, Split.TRAIN, 0, 100))
    assert found == {n: expected[:n] for n in sizes}


def test_kernels_that_run_at_once_do_not_disturb_each_other():
    task, seeds = TaskSpec(name="sudoku"), range(4)
    caches = [ProblemCache() for _ in seeds]
    for seed in seeds:
        caches[seed].prefetch(task, Split.TRAIN, seed, 150)
    found = [whole(caches[seed].get(task, Split.TRAIN, seed, 150)) for seed in seeds]
    assert found == [whole(draw_problems(task, Split.TRAIN, seed, 150)) for seed in seeds]


@pytest.mark.parametrize(("has_gpu", "gpus_per_worker", "expected"), [(True, 1, 2), (True, 0, 0), (False, None, 0)])
def test_only_trials_on_a_gpu_are_prefetched(drawn, monkeypatch, has_gpu, gpus_per_worker, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    cache = ProblemCache()
    placement = Placement(gpus_per_worker=gpus_per_worker)
    spec = TrialSpec(backbone="baseline/majority", task=LIFE, lora_rank=0, seed=3, n_train=5, placement=placement)
    prefetch_problems(spec, cache)
    wait_for_prefetch(cache)
    assert len(drawn) == expected
    test, train = cache.get(LIFE, Split.TEST, 0, spec.n_test), cache.get(LIFE, Split.TRAIN, 3, 5)
    assert (len(test), len(train), len(drawn)) == (spec.n_test, 5, 2)


def test_a_trial_has_the_same_numbers_with_the_problems_of_the_trial_before(drawn):
    cache = ProblemCache()
    fields = {"backbone": "baseline/majority", "task": LIFE, "lora_rank": 0, "n_test": 12}
    specs = [TrialSpec(**fields, seed=seed, n_train=n) for n in (30, 5) for seed in (0, 1)]
    for spec, following in zip(specs, [*specs[1:], specs[0]], strict=True):
        result, predictions, _ = run_trial(spec, problem_cache=cache)
        cache.prefetch(following.task, Split.TEST, 0, following.n_test)
        cache.prefetch(following.task, Split.TRAIN, following.seed, following.n_train)
        alone, alone_predictions, _ = run_trial(spec)
        assert result.metrics == alone.metrics
        assert [(p.problem_id, p.predicted.tobytes(), p.scores) for p in predictions] == [
            (p.problem_id, p.predicted.tobytes(), p.scores) for p in alone_predictions
        ]
