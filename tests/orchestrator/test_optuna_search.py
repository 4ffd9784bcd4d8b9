"""Searches over recipes: what is proposed, told and run again. A toy score plays the trials; Ray runs a few."""

import json
import math
import os
import random
from pathlib import Path

import pytest
import ray

from orchestrator import results
from orchestrator.search_findings import best_points
from orchestrator.search_plan import check_search, num_trials, planned_trials, studies
from orchestrator.specs import SweepSpec, expand
from orchestrator.sweep import cluster
from orchestrator.sweep import run as run_sweep
from orchestrator.sweep.optuna_search import OptunaTrials
from orchestrator.sweep.search import source_of
from orchestrator.tables import TrialState
from orchestrator.trial_queue import TrialQueue

DONE, FAILED, PRUNED = TrialState.DONE, TrialState.FAILED, TrialState.PRUNED
RATES = {"low": 1e-5, "high": 1e-1, "log": True}
BEST_RATE = 3e-4


def sweep_of(folder="results", space=None, backbones=("causal_lm/tiny",), **search):
    optuna = {"space": space or {"learning_rate": RATES}, "num_samples": 12} | search.pop("optuna", {})
    defaults = {
        "name": "t",
        "backbones": backbones,
        "tasks": ["life"],
        "n_train": [3],
        "lora_rank": [4],
        "n_test": 4,
        "results": str(folder),
    }
    return SweepSpec.model_validate(defaults | search | {"search": {"optuna": optuna}})


def toy_score(trial):
    """Best at ``BEST_RATE``, a little better with a larger rank, and not the same for every seed."""
    off = math.log10(trial.recipe.learning_rate / BEST_RATE)
    wobble = random.Random(trial.trial_id).uniform(-0.02, 0.02)
    return math.exp(-2 * off**2) + 0.02 * math.log2(max(1, trial.lora_rank)) + wobble


def play(source, score=toy_score, limit=None, rows=None):
    """Run a source's trials one after the other; the trials that ran. ``rows`` are what the tables know, by id."""
    rows = {} if rows is None else rows
    ran, waiting = [], list(source.ready())
    while waiting and (limit is None or len(ran) < limit):
        trial = waiting.pop(0)
        if trial.trial_id not in rows:
            ran.append(trial)
            value = score(trial)
            rows[trial.trial_id] = (trial, *(value if isinstance(value, tuple) else (DONE, {"exact_match": value})))
        source.ended(trial, *rows[trial.trial_id][1:])
        waiting += source.ready()
    return ran


def as_rows(rows):
    return [
        {
            "trial_id": trial_id,
            "backbone": trial.backbone,
            "task": trial.task.name,
            "task_params": trial.task.params_json(),
            "seed": trial.seed,
            "n_train": trial.n_train,
            "n_test": trial.n_test,
            "lora_rank": trial.lora_rank,
            "recipe": trial.recipe_json(),
            "started_at": f"{place:06}",
        }
        for place, (trial_id, (trial, _, _)) in enumerate(rows.items())
    ]


def search_of(sweep, rows=None):
    return OptunaTrials(expand(sweep), sweep.search.optuna, as_rows(rows or {}))


def values_of(study):
    return [trial.value for trial in study.trials if trial.value is not None]


def points_of(trials):
    return list(dict.fromkeys((trial.recipe.learning_rate, trial.lora_rank) for trial in trials))


def test_it_finds_the_best_region_with_fewer_trials_than_random_search():
    found, by_chance = [], []
    for seed in range(10):
        sweep = sweep_of(optuna={"num_samples": 24, "sampler_seed": seed})
        ran = play(search_of(sweep))
        assert len(ran) == 24
        best = max(ran, key=toy_score)
        found.append(abs(math.log10(best.recipe.learning_rate / BEST_RATE)))
        late = [abs(math.log10(trial.recipe.learning_rate / BEST_RATE)) for trial in ran[-8:]]
        by_chance.append(sum(late) / len(late))
    assert sum(found) / len(found) < 0.15, "a grid as fine as that, 0.3 decades apart, would find 0.075 on average"
    assert sum(by_chance) / len(by_chance) < 0.75, "chance is 1.3 decades off"


def test_every_point_runs_with_every_seed_and_is_worth_their_mean():
    sweep = sweep_of(seeds=[0, 1, 7], optuna={"concurrent": 2})
    source = search_of(sweep)
    first = source.ready()
    assert len(points_of(first)) == 2
    assert [trial.seed for trial in first] == [0, 1, 7] * 2
    assert source.ready() == []
    study = source._searches[0]._optuna._ot_study
    for trial, score in zip(first[:3], (0.2, 0.4, 0.9), strict=True):
        assert values_of(study) == []
        assert source.ready() == []
        source.ended(trial, DONE, {"exact_match": score})
    assert values_of(study) == [pytest.approx(0.5)]
    (told,) = [trial for trial in study.trials if trial.value is not None]
    assert told.params == {"learning_rate": first[0].recipe.learning_rate}, "what was run, not what was proposed"
    assert len(points_of(source.ready())) == 1


def test_failed_seeds_count_for_nothing_and_a_point_of_none_is_a_failure():
    sweep = sweep_of(seeds=[0, 1], optuna={"concurrent": 1, "num_samples": 3})
    source = search_of(sweep)
    study = source._searches[0]._optuna._ot_study
    one, other = source.ready()
    source.ended(one, FAILED, {})
    source.ended(other, DONE, {"exact_match": 0.25})
    for trial in source.ready():
        source.ended(trial, FAILED, {})
    one, other = source.ready()
    source.ended(one, PRUNED, {"validation_exact_match": 0.5})
    source.ended(other, DONE, {"exact_match": math.nan})
    assert values_of(study) == [0.25, 0.5]
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "FAIL"}
    assert source.ready() == []


def test_equal_results_in_equal_order_propose_equal_points_and_other_seeds_others():
    runs = [play(search_of(sweep_of(optuna={"sampler_seed": seed}))) for seed in (0, 0, 1)]
    assert points_of(runs[0]) == points_of(runs[1])
    assert not set(points_of(runs[0])) & set(points_of(runs[2]))
    two = sweep_of(n_train=[3, 10])
    found, _ = studies(two.search.optuna, expand(two))
    assert len(found) == 2
    ran = play(search_of(two))
    by_size = [points_of([trial for trial in ran if trial.n_train == size]) for size in (3, 10)]
    assert [len(points) for points in by_size] == [12, 12]
    assert not set(by_size[0]) & set(by_size[1]), "studies draw points of their own"


@pytest.mark.parametrize("stopped_after", [0, 1, 5, 8, 17, 23, 24])
@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_search_goes_on_from_the_tables(stopped_after, concurrent):
    """The same trials as without the interruption where one point is open at a time; as many, none twice, else."""
    sweep = sweep_of(
        seeds=[0, 1], space={"learning_rate": RATES, "lora_rank": [4, 16, 64]}, optuna={"concurrent": concurrent}
    )
    whole = play(search_of(sweep))
    rows = {}
    before = play(search_of(sweep), limit=stopped_after, rows=rows)
    again = search_of(sweep, rows)
    after = play(again, rows=rows)
    assert len(before) == stopped_after
    ids = [trial.trial_id for trial in before + after]
    assert len(ids) == len(set(ids)) == 24
    assert len(points_of(before + after)) == 12
    assert again.total() == 24
    if concurrent == 1:
        assert points_of(before + after) == points_of(whole)
    if stopped_after % 2:
        assert after[0].recipe == before[-1].recipe or concurrent > 1, "what was begun is ended first"


def test_another_seed_runs_every_point_once_more():
    rows = {}
    play(search_of(sweep_of(seeds=[0, 1])), rows=rows)
    ran = play(search_of(sweep_of(seeds=[0, 1, 2]), rows), rows=rows)
    assert len(ran) == 12
    assert {trial.seed for trial in ran} == {2}


def test_numbers_are_as_people_write_them_and_in_their_range():
    space = {
        "learning_rate": {"low": 1.00004e-4, "high": 1.00006e-4},
        "lora_alpha": {"low": 0.1, "high": 0.9, "step": 0.1},
        "max_steps": {"low": 100, "high": 10_000, "log": True},
    }
    ran = play(search_of(sweep_of(space=space, optuna={"num_samples": 20})))
    assert {trial.recipe.lora_alpha for trial in ran} <= {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    assert all(1.00004e-4 <= trial.recipe.learning_rate <= 1.00006e-4 for trial in ran)
    assert all(isinstance(trial.recipe.max_steps, int) and 100 <= trial.recipe.max_steps <= 10_000 for trial in ran)
    wide = play(search_of(sweep_of()))
    assert all(trial.recipe.learning_rate == float(f"{trial.recipe.learning_rate:.4g}") for trial in wide)


def test_rows_of_other_recipes_and_points_outside_tell_nothing():
    sweep = sweep_of(optuna={"num_samples": 3})
    rows = {}
    play(search_of(sweep_of(space={"learning_rate": {"low": 0.2, "high": 0.3}})), rows=rows)
    play(search_of(sweep_of(recipe={"batch_size": 1})), rows=rows)
    play(search_of(sweep_of(n_train=[10])), rows=rows)
    play(search_of(sweep_of(lora_rank=[8])), rows=rows)
    broken = [row | {"recipe": '{"no_such_field":1}'} for row in as_rows(rows)]
    source = OptunaTrials(expand(sweep), sweep.search.optuna, as_rows(rows) + broken)
    assert len(play(source)) == 3
    whole = dict(rows)
    play(search_of(sweep), rows=whole)
    assert play(search_of(sweep, whole), rows=whole) == [], "all there"


def test_points_of_a_grid_on_the_same_folder_count():
    grid = sweep_of().model_copy(update={"axes": {"learning_rate": (1e-4, 1e-3)}, "search": None})
    rows = {}
    play(source_of(grid, expand(grid)), rows=rows)
    assert len(rows) == 2
    ran = play(search_of(sweep_of(), rows), rows=rows)
    assert len(ran) == 10


def test_a_finite_space_is_run_whole_and_nothing_twice():
    space = {
        "lora_rank": [4, 16],
        "max_steps": {"low": 50, "high": 120, "step": 25},
        "lr_schedule": ["constant", "linear"],
    }
    sweep = sweep_of(space=space, optuna={"num_samples": 100})
    source = search_of(sweep)
    assert source.total() == 2 * 3 * 2
    ran = play(source)
    ids = {trial.trial_id for trial in ran}
    assert len(ran) == len(ids) == 12
    assert {trial.recipe.max_steps for trial in ran} == {50, 75, 100}
    assert num_trials(sweep, expand(sweep)) == 12
    assert {trial.trial_id for trial in planned_trials(sweep, expand(sweep))} == ids


def test_lists_are_values_too():
    space = {"lora_targets": [["q_proj"], ["q_proj", "v_proj"]], "learning_rate": [1e-4, 1e-3]}
    ran = play(search_of(sweep_of(space=space)))
    assert {trial.recipe.lora_targets for trial in ran} == {("q_proj",), ("q_proj", "v_proj")}
    assert len(ran) == 4


def test_fields_that_mean_nothing_to_a_backbone_are_not_varied_for_it():
    space = {"learning_rate": RATES, "num_frames": [5, 9]}
    backbones = ["causal_lm/tiny", "cogvideox/tiny", "baseline/oracle"]
    sweep = sweep_of(space=space, backbones=backbones, optuna={"num_samples": 6})
    ran = play(search_of(sweep))
    language, video, baseline = ([each for each in ran if each.backbone == name] for name in backbones)
    assert (len(language), len(video), len(baseline)) == (6, 6, 1)
    assert len({trial.recipe.num_frames for trial in language}) == 1
    assert {trial.recipe.num_frames for trial in video} == {5, 9}
    assert num_trials(sweep, expand(sweep)) == 13


def test_values_that_do_not_go_together_are_a_failure_of_the_point():
    space = {"picture_px": [None, 64], "cell_px": [None, 8]}
    with pytest.warns(UserWarning, match="picture_px = 64: leave it out, or leave out cell_px"):
        ran = play(search_of(sweep_of(space=space, backbones=["cogvideox/tiny"])), score=lambda trial: 0.5)
    assert len(ran) == 3


def test_a_metric_that_no_trial_has_is_named():
    sweep = sweep_of(optuna={"metric": "exakt_match", "num_samples": 1})
    with pytest.warns(UserWarning, match="exakt_match: .* has no such score, but exact_match"):
        play(search_of(sweep))


def test_smaller_is_better_where_mode_says_so():
    sweep = sweep_of(optuna={"mode": "min", "num_samples": 30})
    ran = play(search_of(sweep), score=lambda trial: 1 - toy_score(trial))
    late = [abs(math.log10(trial.recipe.learning_rate / BEST_RATE)) for trial in ran[-10:]]
    assert sum(late) / len(late) < 0.8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": {"learning_rate": 1e-3}}, "recipe.learning_rate: is given here, and search.optuna.space varies it"),
        ({"axes": {"learning_rate": [1e-3]}}, "axes.learning_rate: is given here, and search.optuna.space varies it"),
        (
            {"backbones": [{"causal_lm/tiny": {"recipe": {"learning_rate": 1e-3}}}]},
            "the recipe of causal_lm/tiny fixes",
        ),
        ({"backbones": ["baseline/oracle"]}, "learning_rate mean nothing to any backbone"),
        ({"space": {"lora_rank": [4, 8]}, "lora_rank": [4, 16]}, "lora_rank = 4 and 16 for causal_lm/tiny on life"),
        ({"space": {"num_frames": [5, 6]}, "backbones": ["cogvideox/tiny"]}, "num_frames = 6"),
    ],
)
def test_a_space_that_cannot_be_is_one_line_when_the_yaml_is_read(load, changes, words):
    space = changes.get("space", {"learning_rate": RATES})
    content = {"name": "t", "backbones": ["causal_lm/tiny"], "tasks": ["life"], "n_train": [3], "lora_rank": [4]}
    content |= {key: value for key, value in changes.items() if key != "space"}
    with pytest.raises(ValueError, match=words) as raised:
        load(json.dumps(content | {"search": {"optuna": {"space": space}}}))
    assert "\n" not in str(raised.value)


def test_a_plan_counts_samples_and_seeds_and_knows_what_ran():
    sweep = sweep_of(seeds=[0, 1], n_train=[3, 10], backbones=["causal_lm/tiny", "baseline/majority"])
    cells = expand(sweep)
    planned = planned_trials(sweep, cells)
    baselines = [trial for trial in cells if trial.backbone == "baseline/majority"]
    assert len(planned) == num_trials(sweep, cells) == 2 * 12 * 2 + len(baselines)
    assert len({trial.trial_id for trial in planned}) == len(planned)
    rates = sorted({trial.recipe.learning_rate for trial in planned})
    assert rates[0] > 1e-5
    assert rates[-1] < 1e-1
    rows = {}
    play(search_of(sweep), limit=7, rows=rows)
    planned = planned_trials(sweep, cells, as_rows(rows))
    assert len(planned) == num_trials(sweep, cells)
    assert rows.keys() <= {trial.trial_id for trial in planned}


def test_the_best_point_is_that_of_the_best_mean_over_seeds():
    sweep = sweep_of(seeds=[0, 1], n_train=[3, 10], optuna={"num_samples": 5})
    rows = {}
    play(search_of(sweep), rows=rows)
    states = list(rows)
    trial = rows[states[0]][0]
    rows[states[0]] = (trial, FAILED, {})
    table = [
        row | {"state": rows[row["trial_id"]][1], "exact_match": rows[row["trial_id"]][2].get("exact_match", math.nan)}
        for row in as_rows(rows)
    ]
    found = best_points(sweep, expand(sweep), table)
    assert [(best.cell.n_train, best.num_points) for best in found] == [(3, 5), (10, 5)]
    for best in found:
        means = {}
        for trial, state, metrics in rows.values():
            if trial.n_train == best.cell.n_train and state == DONE:
                means.setdefault(trial.recipe.learning_rate, []).append(metrics["exact_match"])
        means = {rate: sum(scores) / len(scores) for rate, scores in means.items()}
        assert best.score == pytest.approx(max(means.values()))
        assert best.point["learning_rate"] == max(means, key=means.get)
        assert f"exact_match {best.score:.3f}" in best.line("exact_match")
    lowest = sweep_of(seeds=[0, 1], n_train=[3, 10], optuna={"num_samples": 5, "mode": "min"})
    worst = best_points(lowest, expand(lowest), table)
    assert all(low.score < high.score for low, high in zip(worst, found, strict=True))
    pruned = [row | {"state": PRUNED} for row in table]
    assert best_points(sweep, expand(sweep), pruned) == []


def test_the_queue_runs_a_search_and_tells_it_what_the_tables_knew():
    sweep = sweep_of(seeds=[0, 1])
    rows = {}
    play(search_of(sweep), limit=9, rows=rows)
    source = search_of(sweep, rows)

    def make_queue():
        from orchestrator.results import TrialStatus

        states = {trial_id: TrialStatus(state, 1, None) for trial_id, (_, state, _) in rows.items()}
        return TrialQueue(
            source,
            read_states=lambda: states,
            read_metrics=lambda ids: {trial_id: rows[trial_id][2] for trial_id in ids},
            bundles_of=lambda spec: ({"CPU": 1},),
            settled=lambda status: status.state == DONE,
        )

    queue = make_queue()
    assert queue.num_known == 9
    ran = 0
    while (chunk := queue.take(lambda bundles: True)) is not None:
        for assignment in chunk.assignments:
            queue.ended(assignment, DONE, {"exact_match": toy_score(assignment.spec)}, 1.0)
            ran += 1
        queue.chunk_ended(chunk)
    assert queue.finished
    assert (ran, queue.total()) == (15, 24)
    assert len(values_of(source._searches[0]._optuna._ot_study)) == 12


# --- through Ray


@pytest.fixture(scope="module")
def local_ray():
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setattr(cluster.os, "cpu_count", lambda: 2)
    patch.setenv("RAY_worker_niceness", "0")
    for name, value in cluster.QUIET_TUNE.items():
        patch.setenv(name, value)
    patch.setenv("PYTHONPATH", os.pathsep.join(str(Path(__file__).resolve().parents[up]) for up in (0, 2)))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    patch.undo()


@pytest.mark.usefixtures("local_ray")
def test_a_real_search_through_ray_and_its_resume(tmp_path):
    sweep = sweep_of(
        tmp_path,
        space={"learning_rate": RATES, "lora_rank": [2, 4]},
        seeds=[0, 1],
        tasks=[{"elementary_ca": {"width": 8, "steps": 1}}],
        recipe={"max_steps": 2, "max_new_tokens": 40},
        optuna={"num_samples": 4, "concurrent": 2},
    )
    outcome = run_sweep(sweep, expand(sweep), quiet=True)
    assert (outcome.done, outcome.failed, outcome.missing, outcome.exit_status) == (8, 0, 0, 0)
    rows = results.load_trials(tmp_path)
    recipes = rows.groupby(["recipe", "lora_rank"])["seed"].agg(sorted)
    assert recipes.tolist() == [[0, 1]] * 4
    again = run_sweep(sweep, expand(sweep), quiet=True)
    assert (again.done, again.failed, again.missing) == (0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"metric": "exact_mach"}, r"metric: unknown score of life 'exact_mach'; did you mean 'exact_match'\?"),
        ({"trial": {"learning_rate": 0.5}}, r"trials\[0\]\.recipe\.learning_rate: is given here, and search"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_runs(fields, complaint):
    entry = {"space": {"learning_rate": [1e-4, 1e-3]}, "num_samples": 2}
    entry |= {"metric": fields["metric"]} if "metric" in fields else {}
    single = {"backbone": "causal_lm/tiny", "task": "life", "seed": 7, "n_train": 3, "lora_rank": 4}
    sweep = SweepSpec.model_validate(
        {
            "name": "t",
            "backbones": ["causal_lm/tiny"],
            "tasks": ["life"],
            "n_train": [3],
            "lora_rank": [4],
            "search": {"optuna": entry},
            "trials": [single | {"recipe": fields["trial"]}] if "trial" in fields else [],
        }
    )
    with pytest.raises(ValueError, match=complaint):
        check_search(sweep, expand(sweep))
