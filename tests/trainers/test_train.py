from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.toy import ToyLanguageModel, ToyRegressor, regression_examples, token_examples
from trainers import lora
from trainers.backbone import BackboneSpec
from trainers.recipe import Placement, TrainRecipe
from trainers.rng import torch_generator
from trainers.train import NonFiniteLossError, example_indices, learning_rate, train

RECIPE = TrainRecipe(max_steps=10, learning_rate=1e-2, batch_size=5)


def run(backbone, examples, recipe=RECIPE, placement=None, seed=0, on_step=None, lora_rank=4):
    with lora.attached(backbone, lora_rank=lora_rank, recipe=recipe, seed=seed):
        result = train(backbone, examples, recipe, placement or Placement(), seed=seed, on_step=on_step)
        return result, lora.lora_state(backbone.module)


def losses(result):
    return [row.loss for row in result.losses]


# --- which examples, at which rate


@given(n_examples=st.integers(1, 40), batch_size=st.integers(1, 20), seed=st.integers(0, 3))
def test_batches_cut_an_endless_row_of_shuffled_epochs(n_examples, batch_size, seed):
    drawn = [index for step in range(6) for index in example_indices(n_examples, batch_size, seed, step)]
    assert len(drawn) == 6 * batch_size
    for start in range(0, len(drawn) - n_examples + 1, n_examples):
        assert sorted(drawn[start : start + n_examples]) == list(range(n_examples))


def test_order_depends_on_seed_and_epoch():
    orders = {tuple(example_indices(20, 20, seed, epoch)) for seed in (0, 1, 42, 43) for epoch in range(5)}
    assert len(orders) == 20
    assert example_indices(20, 20, 7, 3) == example_indices(20, 20, 7, 3)


def test_few_examples_fill_a_large_batch_evenly():
    counts = Counter(example_indices(3, 16, seed=0, step=5))
    assert set(counts) == {0, 1, 2}
    assert max(counts.values()) - min(counts.values()) <= 2


def test_learning_rate_warms_up_stays_and_decays_to_zero():
    recipe = TrainRecipe(max_steps=100, learning_rate=1.0, warmup_steps=10, decay_share=0.4, lr_schedule="linear")
    rates = [learning_rate(recipe, step) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:61] == [1.0] * 51
    assert rates[60:101] == pytest.approx([1 - step / 40 for step in range(41)])
    cosine = [learning_rate(recipe.model_copy(update={"lr_schedule": "cosine"}), step) for step in range(101)]
    assert cosine[60] == 1
    assert cosine[80] == pytest.approx(0.5)
    assert cosine[100] == pytest.approx(0)
    assert cosine[65] > rates[65]
    constant = recipe.model_copy(update={"lr_schedule": "constant"})
    assert {learning_rate(constant, step) for step in range(10, 100)} == {1.0}
    whole = recipe.model_copy(update={"decay_share": 1.0})
    assert learning_rate(whole, 55) == pytest.approx(0.5), "decay begins when the warm-up is over"


# --- the loop


@pytest.mark.parametrize(
    "make", [lambda: (ToyRegressor(), regression_examples(8)), lambda: (ToyLanguageModel(), token_examples(8))]
)
def test_training_lowers_the_loss_and_repeats_bitwise(make):
    backbone, examples = make()
    first, first_weights = run(backbone, examples)
    assert losses(first)[-1] < losses(first)[0]
    torch.manual_seed(99)
    torch.randn(3)
    again, again_weights = run(backbone, examples)
    assert losses(again) == losses(first)
    assert all(torch.equal(first_weights[name], again_weights[name]) for name in first_weights)
    other, _ = run(backbone, examples, seed=1)
    assert losses(other) != losses(first)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4, 5, 100])
def test_micro_batches_change_nothing_but_rounding(micro_batch_size):
    whole, whole_weights = run(ToyRegressor(), regression_examples(8))
    cut, cut_weights = run(
        ToyRegressor(), regression_examples(8), placement=Placement(micro_batch_size=micro_batch_size)
    )
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-5)
    for name in whole_weights:
        torch.testing.assert_close(cut_weights[name], whole_weights[name], rtol=0, atol=1e-4)


def test_first_step_is_that_of_adamw_on_the_mean_loss():
    backbone, examples = ToyRegressor(), regression_examples(5)
    recipe = RECIPE.model_copy(update={"max_steps": 1, "gradient_clip": 0.25, "weight_decay": 0.1})
    result, weights = run(backbone, examples, recipe)
    with lora.attached(backbone, lora_rank=4, recipe=recipe, seed=0):
        parameters = [p for p in backbone.module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.1)
        drawn = [examples[i] for i in example_indices(5, 5, seed=0, step=0)]
        loss = backbone.loss(backbone.collate(drawn, recipe, torch_generator("noise", 0, 0))).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.25)
        optimizer.step()
        expected = lora.lora_state(backbone.module)
    assert result.losses[0].loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.losses[0].grad_norm == pytest.approx(norm.item(), rel=1e-5)
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=1e-6)


def test_rows_report_the_run():
    seen = []
    recipe = RECIPE.model_copy(update={"max_steps": 20, "warmup_steps": 4, "lr_schedule": "linear"})
    backbone = ToyRegressor()
    modes = []

    def on_step(row):
        seen.append(row)
        modes.append(backbone.module.training)

    result, _ = run(backbone, regression_examples(8), recipe, on_step=on_step)
    assert result.losses == seen
    assert [row.step for row in seen] == list(range(1, 21))
    assert [row.learning_rate for row in seen] == [learning_rate(recipe, step) for step in range(20)]
    assert all(row.grad_norm > 0 and row.samples_per_s > 0 for row in seen)
    assert result.train_loss == pytest.approx((seen[-1].loss + seen[-2].loss) / 2)
    assert result.num_trainable_params > 0
    assert result.train_s > 0
    assert all(modes)
    assert not backbone.module.training


def test_training_leaves_the_global_random_state_alone():
    backbone, recipe = ToyRegressor(), RECIPE.model_copy(update={"lora_dropout": 0.5})
    torch.manual_seed(3)
    state = torch.get_rng_state()
    run(backbone, regression_examples(8), recipe)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_repeats_and_acts():
    recipe = RECIPE.model_copy(update={"lora_dropout": 0.5})
    first, _ = run(ToyRegressor(), regression_examples(8), recipe)
    again, _ = run(ToyRegressor(), regression_examples(8), recipe)
    without, _ = run(ToyRegressor(), regression_examples(8))
    assert losses(first) == losses(again)
    assert losses(first) != losses(without)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_non_finite_loss_raises_and_names_the_step(bad):
    backbone = ToyRegressor()
    fingerprint = lora.base_fingerprint(backbone.module)
    examples = regression_examples(8)
    (unseen, *_) = set(range(8)) - set(
        example_indices(8, 5, seed=0, step=0)
    )  # so the second step is the first to see it
    examples[unseen]["target"] = torch.full((4,), bad)
    with pytest.raises(NonFiniteLossError, match=f"step 2: loss is {bad}") as caught:
        run(backbone, examples)
    assert caught.value.error_kind == "non_finite_loss"
    assert lora.base_fingerprint(backbone.module) == fingerprint
    assert not backbone.module.training


def test_no_examples_is_a_clear_error():
    with pytest.raises(ValueError, match="n_train"):
        run(ToyRegressor(), [])


def test_untrained_backbones_are_fitted_instead():
    class Untrained:
        spec = BackboneSpec(name="toy/untrained", family="baseline", trainable=False)

        def fit(self, examples):
            self.examples = examples

    backbone = Untrained()
    result = train(backbone, ["a", "b"], RECIPE, Placement(), seed=0)
    assert backbone.examples == ["a", "b"]
    assert (result.num_trainable_params, result.losses, result.train_loss) == (0, [], None)
