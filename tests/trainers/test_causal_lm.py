from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from task_generators import grid_json
from task_generators.problem import Problem, frozen_grid
from task_generators.task import TaskSpec
from trainers import lora, text
from trainers.backbone import backbone_spec, weights_path
from trainers.backbones import causal_lm
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

CPU_RECIPE = TrainRecipe(max_new_tokens=48, learning_rate=5e-3, max_steps=60, batch_size=1, gradient_clip=0)
TASK = TaskSpec(name="elementary_ca", params={"width": 5, "steps": 3}).build()


def problem(shape=(4, 5), seed=0, num_codes=4) -> Problem:
    rng = np.random.default_rng(seed)
    question, answer = (frozen_grid(rng.integers(0, num_codes, size=shape)) for _ in range(2))
    return Problem(question, answer, problem_id=f"random/{seed}")


@pytest.fixture(scope="module")
def tiny():
    torch.set_num_threads(1)
    return causal_lm.load(backbone_spec("causal_lm/tiny"), CPU_RECIPE, "cpu")


@pytest.fixture(scope="module")
def tiny_random():
    torch.set_num_threads(1)
    return causal_lm.load(backbone_spec("causal_lm/tiny-random"), CPU_RECIPE, "cpu")


def collated(backbone, problems):
    return backbone.collate(backbone.encode(TASK, problems, CPU_RECIPE), CPU_RECIPE, torch.Generator())


def test_labels_are_the_answer_and_its_end(tiny):
    given = problem()
    (example,) = tiny.encode(TASK, [given], CPU_RECIPE)
    answer_ids = example["labels"][example["labels"] != text.IGNORED_LABEL]
    assert tiny.tokenizer.decode(answer_ids[:-1]) == grid_json.dumps(given.answer)
    assert answer_ids[-1] == tiny.tokenizer.eos_token_id
    # Labels that are counted are the very tokens of the input, at the very end of it.
    assert torch.equal(example["input_ids"][-len(answer_ids) :], answer_ids)
    prompt = tiny.tokenizer.decode(example["input_ids"][: -len(answer_ids)])
    assert prompt == grid_json.dumps(given.question) + tiny.tokenizer.sep_token


def test_loss_is_that_of_transformers_on_the_same_labels(tiny):
    problems = [problem(seed=0), problem((3, 3), seed=1), problem((2, 7), seed=2)]
    with torch.no_grad():
        losses_B = tiny.loss(collated(tiny, problems))
        assert losses_B.shape == (3,)
        assert losses_B.dtype == torch.float32
        for given, loss in zip(problems, losses_B, strict=True):
            (example,) = tiny.encode(TASK, [given], CPU_RECIPE)
            stock = tiny.module(input_ids=example["input_ids"][None], labels=example["labels"][None]).loss
            torch.testing.assert_close(loss, stock)


def test_gradient_reaches_the_prediction_of_answer_tokens_only(tiny):
    batch = collated(tiny, [problem(seed=0), problem((3, 3), seed=1)])
    seen = []
    embedding = tiny.module.get_output_embeddings()
    handle = embedding.register_forward_hook(lambda _module, _args, logits: seen.append(logits.requires_grad_()))
    try:
        gradient_BTV = torch.autograd.grad(tiny.loss(batch).sum(), seen)[0]
    finally:
        handle.remove()
    num_logits = gradient_BTV.shape[1]
    counted_BT = batch["labels"].roll(-1, dims=1)[:, -num_logits:] != text.IGNORED_LABEL
    counted_BT[:, -1] = False  # nothing follows the last token
    assert torch.equal(gradient_BTV.abs().sum(dim=-1) > 0, counted_BT)


def test_bfloat16_weights_still_give_a_float32_loss():
    recipe = CPU_RECIPE.model_copy(update={"precision": "bf16"})
    backbone = causal_lm.load(backbone_spec("causal_lm/tiny"), recipe, "cpu")
    assert backbone.module.dtype == torch.bfloat16
    with torch.no_grad():
        assert backbone.loss(collated(backbone, [problem()])).dtype == torch.float32


def test_too_long_an_example_is_an_error_in_one_line(tiny):
    with pytest.raises(ValueError, match=r"context; choose smaller grids$") as caught:
        tiny.encode(TASK, [problem((50, 50))], CPU_RECIPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recipe", [{}, {"temperature": 1.3, "top_p": 0.9, "top_k": 5}], ids=["greedy", "sampled"])
def test_left_padded_batch_answers_as_one_by_one(tiny, recipe):
    recipe = CPU_RECIPE.model_copy(update=recipe)
    problems = [problem((2, 2), seed=0), problem((4, 4), seed=1), problem((2, 5), seed=2), problem((3, 3), seed=3)]
    together = tiny.answer(TASK, problems, recipe, attempt=0)
    for given, predicted in zip(problems, together, strict=True):
        (alone,) = tiny.answer(TASK, [given], recipe, attempt=0)
        np.testing.assert_array_equal(alone, predicted)


def test_sampling_repeats_by_problem_and_attempt(tiny):
    recipe = CPU_RECIPE.model_copy(update={"temperature": 5.0})

    def sampled(given, attempt):
        prompt = torch.tensor([tiny.prompt_tokens(given.question)])
        processors = text.sampling_processors([given], recipe, attempt)
        return tiny.module.generate(prompt, logits_processor=processors, do_sample=False, max_new_tokens=8).tolist()

    given = problem()
    assert sampled(given, 0) == sampled(given, 0)
    assert sampled(given, 0) != sampled(given, 1)
    assert sampled(given, 0) != sampled(replace(given, problem_id="another"), 0)


def test_keyed_draws_follow_the_distribution():
    problems = [replace(problem(), problem_id=str(index)) for index in range(2000)]
    recipe = TrainRecipe(temperature=0.5, top_k=3, max_new_tokens=1)
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0])
    processors = text.sampling_processors(problems, recipe, attempt=0)
    chosen = processors(torch.zeros(2000, 1, dtype=torch.long), weights.log().repeat(2000, 1)).argmax(dim=-1)
    expected = torch.tensor([0.0, 4.0, 16.0, 64.0]) / 84  # weights to the power 1 / 0.5, the smallest left out
    torch.testing.assert_close(chosen.bincount(minlength=4) / 2000, expected, atol=0.03, rtol=0)


def test_one_pair_overfitted_comes_back_from_stock_generate(tiny, tmp_path):
    given = problem((3, 4), seed=5)
    examples = tiny.encode(TASK, [given], CPU_RECIPE)
    tokens = examples[0]["input_ids"][None]
    with lora.attached(tiny, lora_rank=4, recipe=CPU_RECIPE, seed=0):
        result = train(tiny, examples, CPU_RECIPE, Placement(), seed=0)
        assert result.losses[-1].loss < 0.1 < result.losses[0].loss
        (ours,) = tiny.answer(TASK, [given], CPU_RECIPE, attempt=0)
        with torch.no_grad():
            our_logits = tiny.module(tokens).logits
        lora.save(tiny, tmp_path)
    np.testing.assert_array_equal(ours, given.answer)

    base = AutoModelForCausalLM.from_pretrained(weights_path(tiny.spec.repo_id), dtype=torch.float32)
    stock = PeftModel.from_pretrained(base, tmp_path)
    prompt = torch.tensor([tiny.prompt_tokens(given.question)])
    with torch.no_grad():
        new_tokens = stock.generate(input_ids=prompt, max_new_tokens=48, do_sample=False)[0, prompt.shape[1] :]
        torch.testing.assert_close(stock(tokens).logits, our_logits)
    assert tiny.tokenizer.decode(new_tokens, skip_special_tokens=True) == grid_json.dumps(given.answer)


def test_random_flavor_has_the_architecture_and_other_weights(tiny, tiny_random):
    pretrained, fresh = tiny.module.state_dict(), tiny_random.module.state_dict()
    assert {name: w.shape for name, w in pretrained.items()} == {name: w.shape for name, w in fresh.items()}
    assert not torch.equal(pretrained["model.embed_tokens.weight"], fresh["model.embed_tokens.weight"])
    global_state = torch.random.get_rng_state()
    again = causal_lm.load(tiny_random.spec, CPU_RECIPE, "cpu").module.state_dict()
    assert all(torch.equal(fresh[name], again[name]) for name in fresh)
    assert torch.equal(torch.random.get_rng_state(), global_state)


def test_chat_template_is_used_where_there_is_one(tiny):
    backbone = causal_lm.load(tiny.spec, CPU_RECIPE, "cpu")
    backbone.tokenizer.chat_template = (
        "{% for message in messages %}[{{ message.content }}]{% endfor %}{% if add_generation_prompt %},{% endif %}"
    )
    question = problem().question
    assert backbone.tokenizer.decode(backbone.prompt_tokens(question)) == f"[{grid_json.dumps(question)}],"
