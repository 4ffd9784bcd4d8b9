"""The tables are plain Parquet: whatever else reads Parquet gives the rows and values that were written."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet
import pytest

from orchestrator import results
from orchestrator.tables import TRIALS, TrialResult, TrialState
from trainers.evaluate import Prediction

QUESTION = np.array([[0, 1, 2], [-3, 4, 127]], dtype=np.int8)
ANSWER = QUESTION[::-1]
OF_OTHER_SIZE = np.array([[5, 5]], dtype=np.int8)
NOT_INSTALLED = "not installed: pip install duckdb polars datasets"


def trial(number, state=TrialState.DONE, **fields):
    return TrialResult(
        trial_id=f"{number:016x}",
        run_id=f"{number + 100:016x}",
        state=state,
        backbone="cogvideox/tiny",
        family="video",
        task="life",
        task_params='{"height":2}',
        seed=number,
        n_train=3,
        n_test=3,
        lora_rank=4,
        recipe="{}",
        started_at=datetime(2026, 1, 1, 12, number, tzinfo=UTC),
        **fields,
    )


def predictions(**further_scores):
    """Right, of another size, unreadable."""
    return [
        Prediction(
            problem_id=f"life/{index}",
            index=index,
            attempt=0,
            parsed=grid is not None,
            question=QUESTION,
            answer=ANSWER,
            predicted=grid,
            scores={"exact_match": index == 0, "cell_accuracy": float(index == 0), **further_scores},
        )
        for index, grid in enumerate([ANSWER, OF_OTHER_SIZE, None])
    ]


def write_trials(folder, numbers):
    """One in three failed; of the others every other has scores and times that the rest lack."""
    for number in numbers:
        if number % 3 == 2:
            failed = trial(number, TrialState.FAILED, error_kind="timeout", error="Traceback\nTimeoutError: 'late'")
            results.write(folder, failed)
        elif number % 2:
            scores = {"exact_match": 1 / 3, "valid_solution": 1.0}
            measured = trial(number, metrics=scores, train_s=1.5, num_trainable_params=2**40, zero_stage=2)
            results.write(folder, measured, predictions(valid_solution=True))
        else:
            results.write(folder, trial(number, metrics={"exact_match": 1 / 3}), predictions())


@pytest.fixture(scope="module", params=["small files", "compacted", "compacted and small files"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_trials(folder, range(7))
    if request.param != "small files":
        results.compact(folder)
    if request.param == "compacted and small files":
        write_trials(folder, range(7, 10))
    return folder


def from_pandas(folder, table, cache):
    return pd.read_parquet(folder / table).to_dict("records")


def from_pyarrow(folder, table, cache):
    return pyarrow.dataset.dataset(folder / table).to_table().to_pylist()


def from_duckdb(folder, table, cache):
    duckdb = pytest.importorskip("duckdb", reason=NOT_INSTALLED)
    return duckdb.sql(f"SELECT * FROM '{folder}/{table}/*.parquet'").df().to_dict("records")


def from_polars(folder, table, cache):
    polars = pytest.importorskip("polars", reason=NOT_INSTALLED)
    return polars.read_parquet(f"{folder}/{table}/*.parquet").to_dicts()


def from_datasets(folder, table, cache):
    datasets = pytest.importorskip("datasets", reason=NOT_INSTALLED)
    files = f"{folder}/{table}/*.parquet"
    return list(datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache)))


READERS = [from_pandas, from_pyarrow, from_duckdb, from_polars, from_datasets]


def plain(value):
    """None for what any library calls missing, lists for its arrays; enough to compare values."""
    if isinstance(value, np.ndarray | list):
        return [plain(item) for item in value]
    return None if value is None or value is pd.NaT or value is pd.NA or value != value else value


def by_key(rows, *names):
    return {tuple(row[name] for name in names): {name: plain(value) for name, value in row.items()} for row in rows}


@pytest.mark.parametrize("read", READERS)
def test_trials_read_elsewhere_are_those_that_were_written(read, folder, tmp_path):
    rows = by_key(read(folder, "trials", tmp_path), "trial_id")
    expected = by_key(results.load_trials(folder).to_dict("records"), "trial_id")
    assert len(expected) >= 7
    assert any(row["state"] == "failed" for row in expected.values())
    assert rows == expected


@pytest.mark.parametrize("read", READERS)
def test_predictions_read_elsewhere_are_those_that_were_written(read, folder, tmp_path):
    listed = read(folder, "predictions", tmp_path)
    rows = by_key(listed, "trial_id", "index")
    assert len(listed) == len(rows)
    assert {trial_id for trial_id, _ in rows} == set(results.load_predictions(folder)["trial_id"])
    written = predictions()
    for (trial_id, index), row in rows.items():
        prediction = written[index]
        assert row["question"] == prediction.question.tolist()
        assert row["answer"] == prediction.answer.tolist()
        assert row["predicted"] == (None if prediction.predicted is None else prediction.predicted.tolist())
        assert row["parsed"] == prediction.parsed
        assert row["exact_match"] == prediction.scores["exact_match"]
        assert row["valid_solution"] == (True if int(trial_id, 16) % 2 else None)


def test_every_file_of_a_table_has_the_same_columns(folder):
    for table in ("trials", "predictions"):
        schemas = [pyarrow.parquet.read_schema(path) for path in (folder / table).glob("*.parquet")]
        assert all(schema.names == schemas[0].names and schema.types == schemas[0].types for schema in schemas)


# --- files that differ: a task of one's own brings a score, or another version wrote some of the files


@pytest.fixture
def differing(tmp_path):
    """Four trials: of the second an own score, of the third a column is lacking."""
    folder = tmp_path / "results"
    write_trials(folder, [0])
    results.write(folder, trial(1, metrics={"exact_match": 1 / 3, "own": 0.5}), predictions(own=0.5))
    write_trials(folder, [3, 4])
    path = next((folder / "trials").glob(f"{3:016x}-*"))
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(["valid_solution"]), path)
    return folder


OWN = {f"{number:016x}": 0.5 if number == 1 else None for number in (0, 1, 3, 4)}


@pytest.mark.parametrize("read", READERS)
def test_compacted_files_that_differed_read_like_any_other(read, differing, tmp_path):
    results.compact(differing)
    rows = read(differing, "trials", tmp_path)
    assert {row["trial_id"]: plain(row["own"]) for row in rows} == OWN
    assert set(rows[0]) == {*TRIALS.names, "own"}
    assert sum(plain(row["own"]) == 0.5 for row in read(differing, "predictions", tmp_path)) == 3


def test_duckdb_unites_files_that_differ(differing):
    duckdb = pytest.importorskip("duckdb", reason=NOT_INSTALLED)
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{differing}/trials/*.parquet', union_by_name = true)").df()
    assert {row["trial_id"]: plain(row["own"]) for row in rows.to_dict("records")} == OWN


def test_polars_unites_files_that_differ(differing):
    polars = pytest.importorskip("polars", reason=NOT_INSTALLED)
    files = sorted((differing / "trials").glob("*.parquet"))
    rows = polars.concat([polars.read_parquet(file) for file in files], how="diagonal")
    assert {row["trial_id"]: row["own"] for row in rows.to_dicts()} == OWN


def test_polars_reads_the_common_columns_of_files_that_differ(differing):
    polars = pytest.importorskip("polars", reason=NOT_INSTALLED)
    files = f"{differing}/trials/*.parquet"
    rows = polars.scan_parquet(files, missing_columns="insert", extra_columns="ignore").collect()
    assert set(rows["trial_id"]) == set(OWN)
    assert "own" not in rows.columns


def test_datasets_takes_our_own_reading_of_files_that_differ(differing):
    datasets = pytest.importorskip("datasets", reason=NOT_INSTALLED)
    rows = datasets.Dataset.from_pandas(results.load_trials(differing))
    assert {row["trial_id"]: row["own"] for row in rows} == OWN
