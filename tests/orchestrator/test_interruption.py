"""A real ``sweep run``, interrupted by Ctrl-C and by SIGKILL, finishes what is missing and no more."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset
import pytest

from orchestrator import results
from orchestrator.specs import expand, load_sweep
from orchestrator.trial import run_trial

REPOSITORY = Path(__file__).resolve().parents[2]
YAML = """
name: interrupted
backbones: [baseline/majority, baseline/oracle]
tasks: [{life: {height: 5, width: 5}}]
seeds: [0, 1, 2, 3]
n_train: [3, 10, 30, 100]
n_test: 60
"""
FEW_ROWS = 3


@pytest.fixture
def sweep_yaml(tmp_path):
    path = tmp_path / "interrupted.yaml"
    path.write_text(f"{YAML}\nresults: {tmp_path / 'results'}\n")
    return path


def start(sweep_yaml, tmp_path):
    """The command in a process group of its own, as a shell starts it."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "run", str(sweep_yaml), "--workers", "2"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(pid):
    """Ids of the processes below ``pid`` that run trials, from /proc. (Ray's two agents may linger for a minute.)"""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            titles[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    found, frontier = set(), {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return {pid for pid in found if "Train" in titles[pid] or "TrialWorker" in titles[pid]}


def wait_for_rows(process, folder, count):
    deadline = time.monotonic() + 180
    while len(list(folder.glob("trials/*.parquet"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_gone(pids):
    deadline = time.monotonic() + 60
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists() and not is_zombie(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ctrl_c_then_sigkill_then_finish(sweep_yaml, tmp_path):
    folder = tmp_path / "results"
    sweep = load_sweep(sweep_yaml)
    trials = expand(sweep)

    process = start(sweep_yaml, tmp_path)
    wait_for_rows(process, folder, FEW_ROWS)
    children = workers_of(process.pid)
    assert len(children) == 2
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: the whole group hears it
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert re.search(r"stopped by SIGINT: \d+ trials done, \d+ missing; .* sweep run ", errors), errors
    assert "Traceback" not in errors
    wait_until_gone(children)
    after_ctrl_c = results.finished(folder)
    assert FEW_ROWS <= len(after_ctrl_c) < len(trials)

    process = start(sweep_yaml, tmp_path)
    wait_for_rows(process, folder, len(after_ctrl_c) + FEW_ROWS)
    children = workers_of(process.pid)
    assert len(children) == 2
    process.kill()
    process.communicate(timeout=60)
    wait_until_gone(children)  # Ray's workers do not outlive the driver that started them
    after_sigkill = results.finished(folder)
    assert after_ctrl_c < after_sigkill
    assert len(after_sigkill) < len(trials)

    process = start(sweep_yaml, tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"{len(trials) - len(after_sigkill)} of {len(trials)} trials to run" in output

    rows = results.load_trials(folder)
    assert sorted(rows["trial_id"]) == sorted(trial.trial_id for trial in trials)
    assert set(rows["state"]) == {"done"}
    raw = pyarrow.dataset.dataset(folder / "trials").to_table(columns=["trial_id"])
    assert raw.num_rows == len(trials), "nothing that was done ran again"
    predictions = results.load_predictions(folder)
    assert len(predictions) == len(trials) * sweep.n_test
    assert not predictions.duplicated(["trial_id", "problem_id", "attempt"]).any()
    assert not list(tmp_path.glob("*ray*"))

    scores = rows.set_index("trial_id")["cell_accuracy"]
    for trial in trials[::5]:
        assert scores[trial.trial_id] == run_trial(trial)[0].metrics["cell_accuracy"], "equal to an uninterrupted run"


def test_nothing_to_run_starts_neither_ray_nor_torch(sweep_yaml, tmp_path):
    for trial in expand(load_sweep(sweep_yaml)):
        result, predictions, losses = run_trial(trial.model_copy(update={"n_test": 1}))
        done = result.__class__(**{**result.__dict__, "trial_id": trial.trial_id})
        results.write(tmp_path / "results", done, predictions, losses)
    code = (
        "import json, sys; from orchestrator.cli import main; status = main(sys.argv[1:]);"
        "print(json.dumps([status, [name for name in ('ray', 'torch', 'pandas') if name in sys.modules]]))"
    )
    command = [sys.executable, "-c", code, "run", str(sweep_yaml)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    lines = finished.stdout.splitlines()
    assert lines[0].startswith("Nothing to run: 17 trials are done")
    assert json.loads(lines[-1]) == [0, []]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_sigterm_stops_as_ctrl_c_does(sweep_yaml, tmp_path):
    """As a batch system ends a job; starting Ray puts a handler of its own in the way."""
    process = start(sweep_yaml, tmp_path)
    wait_for_rows(process, tmp_path / "results", 1)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "stopped by SIGTERM: " in errors
    assert len(results.finished(tmp_path / "results")) >= 1
