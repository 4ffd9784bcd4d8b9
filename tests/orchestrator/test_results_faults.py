"""Processes that are killed while they write or merge, disks that fill up, clocks that jump, files that are garbage."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator import results
from orchestrator.results import compaction
from orchestrator.results import folder as folders
from orchestrator.tables import TrialState

REPOSITORY = Path(__file__).resolve().parents[2]

COUNTED = """
import os, signal, sys
from orchestrator.results import compaction, folder
left = int(sys.argv[2])
def counted(function):
    def call(*arguments, **keywords):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments, **keywords)
    return call
class Deleting:
    def __init__(self, fs): self.fs = fs
    def __getattr__(self, name):
        attribute = getattr(self.fs, name)
        return counted(attribute) if name in ("delete_file", "move") else attribute
opened = folder.open_folder
class Local(folder.ResultsFolder):
    local = True
folder.open_folder = lambda uri: Local(opened(uri).uri, Deleting(opened(uri).fs), opened(uri).root)
folder.put_bytes = counted(folder.put_bytes)
folder.os.replace = counted(os.replace)
folder.os.fsync = counted(os.fsync)
"""
KILLED_COMPACTION = COUNTED + "compaction.compact(sys.argv[1])"


def run_child(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


def assert_whole(folder, trial_ids, rows_each=2):
    assert sorted(results.load_trials(folder)["trial_id"]) == sorted(trial_ids)
    frame = results.load_predictions(folder)
    assert not frame.duplicated(["trial_id", "problem_id", "attempt"]).any()
    assert frame["trial_id"].value_counts().to_dict() == dict.fromkeys(trial_ids, rows_each)


# fsync, replace and put_bytes once a table, a sync of the folder and five deletions a table, a move of the damaged file
@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 14, 18, 30])
def test_compaction_killed_anywhere_loses_and_doubles_nothing(tmp_path, make_result, predictions, step):
    ids = [f"t{index}" for index in range(5)]
    for trial_id in ids:
        results.write(tmp_path, make_result(trial_id), predictions)
    (tmp_path / "trials" / "bad.parquet").write_bytes(b"garbage")
    status = run_child(KILLED_COMPACTION, tmp_path, step)
    assert status == (0 if step >= 30 else -signal.SIGKILL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            assert_whole(tmp_path, ids)
            results.compact(tmp_path)
    assert [path.name for path in (tmp_path / "trials" / ".damaged").iterdir()] == ["bad.parquet"]


KILLED_WRITE = (
    COUNTED
    + """
from orchestrator import results
from orchestrator.tables import TrialResult, TrialState
results.write(sys.argv[1], TrialResult(trial_id="b", run_id="0" * 16, state=TrialState.DONE, backbone="x", family="x",
    task="life", task_params="{}", seed=0, n_train=3, n_test=2, lora_rank=16, recipe="{}"))
"""
)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_write_that_is_killed_leaves_nothing_that_counts(tmp_path, make_result, step):
    results.write(tmp_path, make_result("a"))
    assert run_child(KILLED_WRITE, tmp_path, step) == -signal.SIGKILL
    assert len(list((tmp_path / "trials").glob(".*.tmp"))) == (step > 0), "half a file, hidden"
    assert results.finished(tmp_path) == {"a"}
    results.write(tmp_path, make_result("b"))
    assert results.finished(tmp_path) == {"a", "b"}


def test_temporary_files_go_by_their_age_among_the_files_and_not_by_the_clock(tmp_path, make_result, monkeypatch):
    results.write(tmp_path, make_result("a"))
    written = next((tmp_path / "trials").glob("*.parquet"))
    old, fresh = tmp_path / "trials" / ".old.tmp", tmp_path / "trials" / ".fresh.tmp"
    years_ago = time.time() - 10 * 365 * 86400  # the clock of who wrote this folder was wrong by years
    for path, age_s in ((written, 0), (old, 2 * 86400), (fresh, 3600)):
        path.touch()
        os.utime(path, (years_ago - age_s, years_ago - age_s))
    results.compact(tmp_path)
    assert not old.exists()
    assert fresh.exists()


def test_a_temporary_file_that_another_removed_is_written_again(tmp_path, make_result, monkeypatch):
    replace, stolen = os.replace, []

    def steal_once(source, target):
        if not stolen:
            stolen.append(source)
            Path(source).unlink()
        replace(source, target)

    monkeypatch.setattr(os, "replace", steal_once)
    results.write(tmp_path, make_result("a"))
    assert stolen
    assert results.finished(tmp_path) == {"a"}


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("table", ["predictions", "losses", "trials"])
def test_a_full_disk_leaves_earlier_rows_and_no_half_file(
    tmp_path, make_result, predictions, losses, monkeypatch, call, table
):
    results.write(tmp_path, make_result("a"), predictions, losses)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name == table)
    real, count = getattr(os, call), ["predictions", "losses", "trials"].index(table)
    calls = iter(range(100))

    def full(*arguments):
        if next(calls) == count:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        results.write(tmp_path, make_result("b"), predictions, losses)
    monkeypatch.undo()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name == table) == before
    assert_whole(tmp_path, ["a"])
    assert len(results.load_losses(tmp_path)) == 3
    results.write(tmp_path, make_result("b"), predictions, losses)
    assert_whole(tmp_path, ["a", "b"])


def _write_with_a_limit(folder, result, rows, queue):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))  # the kernel stops the write half-way
    try:
        results.write(folder, result, rows)
        queue.put("written")
    except OSError as error:
        queue.put(error.errno)


def test_a_write_that_the_kernel_stops_half_way_is_an_os_error(tmp_path, make_result, predictions):
    results.write(tmp_path, make_result("a"), predictions)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_write_with_a_limit, args=(tmp_path, make_result("b"), predictions, queue))
    child.start()
    assert queue.get(timeout=30) == 27, "EFBIG"
    child.join()
    assert not list(tmp_path.rglob("*.tmp"))
    assert_whole(tmp_path, ["a"])


def test_a_disk_that_fills_during_compaction_loses_nothing(tmp_path, make_result, predictions, monkeypatch):
    ids = [f"t{index}" for index in range(5)]
    for trial_id in ids:
        results.write(tmp_path, make_result(trial_id), predictions)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        results.compact(tmp_path)
    monkeypatch.undo()
    assert_whole(tmp_path, ids)
    results.compact(tmp_path)
    assert_whole(tmp_path, ids)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("states", [("done", "failed"), ("done", "done"), ("pruned", "failed"), ("done", "pruned")])
def test_whatever_the_clock_says_one_row_counts_and_done_wins(tmp_path, make_result, predictions, order, states):
    for first in (0, 1):
        folder = tmp_path / str(first)
        rows = [
            make_result("a", state, minute=minute, run_id=f"{index}" * 16)
            for index, (state, minute) in enumerate(zip(states, order, strict=True))
        ]
        for row in rows if first else reversed(rows):
            results.write(folder, row, predictions)
        expected = states[0] if states[0] != states[1] else "done"
        for _ in range(2):
            frame = results.load_trials(folder)
            assert frame["state"].tolist() == [expected]
            assert results.trial_states(folder)["a"].state == TrialState(expected)
            kept = results.load_predictions(folder)
            assert len(kept) == 2
            winner = frame["run_id"].iloc[0]
            assert set(kept["run_id"]) == {winner}
            if states[0] != states[1]:
                assert winner == "0" * 16
            elif order == (0, 0):
                assert winner == "1" * 16, "the same on every machine"
            results.compact(folder)


def test_garbage_in_any_table_is_set_aside_and_the_rest_is_read(tmp_path, make_result, predictions, losses):
    draw = random.Random(0)
    for trial_id in ("a", "b"):
        results.write(tmp_path, make_result(trial_id), predictions, losses)
    bad = []
    for table in ("trials", "predictions", "losses"):
        good = next((tmp_path / table).glob("a-*.parquet")).read_bytes()
        for number, content in enumerate(
            [b"", good[: len(good) // 2], good[:-1], draw.randbytes(500), good[:8] + draw.randbytes(8) + good[16:]]
        ):
            path = tmp_path / table / f"c-{number:016x}.parquet"
            path.write_bytes(content)
            bad.append(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_whole(tmp_path, ["a", "b"])
        moved = results.set_aside_damaged(tmp_path)
    assert sorted(moved) == sorted(str(path.parent / ".damaged" / path.name) for path in bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert results.set_aside_damaged(tmp_path) == []
        assert_whole(tmp_path, ["a", "b"])
        assert len(results.load_losses(tmp_path)) == 6


def test_a_file_that_cannot_be_read_today_is_neither_skipped_nor_set_aside(tmp_path, make_result, monkeypatch):
    results.write(tmp_path, make_result("a"))
    results.write(tmp_path, make_result("b"))
    before = sorted((tmp_path / "trials").iterdir())

    def broken(folder, info):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("orchestrator.results.files._content", broken)
    for call in (results.finished, results.load_trials, results.compact, results.set_aside_damaged):
        with pytest.raises(OSError, match="Input/output"):
            call(tmp_path)
    assert sorted((tmp_path / "trials").iterdir()) == before


def test_a_listing_that_misses_a_merge_is_done_again(tmp_path, make_result, monkeypatch):
    """A folder is listed piece by piece: the merged file came where the listing had been, the small ones went."""
    for trial_id in ("a", "b"):
        results.write(tmp_path, make_result(trial_id))
    everything, calls = folders.ResultsFolder.everything, []

    def torn(self, table):
        found = everything(self, table)
        calls.append(table)
        if len(calls) == 1:
            results.compact(tmp_path)
            return []
        return found

    monkeypatch.setattr(folders.ResultsFolder, "everything", torn)
    assert set(results.load_trials(tmp_path)["trial_id"]) == {"a", "b"}


def _compact_in_a_loop(folder, over):
    while not over.wait(0.3):  # without a pause a reader would list anew for ever
        results.compact(folder)


def _write_many(folder, rows, predictions):
    for row in rows:
        results.write(folder, row, predictions)


def test_readers_notice_neither_writers_nor_compactions_of_other_processes(
    tmp_path, make_result, predictions, monkeypatch
):
    monkeypatch.setattr(compaction, "FAN_IN", 2)  # so that compacted files are merged all the time, too
    context = multiprocessing.get_context("fork")
    over = context.Event()
    rows = [[make_result(f"{writer}{index:03}") for index in range(150)] for writer in "ab"]
    again = [make_result(row.trial_id, "failed") for row in rows[0]]  # and executions that lose
    compacting = [context.Process(target=_compact_in_a_loop, args=(tmp_path, over)) for _ in range(2)]
    writing = [context.Process(target=_write_many, args=(tmp_path, part, predictions)) for part in (*rows, again)]
    for process in (*compacting, *writing):
        process.start()
    seen, states = [], results.TrialStates(tmp_path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            while any(process.is_alive() for process in writing):
                frame = results.load_trials(tmp_path)
                done = set(frame.loc[frame["state"] == "done", "trial_id"])
                kept = results.load_predictions(tmp_path, columns=["trial_id", "problem_id"])
                states.refresh()
                assert frame["trial_id"].is_unique
                assert not kept.duplicated().any()
                assert done <= set(kept["trial_id"])
                assert (kept["trial_id"].value_counts() == 2).all()
                assert done <= {key for key, status in states.statuses.items() if status.state == TrialState.DONE}
                seen.append(done)
    finally:
        over.set()
        for process in (*compacting, *writing):
            process.join(60)
            process.kill()  # or a failure would leave them at it for ever
    assert [process.exitcode for process in (*compacting, *writing)] == [0] * 5
    assert len(seen) > 1
    assert all(one <= other for one, other in pairwise(seen)), "a row that was there stays there"
    assert_whole(tmp_path, [row.trial_id for part in rows for row in part])
    results.compact(tmp_path)
    assert_whole(tmp_path, [row.trial_id for part in rows for row in part])
