"""What the tests with injected faults share: whole sweeps in processes of their own, and what must hold afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest

from orchestrator import results
from orchestrator.backbone_cache import BackboneCache
from orchestrator.specs import expand, load_sweep
from orchestrator.trial import run_trial

REPOSITORY = Path(__file__).resolve().parents[2]
INJECTED = Path(__file__).parent / "injected"
PATIENCE_S = 240
"""Longest wait for anything; far above what it takes, for machines that are busy."""
OF_ONE_EXECUTION = [
    *("run_id", "sweep", "started_at", "finished_at", "attempts", "retries", "resumed_from_step", "load_s", "encode_s"),
    *("train_s", "eval_s", "peak_memory_bytes", "samples_per_s", "num_workers", "zero_stage", "micro_batch_size"),
    *("eval_batch_size", "code_version"),
]
"""Columns that say how a trial was run; all others say what came out."""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


def is_running(pid):
    """Whether the process is there and has not ended (what ended and nobody asked about is a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(happened, what):
    """Poll until ``happened()`` is true, and return that."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := happened()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)
    return answer


def raw_rows(folder):
    """(``trial_id``, ``run_id``, ``state``) of every row in every file of ``trials``; without our own readers."""
    found = []
    for path in folder.glob("trials/[!.]*.parquet"):
        table = pyarrow.parquet.read_table(path, columns=["trial_id", "run_id", "state"])
        found += [tuple(row.values()) for row in table.to_pylist()]
    return found


class Driver:
    """A running ``sweep run``, in a process group of its own."""

    def __init__(self, command, environment, folder):
        self.folder = folder
        count = len(list(folder.glob("driver-*.out")))
        self._outputs = [(folder / f"driver-{count}.out").open("w+"), (folder / f"driver-{count}.err").open("w+")]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=self._outputs[0],
            stderr=self._outputs[1],
            start_new_session=True,
        )

    @property
    def output(self):
        return Path(self._outputs[0].name).read_text()

    @property
    def errors(self):
        return Path(self._outputs[1].name).read_text()

    def has_ended(self):
        return self.process.poll() is not None

    def wait(self):
        """The exit status."""
        return self.process.wait(PATIENCE_S)

    def workers(self):
        """Ids of its processes that run trials. (Ray's two agents may linger for a minute after a kill.)"""
        parents, titles = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                titles[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
        found, frontier = set(), {self.process.pid}
        while frontier:
            frontier = {child for child, parent in parents.items() if parent in frontier} - found
            found |= frontier
        return {pid for pid in found if "Train" in titles[pid] or "RankActor" in titles[pid]}

    def kill(self):
        """SIGKILL of the driver alone; returns once its workers are gone, the driver itself still a zombie."""
        workers = self.workers()
        self.process.kill()
        wait_until(lambda: not any(map(is_running, [*workers, self.process.pid])), "the dead driver's workers to end")


class FaultySweep:
    """A sweep that is run again and again, in processes of its own, with faults injected."""

    wait_until, is_running = staticmethod(wait_until), staticmethod(is_running)

    def __init__(self, folder, yaml, check):
        self._check = check
        self.folder, self.results = folder, folder / "results"
        self.yaml = folder / "faulty.yaml"
        self.yaml.write_text(f"name: faulty\n{yaml}\nresults: {self.results}\n")
        self.trials = expand(load_sweep(self.yaml))
        self.faults = folder / "faults"
        self.faults.mkdir()
        self.drivers = []
        self._states = results.TrialStates(self.results)

    def start(self, *faults, workers=2, arguments=(), **numbers):
        """``sweep run`` with these faults of ``injected/sitecustomize.py`` and their numbers."""
        environment = os.environ | {
            "PYTHONPATH": f"{INJECTED}{os.pathsep}{REPOSITORY}",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",
            "SWEEP_FAULTS": ",".join(faults),
            "SWEEP_FAULTS_FOLDER": str(self.faults),
        }
        environment |= {f"SWEEP_FAULTS_{name.upper()}": str(value) for name, value in numbers.items()}
        environment.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-m", "orchestrator.cli", "run", str(self.yaml), "--workers", str(workers)]
        driver = Driver([*command, *arguments], environment, self.folder)
        self.drivers.append(driver)
        return driver

    def run(self, *faults, **options):
        """``start``, then wait for its end."""
        driver = self.start(*faults, **options)
        driver.wait()
        return driver

    def rows(self):
        """How many trials have a row."""
        self._states.refresh()
        return len(self._states.statuses)

    def wait_for_rows(self, count, *drivers):
        wait_until(lambda: self.rows() >= count or all(driver.has_ended() for driver in drivers), f"{count} rows")
        assert self.rows() >= count, [driver.errors for driver in drivers]

    def raw_rows(self):
        return raw_rows(self.results)

    def done(self):
        return results.finished(self.results)

    def end_all(self):
        for driver in self.drivers:
            if not driver.has_ended():
                os.killpg(driver.process.pid, signal.SIGKILL)
                driver.process.wait()

    def assert_as_if_uninterrupted(self):
        """Of all its trials, see the fixture of this name."""
        self._check(self.results, self.trials)


@pytest.fixture
def assert_as_if_uninterrupted(reference):
    """Asserts: one ``done`` row a trial, no trial done twice, and all numbers those of a run that nothing disturbed."""

    def check(folder, trials, *, exactly=True):
        ids = sorted(trial.trial_id for trial in trials)
        rows = results.load_trials(folder)
        assert rows["trial_id"].tolist() == ids
        assert set(rows["state"]) == {"done"}
        executions = {(trial_id, run_id) for trial_id, run_id, state in raw_rows(folder) if state == "done"}
        ran_twice = {trial_id: n for trial_id, n in Counter(trial_id for trial_id, _ in executions).items() if n > 1}
        assert ran_twice == {}, "what had a done row ran again"
        undisturbed = reference(trials)
        for load, key in [
            (results.load_trials, ["trial_id"]),
            (results.load_predictions, ["trial_id", "index", "attempt"]),
            (results.load_losses, ["trial_id", "step"]),
        ]:
            found, expected = load(folder), load(undisturbed, trial_ids=ids)
            assert not found.duplicated(key).any()
            frames = [
                frame.drop(columns=OF_ONE_EXECUTION, errors="ignore").sort_values(key, ignore_index=True)
                for frame in (found, expected)
            ]
            pd.testing.assert_frame_equal(*frames, check_exact=exactly, rtol=1e-3, check_dtype=False)

    return check


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Runs trials in this process, one after the other, unless it has already; gives the folder with their rows."""
    folder, cache = tmp_path_factory.mktemp("undisturbed"), BackboneCache()

    def run(trials):
        done = results.finished(folder)
        for trial in trials:
            if trial.trial_id not in done:
                placement = trial.placement.model_copy(update={"num_workers": 1, "zero_stage": None})
                alone = trial.model_copy(update={"placement": placement})
                results.write(folder, *run_trial(alone, backbone_cache=cache, results_uri=str(folder)))
        return folder

    return run


@pytest.fixture
def make_sweep(tmp_path, assert_as_if_uninterrupted):
    """Makes a ``FaultySweep`` of the text of a YAML; whatever of it still runs ends with the test."""
    made = []

    def make(yaml):
        made.append(FaultySweep(tmp_path, yaml, assert_as_if_uninterrupted))
        return made[-1]

    yield make
    for sweep in made:
        sweep.end_all()
