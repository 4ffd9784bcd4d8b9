"""SIGKILL of the raylet of one of several nodes: its trials go to the others, in the same run of the sweep."""

import os
import signal
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator import results
from orchestrator.specs import SweepSpec, expand
from orchestrator.sweep import cluster as sweep_cluster
from orchestrator.sweep import run as run_sweep
from orchestrator.sweep import searcher

ROOT = Path(__file__).resolve().parents[2]
INJECTED = Path(__file__).parent / "injected"
QUICK_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture
def three_nodes(monkeypatch, tmp_path):
    """A head and two more nodes of one CPU each; ``three_nodes.kill(node)`` takes one away without a word."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    faults = {
        "PYTHONPATH": f"{INJECTED}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "SWEEP_FAULTS": "slow_trials",
        "SWEEP_FAULTS_TRIAL_S": "0.5",
        "SWEEP_FAULTS_FOLDER": str(tmp_path),
    }
    for name, value in (sweep_cluster.QUIET_TUNE | QUICK_HEALTH_CHECKS | faults).items():
        monkeypatch.setenv(name, value)
    memory = {"object_store_memory": 80 * 1024**2}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1, **memory)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def kill_raylet(node):
    (raylet,) = node.all_processes[ray._private.ray_constants.PROCESS_TYPE_RAYLET]
    os.kill(raylet.process.pid, signal.SIGKILL)


def sweep_of(folder, **fields):
    spec = {"name": "faulty", "tasks": [{"elementary_ca": {"width": 8, "steps": 1}}], "n_test": 4} | fields
    return SweepSpec.model_validate(spec | {"results": str(folder)})


def node_of(actor_class):
    """Id of the node of each living actor whose class has this in its name."""
    actors = ray._private.state.actors().values()  # the public list needs a dashboard
    return [a["Address"]["NodeID"] for a in actors if a["State"] == "ALIVE" and actor_class in a["ActorClassName"]]


@pytest.fixture
def kinds(monkeypatch):
    """Kinds of failure of which the queue is told that they pass."""
    told, failed_in_passing = [], searcher.Dispatcher.failed_in_passing

    def listen(self, assignment, kind, detail):
        told.append(kind)
        failed_in_passing(self, assignment, kind, detail)

    monkeypatch.setattr(searcher.Dispatcher, "failed_in_passing", listen)
    return told


def test_trials_of_a_dead_node_go_to_the_others(three_nodes, tmp_path, monkeypatch, kinds, assert_as_if_uninterrupted):
    sweep = sweep_of(tmp_path, backbones=["baseline/majority"], seeds=list(range(10)), n_train=[3, 6, 10], recipe={})
    trials, killed = expand(sweep), []
    on_step_begin = searcher.Watch.on_step_begin

    def kill_one_node(self, *arguments, **info):
        on_step_begin(self, *arguments, **info)
        if not killed and len(list(tmp_path.glob("trials/[!.]*.parquet"))) >= 6:
            at_work = [node for node in list(three_nodes.worker_nodes) if node.node_id in node_of("Trainable")]
            killed.append(at_work[0])
            kill_raylet(at_work[0])

    monkeypatch.setattr(searcher.Watch, "on_step_begin", kill_one_node)
    outcome = run_sweep(sweep, trials, quiet=True)
    assert killed
    assert (outcome.done + outcome.ended_elsewhere, outcome.failed, outcome.exit_status) == (30, 0, 0)
    assert set(kinds) == {"node_died"}
    rows = results.load_trials(tmp_path)
    assert set(rows["attempts"]) == {1}
    assert len(kinds) == 1
    # A worker outlives its raylet by up to a second: it may have ended its trial before that was tried again.
    assert (rows["retries"].sum(), outcome.ended_elsewhere) in ((1, 0), (0, 1))
    assert_as_if_uninterrupted(tmp_path, trials)


def test_a_trial_whose_ranks_span_nodes(three_nodes, tmp_path, monkeypatch, kinds, assert_as_if_uninterrupted):
    sweep = sweep_of(
        tmp_path,
        backbones=["causal_lm/tiny"],
        n_train=[6],
        lora_rank=[2],
        recipe={"max_steps": 40, "batch_size": 4, "max_new_tokens": 24, "learning_rate": 1e-4},
        placement={"num_workers": 2, "zero_stage": 1, "checkpoint_every_s": 0.1},
    )
    trials, killed = expand(sweep), []
    on_step_begin = searcher.Watch.on_step_begin

    def kill_one_node(self, *arguments, **info):
        on_step_begin(self, *arguments, **info)
        if not killed and list(tmp_path.glob("checkpoints/*/current.json")):
            assert len(set(node_of("RankActor"))) == 2
            at_work = [node for node in list(three_nodes.worker_nodes) if node.node_id in node_of("RankActor")]
            killed.append(at_work[0])
            kill_raylet(at_work[0])

    monkeypatch.setattr(searcher.Watch, "on_step_begin", kill_one_node)
    outcome = run_sweep(sweep, trials, quiet=True)
    assert killed
    assert (outcome.done, outcome.failed, outcome.exit_status) == (1, 0, 0)
    assert set(kinds) == {"node_died"}
    (row,) = results.load_trials(tmp_path).to_dict("records")
    assert (row["attempts"], row["num_workers"]) == (1, 2)
    assert row["retries"] >= 1
    assert row["resumed_from_step"] >= 1
    assert_as_if_uninterrupted(tmp_path, trials, exactly=False)
