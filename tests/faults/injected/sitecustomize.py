"""Makes things go wrong inside the processes of a sweep: on their PYTHONPATH, Python imports it at its start.

``SWEEP_FAULTS`` names the functions below that are to act, ``SWEEP_FAULTS_FOLDER`` is a folder through which they hear
from the test and from each other. Each acts on one module, right after somebody imports that.
"""

import errno
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ.get("SWEEP_FAULTS_FOLDER", "."))
MODULES = {}
"""The module that each fault waits for, by the fault's name."""


def acts_on(module):
    def register(fault):
        MODULES[fault.__name__] = module
        return fault

    return register


def number(name, default):
    return float(os.environ.get(f"SWEEP_FAULTS_{name}", default))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def first_to_say(word):
    """Whether no process has said this word before."""
    try:
        (FOLDER / word).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@acts_on("orchestrator.trial")
def slow_trials(trial):
    """Each takes ``SWEEP_FAULTS_TRIAL_S`` longer, until there is a file ``hurry``: so a sweep has a middle."""
    run_trial = trial.run_trial

    def run_slowly(*arguments, **keywords):
        deadline = time.monotonic() + number("TRIAL_S", 0.3)
        while time.monotonic() < deadline and not (FOLDER / "hurry").exists():
            time.sleep(0.02)
        return run_trial(*arguments, **keywords)

    trial.run_trial = run_slowly


@acts_on("orchestrator.sweep.compactor")
def compact_always(compactor):
    """Even a small sweep ends with a compaction."""
    assert compactor.COMPACT_ABOVE > 2
    compactor.COMPACT_ABOVE = 2


@acts_on("orchestrator.results.folder")
def killed_in_compaction(folder):
    """The driver dies at its n-th step, n = ``SWEEP_FAULTS_STEP``, of all that a compaction changes on the disk."""
    left = number("STEP", 0)

    class Dying:
        """A file system on which deleting and moving are such steps."""

        def __init__(self, fs):
            self.fs = fs

        def __getattr__(self, name):
            attribute = getattr(self.fs, name)
            return counted(attribute) if name in ("delete_file", "move") else attribute

    class Local(folder.ResultsFolder):
        local = True

    def counted(function):
        def call(*arguments, **keywords):
            nonlocal left
            compacting = any("compaction" in name for name in callers())
            left -= compacting
            if compacting and left < 0:
                (FOLDER / "died").touch()
                die()
            return function(*arguments, **keywords)

        return call

    def open_folder(uri):
        found = opened(uri)
        return Local(found.uri, Dying(found.fs), found.root)

    opened = folder.open_folder
    folder.open_folder = open_folder
    folder._put_local = counted(folder._put_local)
    folder.os = Replaced(os, replace=counted(os.replace), fsync=counted(os.fsync))


class Replaced:
    """A module with some of its functions replaced, for whoever holds this one."""

    def __init__(self, module, **replaced):
        self.__dict__.update(vars(module) | replaced)


def callers():
    frame = sys._getframe(2)
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


@acts_on("orchestrator.results.folder")
def killed_while_it_writes(folder):
    """A worker dies with a row half written, another one before its row, one when the row is there: once each."""
    put_local = folder._put_local

    def dying_put(directory, name, data):
        table = directory.rpartition("/")[2]
        if "RAY_JOB_ID" not in os.environ and "RAY_RAYLET_PID" not in os.environ:
            return put_local(directory, name, data)  # the driver
        if table == "predictions" and first_to_say("before"):
            die()
        if table == "trials" and first_to_say("between"):
            os.makedirs(directory, exist_ok=True)
            Path(f"{directory}/.{name}.1-1.tmp").write_bytes(bytes(memoryview(data)[: len(data) // 2]))
            die()
        put_local(directory, name, data)
        if table == "trials" and first_to_say("after"):
            die()
        return None

    folder._put_local = dying_put


@acts_on("orchestrator.results.folder")
def full_disk(folder):
    """Nothing can be written to the results folder while there is a file ``full``."""
    put_local = folder._put_local

    def put(directory, name, data):
        if (FOLDER / "full").exists():
            if directory.endswith(("/trials", "/predictions")):
                (FOLDER / "refused").touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{directory}/{name}")
        put_local(directory, name, data)

    folder._put_local = put


@acts_on("orchestrator.trial_queue")
def short_waits(queue):
    """Retries follow each other quickly."""
    queue.FIRST_WAIT_S = 0.05


@acts_on("orchestrator.trial")
def clock_of_yesterday(trial):
    """The clock of this machine is a day behind."""
    import datetime

    day = datetime.timedelta(days=1)

    class Yesterday(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) - day

    now = time.time
    time.time = lambda: now() - day.total_seconds()
    trial.datetime = Yesterday


@acts_on("orchestrator.claims")
def leases_never_end(claims):
    """Of another driver only its process says that it is dead."""
    claims.LEASE_S = 1e9


@acts_on("trainers.backbones.baseline")
def broken_backbone(baseline):
    """No baseline can answer."""

    def answer(self, *arguments):
        raise RuntimeError(f"the weights of layer {time.time_ns()} are not what they should be")

    baseline.Baseline.answer = answer


class AfterImport(importlib.abc.MetaPathFinder):
    """Runs the faults of a module when it has been imported."""

    def __init__(self, faults):
        self.faults = faults

    def find_spec(self, name, path, target=None):
        if name not in self.faults:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        spec.loader = AfterImportLoader(spec.loader, self.faults[name])
        return spec


class AfterImportLoader(importlib.abc.Loader):
    def __init__(self, loader, faults):
        self.loader, self.faults = loader, faults

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        for fault in self.faults:
            fault(module)

    def __getattr__(self, name):
        return getattr(self.loader, name)


chosen = {}
for fault in filter(None, os.environ.get("SWEEP_FAULTS", "").split(",")):
    chosen.setdefault(MODULES[fault], []).append(globals()[fault])
if chosen:
    sys.meta_path.insert(0, AfterImport(chosen))
