"""SIGKILL of workers, at random moments and while they write: the same run tries their trials again."""

import os
import random
import signal
import time

from orchestrator import results

YAML = """
backbones: [baseline/majority]
tasks: [{life: {height: 4, width: 4}}]
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
n_train: [3, 6, 10, 30]
n_test: 8
"""
KILLS = 4


def assert_tried_again(sweep, driver, at_least):
    """No attempt was counted, though at least so many trials were retried."""
    assert driver.process.returncode == 0, driver.errors
    rows = results.load_trials(sweep.results)
    assert set(rows["attempts"]) == {1}, "what the trial is not to blame for"
    assert rows["retries"].sum() >= at_least
    sweep.assert_as_if_uninterrupted()
    assert "Traceback" not in driver.errors


def test_workers_killed_at_random_moments(make_sweep):
    sweep = make_sweep(YAML)
    draw = random.Random(3)
    driver = sweep.start("slow_trials", trial_s=0.5)
    killed = set()
    for kill in range(KILLS):
        sweep.wait_for_rows(1 + 6 * kill, driver)
        time.sleep(draw.uniform(0, 0.5))
        alive = sorted(filter(sweep.is_running, driver.workers()))
        if alive:  # else they are still being replaced
            pid = draw.choice(alive)
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    driver.wait()
    assert len(killed) >= 2
    assert_tried_again(sweep, driver, at_least=1)
    assert results.load_trials(sweep.results)["retries"].sum() <= len(killed)


def test_workers_killed_while_they_write(make_sweep):
    sweep = make_sweep(YAML)
    driver = sweep.run("killed_while_it_writes")
    assert {path.name for path in sweep.faults.iterdir()} == {"before", "between", "after"}
    assert_tried_again(sweep, driver, at_least=2)
    rows = results.load_trials(sweep.results)
    assert rows["retries"].sum() == 2, "a row that was written before its worker died counts"
    assert results.compact(sweep.results)["trials"] > 0
    sweep.assert_as_if_uninterrupted()
