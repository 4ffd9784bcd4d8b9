import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from task_generators import grid_json
from task_generators.rng import problem_rng
from trainers.backbone import weights_path
from trainers.pretraining import tiny_text

SHIPPED = weights_path("package:qwen3-tiny")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SHIPPED)


def test_shipped_tokenizer_is_the_one_the_script_builds(tokenizer):
    assert tokenizer.get_vocab() == tiny_text.build_tokenizer().get_vocab()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (6, 12)])
def test_a_grid_costs_a_token_a_cell_and_one(tokenizer, shape):
    grids_BHW = np.random.default_rng(0).integers(0, tiny_text.NUM_CELL_CODES, size=(2, *shape)).astype(np.int8)
    first_cell = tokenizer.get_vocab()["0,"]
    for grid, tokens in zip(grids_BHW, tiny_text.grid_tokens(grids_BHW, first_cell), strict=True):
        text = grid_json.dumps(grid)
        assert tokenizer(text).input_ids == tokens.tolist()
        assert len(tokens) == 1 + grid.size
        assert tokenizer.decode(tokens) == text


@pytest.mark.parametrize("text", ["[[-1,36],[127,-128]]", "[[0, 1],\n [2, 3]]", "[[], [[]]", "[[007,1,2]]"])
def test_any_other_text_of_numbers_and_brackets_comes_back(tokenizer, text):
    tokens = tokenizer(text).input_ids
    known = "".join(character for character in text if character in tiny_text.CHARACTERS)
    assert tokenizer.decode(tokens, skip_special_tokens=True) == known


def test_an_example_is_caption_question_separator_answer_end(tokenizer):
    rng = problem_rng("test")
    captioned = 0
    for _ in range(20):
        tokens_BT, first_answer, rules_B = tiny_text.sample_tokens(rng, tokenizer, 3, (3, 4), copy_share=0.5)
        for tokens, rule in zip(tokens_BT, rules_B, strict=True):
            prompt, answer = tokenizer.decode(tokens[:first_answer]), tokenizer.decode(tokens[first_answer:])
            assert prompt.endswith(tiny_text.SEPARATOR)
            assert answer.endswith(tiny_text.END)
            caption, opening, _ = prompt.partition(tiny_text.OPEN)
            assert caption in ("", tiny_text.caption_token(rule))
            captioned += bool(caption)
            question = grid_json.loads(opening + prompt.removeprefix(caption + opening))
            copied = grid_json.loads(answer)
            assert question.shape == copied.shape == (3, 4)
            assert rule < len(tiny_text.RULES) or np.array_equal(question, copied)
    assert captioned > 30


def test_growing_rules_are_taught_downwards():
    rows = [rule for rule in tiny_text.RULES if rule.family == "row"]
    for rule in rows:
        question, answer = rule.draw(problem_rng("test"), (5, 7))
        np.testing.assert_array_equal(question[0], answer[0])
        assert (question[1:] == tiny_text.UNSEEN).all()
    assert len(rows) == tiny_text.RULES_PER_FAMILY["row"]


def test_heads_start_at_neighbours_and_at_the_caption_whatever_the_cells(tokenizer):
    model = tiny_text.build_model(tokenizer, seed=0)
    model.set_attn_implementation("eager")
    rng = np.random.default_rng(0)
    height, width = next(iter(tiny_text.SHAPES))
    first_cell = tokenizer.get_vocab()["0,"]
    cells_BT = rng.integers(first_cell, first_cell + 30, size=(16, 2 * height * width))
    caption_B1 = np.full((16, 1), tokenizer.get_vocab()[tiny_text.caption_token(3)])
    with torch.no_grad():
        tokens_BT = torch.from_numpy(np.concatenate([caption_B1, cells_BT], axis=1))
        attention_BHT = model(tokens_BT, output_attentions=True).attentions[0][:, :, -1]
    distance_BH = attention_BHT.shape[-1] - 1 - attention_BHT.argmax(dim=-1)
    favourite_H = distance_BH.mode(dim=0).values
    assert ((distance_BH == favourite_H).float().mean(dim=0) > 0.7).all()
    assert favourite_H[:2].tolist() == [2 * height * width] * 2
    assert abs(favourite_H[2] - (width - 1)) <= 1
    assert abs(favourite_H[3] - (height * width + 1)) <= width + 1


def test_the_script_repeats_itself_and_leaves_a_model_folder(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(tiny_text, "FIRST_SHAPES", {(3, 3): 1.0})
    monkeypatch.setattr(tiny_text, "SHAPES", {(3, 4): 1.0, (2, 3): 1.0})
    logs = []
    for name in ("first", "second"):
        folder = tmp_path / name
        arguments = ["tiny_text", "--out", str(folder), "--steps", "4", "--batch-size", "2", "--log-every", "2"]
        monkeypatch.setattr("sys.argv", arguments)
        tiny_text.main()
        lines = (folder / "pretraining.jsonl").read_text().splitlines()
        logs.append([{**json.loads(line), "cpu_s": None} for line in lines])
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == [2, 4]
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 4_500_000
