"""The clock is set back by a day between two runs of a sweep."""

import os

from orchestrator import results

YAML = """
backbones: [baseline/majority]
tasks: [{life: {height: 4, width: 4}}]
seeds: [0, 1, 2, 3]
n_train: [3, 6, 10]
n_test: 4
"""
DAY_S = 24 * 3600


def test_rows_of_tomorrow_count_today(make_sweep):
    """The first run leaves files of tomorrow, failures among their rows; the second one's clock is right."""
    sweep = make_sweep(YAML)
    failing = sweep.run("broken_backbone", arguments=["--set", "seeds=[0]"])
    assert failing.process.returncode == 1
    assert len(results.load_trials(sweep.results)) == 3
    first = sweep.run(arguments=["--set", "seeds=[1, 2]"])
    assert first.process.returncode == 0, first.errors
    for path in sweep.results.rglob("*"):
        if path.is_file():
            path_s = path.stat().st_mtime + DAY_S
            os.utime(path, (path_s, path_s))
    assert len(sweep.done()) == 6

    second = sweep.run(
        "clock_of_yesterday", "slow_trials", "compact_always", trial_s=0.1, arguments=["--retry-failed", "all"]
    )
    assert second.process.returncode == 0, second.errors
    assert "Traceback" not in second.errors
    assert "6 of 12 trials to run, 3 of them failed before" in second.output
    rows = results.load_trials(sweep.results).set_index("seed")
    assert rows.loc[[0, 3], "finished_at"].max() < rows.loc[[1, 2], "finished_at"].min(), "the clock did jump"
    assert set(rows.loc[[0], "attempts"]) == {2}
    sweep.assert_as_if_uninterrupted()
    assert sweep.run().output.startswith("Nothing to run: 12 trials are done")
