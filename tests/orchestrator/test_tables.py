"""Every column says what it means, and a row can carry what a trial measures."""

from dataclasses import fields

import pytest

from orchestrator.tables import MEANINGS, SCHEMAS, TRIALS, TrialResult, trials_table


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_has_a_meaning_and_every_meaning_a_column(table):
    assert list(MEANINGS[table]) == SCHEMAS[table].names
    assert all(meaning.strip() and "\n" not in meaning for meaning in MEANINGS[table].values())


def test_every_field_of_a_result_is_a_column():
    names = {field.name for field in fields(TrialResult)} - {"metrics", "versions"}
    assert names <= set(TRIALS.names)


def test_a_row_says_how_often_it_was_retried(make_result):
    assert trials_table(make_result("a", retries=3))["retries"].to_pylist() == [3]
    assert trials_table(make_result("a", "pruned"))["state"].to_pylist() == ["pruned"]
