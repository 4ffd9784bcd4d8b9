"""Filters read less and find the same, compaction ends, and what is known is not read again."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import results
from orchestrator.results import compaction, files, frames, states
from orchestrator.tables import GRID, TRIALS, TrialState, trials_table

SIXTEEN = "0123456789abcdef"


@pytest.fixture
def forty(tmp_path, make_result, predictions, losses):
    ids = [f"t{index:02}" for index in range(40)]
    for number, trial_id in enumerate(reversed(ids)):
        result = make_result(trial_id, n_train=number, run_id=f"{number:016x}", metrics={"exact_match": number / 40})
        results.write(tmp_path, result, predictions, losses)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch):
    """Rows that were decoded, by table, since the last ``clear``."""
    counts = {}
    normalized = files._normalized

    def counting(table, content):
        counts[table] = counts.get(table, 0) + content.num_rows
        return normalized(table, content)

    monkeypatch.setattr(files, "_normalized", counting)
    return counts


@pytest.mark.parametrize("compacted", [False, True])
def test_filters_find_what_pandas_finds_and_read_less(forty, parsed, monkeypatch, compacted):
    monkeypatch.setattr(files, "ROWS_PER_GROUP", 4)
    if compacted:
        results.compact(forty)
        assert len(list((forty / "predictions").glob("*.parquet"))) == 1
    some = ["t31", "t07", "absent"]
    whole = results.load_predictions(forty)
    for ids in (some, set(some), pd.Series(some), iter(some), np.array(some)):
        parsed.clear()
        frame = results.load_predictions(forty, trial_ids=ids)
        assert parsed["predictions"] <= (8 if compacted else 4), "not all 80"
        expected = whole[whole["trial_id"].isin(some)].reset_index(drop=True)
        pd.testing.assert_frame_equal(frame.drop(columns="predicted"), expected.drop(columns="predicted"))
    flat = results.load_predictions(forty, columns=["exact_match", "trial_id"], trial_ids=some)
    assert flat.columns.tolist() == ["exact_match", "trial_id"]
    assert flat["trial_id"].tolist() == ["t07", "t07", "t31", "t31"]
    assert results.load_losses(forty, columns=["loss"], trial_ids=["t07"])["loss"].tolist() == [1, 1 / 2, 1 / 3]
    assert results.load_trials(forty, columns=["n_train"], trial_ids=some)["n_train"].tolist() == [32, 8]
    assert results.load_trials(forty, trial_ids=[]).empty


def test_frames_are_the_same_before_and_after_compaction(forty):
    def tables():
        for read in (results.load_trials, results.load_predictions, results.load_losses):
            frame = read(forty)
            yield frame.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)

    before = list(tables())
    results.compact(forty)
    for one, other in zip(before, tables(), strict=True):
        pd.testing.assert_frame_equal(one, other)
        assert one["trial_id"].is_monotonic_increasing


def test_equal_rows_are_compacted_to_equal_files(tmp_path, make_result, predictions):
    rows = [make_result(f"t{index}", run_id=f"{index:016x}") for index in range(9)]
    contents = []
    for name, order in (("one", rows), ("other", rows[::-1])):
        for row in order:
            results.write(tmp_path / name, row, predictions)
        results.compact(tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.parquet")})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_columns_and_ids_that_cannot_be_are_one_line(forty):
    with pytest.raises(ValueError, match="trials has no 'exactmatch'"):
        results.load_trials(forty, columns=["trial_id", "exactmatch"])
    with pytest.raises(ValueError, match="losses has no 'question'"):
        results.load_losses(forty, columns=["question"])
    with pytest.raises(ValueError, match="trial_ids: expected several ids"):
        results.load_predictions(forty, trial_ids="t07")


def test_rows_of_older_versions_lack_columns_and_read_as_missing(tmp_path, make_result):
    results.write(tmp_path, make_result("new", retries=2))
    old = trials_table(make_result("old")).drop_columns(["retries"])
    pq.write_table(old, tmp_path / "trials" / f"old-{SIXTEEN}.parquet")
    for _ in range(2):
        retries = results.load_trials(tmp_path).set_index("trial_id")["retries"]
        assert retries["new"] == 2
        assert pd.isna(retries["old"])
        results.compact(tmp_path)


def test_columns_of_other_types_are_converted_or_damage(tmp_path, make_result):
    table = trials_table(make_result("a"))
    seed = TRIALS.get_field_index("seed")
    fine = table.set_column(seed, "seed", table["seed"].cast(pa.int16()))
    text = table.set_column(seed, "seed", pa.array(["seven"]))
    (tmp_path / "trials").mkdir()
    pq.write_table(fine, tmp_path / "trials" / "fine.parquet")
    pq.write_table(text, tmp_path / "trials" / "text.parquet")
    with pytest.warns(UserWarning, match=r"text\.parquet is skipped: .*seven"):
        assert results.load_trials(tmp_path)["seed"].tolist() == [0]


def test_compaction_again_and_again_leaves_few_files_and_full_ones_alone(tmp_path, make_result, monkeypatch):
    monkeypatch.setattr(compaction, "FULL_BYTES", 3000)
    written, most, full = 0, 0, {}
    for _ in range(9):
        for _ in range(3):
            results.write(tmp_path, make_result(f"t{written:03}"))
            written += 1
        results.compact(tmp_path)
        here = list((tmp_path / "trials").glob("*.parquet"))
        for path, inode in full.items():
            assert path.stat().st_ino == inode, "a full file is not written again"
        full = {path: path.stat().st_ino for path in here if path.name.startswith(f"compacted-{compaction.TIERS}")}
        most = max(most, len(here) - len(full))
        assert len(results.load_trials(tmp_path, columns=["trial_id"])) == written
    assert full
    assert most < compaction.FAN_IN * compaction.TIERS


def test_trial_states_read_only_what_is_new(tmp_path, make_result, parsed):
    known = results.TrialStates(tmp_path)
    assert known.refresh() == set()
    results.write(tmp_path, make_result("a", "failed", error_kind="timeout"))
    results.write(tmp_path, make_result("b"))
    assert known.refresh() == {"a", "b"}
    assert known.status("a") == results.TrialStatus(TrialState.FAILED, 1, "timeout")
    assert known.status("c") is None
    parsed.clear()
    assert known.refresh() == set()
    assert parsed == {}
    results.write(tmp_path, make_result("a", attempts=2))
    assert known.refresh() == {"a"}
    assert parsed == {"trials": 1}
    results.compact(tmp_path)
    assert known.refresh() == set(), "the same rows in another file"
    assert known.statuses == results.trial_states(tmp_path)
    assert known.statuses["a"] == results.TrialStatus(TrialState.DONE, 2, None)
    for path in (tmp_path / "trials").iterdir():
        path.unlink()
    assert known.refresh() == {"a", "b"}, "whoever removes rows wants them run again"
    assert known.statuses == {}


def test_trial_states_report_a_damaged_file_once_or_set_it_aside(tmp_path, make_result, recwarn):
    results.write(tmp_path, make_result("a"))
    bad = tmp_path / "trials" / "bad.parquet"
    bad.write_bytes(b"garbage")
    known = results.TrialStates(tmp_path)
    for _ in range(3):
        known.refresh()
    assert [str(warning.message).count("bad.parquet is skipped") for warning in recwarn] == [1]
    bad.write_bytes(b"other garbage")
    other = results.TrialStates(tmp_path, set_aside_damaged=True)
    other.refresh()
    assert not bad.exists()
    assert set(other.statuses) == {"a"}


def test_the_ending_of_a_run_is_found_wherever_its_row_is(tmp_path, make_result):
    failed = make_result("a", "failed", error_kind="timeout", error="first\nlast")
    results.write(tmp_path, failed)
    results.write(tmp_path, make_result("b"))
    for _ in range(2):
        assert results.ending_of_run(tmp_path, "a", failed.run_id) == (TrialState.FAILED, "timeout: last")
        assert results.ending_of_run(tmp_path, "a", "other") is None
        results.compact(tmp_path)


def test_grids_of_any_shape_are_arrays_that_cannot_be_written(tmp_path):
    values = [[[1, 2], [3, 4]], None, [[5, 6, 7]], [[8, 9, 1]], [], [[1], [2]], None]
    column = pa.chunked_array([pa.array(values[:3], GRID), pa.array([], GRID), pa.array(values[3:], GRID).slice(0)])
    for chunks, expected in ((column, values), (column.slice(1, 4), values[1:5])):
        found = frames.grids(chunks)
        assert [None if grid is None else grid.tolist() for grid in found] == expected
        assert all(grid.dtype == np.int8 and grid.ndim == 2 for grid in found if grid is not None)
        assert not any(grid.flags.writeable for grid in found if grid is not None and grid.size)
    ragged = frames.grids(pa.chunked_array([pa.array([[[1, 2], [3]], [[4]]], GRID)]))
    assert ragged.tolist() == [[[1, 2], [3]], [[4]]]


def test_ranks_order_states_before_times():
    ranks = [states.RANK[state] for state in (TrialState.FAILED, TrialState.PRUNED, TrialState.DONE)]
    assert ranks == sorted(ranks)
    assert set(states.RANK) == set(TrialState)
