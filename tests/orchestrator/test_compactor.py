"""Small files are merged while a sweep runs."""

import threading

import pytest

from orchestrator import results
from orchestrator.sweep import compactor as module
from orchestrator.sweep.compactor import Compactor


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch):
    monkeypatch.setattr(module, "COMPACT_ABOVE", 5)
    monkeypatch.setattr(module, "COMPACT_EVERY", 10)


def small_files(folder):
    return [path for path in folder.glob("trials/*.parquet") if not path.name.startswith("compacted-")]


def test_files_are_merged_on_the_way_and_at_the_end(tmp_path, make_result):
    with Compactor(str(tmp_path)) as compactor:
        for trial in range(25):
            results.write(tmp_path, make_result(f"{trial:016x}"))
            compactor.row_written()
            if compactor._thread is not None:
                compactor._thread.join()
        assert 0 < len(small_files(tmp_path)) < 10
    assert len(results.load_trials(tmp_path)) == 25
    assert len(small_files(tmp_path)) <= 5


def test_one_compaction_at_a_time(tmp_path, monkeypatch):
    running, most, go = [], [], threading.Event()

    def slow(uri, at_least):
        running.append(1)
        most.append(len(running))
        go.wait(30)
        running.pop()

    monkeypatch.setattr(module.results, "compact", slow)
    with Compactor(str(tmp_path)) as compactor:
        for _ in range(100):
            compactor.row_written()
        go.set()
    assert max(most) == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("cannot be read")])
def test_a_compaction_that_fails_is_a_warning(tmp_path, monkeypatch, error):
    def fail(uri, at_least):
        raise error

    monkeypatch.setattr(module.results, "compact", fail)
    with pytest.warns(UserWarning, match="is not compacted: "), Compactor(str(tmp_path)):
        pass
