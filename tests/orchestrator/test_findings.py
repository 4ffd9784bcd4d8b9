"""Findings: a sentence a task that says what was measured, and no more."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.findings import findings, number
from orchestrator.analysis.thresholds import efficiency_ratios, samples_to_threshold

VIDEO, TEXT, TWIN = "cogvideox/tiny", "causal_lm/tiny", "cogvideox/tiny-random"
FAMILIES = {"cogvideox": "video", "wan": "video", "causal_lm": "language", "baseline": "baseline"}
SIZES = (3, 10, 30, 100)
N_TEST = 100


def study(curves, task="life", params="{}", seed=0, rng_seed=7, **fields):
    """Trials and predictions of ``curves``: {backbone: right answers by size, None where there is no row}. Problems
    differ in difficulty, the same for all: one with a higher score answers those of the lower one, but for noise."""
    rng = np.random.default_rng(rng_seed)
    rows, predictions = [], []
    for backbone, scores in curves.items():
        sizes = SIZES if len(scores) > 1 else (0,)
        for size, score in zip(sizes, scores, strict=True):
            trial_id = f"{task}{params}{backbone}{size}{seed}{fields}"
            rows.append(
                {
                    "trial_id": trial_id,
                    "state": "missing" if score is None else "done",
                    "backbone": backbone,
                    "family": FAMILIES[backbone.split("/")[0]],
                    "task": task,
                    "task_params": params,
                    "seed": seed,
                    "n_train": size,
                    "n_test": N_TEST,
                    "lora_rank": 16,
                    "recipe": "{}",
                    "exact_match": np.nan if score is None else score,
                    "cell_accuracy": 1.0,
                }
                | fields
            )
            if score is not None:
                order = np.argsort(np.arange(N_TEST) + rng.normal(0, 20, N_TEST))
                right = np.isin(np.arange(N_TEST), order[: round(score * N_TEST)])
                frame = {"trial_id": trial_id, "index": np.arange(N_TEST), "attempt": 0, "exact_match": right}
                predictions.append(pd.DataFrame(frame))
    return pd.DataFrame(rows), pd.concat(predictions) if predictions else None


def text_of(*studies):
    """The only sentence of one or several studies."""
    trials = pd.concat([trials for trials, _ in studies], ignore_index=True)
    known = [predictions for _, predictions in studies if predictions is not None]
    (finding,) = findings(trials, pd.concat(known) if known else None)
    assert finding.text.startswith(f"{finding.task_label}: ")
    assert "\n" not in finding.text
    return finding.text


def test_a_clear_difference_is_told_with_its_ratio_and_interval():
    curves = {TEXT: (0.0, 0.05, 0.2, 0.95), VIDEO: (0.1, 0.97, 1.0, 1.0)}
    trials, predictions = study(curves)
    text = text_of((trials, predictions))
    samples = samples_to_threshold(trials, predictions).set_index("backbone")
    ratio = efficiency_ratios(trials, predictions, reference=TEXT).iloc[0]
    video, language = samples.loc[VIDEO], samples.loc[TEXT]
    assert text == (
        f"life: {VIDEO} reaches 0.9 with {number(video['samples'])} [{number(video['low'])}, {number(video['high'])}] "
        f"examples, {TEXT} with {number(language['samples'])} [{number(language['low'])}, more than 100]: "
        f"{ratio['ratio']:.1f}x [{ratio['low']:.1f}, open] fewer (1 seed, 100 test problems)"
    )
    assert ratio["low"] > 1


def test_a_difference_that_may_be_none_is_called_that():
    text = text_of(study({VIDEO: (0.1, 0.3, 0.85, 0.97), TEXT: (0.1, 0.3, 0.84, 0.96)}))
    assert re.search(r"1\.\dx \[0\.\d, \d\.\d\] fewer, which may be no difference", text), text


def test_the_accuracy_can_be_chosen():
    trials, predictions = study({VIDEO: (0.1, 0.4, 0.6, 0.7), TEXT: (0.0, 0.1, 0.2, 0.6)})
    (half,) = findings(trials, predictions, accuracy=0.5)
    assert "reaches 0.5 with" in half.text
    assert "does not reach 0.9" in text_of((trials, predictions))


def test_who_never_gets_there_is_said_with_what_it_scores():
    text = text_of(study({VIDEO: (0.1, 0.3, 0.95, 1.0), TEXT: (0.0, 0.0, 0.1, 0.31)}))
    assert f"{TEXT} does not reach it with up to 100 examples (0.31 [0.23, 0.41] there)" in text
    assert "fewer" not in text
    text = text_of(study({TEXT: (0.0, 0.0, 0.1, 0.2), VIDEO: (0.0, 0.0, 0.1, 0.4)}))
    assert text.startswith(f"life: {VIDEO} does not reach 0.9 with up to 100 examples (0.40 [")
    assert f", nor does {TEXT} with up to 100 (0.20 [" in text


def test_who_is_there_at_the_smallest_size_needs_at_most_that():
    text = text_of(study({VIDEO: (1.0, 1.0, 1.0, 1.0), TEXT: (0.1, 0.2, 0.3, 1.0)}))
    assert f"{VIDEO} reaches 0.9 with 3 examples or fewer, {TEXT} with" in text
    assert re.search(r": at least \d\d\.\dx \[[^]]+\] fewer", text)
    both = text_of(study({VIDEO: (1.0, 1.0, 1.0, 1.0), TEXT: (1.0, 1.0, 1.0, 1.0)}))
    assert "fewer:" not in both
    assert "x [" not in both, "nothing is known of the ratio"


def test_a_random_twin_is_named_only_where_it_gets_there():
    pretrained = {VIDEO: (0.1, 0.3, 0.95, 1.0)}
    assert TWIN not in text_of(study({**pretrained, TWIN: (0.0, 0.0, 0.1, 0.5)}))
    text = text_of(study({**pretrained, TWIN: (0.0, 0.0, 0.1, 0.97)}))
    assert f"random-weight {TWIN} reaches 0.9 too, with " in text
    assert text.startswith(f"life: {VIDEO} reaches")
    assert "fewer" not in text, "a twin is no rival"


def test_a_baseline_is_named_only_where_it_scores_and_the_oracle_never():
    pretrained = {VIDEO: (0.1, 0.3, 0.95, 1.0), "baseline/oracle": (1.0,)}
    assert "baseline" not in text_of(study({**pretrained, "baseline/copy_question": (0.1,)}))
    text = text_of(study({**pretrained, "baseline/copy_question": (0.2,)}))
    assert "baseline/copy_question alone scores 0.20" in text
    assert "oracle" not in text


def test_what_has_not_finished_is_said():
    text = text_of(study({VIDEO: (0.1, 0.3, 0.95, None), TEXT: (0.0, None, None, None)}))
    assert text.endswith("; so far, with 4 of 8 trials done")
    assert f"{TEXT} does not reach it with up to 3 examples" in text
    assert text_of(study({VIDEO: (None,) * 4})) == "life: nothing has finished yet (0 of 4 trials done)"
    trials, predictions = study({VIDEO: (0.1, 0.3, 0.95, None)})
    trials["state"] = trials["state"].replace("missing", "failed")
    assert text_of((trials, predictions)).endswith("; so far, with 3 of 4 trials done, 1 failed")
    assert "so far" not in text_of(study({VIDEO: (0.1, 0.3, 0.95, 1.0)}))


def test_of_several_ranks_the_best_counts_and_is_named():
    worse = study({VIDEO: (0.0, 0.1, 0.2, 0.3), TEXT: (0.0, 0.1, 0.2, 0.95)}, lora_rank=4)
    better = study({VIDEO: (0.0, 0.1, 0.95, 1.0)}, lora_rank=8)
    text = text_of(worse, better)
    assert text.startswith(f"life: {VIDEO} r=8 reaches 0.9 with ")
    assert f", {TEXT} with" in text
    assert "each with the best of its ranks and recipes" in text
    assert re.search(r": \d\.\dx \[\d\.\d, (\d\.\d|open)\] fewer", text), "curves of two ranks have a ratio too"
    assert "ranks" not in text_of(better)


def test_the_ratio_of_unpaired_curves_is_that_of_their_samples_and_wider():
    curves = {VIDEO: (0.1, 0.6, 0.97, 1.0), TEXT: (0.1, 0.2, 0.6, 0.97)}
    paired = text_of(study(curves))
    trials, predictions = study(curves)
    trials["lora_rank"] = np.where(trials["backbone"] == TEXT, 4, 16)
    extra = study({VIDEO: (0.0, 0.0, 0.0, 0.1)}, lora_rank=4, rng_seed=1)
    unpaired = text_of((trials, predictions), extra)
    pattern = r": ([\d.]+)x \[([\d.]+), ([\d.]+)\] fewer"
    (a, a_low, a_high), (b, b_low, b_high) = (
        map(float, re.search(pattern, text).groups()) for text in (paired, unpaired)
    )
    assert a == b
    assert b_high / b_low >= a_high / a_low


def test_several_seeds_and_tasks_are_a_sentence_each():
    parts = [study({VIDEO: (0.1, 0.3, 0.9 + seed / 50, 1.0)}, seed=seed, rng_seed=seed) for seed in range(3)]
    assert text_of(*parts).endswith("(3 seeds, 100 test problems)")
    rules = [json.dumps({"rule": rule}) for rule in (30, 90)]
    tasks = [study({VIDEO: (0.1, 0.3, 0.95, 1.0)}, "elementary_ca", rule) for rule in rules]
    found = findings(pd.concat([trials for trials, _ in [*parts, *tasks]]))
    assert [finding.task_label for finding in found] == ["life", "elementary_ca(rule=30)", "elementary_ca(rule=90)"]


def test_a_task_with_a_test_distance_is_named_like_any_other():
    text = text_of(study({VIDEO: (0.1, 0.3, 0.95, 1.0)}, "life", '{"height":6,"min_test_distance":0.25}'))
    assert text.startswith("life(height=6, min_test_distance=0.25): ")


def test_without_predictions_there_is_the_same_sentence_with_other_intervals():
    trials, predictions = study({VIDEO: (0.1, 0.97, 1.0, 1.0), TEXT: (0.0, 0.05, 0.2, 0.95)})
    brackets = re.compile(r" \[[^]]*\]")
    assert brackets.sub("", text_of((trials, None))) == brackets.sub("", text_of((trials, predictions)))


def arc(backbone, solved, dataset="arc_agi_1_evaluation", num_inputs=1, **fields):
    """Trials and predictions of one backbone on tasks of which ``solved`` (by task) or their inputs are right."""
    rows, predictions = [], []
    for place, right in enumerate(solved):
        right = np.broadcast_to(np.asarray(right, bool), num_inputs)
        trial_id = f"{backbone}{dataset}{place}"
        params = json.dumps({"dataset": dataset, "task": f"Copy{place}"})
        row = {"trial_id": trial_id, "task": "arc", "task_params": params, "n_test": num_inputs, "n_train": 3}
        row |= {"state": "done", "backbone": backbone, "family": "video", "seed": 0, "lora_rank": 16, "recipe": "{}"}
        rows.append(row | {"exact_match": right.mean(), "cell_accuracy": 1.0} | fields)
        frame = {"trial_id": trial_id, "index": np.arange(num_inputs), "attempt": 0, "exact_match": right}
        predictions.append(pd.DataFrame(frame))
    return pd.DataFrame(rows), pd.concat(predictions)


def test_arc_is_a_share_of_solved_tasks_and_whose_they_are():
    # The counts of the paper's figure 2.
    place = np.arange(400)
    text = text_of(arc(TEXT, (place >= 52) & (place < 84)), arc(VIDEO, place < 67), arc(TWIN, place < 300))
    assert text.startswith("arc arc_agi_1_evaluation: cogvideox/tiny solves 67 of 400 tasks (0.17 [0.13, 0.21]), ")
    assert "causal_lm/tiny 32 of 400 (0.08 [0.06, 0.11])" in text
    assert f": 0.09 [0.05, 0.13] more than {TEXT}; 15 solved by both, 52 by {VIDEO} alone, 17 by {TEXT} alone" in text
    assert TWIN not in text
    same = text_of(arc(TEXT, place < 67), arc(VIDEO, (place > 2) & (place < 69)))
    assert "which may be no difference" in same


def test_a_task_counts_only_with_all_its_inputs_but_in_concept_arc_inputs_count():
    half = [[True, False]] * 6 + [[True, True]] * 2
    assert "solves 2 of 8 tasks" in text_of(arc(VIDEO, half, num_inputs=2))
    assert "solves 10 of 16 inputs" in text_of(arc(VIDEO, half, "concept_arc", num_inputs=2))


def test_arc_in_progress_compares_what_both_have():
    trials, predictions = arc(VIDEO, np.arange(30) < 20)
    trials.loc[:4, "state"] = "missing"
    text = text_of((trials, predictions), arc(TEXT, np.arange(30) < 3))
    assert "solves 15 of 25 tasks" in text
    assert "on the 25 tasks that both have" in text
    assert text.endswith("; so far, with 55 of 60 trials done")


def test_nothing_at_all_has_no_findings():
    trials, predictions = study({VIDEO: (0.1, 0.3, 0.95, 1.0)})
    assert findings(trials[:0], predictions[:0]) == []
    assert findings(trials[:0]) == []


@pytest.mark.parametrize("accuracy", [0, 1.1])
def test_an_accuracy_that_nobody_can_mean_is_refused(accuracy):
    with pytest.raises(ValueError, match="accuracy"):
        findings(*study({VIDEO: (0.1, 0.3, 0.95, 1.0)}), accuracy=accuracy)


def test_many_tasks_are_summed_up_first():
    better, worse, alike, neither = (
        (0.1, 0.97, 1.0, 1.0),
        (0.0, 0.05, 0.2, 0.95),
        (0.1, 0.3, 0.85, 0.97),
        (0, 0, 0, 0.1),
    )
    pairs = {"B3/S23": (better, worse), "B3/S2": (better, worse), "B2/S": (alike, alike), "B36/S23": (neither, neither)}
    studies = [
        study({VIDEO: video, TEXT: text}, params=json.dumps({"rule": rule})) for rule, (video, text) in pairs.items()
    ]
    trials, predictions = (pd.concat(frames, ignore_index=True) for frames in zip(*studies, strict=True))
    first, *rest = findings(trials, predictions)
    assert len(rest) == len(pairs)
    assert first.text.startswith(
        f"over 4 tasks, 0.9 is reached by {VIDEO} on 3 of 4, {TEXT} on 3 of 4; "
        f"{VIDEO} needs fewer examples than {TEXT} on 2, more on 0, and on 1 it cannot be told"
    )
    ratios = efficiency_ratios(trials, predictions, reference=TEXT)["ratio"].dropna()
    mean = float(np.exp(np.log(ratios).mean()))
    assert f"where both get there (3), {TEXT} needs {mean:.1f} times as many (geometric mean)" in first.text
    few = trials[trials["task_params"].isin(trials["task_params"].unique()[:3])]
    assert len(findings(few, predictions)) == 3
