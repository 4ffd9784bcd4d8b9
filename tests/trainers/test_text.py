import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from task_generators import grid_json
from task_generators.problem import Problem, frozen_grid
from tests.trainers.tiny_causal_lm import write_tiny_checkpoint
from trainers import text
from trainers.json_decoding import Written
from trainers.recipe import TrainRecipe

GRID = frozen_grid([[0]])


def problems(num):
    return [Problem(GRID, GRID, problem_id=f"text/{index}") for index in range(num)]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    torch.set_num_threads(1)
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("llama"), "llama-3.1-8b-instruct")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def scripted(model, tokenizer, monkeypatch, answers):
    """The model, made to write ``answers`` (token ids, a row each); returns the lengths of its inputs, call by call."""
    forward, lengths = model.forward, []
    rows = [iter(answer) for answer in answers]

    def write(*args, **kwargs):
        output = forward(*args, **kwargs)
        lengths.append(kwargs["input_ids"].shape[1])
        for row, answer in enumerate(rows):
            output.logits[row, -1] = -100.0
            output.logits[row, -1, next(answer, tokenizer.convert_tokens_to_ids("a"))] = 100.0
        return output

    monkeypatch.setattr(model, "forward", write)
    return lengths


def test_each_sequence_stops_behind_its_grid_and_the_batch_behind_the_last(random_model, monkeypatch):
    model, tokenizer = random_model
    texts = ["[[1,2],[3,4]] is my answer", "Well: [[1],[2,3]] or [[5,6]]! I think", "[[7]]"]
    answers = [tokenizer(text).input_ids for text in texts]
    answers[2].append(tokenizer.eos_token_id)
    lengths = scripted(model, tokenizer, monkeypatch, answers)
    recipe = TrainRecipe(max_new_tokens=100)
    written = text.generate_texts(model, tokenizer, [[5, 6, 7], [8], [9, 10]], problems(3), recipe, 0)
    assert written == ["[[1,2],[3,4]]", "Well: [[1],[2,3]] or [[5,6]]", "[[7]]"]
    assert [grid_json.loads(one).tolist() for one in written] == [grid_json.loads(one).tolist() for one in texts]
    num_needed = len(tokenizer("Well: [[1],[2,3]] or [[5,6]]").input_ids)
    assert lengths == [3] + [1] * (num_needed - 1)  # the prompts once, then one token a step: keys and values are kept


def test_a_grid_without_its_last_bracket_is_not_taken_for_whole(random_model, monkeypatch):
    model, tokenizer = random_model
    answer = [*tokenizer("[[1,2],[3,4]").input_ids, tokenizer.eos_token_id]
    scripted(model, tokenizer, monkeypatch, [answer])
    assert text.generate_texts(model, tokenizer, [[5]], problems(1), TrainRecipe(), 0) == ["[[1,2],[3,4]"]


@pytest.mark.parametrize("recipe", [{}, {"temperature": 0.7, "top_p": 0.8, "top_k": 20}], ids=["greedy", "published"])
def test_with_json_decoding_even_random_weights_write_grids(random_model, recipe):
    model, tokenizer = random_model
    recipe = TrainRecipe(decoding="json", max_new_tokens=40, **recipe)
    prompts = [[5, 6, 7, index] for index in range(16)]
    texts = text.generate_texts(model, tokenizer, prompts, problems(16), recipe, 0)
    free_recipe = recipe.model_copy(update={"decoding": "free"})
    free = text.generate_texts(model, tokenizer, prompts, problems(16), free_recipe, 0)
    assert not any(Written("grid").then_text(one) for one in free)
    for one in texts:
        written = Written("grid").then_text(one)
        assert written is not None
        assert (written == Written("end")) == (grid_json.loads(one + "!") is not None)


def test_greedy_is_the_models_own_most_likely_token_whatever_its_settings_punish(random_model):
    model, tokenizer = random_model
    assert model.generation_config.repetition_penalty > 1
    prompt = [5, 6, 7]
    recipe = TrainRecipe(max_new_tokens=12)
    (written,) = text.generate_texts(model, tokenizer, [prompt], problems(1), recipe, 0)
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(recipe.max_new_tokens):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert written == tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize(
    "recipe",
    [
        {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
        {"temperature": 1.5, "top_p": 0.9},
        {"temperature": 0.5, "top_k": 3},
        {"temperature": 1.0},
    ],
)
def test_draws_come_from_the_distribution_of_transformers_warpers(recipe):
    recipe = TrainRecipe(max_new_tokens=1, **recipe)
    num_draws, vocabulary_size = 4000, 200
    scores = 2 * torch.randn(1, vocabulary_size, generator=torch.Generator().manual_seed(0))
    scores[:, 50:60] = scores[0, 7]  # ties
    processors = text.sampling_processors(problems(num_draws), recipe, attempt=0)
    chosen = processors(torch.zeros(num_draws, 1, dtype=torch.long), scores.repeat(num_draws, 1)).argmax(dim=-1)
    expected = TemperatureLogitsWarper(recipe.temperature)(None, scores)
    if recipe.top_k:
        expected = TopKLogitsWarper(recipe.top_k)(None, expected)
    if recipe.top_p < 1:
        expected = TopPLogitsWarper(recipe.top_p)(None, expected)
    frequency = chosen.bincount(minlength=vocabulary_size) / num_draws
    torch.testing.assert_close(frequency, expected.softmax(dim=-1)[0], atol=0.03, rtol=0)


def test_possible_tokens_hold_every_finite_score_in_order():
    scores = torch.full((3, 100), -torch.inf)
    finite = [[3, 50, 99], [0], [7, 8]]
    for row, tokens in enumerate(finite):
        scores[row, tokens] = torch.randn(len(tokens))
    possible = text._possible_tokens(scores)
    assert possible.shape == (3, 3)
    assert torch.equal(possible, possible.sort(dim=-1).values)
    assert all(set(tokens) <= set(row.tolist()) for tokens, row in zip(finite, possible, strict=True))
