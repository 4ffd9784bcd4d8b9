"""A disk that fills up while a sweep runs: what cannot be written is tried again, what is there stays."""

from orchestrator import results

YAML = """
backbones: [baseline/majority]
tasks: [{life: {height: 4, width: 4}}]
seeds: [0, 1, 2, 3, 4, 5]
n_train: [3, 6, 10]
n_test: 4
"""


def test_room_returns_in_the_same_run(make_sweep):
    sweep = make_sweep(YAML)
    driver = sweep.start("slow_trials", "full_disk", trial_s=0.4)
    sweep.wait_for_rows(3, driver)
    (sweep.faults / "full").touch()
    sweep.wait_until((sweep.faults / "refused").exists, "a row that finds no room")
    rows = sweep.rows()
    (sweep.faults / "full").unlink()
    driver.wait()
    assert driver.process.returncode == 0, driver.errors
    assert "Traceback" not in driver.errors + driver.output
    assert rows < len(sweep.trials)
    table = results.load_trials(sweep.results)
    assert set(table["attempts"]) == {1}
    assert table["retries"].sum() >= 1
    assert "file_system" in driver.output, "says why trials wait"
    sweep.assert_as_if_uninterrupted()


def test_room_never_returns(make_sweep):
    sweep = make_sweep(YAML)
    driver = sweep.start("slow_trials", "full_disk", "short_waits", trial_s=0.1)
    sweep.wait_for_rows(3, driver)
    (sweep.faults / "full").touch()
    before = sweep.raw_rows()
    assert driver.wait() == 1, driver.errors
    assert "Traceback" not in driver.errors + driver.output
    assert f"trials failed, see: sweep status {sweep.yaml}" in driver.errors
    assert set(before) <= set(sweep.raw_rows()), "earlier rows are as they were"
    done = sweep.done()
    assert 3 <= len(done) < len(sweep.trials)
    (sweep.faults / "full").unlink()
    again = sweep.run()
    assert again.process.returncode == 0, again.errors
    assert f"{len(sweep.trials) - len(done)} of {len(sweep.trials)} trials to run" in again.output
    sweep.assert_as_if_uninterrupted()
