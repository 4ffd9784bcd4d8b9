import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from task_generators import grid_json
from task_generators.problem import Problem, frozen_grid
from task_generators.render import render
from task_generators.task import TaskSpec
from tests.trainers.tiny_gemma3 import CHAT_TEMPLATE, TOKENS_PER_PICTURE, write_tiny_checkpoint
from trainers import lora, text
from trainers.backbone import backbone_spec
from trainers.backbones import gemma3
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

TASK = TaskSpec(name="elementary_ca", params={"width": 5, "steps": 3}).build()
INPUTS = ("text", "image", "image_and_text")
CPU_RECIPE = TrainRecipe(max_new_tokens=24, learning_rate=1e-2, max_steps=40, batch_size=1, gradient_clip=1)


def recipe_with(**fields) -> TrainRecipe:
    return CPU_RECIPE.model_copy(update=fields)


def problem(shape=(2, 3), seed=0, num_codes=3) -> Problem:
    rng = np.random.default_rng(seed)
    question, answer = (frozen_grid(rng.integers(0, num_codes, size=shape)) for _ in range(2))
    return Problem(question, answer, problem_id=f"random/{seed}")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.set_num_threads(1)
    return write_tiny_checkpoint(tmp_path_factory.mktemp("gemma") / "tiny", "4b-it")


@pytest.fixture(scope="module")
def tiny(checkpoint):
    return gemma3.load(backbone_spec(f"gemma3/{checkpoint}"), CPU_RECIPE, "cpu")


@pytest.fixture(scope="module")
def stock(checkpoint):
    """Model and processor as anyone loads them."""
    return AutoModelForImageTextToText.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)


def conversation(given, inputs, answer=None):
    picture = Image.fromarray(render(given.question, TASK.palette, TASK.style))
    content = {
        "image": [{"type": "image", "image": picture}],
        "text": [{"type": "text", "text": grid_json.dumps(given.question)}],
    }
    user = [part for kind, parts in content.items() if kind in inputs.split("_") for part in parts]
    turns = [{"role": "user", "content": user}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": grid_json.dumps(answer)}]


def stock_inputs(processor, given, inputs):
    return processor.apply_chat_template(
        conversation(given, inputs), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def collated(backbone, problems, recipe):
    return backbone.collate(backbone.encode(TASK, problems, recipe), recipe, torch.Generator())


@pytest.mark.parametrize("inputs", INPUTS)
def test_prompt_and_pixels_are_those_of_the_stock_processor(tiny, stock, inputs):
    _, processor = stock
    given = problem()
    prompt = tiny.prompt(TASK, given, recipe_with(inputs=inputs))
    expected = stock_inputs(processor, given, inputs)
    assert torch.equal(prompt["input_ids"], expected["input_ids"][0])
    assert torch.equal(prompt["token_type_ids"], expected["token_type_ids"][0])
    assert ("pixel_values" in prompt) == (inputs != "text")
    if inputs != "text":
        assert torch.equal(prompt["pixel_values"], expected["pixel_values"])
    shown = processor.tokenizer.decode(prompt["input_ids"])
    assert shown.count("<image_soft_token>") == (0 if inputs == "text" else TOKENS_PER_PICTURE)
    assert (grid_json.dumps(given.question) in shown) == (inputs != "image")


def test_an_oblong_picture_is_one_picture(tiny):
    prompt = tiny.prompt(TASK, problem((2, 9)), recipe_with(inputs="image", cell_px=40))
    assert prompt["pixel_values"].shape == (1, 3, 32, 32)


def test_the_recipe_decides_how_the_picture_looks(tiny):
    given = problem((4, 4))
    looks = [
        tiny.prompt(TASK, given, recipe_with(inputs="image", **look))["pixel_values"]
        for look in ({}, {"border_px": 3}, {"picture_px": 32})
    ]
    assert not torch.equal(looks[0], looks[1])
    assert not torch.equal(looks[0], looks[2])


@pytest.mark.parametrize("inputs", INPUTS)
def test_example_is_the_stock_conversation_up_to_the_end_of_the_turn(tiny, stock, inputs):
    _, processor = stock
    given = problem()
    (example,) = tiny.encode(TASK, [given], recipe_with(inputs=inputs))
    whole = processor.apply_chat_template(
        conversation(given, inputs, given.answer), tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = whole["input_ids"][0][:-1]  # the line break after the turn is not generated
    assert torch.equal(example["input_ids"], expected)
    assert torch.equal(example["token_type_ids"], whole["token_type_ids"][0][:-1])
    answer_ids = example["labels"][example["labels"] != text.IGNORED_LABEL]
    assert torch.equal(example["input_ids"][-len(answer_ids) :], answer_ids)
    assert processor.tokenizer.decode(answer_ids) == grid_json.dumps(given.answer) + "<end_of_turn>"


def test_prompts_depend_on_no_clock_and_ask_for_no_thoughts(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    asking = "{{ strftime_now('%Y') }}{{ ' thoughts' if enable_thinking | default(true) }}"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": asking + CHAT_TEMPLATE}))
    backbone = gemma3.load(backbone_spec(f"gemma3/{folder}"), CPU_RECIPE, "cpu")
    tokens = backbone.prompt(TASK, problem(), recipe_with(inputs="image"))["input_ids"]
    assert backbone.processor.tokenizer.decode(tokens).split("<bos>")[-2] == "26 Jul 2024"
    assert backbone.answer_tokens(problem().answer)[-1] == tiny_token(backbone, "<end_of_turn>")


def tiny_token(backbone, token):
    return backbone.processor.tokenizer.convert_tokens_to_ids(token)


@pytest.mark.parametrize("inputs", INPUTS)
def test_loss_is_that_of_transformers_on_the_same_labels(tiny, stock, inputs):
    model, processor = stock
    recipe = recipe_with(inputs=inputs)
    problems = [problem(seed=0), problem((3, 3), seed=1), problem((2, 7), seed=2)]
    with torch.no_grad():
        losses_B = tiny.loss(collated(tiny, problems, recipe))
        assert losses_B.shape == (3,)
        assert losses_B.dtype == torch.float32
        for given, loss in zip(problems, losses_B, strict=True):
            answer = torch.tensor([tiny.answer_tokens(given.answer)])
            prompt = stock_inputs(processor, given, inputs)
            ignored = torch.full_like(prompt["input_ids"], -100)
            prompt["token_type_ids"] = torch.cat([prompt["token_type_ids"], torch.zeros_like(answer)], dim=1)
            prompt["input_ids"] = torch.cat([prompt["input_ids"], answer], dim=1)
            del prompt["attention_mask"]
            expected = model(**prompt, labels=torch.cat([ignored, answer], dim=1)).loss
            torch.testing.assert_close(loss, expected)


def test_every_tensor_of_a_batch_can_be_cut_into_micro_batches(tiny):
    problems = [problem(seed=seed) for seed in range(3)]
    batch = collated(tiny, problems, recipe_with(inputs="image_and_text"))
    assert {len(tensor) for tensor in batch.values()} == {3}
    with torch.no_grad():
        whole = tiny.loss(batch)
        parts = [tiny.loss({name: tensor[cut] for name, tensor in batch.items()}) for cut in (slice(1), slice(1, 3))]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_a_picture_changes_the_loss(tiny):
    recipe = recipe_with(inputs="image")
    one, other = problem(seed=0), problem(seed=1)
    swapped = replace(other, answer=one.answer)
    with torch.no_grad():
        losses_B = tiny.loss(collated(tiny, [one, swapped], recipe))
    assert abs(losses_B[0] - losses_B[1]) > 1e-4


@pytest.mark.parametrize("inputs", INPUTS)
def test_one_pair_overfitted_comes_back_from_stock_generate(tiny, checkpoint, tmp_path, inputs):
    recipe = recipe_with(inputs=inputs)
    given = problem(seed=5)
    examples = tiny.encode(TASK, [given], recipe)
    before = lora.base_fingerprint(tiny.module)
    with lora.attached(tiny, lora_rank=8, recipe=recipe, seed=0):
        adapted = {name for name, _ in tiny.module.named_modules() if name.endswith("lora_A.default")}
        result = train(tiny, examples, recipe, Placement(), seed=0)
        assert result.losses[-1].loss < 0.1 < result.losses[0].loss
        (ours,) = tiny.answer(TASK, [given], recipe, attempt=0)
        lora.save(tiny, tmp_path)
        tiny.module.eval()
        with torch.no_grad():
            our_loss = tiny.loss(tiny.collate(examples, recipe, torch.Generator()))
    assert lora.base_fingerprint(tiny.module) == before
    assert len(adapted) == 3 * 7
    assert all(name.startswith("model.language_model.layers.") for name in adapted)
    np.testing.assert_array_equal(ours, given.answer)

    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(checkpoint), tmp_path)
    processor = AutoProcessor.from_pretrained(checkpoint)
    prompt = stock_inputs(processor, given, inputs)
    with torch.no_grad():
        tokens = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        stock_loss = replace_module(tiny, model.get_base_model()).loss(
            tiny.collate(examples, recipe, torch.Generator())
        )
    assert processor.decode(tokens, skip_special_tokens=True) == grid_json.dumps(given.answer)
    torch.testing.assert_close(stock_loss, our_loss)


def replace_module(backbone, module):
    return gemma3.VisionLanguageModel(spec=backbone.spec, module=module, processor=backbone.processor)


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_padded_batch_of_prompts_gives_the_logits_of_the_stock_model(tiny, stock, inputs):
    model, processor = stock
    problems = [problem(shape, seed=seed) for seed, shape in enumerate([(2, 2), (3, 4), (2, 5)])]
    logits = []
    handle = tiny.module.lm_head.register_forward_hook(lambda _module, _args, output: logits.append(output[:, -1]))
    try:
        tiny.answer(TASK, problems, recipe_with(inputs=inputs, max_new_tokens=1), attempt=0)
    finally:
        handle.remove()
    with torch.no_grad():
        expected = [model(**stock_inputs(processor, given, inputs)).logits[0, -1] for given in problems]
    torch.testing.assert_close(logits[0], torch.stack(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("inputs", INPUTS)
def test_greedy_texts_are_those_of_stock_generate(tiny, stock, inputs):
    model, processor = stock
    problems = [problem(shape, seed=seed) for seed, shape in enumerate([(2, 2), (3, 4), (2, 5)])]
    expected = []
    for given in problems:
        prompt = stock_inputs(processor, given, inputs)
        tokens = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        expected.append(processor.decode(tokens, skip_special_tokens=True))
    assert len(set(expected)) > 1
    assert generated_texts(tiny, problems, recipe_with(inputs=inputs), 0) == expected


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("fields", [{}, {"temperature": 1.3, "top_p": 0.9, "top_k": 5}], ids=["greedy", "sampled"])
def test_left_padded_batch_answers_as_one_by_one(tiny, inputs, fields):
    recipe = recipe_with(inputs=inputs, **fields)
    shapes = [(2, 2), (4, 4), (2, 5), (3, 3)]
    problems = [problem(shape, seed=seed) for seed, shape in enumerate(shapes)]
    seen = generated_texts(tiny, problems, recipe, 0)
    assert len(set(seen)) > 1
    assert seen == [generated_texts(tiny, [given], recipe, 0)[0] for given in problems]


def generated_texts(backbone, problems, recipe, attempt):
    """What ``answer`` reads: a random model writes no grids."""
    seen = []

    def recording(*arguments, **inputs):
        seen.extend(text.generate_texts(*arguments, **inputs))
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemma3, "generate_texts", recording)
        backbone.answer(TASK, problems, recipe, attempt)
    return seen


def test_decoding_json_writes_nothing_but_grids(tiny):
    recipe = recipe_with(inputs="image", decoding="json", temperature=1.0)
    problems = [problem(seed=seed) for seed in range(3)]
    for written in generated_texts(tiny, problems, recipe, 0):
        assert written.startswith("[[")
        assert set(written) <= set("[],-0123456789")


def test_sampling_repeats_by_problem_and_attempt(tiny):
    recipe = recipe_with(inputs="image", temperature=3.0)
    given = problem()
    assert generated_texts(tiny, [given], recipe, 0) == generated_texts(tiny, [given], recipe, 0)
    assert generated_texts(tiny, [given], recipe, 0) != generated_texts(tiny, [given], recipe, 1)
    another = replace(given, problem_id="another")
    assert generated_texts(tiny, [given], recipe, 0) != generated_texts(tiny, [another], recipe, 0)


@pytest.mark.parametrize("inputs", INPUTS)
def test_bfloat16_is_close(tiny, checkpoint, inputs):
    recipe = recipe_with(inputs=inputs, precision="bf16")
    backbone = gemma3.load(backbone_spec(f"gemma3/{checkpoint}"), recipe, "cpu")
    assert backbone.module.dtype == torch.bfloat16
    problems = [problem(seed=seed) for seed in range(3)]
    with torch.no_grad():
        exact = tiny.loss(collated(tiny, problems, recipe_with(inputs=inputs)))
        close = backbone.loss(collated(backbone, problems, recipe))
    assert close.dtype == torch.float32
    torch.testing.assert_close(close, exact, rtol=0.05, atol=0.05)


def test_random_flavor_has_the_architecture_and_other_weights(tiny):
    spec = tiny.spec.model_copy(update={"pretrained": False})
    first, again = (gemma3.load(spec, CPU_RECIPE, "cpu").module.state_dict() for _ in range(2))
    pretrained = tiny.module.state_dict()
    assert {name: w.shape for name, w in pretrained.items()} == {name: w.shape for name, w in first.items()}
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "model.language_model.embed_tokens.weight"
    assert not torch.equal(pretrained[name], first[name])


def test_too_long_an_example_is_an_error_in_one_line(tiny):
    with pytest.raises(ValueError, match=r"more than the 512 of its context; choose smaller grids$"):
        tiny.encode(TASK, [problem((20, 20))], recipe_with(inputs="text"))
    with pytest.raises(ValueError, match=r"more than recipe.max_length = 20; choose smaller grids"):
        tiny.encode(TASK, [problem()], recipe_with(inputs="text", max_length=20))


def test_pictures_that_do_not_stack_are_an_error_in_one_line(tiny):
    examples = tiny.encode(TASK, [problem(seed=0), problem(seed=1)], recipe_with(inputs="image"))
    examples[1]["pixel_values"] = examples[1]["pixel_values"][..., :16]
    with pytest.raises(ValueError, match=r"pixel_values differs in shape .*set recipe.picture_px") as caught:
        tiny.collate(examples, CPU_RECIPE, torch.Generator())
    assert "\n" not in str(caught.value)


def test_a_processor_without_chat_template_is_an_error_in_one_line(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    (folder / "chat_template.json").unlink()
    with pytest.raises(ValueError, match=r"has no chat template$"):
        gemma3.load(backbone_spec(f"gemma3/{folder}"), CPU_RECIPE, "cpu")


def test_names_of_flavors_and_repositories():
    spec = backbone_spec("gemma3/ORG/NAME@abc")
    assert (spec.repo_id, spec.revision, spec.family) == ("ORG/NAME", "abc", "vision_language")
    assert spec.recipe == backbone_spec("gemma3/4b-it").recipe
    assert backbone_spec("gemma3/4b-it").gated
    for each in (spec, backbone_spec("gemma3/4b-it")):
        assert TrainRecipe(**each.recipe).lora_alpha == 32


def test_importing_the_family_loads_no_model_library():
    script = (
        "import sys; from trainers.backbone import backbone_spec; backbone_spec('gemma3/4b-it')\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'PIL.Image') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['PIL.Image']")
