import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from task_generators import grid_json
from task_generators.problem import frozen_grid
from tests.trainers.tiny_causal_lm import CHATML, chat_tokenizer
from trainers.backbone import weights_path
from trainers.json_decoding import GridTokens, Written, grid_processor


def sentencepiece_style() -> PreTrainedTokenizerFast:
    # The space before the first word, single characters, and a few longer pieces, as Llama 2 and Gemma have them.
    pieces = ["<s>", "</s>", "<unk>", "▁", *"0123456789,[]ab", "▁[", "[[", "▁[[", "],", "]]"]
    merges = [("▁", "["), ("[", "["), ("▁[", "["), ("]", ","), ("]", "]")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "package": lambda: AutoTokenizer.from_pretrained(weights_path("package:qwen3-tiny")),
    "byte_level": lambda: chat_tokenizer(CHATML, ("<|pad|>", "<|end|>"), digits_a_token=1),
    "byte_level_numbers": lambda: chat_tokenizer(CHATML, ("<|pad|>", "<|end|>"), digits_a_token=3),
    "sentencepiece": sentencepiece_style,
}


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]()


def is_beginning(text: str) -> bool:
    """Whether ``text`` begins a compact grid, decided by trying to complete it."""
    if "".join(text.split()) != text:
        return False
    endings = ["", "]", "]]", "0]]", "[0]]", "[[0]]"]
    rows = text.removeprefix("[").split("],[")
    width, written = rows[0].split("]")[0].count(",") + 1, rows[-1].count(",")
    if len(rows) > 1 or text.endswith("],"):
        more = ",".join("0" * width)
        endings += [f"[{more}]]", f"{more}]]"]
        endings += [ending + ",0" * n + "]]" for ending in ("", "0") for n in range(max(0, width - written))]
    return any(is_grid(text + ending) for ending in endings)


def is_grid(text: str) -> bool:
    try:
        rows = json.loads(text)
    except ValueError:
        return False
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        return False
    cells = [cell for row in rows for cell in row]
    return all(isinstance(cell, int) and 0 <= cell <= 127 for cell in cells) and len(set(map(len, rows))) == 1


def test_characters_that_may_follow_are_those_of_json_grids():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        text = ""
        written = Written("grid")
        while written is not None and len(text) < 25:
            seen.add(text)
            assert is_beginning(text)
            following = {character for character in "0123456789,[]" if written.then(character)}
            expected = {character for character in "0123456789,[]" if is_beginning(text + character)}
            assert following == expected, text
            if not following:
                assert is_grid(text)
                break
            character = rng.choice(sorted(following))
            text, written = text + character, written.then(character)
    assert len(seen) > 500


@pytest.mark.parametrize("text", ["[[7]]", "[[0,1],[2,3]]", "[[127,10,0]]", "[[1],[12],[120]]"])
def test_whole_grids_are_read_to_their_end(text):
    assert Written("grid").then_text(text) == Written("end")


@pytest.mark.parametrize(
    "text",
    ["[[]]", "[]", "[[1,]]", "[[01]]", "[[128]]", "[[-1]]", "[[1],[2,3]]", "[[1,2],[3]]", "[[1]]]", " [[1]]", "[["],
)
def test_what_is_no_grid_is_not_read_to_an_end(text):
    assert Written("grid").then_text(text) != Written("end")


def test_every_spelling_by_the_tokenizer_is_allowed(tokenizer):
    tokens = GridTokens(tokenizer)
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 9, size=2)
        cells = rng.integers(0, rng.choice([2, 10, 36, 128]), size=(height, width))
        token_ids = tokenizer(grid_json.dumps(frozen_grid(cells)), add_special_tokens=False).input_ids
        assert tokens.read(token_ids) == Written("end")
        assert all(tokens.read(token_ids[:length]) not in (None, Written("end")) for length in range(len(token_ids)))


def test_random_choices_among_the_allowed_write_grids_and_end_behind_them(tokenizer):
    generator = torch.Generator().manual_seed(0)
    batch_size, prompt_length, vocabulary_size = 16, 3, len(tokenizer) + 7
    processor = grid_processor(tokenizer, [tokenizer.eos_token_id])
    tokens_BT = torch.randint(vocabulary_size, (batch_size, prompt_length), generator=generator)
    closing = torch.tensor(["]" in tokenizer.decode([i]) and i < len(tokenizer) for i in range(vocabulary_size)])
    for _ in range(150):
        scores_BV = torch.randn(batch_size, vocabulary_size, generator=generator) + 4 * closing
        left_BV = processor(tokens_BT, scores_BV)
        kept_BV = left_BV > -torch.inf
        assert kept_BV.any(dim=1).all()
        assert torch.equal(left_BV[kept_BV], scores_BV[kept_BV])
        tokens_BT = torch.cat([tokens_BT, left_BV.argmax(dim=1, keepdim=True)], dim=1)
    num_ended = 0
    for row in tokens_BT[:, prompt_length:].tolist():
        if tokenizer.eos_token_id in row:
            end = row.index(tokenizer.eos_token_id)
            assert is_grid(tokenizer.decode(row[:end]).strip())
            assert set(row[end:]) == {tokenizer.eos_token_id}
            num_ended += 1
        else:
            assert GridTokens(tokenizer).read(row) is not None
    assert num_ended > batch_size / 2


def test_a_tokenizer_without_digits_is_an_error_in_one_line():
    tokenizer = Tokenizer(models.WordLevel({"[[": 0, "]]": 1, "?": 2, "<end>": 3}, unk_token="?"))
    wordy = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="?")
    with pytest.raises(ValueError, match=r"^recipe\.decoding = json: .* cannot spell grids$"):
        GridTokens(wordy)
