"""SIGKILL of the driver while it merges the tables of its sweep."""

import random
import signal

from orchestrator import results

BASE = """
backbones: [baseline/majority]
tasks: [{life: {height: 4, width: 4}}]
seeds: [0, 1, 2, 3]
n_train: [3, 6]
n_test: 4
"""
RUNS = 4
STEPS = 18
"""What a merge of two files in each of two tables changes on the disk: a file written, synced, renamed, its folder
synced, the epoch written, synced, renamed, then two files deleted."""


def test_driver_killed_within_its_compaction(make_sweep):
    """Each run adds a seed, so that there is something to merge, and dies at another step of the merge."""
    sweep = make_sweep(BASE)
    draw = random.Random(1)
    for run in range(RUNS):
        seeds = list(range(run + 1))
        step = draw.randrange(run * STEPS // RUNS, (run + 1) * STEPS // RUNS)
        driver = sweep.run("compact_always", "killed_in_compaction", step=step, arguments=["--set", f"seeds={seeds}"])
        assert driver.process.returncode == -signal.SIGKILL, driver.errors
        (sweep.faults / "died").unlink()
        assert len(sweep.done()) == 2 * len(seeds), "the rows were there before the merge"
    sweep.assert_as_if_uninterrupted()
    again = sweep.run()
    assert again.output.startswith("Nothing to run: 8 trials are done"), again.errors
    results.compact(sweep.results)
    sweep.assert_as_if_uninterrupted()
    assert not [path for path in sweep.results.glob("trials/*.parquet") if not path.name.startswith("compacted-")]
