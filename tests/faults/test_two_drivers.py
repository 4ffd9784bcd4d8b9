"""Two runs of the same YAML at once share its trials; one of them dies, and the other takes over."""

from orchestrator import results

YAML = """
backbones: [baseline/majority]
tasks: [{life: {height: 4, width: 4}}]
seeds: [0, 1, 2, 3, 4, 5, 6, 7]
n_train: [3, 6, 10, 30]
n_test: 4
"""


def assert_shared(sweep, drivers, killed=()):
    for driver in drivers:
        assert driver.process.returncode == 0, driver.errors
        assert "Traceback" not in driver.errors
    written = [trial_id for trial_id, _, _ in sweep.raw_rows()]
    assert len(written) == len(set(written)) == len(sweep.trials), "no row was written twice"
    assert set(results.load_trials(sweep.results)["attempts"]) == {1}
    sweep.assert_as_if_uninterrupted()
    held = [path.name for path in (sweep.results / "claims").iterdir()]
    dead = [name for name in held if any(f"-{driver.process.pid}-" in name for driver in killed)]
    assert held == dead, "given back; what is dead stays a while, as its workers may outlive it, and holds nothing"


def test_started_together(make_sweep):
    sweep = make_sweep(YAML)
    drivers = [sweep.start("slow_trials", "leases_never_end", workers=1, trial_s=0.5) for _ in range(2)]
    for driver in drivers:
        driver.wait()
    assert_shared(sweep, drivers)


def test_one_started_half_way_and_the_other_killed(make_sweep):
    sweep = make_sweep(YAML)
    first = sweep.start("slow_trials", "leases_never_end", workers=1, trial_s=3)
    sweep.wait_for_rows(2, first)
    second = sweep.start("slow_trials", "leases_never_end", workers=1, trial_s=3)
    sweep.wait_until(lambda: second.workers() or second.has_ended(), "the second one's worker")
    sweep.wait_for_rows(sweep.rows() + 3, first, second)
    first.kill()
    (sweep.faults / "hurry").touch()
    assert len(sweep.done()) < len(sweep.trials), "there is something to take over"
    second.wait()  # with leases that never end: it sees that the first one's process is dead
    assert_shared(sweep, [second], killed=[first])
