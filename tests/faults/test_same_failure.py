"""What fails for every trial stops a sweep early."""

from orchestrator import results

YAML = """
backbones: [baseline/majority]
tasks: [{life: {height: 4, width: 4}}]
seeds: [0, 1, 2, 3, 4, 5, 6, 7]
n_train: [3, 6, 10]
n_test: 4
"""


def test_a_broken_backbone_stops_the_sweep(make_sweep):
    sweep = make_sweep(YAML)
    driver = sweep.run("broken_backbone")
    assert driver.process.returncode == 1
    assert "Traceback" not in driver.errors
    rows = results.load_trials(sweep.results)
    assert set(rows["state"]) == {"failed"}
    assert 5 <= len(rows) < len(sweep.trials) // 2
    (line,) = [line for line in driver.errors.splitlines() if line.startswith("stopped: ")]
    assert "the first 5 trials failed alike" in line
    assert "are not what they should be" in line, "says why"
    assert f"{len(sweep.trials) - len(rows)} trials are missing" in line

    again = sweep.run("compact_always", arguments=["--retry-failed", "all"])
    assert again.process.returncode == 0, again.errors
    attempts = results.load_trials(sweep.results).set_index("trial_id")["attempts"]
    assert set(attempts[rows["trial_id"]]) == {2}
    assert (attempts == 2).sum() == len(rows)
    sweep.assert_as_if_uninterrupted()
