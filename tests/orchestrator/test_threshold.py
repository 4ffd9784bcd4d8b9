import random
from pathlib import Path

import numpy as np
import pytest

import orchestrator
from benchmarks import threshold_replay as replay
from orchestrator.curve_belief import Curve, CurveBelief, search_price
from orchestrator.search_entries import SearchEntry, ThresholdEntry
from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState
from orchestrator.threshold import REPEAT_SEED_STEP, ThresholdSearch, wilson_interval
from task_generators.task import TaskSpec

SIZES = (3, 10, 30, 100, 300)
RESULTS = Path(orchestrator.__file__).parent / "data" / "published_results.csv"


def spec(n_train, seed=0, backbone="cogvideox/tiny", n_test=200, **fields):
    task = TaskSpec(name="life")
    return TrialSpec(backbone=backbone, task=task, seed=seed, n_train=n_train, lora_rank=16, n_test=n_test, **fields)


def grid(sizes=SIZES, seeds=(0,)):
    return [spec(n_train, seed) for seed in seeds for n_train in sizes]


def search(trials, **entry):
    return ThresholdSearch(trials, ThresholdEntry(**{"repeats": 0, "confidence": 1.0} | entry))


def run(source, score, fails=lambda trial: False, most=10_000):
    """Answers what is asked for until nothing is; returns what was asked for."""
    asked, running = [], source.ready()
    while running and len(asked) < most:
        trial = running.pop(0)
        asked.append(trial)
        if fails(trial):
            source.ended(trial, TrialState.FAILED, {})
        else:
            source.ended(trial, TrialState.DONE, {"exact_match": score(trial)})
        running += source.ready()
    return asked


def step(threshold):
    return lambda trial: 1.0 if trial.n_train >= threshold else 0.0


@pytest.fixture(scope="module")
def curves():
    return replay.published_curves(RESULTS)


def test_plain_bisection_of_the_published_curves_needs_what_is_known_of_it(curves):
    plain = replay.bisection(curves)
    assert (len(curves), sum(map(len, curves.values()))) == (66, 426)
    assert plain.num_right == 66
    assert plain.cells == pytest.approx(0.446, abs=0.001)
    assert plain.examples == pytest.approx(0.547, abs=0.001)


def test_whoever_measures_both_sides_of_every_published_threshold_needs_four_tenths_of_the_examples(curves):
    least = replay.both_sides(curves)
    assert least.cells == pytest.approx(0.291, abs=0.001)
    assert least.examples == pytest.approx(0.394, abs=0.001)


@pytest.mark.parametrize(("max_running", "cells", "examples"), [(1, 0.41, 0.49), (8, 0.42, 0.465), (64, 0.445, 0.48)])
def test_the_published_curves_need_fewer_cells_and_examples_than_bisection(curves, max_running, cells, examples):
    found = replay.searched(curves, max_running=max_running)
    assert found.num_right == found.num_curves == 66
    assert found.cells <= cells
    assert found.examples <= examples
    assert found.num_inferred == found.num_inferred_right


def test_half_of_the_results_given_back_lead_to_the_same_findings_and_no_trial_twice(curves):
    some = dict(list(curves.items())[:20])
    whole = replay.search_of(some)
    asked = list(replay.run(whole, some))
    resumed = replay.search_of(some)
    earlier = random.Random(0).sample(asked, len(asked) // 2)
    for trial in earlier:
        score = some[trial.task.label(), trial.backbone][trial.n_train]
        resumed.ended(trial, TrialState.DONE, {"exact_match": score})
    later = list(replay.run(resumed, some))
    ids = [trial.trial_id for trial in [*earlier, *later]]
    assert len(ids) == len(set(ids))
    assert [each.n_train for each in resumed.findings()] == [each.n_train for each in whole.findings()]
    assert {each.state for each in resumed.findings()} <= {"found", "never"}


@pytest.mark.parametrize("threshold", [*SIZES, 1000])
def test_every_place_of_the_threshold_is_found_and_measured_on_both_sides(threshold):
    source = search(grid())
    asked = [trial.n_train for trial in run(source, step(threshold))]
    (finding,) = source.findings()
    below = [size for size in SIZES if size < threshold]
    assert finding.n_train == next((size for size in SIZES if size >= threshold), None)
    assert finding.largest_below == (below[-1] if below else None)
    assert finding.state == ("found" if threshold in SIZES else "never")
    assert len(asked) == len(set(asked)) == finding.num_trials < len(SIZES)
    assert {finding.n_train, finding.largest_below} - {None} <= set(asked)


def test_one_size_is_one_trial():
    source = search(grid([30]))
    assert len(run(source, step(30))) == 1
    assert source.findings()[0].n_train == 30


def test_a_score_equal_to_the_accuracy_reaches_it():
    source = search(grid([30]), accuracy=0.9)
    run(source, lambda trial: 0.9)
    assert source.findings()[0].n_train == 30


def test_groups_differ_in_all_but_n_train():
    trials = grid(seeds=(0, 1))
    trials += [spec(n, backbone="causal_lm/tiny") for n in SIZES] + [spec(n, n_test=50) for n in SIZES]
    source = search(trials)
    run(source, lambda trial: float(trial.n_train >= (30 if trial.seed else 100)))
    assert [each.n_train for each in source.findings()] == [100, 30, 100, 100]


def test_a_search_does_as_it_did():
    first, second = (search(grid(seeds=range(4))) for _ in range(2))
    assert run(first, step(30)) == run(second, step(30))
    assert first.findings() == second.findings()


def test_a_group_has_one_trial_out_and_all_groups_no_more_than_the_limit():
    assert len(search(grid(seeds=range(4))).ready()) == 4
    source = ThresholdSearch(grid(seeds=range(4)), ThresholdEntry(repeats=0, confidence=1), max_running=3)
    out = source.ready()
    assert len(out) == 3
    assert source.ready() == []
    source.ended(out[0], TrialState.DONE, {"exact_match": 0.0})
    assert len(source.ready()) == 1


def test_what_relatives_did_is_tried_first():
    source = ThresholdSearch(grid(seeds=range(7)), ThresholdEntry(repeats=0, confidence=1), max_running=1)
    asked = run(source, step(100))
    last = [trial.n_train for trial in asked if trial.seed == 6]
    assert sorted(last) == [30, 100]


def test_dear_sizes_are_avoided_where_cheap_ones_tell_enough():
    belief = CurveBelief(0.9)
    for n_train, score in ((3, 0.1), (10, 0.4)):
        belief.observe(Curve(0, 0, 0), n_train, score, 200)
    outlook = belief.outlook(Curve(0, 0, 0), [30, 100, 300], 200)
    equal, rising = (outlook.next_probe(prices) for prices in ([1, 1, 1], [1, 10, 1000]))
    assert rising < 2
    assert equal >= rising
    assert outlook.next_probe([1000, 1, 1000]) == 1


def brute_force(chances, prices, confidence, loss, with_none=True):
    if len(chances) < 2:
        return 0
    mass, none = sum(chances), chances[-1]
    return min(
        loss * (mass - none) if with_none and none >= confidence * mass else np.inf,
        *(
            mass * prices[k]
            + brute_force(chances[: k + 1], prices[:k], confidence, loss, with_none=False)
            + brute_force(chances[k + 1 :], prices[k + 1 :], confidence, loss, with_none)
            for k in range(len(prices))
        ),
    )


@pytest.mark.parametrize(("confidence", "loss"), [(1.0, np.inf), (0.6, 300.0), (0.9, 30.0)])
def test_the_price_of_a_search_is_that_of_the_best_of_all_trees(confidence, loss):
    rng = np.random.default_rng(0)
    prices = rng.uniform(1, 100, 5)
    chances = rng.dirichlet(np.full(6, 0.5), 20)
    expected = [brute_force(list(each), list(prices), confidence, loss) for each in chances]
    assert search_price(chances, prices, confidence, loss) == pytest.approx(expected)


def test_what_is_as_good_as_known_is_inferred_and_cheap_sizes_are_measured_all_the_same():
    belief = CurveBelief(0.9)
    for n_train, score in ((300, 0.01), (1000, 0.05), (3000, 0.1)):
        belief.observe(Curve(0, 0, 0), n_train, score, 200)
    outlook = belief.outlook(Curve(0, 0, 0), [5000], 200)
    assert outlook.chances()[-1] > 0.97
    assert outlook.next_probe([5000], confidence=0.95, loss=100_000) is None
    assert outlook.next_probe([50], confidence=0.95, loss=100_000) == 0
    assert outlook.next_probe([5000], confidence=0.9999, loss=100_000) == 0
    assert outlook.next_probe([5000]) == 0


def hopeless(trial):
    return 0.1 if trial.n_train == 3000 else 0.02


def test_an_inferred_answer_is_told_as_one():
    source = search(grid([300, 1000, 3000, 5000]), confidence=0.95)
    asked = run(source, hopeless)
    (finding,) = source.findings()
    assert 5000 not in {trial.n_train for trial in asked}
    assert (finding.state, finding.basis, finding.n_train) == ("never", "inferred", None)
    assert finding.largest_below == asked[-1].n_train
    assert 0.95 <= finding.chance < 1
    assert source.total() == len(asked)
    measured = search(grid([300, 1000, 3000, 5000]), confidence=1)
    assert run(measured, hopeless)[-1].n_train == 5000
    assert (measured.findings()[0].basis, measured.findings()[0].chance) == ("measured", 1.0)


def test_a_row_that_belies_an_inferred_answer_opens_its_group_again():
    source = search(grid([300, 1000, 3000, 5000]), confidence=0.95)
    run(source, hopeless)
    source.ended(spec(5000), TrialState.DONE, {"exact_match": 1.0})
    run(source, hopeless)
    (finding,) = source.findings()
    assert (finding.n_train, finding.state, finding.basis) == (5000, "found", "measured")


def test_only_the_size_that_the_answer_hinges_on_is_repeated():
    source = search(grid([30, 100, 300]), repeats=3)
    asked = run(source, lambda trial: {30: 0.2, 100: 0.99, 300: 0.91}[trial.n_train])
    assert {trial.seed for trial in asked} == {0}
    assert source.findings()[0].n_train == 100
    source = search(grid([30, 100, 300]), repeats=3)
    asked = run(source, lambda trial: {30: 0.2, 100: 0.91, 300: 0.91}[trial.n_train])
    assert {trial.n_train for trial in asked if trial.seed} == {100}


def test_chances_follow_what_was_seen():
    belief = CurveBelief(0.9)
    before = belief.outlook(Curve(0, 0, 0), SIZES, 200).chances()
    belief.observe(Curve(0, 1, 1), 100, 0.05, 200)
    after = belief.outlook(Curve(0, 0, 0), SIZES, 200).chances()
    elsewhere = belief.outlook(Curve(1, 0, 2), SIZES, 200).chances()
    assert before.sum() == after.sum() == pytest.approx(1)
    assert after[:4].sum() < 0.6 * before[:4].sum()
    assert after[:4].sum() < elsewhere[:4].sum()


def test_many_observations_keep_those_that_matter(monkeypatch):
    monkeypatch.setattr("orchestrator.curve_belief.MAX_OBSERVATIONS", 3)
    few, many = CurveBelief(0.9), CurveBelief(0.9)
    own = Curve(0, 0, 0)
    for index in range(1, 9):
        many.observe(Curve(index, index, index), 30, 1.0, 200)
    for belief in (few, many):
        for n_train, score in ((3, 0.0), (10, 0.1), (30, 0.5)):
            belief.observe(own, n_train, score, 200)
    for index in range(1, 9):
        many.observe(Curve(index, index, index), 100, 1.0, 200)
    assert (few.outlook(own, [100, 300], 200).chances() == many.outlook(own, [100, 300], 200).chances()).all()


def test_a_size_near_the_accuracy_is_repeated_with_other_seeds_and_the_mean_decides():
    scores = {0: 0.91, REPEAT_SEED_STEP: 0.87, 2 * REPEAT_SEED_STEP: 0.89}
    source = search(grid([30]), repeats=2)
    asked = run(source, lambda trial: scores[trial.seed])
    assert [trial.seed for trial in asked] == list(scores)
    assert len({trial.trial_id for trial in asked}) == 3
    assert source.findings()[0].n_train is None
    assert source.findings()[0].num_trials == 3


def test_repeats_end_once_their_interval_is_clear_of_the_accuracy():
    scores = {0: 0.93, REPEAT_SEED_STEP: 0.99}
    source = search(grid([30]), repeats=9)
    assert len(run(source, lambda trial: scores[trial.seed])) == 2
    assert source.findings()[0].n_train == 30
    clear = search(grid([30]), repeats=9)
    assert len(run(clear, lambda trial: 0.99)) == 1


def test_a_repeat_of_an_earlier_run_counts():
    source = search(grid([30]), repeats=2)
    source.ended(spec(30, REPEAT_SEED_STEP), TrialState.DONE, {"exact_match": 0.7})
    asked = run(source, lambda trial: 0.91)
    assert [trial.seed for trial in asked] == [0]
    assert source.findings()[0].n_train is None


def test_a_repeat_that_is_a_cell_of_another_group_is_run_once():
    source = search(grid([30], seeds=(0, REPEAT_SEED_STEP)), repeats=1)
    asked = run(source, lambda trial: 0.9)
    assert sorted(trial.seed for trial in asked) == [0, REPEAT_SEED_STEP, 2 * REPEAT_SEED_STEP]
    assert [each.num_trials for each in source.findings()] == [2, 2]


def test_a_backbone_without_seeds_has_no_repeats():
    trial = spec(0, backbone="baseline/oracle")
    source = search([trial], repeats=5)
    assert run(source, lambda trial: 0.9) == [trial]


@pytest.mark.parametrize("failing", SIZES)
def test_a_failed_size_is_left_out_and_said(failing):
    source = search(grid())
    asked = run(source, step(100), fails=lambda trial: trial.n_train == failing)
    (finding,) = source.findings()
    assert len(asked) == len({trial.n_train for trial in asked})
    if finding.state == "gap":
        assert finding.unknown == (failing,)
        assert failing in (30, 100)
        assert finding.n_train == (300 if failing == 100 else 100)
    else:
        assert (finding.largest_below, finding.n_train) == (30, 100)


def test_a_group_all_of_whose_trials_fail_ends():
    source = search(grid())
    asked = run(source, step(3), fails=lambda trial: True)
    assert len(asked) == len(SIZES)
    assert source.findings()[0].state == "gap"
    assert source.findings()[0].n_train is None


def test_nothing_is_inferred_beside_a_size_that_failed():
    source = search(grid([300, 1000, 3000, 5000]), confidence=0.95)
    for n_train in (1000, 3000):
        source.ended(spec(n_train), TrialState.FAILED, {})
    run(source, hopeless)
    (finding,) = source.findings()
    assert (finding.state, finding.basis, finding.chance) == ("never", "measured", 1.0)


def test_a_failed_repeat_is_followed_by_the_next():
    source = search(grid([30]), repeats=2)
    asked = run(source, lambda trial: 0.91, fails=lambda trial: trial.seed == REPEAT_SEED_STEP)
    assert [trial.seed for trial in asked] == [0, REPEAT_SEED_STEP, 2 * REPEAT_SEED_STEP]
    assert source.findings()[0].n_train == 30


def test_rows_of_a_full_grid_answer_without_a_trial_even_where_the_curve_falls_back():
    scores = {3: 0.0, 10: 0.95, 30: 0.8, 100: 1.0, 300: 1.0}
    source = search(grid())
    for trial in grid():
        source.ended(trial, TrialState.DONE, {"exact_match": scores[trial.n_train]})
    assert source.ready() == []
    assert source.findings()[0].n_train == 10


def test_rows_of_other_sweeps_change_nothing():
    source = search(grid())
    source.ended(spec(30, seed=5), TrialState.DONE, {"exact_match": 1.0})
    source.ended(spec(31), TrialState.DONE, {"exact_match": 1.0})
    assert source.total() == len(SIZES)
    assert source.findings()[0].num_trials == 0


@pytest.mark.parametrize("repeats", [0, 2])
def test_total_is_an_upper_bound_that_comes_true(repeats):
    source = search(grid(seeds=range(3)), repeats=repeats)
    bounds = [source.total()]
    asked = run(source, lambda trial: (bounds.append(source.total()), 0.9 if trial.n_train >= 30 else 0.2)[1])
    bounds.append(source.total())
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 3 * len(SIZES) * (1 + repeats)
    assert bounds[-1] == len(asked)


def test_with_noise_repeats_find_more_true_thresholds_than_bisection():
    curves = replay.true_curves(12, key=1)
    plain, single, repeated = (replay.simulated(curves, repeats, key=1) for repeats in (None, 0, 3))
    assert repeated.right >= plain.right
    assert repeated.right >= single.right
    assert repeated.within_one_size >= 0.95
    assert single.cells < plain.cells


def test_intervals_are_those_of_the_analysis():
    from orchestrator import analysis

    for share, n in ((0.0, 10), (0.9, 200), (1.0, 3)):
        low, high = analysis.wilson_interval(share, n)
        assert wilson_interval(share, n) == pytest.approx((float(low), float(high)), abs=1e-12)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("thresold", "thresold"),
        ({"threshold": {}, "optuna": {"space": {"max_steps": [1, 2]}}}, "one kind"),
        ({}, "one kind"),
        (3, "kind of search"),
        ({"optuna": {"space": {}}}, "at least one"),
        ({"optuna": {"space": {"learning_rat": [1e-4]}}}, "learning_rate"),
        ({"optuna": {"space": {"learning_rate": [-1]}}}, "learning_rate"),
        ({"optuna": {"space": {"learning_rate": {"low": 1e-3, "high": 1e-4}}}}, "low"),
        ({"optuna": {"space": {"weight_decay": {"low": 0, "high": 1, "log": True}}}}, "log"),
        ({"optuna": {"space": {"max_steps": {"low": 1.5, "high": 9}}}}, "integer"),
        ({"optuna": {"space": {"lora_rank": [0, 4]}}}, "lora_rank"),
        ({"optuna": {"space": {"lora_rank": 8}}}, "list of values"),
        ({"optuna": {"space": {"max_steps": [100, 100]}}}, "twice"),
        ({"optuna": {"space": {"precision": {"low": 0, "high": 1}}}}, "precision"),
        ({"threshold": {"accuracy": 1.5}}, "accuracy"),
    ],
)
def test_a_wrong_search_is_told_in_words(value, words):
    with pytest.raises(ValueError, match=words):
        SearchEntry.model_validate(value)


def test_a_search_in_the_words_of_a_yaml():
    assert SearchEntry.model_validate("threshold").threshold == ThresholdEntry()
    assert SearchEntry.model_validate({"threshold": {"accuracy": 0.5}}).threshold.accuracy == 0.5
    space = {"learning_rate": {"low": "1e-5", "high": 1e-3, "log": True}, "lora_rank": [4, 16], "max_steps": ["100"]}
    entry = SearchEntry.model_validate({"optuna": {"space": space, "asha": {"grace_period": 0.1}}}).optuna
    assert entry.space["learning_rate"].low == 1e-5
    assert entry.space["lora_rank"] == (4, 16)
    assert entry.space["max_steps"] == (100,)
    assert entry.asha.rungs() == pytest.approx((0.1, 0.3, 0.9))
    assert SearchEntry.model_validate(entry_json(entry)) == SearchEntry(optuna=entry)


def entry_json(entry):
    return {"optuna": entry.model_dump(mode="json")}


def test_no_curve_is_answered_by_its_relatives_alone():
    """Baselines beside a backbone that learns nothing: each is asked for itself."""
    backbones = ["causal_lm/tiny", "baseline/oracle", "baseline/copy_question"]
    trials = [spec(n_train, backbone=backbones[0]) for n_train in SIZES]
    trials += [spec(0, backbone=backbone) for backbone in backbones[1:]]
    source = search(trials, confidence=0.51)
    asked = run(source, lambda trial: float(trial.backbone == "baseline/oracle"))
    assert {trial.backbone for trial in asked} == set(backbones)
    found = {finding.backbone: (finding.state, finding.basis) for finding in source.findings()}
    assert found["baseline/oracle"] == ("found", "measured")
    assert found["baseline/copy_question"] == ("never", "measured")
