"""What runs next: warm workers, chunks, retries, other drivers. A toy cluster plays the workers."""

import heapq
from collections import Counter

import pytest

from orchestrator import trial_queue as module
from orchestrator.claims import Claims
from orchestrator.failures import TRANSIENT
from orchestrator.results import TrialStatus
from orchestrator.specs import SweepSpec, expand
from orchestrator.tables import TrialState
from orchestrator.trial_queue import CHUNK_S, MAX_CHUNK, SAME_FAILURES, TrialQueue
from orchestrator.trial_source import Grid

DONE, FAILED = TrialState.DONE, TrialState.FAILED
ONE_CPU = ({"CPU": 1},)


def cells(**fields):
    defaults = {"name": "t", "backbones": ["causal_lm/tiny"], "tasks": ["life"], "n_train": [3, 10], "lora_rank": [4]}
    return expand(SweepSpec.model_validate(defaults | fields))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make_queue(source, rows=None, **options):
    rows = {} if rows is None else rows
    source = source if hasattr(source, "ready") else Grid(source)
    defaults = {
        "read_states": lambda: dict(rows),
        "bundles_of": lambda spec: ONE_CPU,
        "settled": lambda status: status.state == DONE,
    }
    return TrialQueue(source, **(defaults | options))


class Cluster:
    """Runs a queue's chunks on so many workers, in the clock's time; notes who ran what, and loads."""

    def __init__(self, queue, clock, num_workers, seconds, load_s=0.0):
        self.queue, self.clock, self.num_workers, self.seconds, self.load_s = queue, clock, num_workers, seconds, load_s
        self.ran, self.loads, self.chunks = [], Counter(), []

    def run(self):
        events, idle, held = [], list(range(self.num_workers)), {}
        while True:
            while idle:
                chunk = self.queue.take(lambda bundles: True, self.num_workers)
                if chunk is None:
                    break
                worker = idle.pop()
                self.chunks.append(chunk)
                moment = self.clock.now
                if held.get(worker) != chunk.warm_key:
                    held[worker] = chunk.warm_key
                    self.loads[chunk.warm_key] += 1
                    moment += self.load_s
                for assignment in chunk.assignments:
                    moment += self.seconds(assignment.spec)
                    heapq.heappush(events, (moment, len(self.ran) + len(events), worker, chunk, assignment))
            if not events:
                assert self.queue.finished
                return self.clock.now
            self.clock.now, _, worker, chunk, assignment = heapq.heappop(events)
            self.ran.append(assignment)
            self.queue.ended(assignment, DONE, {}, self.seconds(assignment.spec))
            if assignment is chunk.assignments[-1]:
                self.queue.chunk_ended(chunk)
                idle.append(worker)


def test_everything_runs_once_and_only_what_the_tables_lack():
    trials = cells(seeds=[0, 1, 2])
    rows = {trials[0].trial_id: TrialStatus(DONE, 1, None), trials[1].trial_id: TrialStatus(FAILED, 2, "timeout")}
    queue = make_queue(trials, rows)
    clock = Clock()
    cluster = Cluster(queue, clock, 2, lambda spec: 1.0)
    cluster.run()
    assert sorted(a.spec.trial_id for a in cluster.ran) == sorted(t.trial_id for t in trials[1:])
    assert {a.spec.trial_id: a.attempts for a in cluster.ran}[trials[1].trial_id] == 3
    assert (queue.total(), queue.num_known) == (len(trials), 1)


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_workers_keep_their_backbone(workers):
    """Loads are few: one a backbone where there are as many workers, and never more than workers a backbone."""
    backbones = ["causal_lm/tiny", "causal_lm/tiny-random", "cogvideox/tiny", "cogvideox/tiny-random"]
    trials = cells(backbones=backbones, seeds=list(range(30)))
    clock = Clock()
    cluster = Cluster(make_queue(trials, monotonic=clock), clock, workers, lambda spec: 5.0, load_s=60.0)
    took = cluster.run()
    assert len(cluster.ran) == len(trials)
    ideal = (len(trials) * 5.0 + 4 * 60.0) / workers
    assert took <= 1.35 * ideal
    assert sum(cluster.loads.values()) <= 4 + 2 * (workers - 1)


def test_long_trials_do_not_come_last():
    """Near the best possible where one task takes twenty times as long as the other."""
    trials = cells(tasks=["life", "maze"], n_train=[3], seeds=list(range(24)))
    seconds = {"life": 5.0, "maze": 100.0}
    clock = Clock()
    cluster = Cluster(make_queue(trials, monotonic=clock), clock, 4, lambda spec: seconds[spec.task.name])
    took = cluster.run()
    assert took <= 1.15 * 24 * 105 / 4
    assert [a.spec.task.name for a in cluster.ran[-8:]] == ["life"] * 8


def test_short_trials_come_in_chunks_and_the_end_is_shared():
    trials = cells(seeds=list(range(500)))
    clock = Clock()
    cluster = Cluster(make_queue(trials, monotonic=clock), clock, 2, lambda spec: 0.05)
    took = cluster.run()
    sizes = [len(chunk.assignments) for chunk in cluster.chunks]
    assert sizes[0] == 1, "nothing is known yet"
    assert max(sizes) == int(CHUNK_S / 0.05)
    assert len(sizes) < len(trials) / 10
    assert took < 1.02 * 1000 * 0.05 / 2
    assert make_queue(trials, seconds=lambda spec: 1e-6).take(lambda b: True).assignments.__len__() == MAX_CHUNK
    alone = make_queue(trials, seconds=lambda spec: 1e-6, longest_chunk=1)
    assert len(alone.take(lambda b: True).assignments) == 1


def test_long_trials_come_alone():
    queue = make_queue(cells(seeds=list(range(50))), seconds=lambda spec: 60.0)
    assert len(queue.take(lambda bundles: True).assignments) == 1


def test_a_chunk_is_given_out_where_it_fits():
    small, large = ({"CPU": 1},), ({"CPU": 4},)
    trials = cells(backbones=["baseline/majority", "causal_lm/tiny"])
    queue = make_queue(trials, bundles_of=lambda spec: small if spec.backbone.startswith("base") else large)
    for _ in range(2):
        assert queue.take(lambda bundles: bundles == small).assignments[0].spec.backbone == "baseline/majority"
    assert queue.take(lambda bundles: bundles == small) is None
    assert not queue.finished
    assert queue.take(lambda bundles: True).assignments[0].spec.backbone == "causal_lm/tiny"


def test_what_fails_in_passing_comes_back_later_and_later():
    clock = Clock()
    (trial,) = cells(n_train=[3])
    queue = make_queue([trial], monotonic=clock)
    waits = []
    while True:
        chunk = queue.take(lambda bundles: True)
        (assignment,) = chunk.assignments
        assert (assignment.attempts, assignment.retries) == (1, len(waits))
        if "worker_died" not in assignment.retried:
            break
        waits.append(queue.failed_in_passing(assignment, "worker_died"))
        queue.chunk_ended(chunk)
        assert queue.take(lambda bundles: True) is None
        assert not queue.finished
        assert queue.num_delayed == 1
        clock.now += waits[-1]
    assert len(waits) == TRANSIENT["worker_died"]
    assert waits == [1, 2, 4]
    assert "node_died" in assignment.retried, "what is lost with its node is tried for ever"
    queue.ended(assignment, FAILED, signature="x")
    queue.chunk_ended(chunk)
    assert queue.finished


def test_waits_have_a_limit():
    clock = Clock()
    (trial,) = cells(n_train=[3])
    queue = make_queue([trial], monotonic=clock)
    for _ in range(40):
        chunk = queue.take(lambda bundles: True)
        wait_s = queue.failed_in_passing(chunk.assignments[0], "node_died")
        queue.chunk_ended(chunk)
        clock.now += wait_s
    assert wait_s == module.LONGEST_WAIT_S


def test_what_a_dead_worker_did_not_begin_costs_nothing():
    trials = cells(seeds=list(range(20)))
    queue = make_queue(trials, seconds=lambda spec: 0.5)
    chunk = queue.take(lambda bundles: True)
    first, second, *rest = chunk.assignments
    queue.ended(first, DONE, {}, 0.5)
    assert queue.first_running(chunk) is second
    queue.failed_in_passing(second, "worker_died")
    queue.chunk_ended(chunk)
    again = queue.take(lambda bundles: True)
    assert [a.spec for a in again.assignments[: len(rest)]] == [a.spec for a in rest], "first in line, in their order"
    assert {a.run_id for a in again.assignments}.isdisjoint(a.run_id for a in chunk.assignments)
    assert all((a.attempts, a.retries) == (1, 0) for a in again.assignments)


def test_the_first_trials_failing_alike_stop_the_sweep():
    queue = make_queue(cells(seeds=list(range(20))))
    for _count in range(SAME_FAILURES):
        assert queue.stop_reason is None
        chunk = queue.take(lambda bundles: True)
        queue.ended(chunk.assignments[0], FAILED, signature="ValueError at train.py:3")
        queue.chunk_ended(chunk)
    assert f"first {SAME_FAILURES} trials failed alike" in queue.stop_reason
    assert queue.take(lambda bundles: True) is None
    assert queue.finished


@pytest.mark.parametrize("other", ["a trial was done", "another failure"])
def test_failures_among_others_stop_nothing(other):
    queue = make_queue(cells(seeds=list(range(20))))
    for count in range(2 * SAME_FAILURES):
        chunk = queue.take(lambda bundles: True)
        if count == 2 and other == "a trial was done":
            queue.ended(chunk.assignments[0], DONE)
        else:
            queue.ended(chunk.assignments[0], FAILED, signature="another" if count == 2 else "the same")
        queue.chunk_ended(chunk)
    assert queue.stop_reason is None


class NextSize:
    """Gives the next n_train when the one before has ended: as a search does."""

    def __init__(self, trials):
        self.left, self.seen = list(trials), []
        self.is_open = True

    def ready(self):
        if not self.is_open or not self.left:
            return []
        self.is_open = False
        return [self.left.pop(0)]

    def ended(self, trial, state, metrics):
        self.seen.append((trial.n_train, state, metrics.get("exact_match")))
        self.is_open = True

    def total(self):
        return len(self.seen) + len(self.left)


def test_a_source_decides_as_results_come_in():
    trials = cells(n_train=[3, 10, 30, 100])
    rows = {trial.trial_id: TrialStatus(DONE, 1, None) for trial in trials[:2]}
    scores = {trial.trial_id: {"exact_match": 0.5} for trial in trials}
    source = NextSize(trials)
    queue = make_queue(source, rows, read_metrics=lambda ids: {key: scores[key] for key in ids})
    assert source.seen == [(3, DONE, 0.5), (10, DONE, 0.5)], "what earlier runs did is told, not run"
    chunk = queue.take(lambda bundles: True)
    assert chunk.assignments[0].spec.n_train == 30
    assert queue.take(lambda bundles: True) is None
    assert not queue.finished
    queue.ended(chunk.assignments[0], DONE, {"exact_match": 0.9})
    queue.chunk_ended(chunk)
    assert queue.take(lambda bundles: True).assignments[0].spec.n_train == 100
    assert source.seen[-1] == (30, DONE, 0.9)


def test_two_drivers_share_the_work(tmp_path):
    """Taking turns, with rows that both see: every trial runs once, and both learn of all."""
    trials, rows, ran = cells(seeds=list(range(15))), {}, []
    with Claims(tmp_path, name="a") as one, Claims(tmp_path, name="b") as two:
        queues = [make_queue(trials, rows, claims=claims, seconds=lambda spec: 0.7) for claims in (one, two)]
        for _ in range(100):
            held = [queue.take(lambda bundles: True) for queue in queues]
            for queue, chunk in zip(queues, held, strict=True):
                for assignment in chunk.assignments if chunk else ():
                    ran.append(assignment.spec.trial_id)
                    rows[assignment.spec.trial_id] = TrialStatus(DONE, 1, None)
                    queue.ended(assignment, DONE, {})
                if chunk:
                    queue.chunk_ended(chunk)
            if all(queue.finished for queue in queues):
                break
    assert sorted(ran) == sorted(trial.trial_id for trial in trials)
    assert all(0 < len(queue.ended_elsewhere) < len(trials) for queue in queues)


def test_what_another_driver_holds_is_waited_for(tmp_path):
    trials, rows = cells(n_train=[3, 10]), {}
    other = Claims(tmp_path, name="other")
    with other, Claims(tmp_path, name="mine") as mine:
        other.take([trial.trial_id for trial in trials])
        queue = make_queue(trials, rows, claims=mine)
        assert queue.take(lambda bundles: True) is None
        assert (queue.num_elsewhere, queue.finished) == (2, False)
        rows[trials[0].trial_id] = TrialStatus(DONE, 1, None)
        other.release(trials[0].trial_id, ended=True)
        other.__exit__()
        mine.held_by_others(at_most_old_s=-1)
        chunk = queue.take(lambda bundles: True)
        assert chunk.assignments[0].spec == trials[1], "the other driver left without its row"
        assert [spec for spec, _ in queue.ended_elsewhere] == [trials[0]]


def test_the_row_of_a_worker_that_was_taken_for_dead_counts():
    """It outlived its node by a moment and ended its trial: that is not run a second time."""
    (trial,) = cells(n_train=[3])
    clock, rows, ended = Clock(), {}, []
    source = Grid([trial])
    source.ended = lambda spec, state, metrics: ended.append((spec, state))
    queue = make_queue(source, rows, monotonic=clock)
    chunk = queue.take(lambda bundles: True)
    wait_s = queue.failed_in_passing(chunk.assignments[0], "node_died")
    queue.chunk_ended(chunk)
    rows[trial.trial_id] = TrialStatus(DONE, 1, None)
    clock.now += 2 * wait_s
    assert queue.take(lambda bundles: True) is None
    assert queue.ended_elsewhere == ended == [(trial, DONE)]
    assert queue.finished


def test_tables_that_cannot_be_read_for_a_moment_end_nothing():
    (trial,) = cells(n_train=[3])
    clock, answers = Clock(), iter([{}, OSError("stale file handle")])

    def read_states():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    queue = make_queue([trial], monotonic=clock, read_states=read_states)
    chunk = queue.take(lambda bundles: True)
    clock.now += 2 * queue.failed_in_passing(chunk.assignments[0], "file_system")
    queue.chunk_ended(chunk)
    again = queue.take(lambda bundles: True)
    assert again.assignments[0].spec == trial
    assert again.assignments[0].retries == 1
