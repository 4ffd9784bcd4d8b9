from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from task_generators.problem import Problem, frozen_grid
from task_generators.task import Task
from tests.trainers.toy import ToyLanguageModel, ToyRegressor, regression_examples, token_examples
from trainers import lora
from trainers.engine import join_process_group, world
from trainers.evaluate import evaluate
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

REPOSITORY = Path(__file__).parents[2]
RECIPE = TrainRecipe(
    max_steps=6,
    learning_rate=1e-2,
    batch_size=7,  # seven over two ranks in twos: slices and micro-batches of unequal size
    gradient_clip=0.5,
    weight_decay=0.1,
    warmup_steps=2,
    lr_schedule="linear",
)


@dataclass
class Outcome:
    """What a trial left behind."""

    losses: list[float]
    grad_norms: list[float]
    num_trainable_params: int
    lora_state: dict[str, torch.Tensor]
    lora_state_at_step_3: dict[str, torch.Tensor]
    base_is_unchanged: bool
    num_hooks: int


def run_trial(backbone, examples, placement: Placement) -> Outcome:
    before = lora.base_fingerprint(backbone.module)
    at_step_3 = {}

    def read_weights(row):
        if row.step == 3:
            at_step_3.update(lora.lora_state(backbone.module))

    with lora.attached(backbone, lora_rank=3, recipe=RECIPE, seed=1):
        result = train(backbone, examples, RECIPE, placement, seed=5, on_step=read_weights)
        state = lora.lora_state(backbone.module)
        lora.assert_only_lora_trains(backbone.module)
        assert lora.base_fingerprint(backbone.module) == before
    return Outcome(
        losses=[row.loss for row in result.losses],
        grad_norms=[row.grad_norm for row in result.losses],
        num_trainable_params=result.num_trainable_params,
        lora_state=state,
        lora_state_at_step_3=at_step_3,
        base_is_unchanged=lora.base_fingerprint(backbone.module) == before,
        num_hooks=sum(
            len(hooks)
            for module in backbone.module.modules()
            for hooks in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
        ),
    )


class Grey(Task):
    def generate(self, rng):
        raise NotImplementedError


def problems() -> tuple[Task, list[Problem]]:
    grids = [np.full((2, 3), code) for code in range(5)]
    return Grey(), [Problem(frozen_grid(g), frozen_grid(g), problem_id=f"p{i}") for i, g in enumerate(grids)]


@pytest.fixture(scope="module")
def plain() -> dict[str, Outcome]:
    """Plain torch, one process."""
    return {
        "regressor": run_trial(ToyRegressor(), regression_examples(10), Placement()),
        "bf16": run_trial(ToyRegressor(torch.bfloat16), regression_examples(10), Placement()),
        "qwen3": run_trial(ToyLanguageModel(), token_examples(10), Placement()),
    }


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def ranks(request, tmp_path_factory) -> dict:
    """What DeepSpeed leaves at every stage, from processes of its own."""
    path = tmp_path_factory.mktemp("ranks") / "outcomes.pt"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if request.param == 2 else []
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "tests.trainers.engine_ranks", str(path)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("toy", ["regressor", "bf16", "qwen3"])
def test_deepspeed_trains_as_plain_torch_does(plain, ranks, toy, stage):
    expected, got = plain[toy], ranks["outcomes"][f"{toy} {stage}"]
    relative = 1e-3 if toy == "bf16" else 1e-5  # a bf16 base rounds activations, differently at each batch size
    assert got.losses == pytest.approx(expected.losses, rel=relative)
    assert got.grad_norms == pytest.approx(expected.grad_norms, rel=10 * relative)
    assert max(expected.grad_norms) > RECIPE.gradient_clip, "clipping is not exercised"
    assert got.num_trainable_params == expected.num_trainable_params
    for name in expected.lora_state:
        # Adam divides by the root of the squared gradient: where that is near zero, rounding becomes visible.
        tolerance = {"rtol": 0, "atol": 0.1 * RECIPE.learning_rate if toy == "bf16" else 1e-4}
        torch.testing.assert_close(got.lora_state[name], expected.lora_state[name], **tolerance)
        torch.testing.assert_close(got.lora_state_at_step_3[name], expected.lora_state_at_step_3[name], **tolerance)
        assert not torch.equal(got.lora_state[name], got.lora_state_at_step_3[name])


def test_deepspeed_leaves_the_base_and_no_hook(ranks):
    for case, outcome in ranks["outcomes"].items():
        assert outcome.base_is_unchanged, case
        assert outcome.num_hooks == 0, case


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_an_interrupted_training_goes_on_bitwise(ranks, stage):
    whole = ranks["outcomes"][f"regressor {stage}"]
    kept = ranks["checkpoints"][stage]
    for case, step in (("from_third", 3), ("from_last", RECIPE.max_steps), ("from_other_stage", None)):
        resumed_from_step, losses, lora_state = kept[case]
        assert resumed_from_step == step, case
        if step is not None:
            assert losses == whole.losses, case
            assert all(torch.equal(lora_state[name], whole.lora_state[name]) for name in whole.lora_state), case
        assert losses == pytest.approx(whole.losses, rel=1e-5)


def test_no_engine_outlives_its_trial(ranks):
    assert ranks["num_engines"] == 0


def test_non_finite_loss_raises_on_all_ranks_and_the_base_survives(ranks):
    assert "step 1: loss is inf" in ranks["raised"]
    assert ranks["fingerprint"] == lora.base_fingerprint(ToyRegressor().module)


def test_evaluation_split_over_ranks_gives_the_same_predictions(ranks):
    task, test_problems = problems()
    alone = evaluate(ToyRegressor(), task, test_problems, RECIPE.model_copy(update={"attempts": 2}), Placement())
    assert ranks["predictions"] == [(p.problem_id, p.attempt, p.parsed, p.scores) for p in alone]


def test_several_workers_without_their_environment_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match=r"num_workers: 2 workers need .*MASTER_ADDR"):
        join_process_group(Placement(num_workers=2), torch.device("cpu"))
    assert world().size == 1
