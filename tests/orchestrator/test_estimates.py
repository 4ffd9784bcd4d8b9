"""Estimates against times that are known because the rows are made up."""

import subprocess
import sys
from datetime import timedelta

import pandas as pd
import pytest

from orchestrator.capacity import parse_gpus
from orchestrator.estimates import Estimator, cost
from orchestrator.roofline import GUESS_FACTOR, Processor, guess
from orchestrator.specs import TrialSpec
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec
from trainers.recipe import Placement, TrainRecipe

SMALL = "causal_lm/tiny"
LARGE = "cogvideox/1.5-5b-i2v"
START = pd.Timestamp("2026-01-01", tz="UTC")


def trial(backbone=SMALL, task="life", n_test=100, n_train=3, placement=None, **recipe):
    return TrialSpec(
        backbone=backbone,
        task=TaskSpec.model_validate(task),
        n_train=n_train,
        lora_rank=4,
        n_test=n_test,
        recipe=TrainRecipe(**backbone_spec(backbone).recipe | recipe),
        placement=Placement(**(placement or {})),
    )


def row(spec, train_s=None, eval_s=None, load_s=0.0, encode_s=0.0, other_s=0.0, device="cpu", **fields):
    took = sum(part or 0.0 for part in (train_s, eval_s, load_s, encode_s)) + other_s
    return {
        "trial_id": spec.trial_id,
        "state": "done",
        "backbone": spec.backbone,
        "task": spec.task.name,
        "task_params": spec.task.params_json(),
        "recipe": spec.recipe_json(),
        "n_train": spec.n_train,
        "n_test": spec.n_test,
        "train_steps": spec.recipe.max_steps,
        "train_s": train_s,
        "eval_s": eval_s,
        "load_s": load_s,
        "encode_s": encode_s,
        "num_workers": spec.placement.num_workers,
        "device": device,
        "started_at": START,
        "finished_at": START + timedelta(seconds=took),
    } | fields


def after(*rows, hardware=None):
    return Estimator(pd.DataFrame(list(rows)), hardware)


def test_seconds_a_step_and_an_answer_scale_with_the_recipe():
    seen = trial(max_steps=100, n_test=50)
    estimator = after(*[row(seen, train_s=20, eval_s=5, load_s=1)] * 36)
    assert estimator.seconds(seen).seconds == pytest.approx(26)
    assert estimator.seconds(seen).basis == "36 finished trials"
    assert estimator.seconds(trial(max_steps=300, n_test=50)).seconds == pytest.approx(60 + 5 + 1)
    assert estimator.seconds(trial(max_steps=100, n_test=200)).seconds == pytest.approx(20 + 20 + 1)
    assert estimator.seconds(trial(max_steps=100, n_test=50, attempts=3)).seconds == pytest.approx(20 + 15 + 1)


def test_what_no_part_accounts_for_counts_too():
    seen = trial()
    assert after(row(seen, train_s=20, eval_s=5, other_s=7)).seconds(seen).seconds == pytest.approx(32)


def test_a_mean_over_trials():
    seen = trial()
    rows = [row(seen, train_s=seconds, eval_s=1) for seconds in (10, 20, 60)]
    assert after(*rows).seconds(seen).seconds == pytest.approx(31)


def test_workers_share_the_work():
    seen = trial(placement={"num_workers": 2}, batch_size=64)
    estimator = after(row(seen, train_s=20, eval_s=10))
    alone = trial(batch_size=64)
    assert estimator.seconds(seen).seconds == pytest.approx(30)
    assert estimator.seconds(alone).seconds > 1.5 * estimator.seconds(seen).seconds


def test_what_a_placement_changes_is_measured_not_guessed():
    placement = {"gradient_checkpointing": True, "cpus_per_worker": 4, "eval_batch_size": 1}
    seen = trial(placement=placement, batch_size=64)
    estimator = after(row(seen, train_s=20, eval_s=10))
    assert estimator.seconds(seen).seconds == pytest.approx(30)


def test_fallback_same_task_then_same_backbone_then_a_guess():
    life, maze = trial(task="life"), trial(task="maze")
    estimator = after(row(life, train_s=1000, eval_s=100))
    assert estimator.seconds(life).level == "task"
    assert estimator.seconds(maze).level == "backbone"
    assert estimator.seconds(maze).seconds > 500, "as slow as what was seen of the backbone, and with larger grids"
    other = estimator.seconds(trial("cogvideox/tiny"))
    assert other.guessed
    assert other.seconds == Estimator().seconds(trial("cogvideox/tiny")).seconds


def test_only_done_rows_of_the_same_kind_of_device_count():
    spec = trial(LARGE)
    guessed = Estimator().seconds(spec).seconds
    failed = row(spec, train_s=1, eval_s=1, device="NVIDIA H100 80GB HBM3", state="failed")
    on_cpu = row(spec, train_s=1e6, eval_s=1e6, device="cpu")
    assert after(failed, on_cpu).seconds(spec).seconds == guessed
    assert after(row(spec, train_s=100, eval_s=10, device="NVIDIA H100")).seconds(spec).seconds == pytest.approx(110)


def test_trials_on_another_kind_of_gpu_count_by_how_the_kinds_compare():
    spec = trial(LARGE)
    on_a100 = row(spec, train_s=1000, eval_s=500, device="NVIDIA A100-SXM4-80GB")
    same = after(on_a100, hardware=parse_gpus("A100:8")).seconds(spec).seconds
    faster = after(on_a100, hardware=parse_gpus("H100:8")).seconds(spec).seconds
    assert same == pytest.approx(1500)
    assert 1500 / 4 < faster < 1000
    on_h100 = row(spec, train_s=300, eval_s=200, device="NVIDIA H100 80GB HBM3")
    both = after(on_a100, on_h100, hardware=parse_gpus("H100:8")).seconds(spec)
    assert both.seconds == pytest.approx(500)
    assert both.basis == "1 finished trial"


def test_rows_of_another_version_are_left_out():
    spec = trial()
    unknown = [
        row(spec, 9, 9, recipe='{"no_such_field":1}'),
        row(spec, 9, 9, task="gone"),
        row(spec, 9, 9, backbone="x/y"),
    ]
    assert after(*unknown).seconds(spec).guessed


def test_missing_times_are_no_zeros():
    spec = trial()
    timeless = row(spec, started_at=pd.NaT)
    assert after(timeless).seconds(spec).guessed
    whole = row(spec, other_s=40)
    assert after(whole).seconds(spec).seconds == pytest.approx(40), "the time from start to row is known"


def test_observing_is_as_good_as_a_row():
    spec = trial(max_steps=100)
    estimator = Estimator()
    guessed = estimator.seconds(spec).seconds
    for _ in range(4):
        estimator.observe(spec, 3 * guessed)
    assert estimator.seconds(spec).seconds == pytest.approx(3 * guessed)
    assert estimator.seconds(spec).basis == "4 finished trials"
    assert estimator.seconds(trial(max_steps=200)).seconds > 4 * guessed


def test_guesses_grow_with_the_work():
    def guessed(backbone=LARGE, **kwargs):
        return Estimator().seconds(trial(backbone, **kwargs)).seconds

    assert guessed(max_steps=4000) > 2 * guessed(max_steps=1000)
    assert guessed(n_test=400) > 1.5 * guessed(n_test=100)
    assert guessed(batch_size=16) > guessed(batch_size=2)
    assert guessed(num_inference_steps=50) > guessed(num_inference_steps=10)
    assert guessed(task="maze") > guessed(task="langton_ant"), "larger pictures"
    assert guessed("wan/2.1-14b-i2v") > guessed(LARGE)
    assert guessed(placement={"gradient_checkpointing": True}) > guessed()
    assert guessed("baseline/oracle", n_test=10) < 1


def test_a_step_of_a_large_batch_is_bound_by_arithmetic():
    spec, recipe = (
        backbone_spec(LARGE),
        TrainRecipe(**backbone_spec(LARGE).recipe | {"batch_size": 512, "max_steps": 7}),
    )
    processor = Processor(flops_per_s=1e15, bytes_per_s=1e12, call_s=0.0)
    train_s = guess(spec, TaskSpec(name="life"), recipe, Placement(), 1, 1, processor)[3]
    # Life is 272 px: 17 x 17 tokens for each of the 3 latent frames of 9
    assert train_s == pytest.approx(7 * 4 * spec.num_params * 512 * 17 * 17 * 3 / 1e15)


def test_cost_of_known_times():
    seen = trial(LARGE, max_steps=100)
    estimator = after(row(seen, train_s=3000, eval_s=600, device="NVIDIA H100"))
    total = cost([seen] * 16, estimator, parse_gpus("H100:8"), 2.5)
    assert total.work_s == pytest.approx(16 * 3600)
    assert total.wall_s == pytest.approx(2 * 3600)
    assert total.gpu_hours == pytest.approx(16)
    assert total.usd == pytest.approx(40)
    assert total.slots == 8
    assert total.range_factors == (1.0, 1.0)
    assert total.basis == "1 finished trial"


def test_wall_time_is_no_less_than_the_longest_trial_and_gpus_count_by_worker():
    seen = trial(LARGE, placement={"num_workers": 4, "gpus_per_worker": 2})
    estimator = after(row(seen, train_s=3000, eval_s=600, device="NVIDIA H100"))
    total = cost([seen] * 3, estimator, parse_gpus("H100:8x2"))
    assert total.wall_s == pytest.approx(3 * 3600 / 2)
    assert total.gpu_hours == pytest.approx(3 * 8)
    assert total.usd is None
    assert cost([seen], estimator, parse_gpus("H100:8x2")).wall_s == pytest.approx(3600)


def test_a_guess_has_a_wide_range():
    low, high = cost([trial(LARGE)], Estimator(), parse_gpus("H100:1")).range_factors
    assert (low, high) == (pytest.approx(1 / GUESS_FACTOR), GUESS_FACTOR)


def test_prices_by_kind_of_gpu():
    seen = trial(LARGE)
    estimator = after(row(seen, train_s=3000, eval_s=600, device="NVIDIA H100"))
    prices = {"H100": 3.0, "A100": 1.5}
    assert cost([seen], estimator, parse_gpus("H100:1"), prices).usd == pytest.approx(3)
    with pytest.raises(ValueError, match=r"gpu_hour_usd.*L4.*H100, A100"):
        cost([seen], estimator, parse_gpus("L4:1"), prices)


def test_without_rows_pandas_is_not_loaded():
    script = (
        "import sys; from orchestrator.estimates import Estimator; from orchestrator.specs import TrialSpec\n"
        "spec = TrialSpec(backbone='causal_lm/tiny', task={'name': 'life'}, n_train=3, lora_rank=4)\n"
        "estimator = Estimator(); estimator.observe(spec, 2.0); assert 1.99 < estimator.seconds(spec).seconds < 2.01\n"
        "print(sorted({'pandas', 'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
