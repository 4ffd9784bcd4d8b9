"""Rows are there whole or not at all, once, and survive compaction, garbage and interruption."""

import os
import warnings
from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from orchestrator import results
from orchestrator.tables import TrialState


def test_rows_come_back_as_they_went(tmp_path, make_result, predictions, losses):
    result = make_result("a", sweep="s", train_loss=0.25, metrics={"exact_match": 0.5, "path_success_rate": 0.125})
    results.write(tmp_path, result, predictions, losses)
    row = results.load_trials(tmp_path).iloc[0]
    assert (row["trial_id"], row["state"], row["exact_match"], row["path_success_rate"]) == ("a", "done", 0.5, 0.125)
    assert row["train_loss"] == 0.25
    assert row[["valid_solution", "error", "peak_memory_bytes", "zero_stage"]].isna().all(), "missing is null, never 0"
    frame = results.load_predictions(tmp_path)
    assert frame["predicted"].iloc[0].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert frame["predicted"].iloc[1] is None
    assert frame["exact_match"].tolist() == [True, False]
    assert results.load_losses(tmp_path)["loss"].tolist() == [1, 1 / 2, 1 / 3]
    assert results.load_predictions(tmp_path, columns=["index"]).columns.tolist() == ["index"]
    assert results.load_predictions(tmp_path, trial_ids=["b"]).empty
    assert results.load_trials(tmp_path, trial_ids=["b"]).empty


def test_tables_open_with_plain_parquet_readers(tmp_path, make_result, predictions):
    results.write(tmp_path, make_result("a"), predictions)
    results.write(tmp_path, make_result("b", metrics={"exact_match": 1.0, "own": 2.0}), predictions)
    assert pyarrow.dataset.dataset(tmp_path / "trials").count_rows() == 2
    assert pyarrow.dataset.dataset(tmp_path / "predictions").count_rows() == 4


def test_tasks_with_metrics_of_their_own_share_a_table(tmp_path, make_result):
    results.write(tmp_path, make_result("a", metrics={"exact_match": 1.0, "psr": 0.5}))
    results.write(tmp_path, make_result("b", metrics={"exact_match": 1.0, "rpl": 0.25}))
    rows = results.load_trials(tmp_path).set_index("trial_id")
    assert rows.loc["a", "psr"] == 0.5
    assert rows["psr"].isna().tolist() == rows["rpl"].notna().tolist() == [False, True]


def test_nothing_there_yet(tmp_path):
    assert results.finished(tmp_path / "absent") == set()
    assert results.load_trials(tmp_path / "absent").empty
    assert results.load_predictions(tmp_path / "absent").empty
    assert not (tmp_path / "absent").exists(), "reading makes nothing"


def test_done_beats_failed_and_the_newest_counts(tmp_path, make_result, predictions):
    results.write(tmp_path, make_result("a", minute=1, metrics={"exact_match": 0.1}), predictions)
    results.write(tmp_path, make_result("a", minute=2, metrics={"exact_match": 0.2}), predictions)
    results.write(tmp_path, make_result("a", "failed", minute=3))
    results.write(tmp_path, make_result("b", "failed", minute=1, attempts=1, error_kind="x"))
    results.write(tmp_path, make_result("b", "failed", minute=2, attempts=2, error_kind="y"))
    for _ in range(2):
        assert results.finished(tmp_path) == {"a"}
        rows = results.load_trials(tmp_path).set_index("trial_id")
        assert len(rows) == 2
        assert rows.loc["a", "exact_match"] == 0.2
        assert results.trial_states(tmp_path)["b"] == results.TrialStatus(TrialState.FAILED, 2, "y")
        assert len(results.load_predictions(tmp_path)) == 2, "of the execution that counts, and of no other"
        results.compact(tmp_path)  # and the same again


def test_predictions_without_their_trials_row_do_not_count(tmp_path, make_result, predictions):
    results.write(tmp_path, make_result("a"), predictions)
    for file in (tmp_path / "trials").iterdir():
        file.unlink()
    assert results.load_predictions(tmp_path).empty
    assert results.finished(tmp_path) == set()


@pytest.mark.parametrize("garbage", [b"", b"PAR1", b"not parquet at all", "truncated", "foreign"])
def test_a_file_that_cannot_be_read_is_reported_and_skipped(tmp_path, make_result, garbage):
    results.write(tmp_path, make_result("a"))
    good = next((tmp_path / "trials").iterdir())
    bad = tmp_path / "trials" / "bad.parquet"
    if garbage == "foreign":
        pq.write_table(pyarrow.table({"x": [1]}), bad)
    else:
        bad.write_bytes(good.read_bytes()[:-20] if garbage == "truncated" else garbage)
    with pytest.warns(UserWarning, match=r"bad\.parquet is skipped"):
        assert results.finished(tmp_path) == {"a"}
    results.write(tmp_path, make_result("b"))
    with pytest.warns(UserWarning, match=r"bad\.parquet is skipped"):
        assert set(results.load_trials(tmp_path)["trial_id"]) == {"a", "b"}
    content = bad.read_bytes()
    with pytest.warns(UserWarning, match=r"bad\.parquet is set aside"):
        results.compact(tmp_path)
    assert not bad.exists()
    assert (tmp_path / "trials" / ".damaged" / "bad.parquet").read_bytes() == content, "never thrown away"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert results.finished(tmp_path) == {"a", "b"}
        assert pyarrow.dataset.dataset(tmp_path / "trials").count_rows() == 2


def test_unfinished_and_hidden_files_are_not_there(tmp_path, make_result):
    results.write(tmp_path, make_result("a"))
    (tmp_path / "trials" / ".b-1.parquet.123.tmp").write_bytes(b"half a file")
    (tmp_path / "trials" / ".hidden.parquet").write_bytes(b"half a file")
    assert results.finished(tmp_path) == {"a"}
    assert pyarrow.dataset.dataset(tmp_path / "trials").count_rows() == 1


def test_a_failing_write_leaves_nothing(tmp_path, make_result, predictions, monkeypatch):
    def no_space(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        results.write(tmp_path, make_result("a"), predictions)
    monkeypatch.undo()
    assert list((tmp_path / "predictions").iterdir()) == []
    assert results.finished(tmp_path) == set()


def test_the_row_that_makes_a_trial_count_comes_last(tmp_path, make_result, predictions, losses, monkeypatch):
    written = []
    monkeypatch.setattr(results.folder, "put_bytes", lambda folder, path, name, data: written.append(Path(path).name))
    results.write(tmp_path, make_result("a"), predictions, losses)
    assert written == ["predictions", "losses", "trials"]


def test_compaction_keeps_every_row(tmp_path, make_result, predictions, losses):
    for index in range(20):
        results.write(
            tmp_path,
            make_result(f"t{index}", metrics={"exact_match": index, f"own{index % 3}": 1.0}),
            predictions,
            losses,
        )
    before = [read(tmp_path) for read in (results.load_trials, results.load_predictions, results.load_losses)]
    assert results.compact(tmp_path) == {"trials": 20, "predictions": 20, "losses": 20, "videos": 0}
    assert [len(list((tmp_path / table).glob("[!.]*"))) for table in ("trials", "predictions", "losses")] == [1, 1, 1]
    after = [read(tmp_path) for read in (results.load_trials, results.load_predictions, results.load_losses)]
    for one, other in zip(before, after, strict=True):
        assert len(one) == len(other)
        assert set(one.columns) == set(other.columns)
        assert sorted(one["trial_id"]) == sorted(other["trial_id"])
    assert results.compact(tmp_path)["trials"] == 0, "nothing small is left"
    results.write(tmp_path, make_result("new"), predictions, losses)
    assert len(results.load_trials(tmp_path)) == 21
    assert results.compact(tmp_path, at_least=10)["trials"] == 0


def test_places_that_cannot_be_used_are_one_line(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for place in (file / "results", "/proc/results", "nonsense://bucket/results"):
        with pytest.raises(ValueError, match="results") as caught:
            results.check_writable(place)
        assert "\n" not in str(caught.value)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "trials").write_text("")
    with pytest.raises(ValueError, match=r"results cannot be read: "):
        results.finished(tmp_path / "results")


def test_object_stores_need_no_rename(tmp_path, make_result, predictions, losses, monkeypatch):
    """A file system behind a URI, with nothing but streams: written, read, compacted."""
    (tmp_path / "bucket").mkdir()
    sub_tree = pyarrow.fs.SubTreeFileSystem(str(tmp_path / "bucket"), pyarrow.fs.LocalFileSystem())
    monkeypatch.setattr(results.folder, "open_folder", lambda uri: results.ResultsFolder(str(uri), sub_tree, "study"))
    results.check_writable("s3://bucket/study")
    for table in ("trials", "predictions", "losses"):
        sub_tree.create_dir(f"study/{table}")
    for index in range(3):
        results.write("s3://bucket/study", make_result(f"t{index}"), predictions, losses)
    assert results.compact("s3://bucket/study")["trials"] == 3
    assert results.finished("s3://bucket/study") == {"t0", "t1", "t2"}
    assert len(results.load_predictions("s3://bucket/study")) == 6
