"""Which rows a changed sweep leaves behind, and which field it was."""

import pandas as pd
import pytest

from orchestrator.specs import SweepSpec, expand
from orchestrator.stale import UNKNOWN_CHANGE, by_change, stale_rows

SWEEP = {
    "name": "s",
    "backbones": ["causal_lm/tiny"],
    "tasks": [{"elementary_ca": {"rule": 110}}],
    "n_train": [3, 10],
    "seeds": [0, 1],
    "n_test": 20,
}


def trials_of(**changes):
    return expand(SweepSpec.model_validate(SWEEP | changes))


def rows_of(trials, **fields):
    rows = [
        {
            "trial_id": trial.trial_id,
            "sweep": "s",
            "state": "done",
            "backbone": trial.backbone,
            "task": trial.task.name,
            "task_params": trial.task.params_json(),
            "seed": trial.seed,
            "n_train": trial.n_train,
            "n_test": trial.n_test,
            "lora_rank": trial.lora_rank,
            "recipe": trial.recipe_json(),
        }
        | fields
        for trial in trials
    ]
    return pd.DataFrame(rows)


def found(before, now, **fields):
    rows = rows_of(before, **fields)
    missing = [trial for trial in now if trial.trial_id not in set(rows["trial_id"])]
    return stale_rows(missing, rows, "s", {trial.trial_id for trial in now})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"recipe": {"learning_rate": 5e-5}}, ("recipe.learning_rate 0.001 -> 5e-05",)),
        ({"n_test": 30}, ("n_test 20 -> 30",)),
        ({"tasks": [{"elementary_ca": {"rule": 90}}]}, ("elementary_ca.rule 110 -> 90",)),
        ({"tasks": [{"elementary_ca": {"rule": 110, "width": 10}}]}, ("elementary_ca.width 16 -> 10",)),
    ],
)
def test_the_field_that_changed_and_how(changes, expected):
    before = trials_of(recipe={"learning_rate": 1e-3})
    now = trials_of(**{"recipe": {"learning_rate": 1e-3}} | changes)
    stale = found(before, now)
    assert len(stale) == 4
    assert by_change(stale) == [(expected, 4, stale[0].trial)]
    backwards = found(now, before)
    assert {len(row.changes) for row in backwards} == {1}


def test_each_row_beside_the_trial_of_its_own_cell():
    stale = found(trials_of(n_test=30), trials_of())
    assert {(row.trial.seed, row.trial.n_train) for row in stale} == {(0, 3), (0, 10), (1, 3), (1, 10)}
    assert {row.trial_id for row in stale} == {trial.trial_id for trial in trials_of(n_test=30)}


def test_rows_of_other_cells_sweeps_or_states_are_not_stale():
    now = trials_of()
    assert not found(trials_of(n_test=30, n_train=[100]), now)
    assert not found(trials_of(n_test=30, seeds=[7]), now)
    assert not found(trials_of(n_test=30), now, sweep="another")
    assert not found(trials_of(n_test=30), now, state="failed")
    assert not found(now, now)


def test_a_row_of_this_sweep_is_not_stale_beside_a_new_value_of_an_axis():
    now = trials_of(axes={"learning_rate": [1e-3, 2e-3]})
    assert not found(trials_of(recipe={"learning_rate": 1e-3}), now)


def test_the_trial_that_differs_least():
    before = trials_of(recipe={"learning_rate": 1e-3, "lora_alpha": 8})
    now = trials_of(recipe={"lora_alpha": 8}, axes={"learning_rate": [2e-3], "weight_decay": [0.0, 0.5]})
    stale = found(before, now)
    assert {row.changes for row in stale} == {("recipe.learning_rate 0.001 -> 0.002",)}


def test_several_rows_of_one_cell_each_say_their_own():
    rows = pd.concat([rows_of(trials_of(n_test=n_test)) for n_test in (30, 40)])
    now = trials_of()
    stale = stale_rows(now, rows, "s", {trial.trial_id for trial in now})
    assert {(changed, count) for changed, count, _ in by_change(stale)} == {
        (("n_test 30 -> 20",), 4),
        (("n_test 40 -> 20",), 4),
    }


def test_equal_fields_and_another_id():
    now = trials_of()
    rows = rows_of(now)
    rows["trial_id"] = [f"{index:016x}" for index in range(len(rows))]
    stale = stale_rows(now, rows, "s", {trial.trial_id for trial in now})
    assert {row.changes for row in stale} == {(UNKNOWN_CHANGE,)}
