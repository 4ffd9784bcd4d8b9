"""Truncated, empty and garbage Parquet files in the results folder, before and while a sweep runs."""

from orchestrator import results

YAML = """
backbones: [baseline/majority]
tasks: [{life: {height: 4, width: 4}}]
seeds: [0, 1, 2, 3, 4]
n_train: [3, 6, 10, 30]
n_test: 4
"""


def damage(path, kind):
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "garbage": b"PAR1" + b"?" * 999}[kind])


def test_what_damage_took_runs_again(make_sweep):
    sweep = make_sweep(YAML)
    first = sweep.run("compact_always", arguments=["--set", "seeds=[0]"])  # one large file
    assert first.process.returncode == 0, first.errors
    sweep.run(arguments=["--set", "seeds=[0, 1]"])  # and small ones
    assert len(sweep.done()) == 8
    rows = sorted(path for path in sweep.results.glob("trials/*.parquet") if not path.name.startswith("compacted-"))
    damaged = dict(zip(["truncated", "empty", "garbage"], rows, strict=False))
    for kind, path in damaged.items():
        damage(path, kind)
    for table in ("trials", "predictions"):
        (sweep.results / table / "stray.parquet").write_bytes(b"not a table at all")

    driver = sweep.start("slow_trials", "compact_always", trial_s=0.5)
    sweep.wait_for_rows(7, driver)
    (sweep.results / "trials" / "later.parquet").write_bytes(b"")
    (sweep.results / "predictions" / "later.parquet").write_bytes(b"PAR1")
    driver.wait()
    assert driver.process.returncode == 0, driver.errors
    assert "Traceback" not in driver.errors
    assert "15 of 20 trials to run" in driver.output, "12 are new, 3 rows were lost"
    for table, lost in {"trials": damaged.values(), "predictions": []}.items():
        aside = {path.name for path in (sweep.results / table / ".damaged").iterdir()}
        expected = {"stray.parquet", "later.parquet"} | {path.name for path in lost}
        assert aside == expected
        for name in expected:
            assert f"{name} is set aside" in driver.errors, "reported"
    sweep.assert_as_if_uninterrupted()


def test_a_row_lost_while_a_sweep_runs_is_made_again_by_the_next_run(make_sweep):
    sweep = make_sweep(YAML)
    driver = sweep.start("slow_trials", trial_s=0.3)
    sweep.wait_for_rows(3, driver)
    lost = sorted(sweep.results.glob("trials/[!.]*.parquet"))[:2]
    for path in lost:
        damage(path, "truncated")
    driver.wait()
    assert driver.process.returncode == 0, driver.errors
    for path in lost:
        assert path.name in driver.errors, "reported"
    assert len(sweep.done()) == 18
    again = sweep.run()
    assert "2 of 20 trials to run" in again.output
    assert again.process.returncode == 0, again.errors
    results.compact(sweep.results)
    sweep.assert_as_if_uninterrupted()
