"""Pretrain the tiny language model shipped as ``trainers/weights/qwen3-tiny``, its tokenizer included.

    OMP_NUM_THREADS=1 python -m trainers.pretraining.tiny_text --out trainers/weights/qwen3-tiny

The model is transformers' ``Qwen3ForCausalLM`` with about a million parameters. It learns the generic grid processes
of ``trainers.pretraining.procedural``, which hold none of the tasks: question, separator, answer, end, with the loss on
the answer alone. Most examples open with a *caption*, one token that names the rule; a sweep's prompts have none.

Shapes: B examples, T tokens, H x W cells of a grid.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from task_generators.rng import problem_rng
from trainers.pretraining.procedural import LIBRARY, UNSEEN, Cells, Rule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

PAD, SEPARATOR, END, UNKNOWN = "<|pad|>", "<|answer|>", "<|end|>", "<|unknown|>"
OPEN = "[["
CELL_ENDS = (",", "],[", "]]")
"""What follows a cell: its neighbour, the next row, the end of the grid."""
NUM_CELL_CODES = 36
"""Cell codes 0..35 are one token with their punctuation; other numbers are spelt character by character."""
CHARACTERS = "0123456789-,[]"

MAX_TOKENS = 4096
FIRST_SHAPES = {(6, 12): 1.0}
SHAPES = {(6, 12): 0.5, (6, 6): 0.3, (8, 8): 0.15, (7, 7): 0.05}
"""(height, width) -> weight, for the first fifth of the steps and for the rest. Distances in the text depend on the
shape, and one shape at first makes it plain that distances matter."""
FIRST_SHARE = 0.2
RULES_PER_FAMILY = {"row": 8, "count": 8, "offset": 6, "move": 12, "spread": 6}
FAMILY_WEIGHTS = {"plain_row": 0.5, "row": 0.1, "count": 0.12, "offset": 0.08, "move": 0.12, "spread": 0.08}
"""Few rules, each seen often: what should last is looking at the right cells, not a catalogue of tables."""
CAPTION_SHARE = 0.95
"""Share of batches whose examples open with their caption."""
LOOK_BACK_GAIN = 0.1
"""Size of what ``_look_back`` adds to query and key weights, which are drawn with a deviation of 0.02."""
COPY_SHARE = 0.3
"""Share of examples, falling to a tenth of this over the first third, whose answer is the question itself: the skill
that all others start from, finding the same cell of the question."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that reads compact JSON grids at 1 + H x W tokens: ``[[`` ``3,`` ``0],[`` ``1,`` ``3]]``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, SEPARATOR, END, UNKNOWN, *(caption_token(rule) for rule in range(len(RULES) + 1))]
    cells = [f"{code}{end}" for code in range(NUM_CELL_CODES) for end in CELL_ENDS]
    vocabulary = {token: index for index, token in enumerate([*special, OPEN, *cells, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    codes = "|".join(str(code) for code in reversed(range(NUM_CELL_CODES)))
    # A cell is a whole number with its punctuation; whatever is not falls to single characters.
    pattern = rf"\[\[|(?<![0-9-])(?:{codes})(?:\],\[|\]\]|,)|."
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        sep_token=SEPARATOR,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=special[4:],
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
    )


def caption_token(rule: int) -> str:
    """The token that names rule ``rule`` of ``RULES``; one past the last stands for copying the question."""
    return f"<|process_{rule}|>"


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A fresh model. Rotary base 200 resolves the distances of a grid's cells, and sharper attention from the start
    (query and key norms of 2.5) finds one cell among many: both cut the steps to the first copied grid."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 200.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    captions = [tokenizer.get_vocab()[caption_token(rule)] for rule in (0, len(RULES))]
    _look_back(model, slice(captions[0], captions[1] + 1), problem_rng("tiny_text", "look back", seed))
    return model


@torch.no_grad()
def _look_back(model: Qwen3ForCausalLM, captions: slice, rng: np.random.Generator) -> None:
    """Start two heads in three looking a fixed distance back, and two of layer 0 at the caption.

    The distances are those from the token before an answer cell to neighbours of this cell, in the question and in the
    answer's row above, for the first of ``SHAPES`` and, in turn, for the others. All embeddings get one direction in
    common, which the keys of such a head see as some vector and its queries as the same, rotated by that distance.
    The caption has a direction of its own, and is looked up in the two slowest rotations, where distance counts little.

    This is a start, not a constraint: training moves and mixes what heads look at. From plain random weights most of
    its time went into finding that distances matter at all.
    """
    config = model.config
    num_heads, heads_a_key = config.num_attention_heads, config.num_attention_heads // (config.num_key_value_heads or 1)
    half = config.head_dim // 2
    frequencies = model.model.rotary_emb.inv_freq.double()
    common, caption = (torch.from_numpy(rng.normal(size=config.hidden_size)) for _ in range(2))
    first_shape, *other_shapes = SHAPES
    embedding = model.model.embed_tokens.weight
    embedding += 2 * config.initializer_range * common.float()
    embedding[captions] += 2 * config.initializer_range * caption.float()
    for depth, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        attention.q_norm.weight.fill_(2.5)
        attention.k_norm.weight.fill_(2.5)
        weights_q = attention.q_proj.weight.view(num_heads, 2 * half, -1)
        weights_k = attention.k_proj.weight.view(num_heads // heads_a_key, 2 * half, -1)
        for group in range(num_heads // heads_a_key):
            key = torch.from_numpy(rng.normal(size=2 * half))
            if group > 0:
                weights_k[group] += LOOK_BACK_GAIN * torch.outer(key, common / common.norm()).float()
                shape = first_shape if group == 1 else other_shapes[depth % len(other_shapes)]
                distances = _neighbour_distances(shape, rng)
            elif depth == 0:
                key[torch.arange(2 * half) % half < half - 2] = 0
                key *= 4  # the length that a key with all its rotations has
                weights_k[group] += LOOK_BACK_GAIN * torch.outer(key, caption / caption.norm()).float()
                distances = (50, 50)
            else:
                continue
            for head, distance in enumerate(distances, start=group * heads_a_key):
                angles = -distance * frequencies
                query = torch.cat(
                    [
                        key[:half] * angles.cos() - key[half:] * angles.sin(),
                        key[half:] * angles.cos() + key[:half] * angles.sin(),
                    ]
                )
                weights_q[head] += LOOK_BACK_GAIN * torch.outer(query, common / common.norm()).float()


def _neighbour_distances(shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Tokens from the one before an answer cell back to two of its neighbours, drawn at random.

    One lies in the answer's row above, one in the question, where the cell itself counts as a neighbour.
    """
    height, width = shape
    down, right, right_above = (int(step) for step in rng.integers(-1, 2, size=3))
    return width - 1 - right_above, height * width + 1 - down * width - right


def grid_tokens(grids_BHW: npt.NDArray[np.int8], first_cell_token: int) -> npt.NDArray[np.int64]:
    """Token ids (B, 1 + H x W) of grids whose codes lie in 0..35: what the tokenizer gives for their compact JSON."""
    batch, height, width = grids_BHW.shape
    kind_HW = np.zeros((height, width), dtype=np.int64)
    kind_HW[:, -1] = 1
    kind_HW[-1, -1] = 2
    cells = first_cell_token + grids_BHW.astype(np.int64) * len(CELL_ENDS) + kind_HW
    opening = np.full((batch, 1), first_cell_token - 1)
    return np.concatenate([opening, cells.reshape(batch, height * width)], axis=1)


PLAIN_NEXT_CELL: dict[str, Callable[[Cells, Cells, Cells], Cells]] = {
    "left": lambda left, own, right: left,
    "own": lambda left, own, right: own,
    "right": lambda left, own, right: right,
    "max of left, own": lambda left, own, right: np.maximum(left, own),
    "min of own, right": lambda left, own, right: np.minimum(own, right),
    "max of left, right": lambda left, own, right: np.maximum(left, right),
    "min of left, right": lambda left, own, right: np.minimum(left, right),
    "max of all": lambda left, own, right: np.maximum(np.maximum(left, own), right),
    "min of all": lambda left, own, right: np.minimum(np.minimum(left, own), right),
    "median": lambda left, own, right: np.median([left, own, right], axis=0).astype(np.int8),
    "own where the sides agree": lambda left, own, right: np.where(left == right, own, right),
    "left where it differs": lambda left, own, right: np.where(left == own, right, left),
}
"""Three-state rows, one below the other, by rules that a look at one, two or three neighbours explains: random tables
alone give so little to gain from one neighbour that looking at three is found late."""


def _plain_row_rules() -> tuple[Rule, ...]:
    """Each of ``PLAIN_NEXT_CELL``, followed by a rotation of the three states one way or the other.

    A uniform row thus always changes its state, and no two states keep to themselves: none of these holds a two-state
    (elementary) automaton.
    """

    def make(next_cell: Callable[[Cells, Cells, Cells], Cells], turn: int) -> Rule:
        def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Cells, Cells]:
            question = np.full(shape, UNSEEN, dtype=np.int8)
            question[0] = rng.choice(3, size=shape[1], p=rng.dirichlet((2, 2, 2)))
            answer = question.copy()
            for row in range(1, shape[0]):
                above = answer[row - 1]
                answer[row] = (next_cell(np.roll(above, 1), above, np.roll(above, -1)) + turn) % 3
            return question, answer

        return Rule("plain_row", (), draw)

    return tuple(make(next_cell, turn) for next_cell in PLAIN_NEXT_CELL.values() for turn in (1, 2))


def _chosen_rules() -> tuple[Rule, ...]:
    """The plain rows, and of the library the first rules of each family, of the growing ones those that grow down.

    Text is written from the top, so only a process that runs down the rows can look at what it has already written.
    """
    chosen = list(_plain_row_rules())
    for family, count in RULES_PER_FAMILY.items():
        rules = [rule for rule in LIBRARY if rule.family == family and (family != "row" or _grows_down(rule))]
        assert len(rules) >= count, f"the library has {len(rules)} rules of family {family!r}, {count} wanted"
        chosen += rules[:count]
    return tuple(chosen)


def _grows_down(rule: Rule) -> bool:
    question, _ = rule.draw(problem_rng("tiny_text", "direction"), (6, 6))
    return bool((question[1:] == UNSEEN).all() and (question[0] != UNSEEN).all())


RULES = _chosen_rules()


def _cell_codes(number: int) -> npt.NDArray[np.int8]:
    """Which cell codes stand for codes 0..3 of rule ``number``: small ones for two rules in three, else any digits.

    A growing process mostly writes its unseen cells as 0.
    """
    rng = problem_rng("tiny_text", "codes", number)
    if rng.random() < 1 / 3:
        return rng.choice(10, size=4, replace=False).astype(np.int8)
    if RULES[number].family in ("row", "plain_row"):
        assert UNSEEN == 3
        return np.append(rng.permutation([1, 2, 3]), 0).astype(np.int8)
    return np.arange(4, dtype=np.int8)


CELL_CODES = np.stack([_cell_codes(number) for number in range(len(RULES))])
_FAMILY_SIZES = Counter(rule.family for rule in RULES)
RULE_WEIGHTS = np.array([FAMILY_WEIGHTS[rule.family] / _FAMILY_SIZES[rule.family] for rule in RULES])


def sample_pairs(
    rng: np.random.Generator, batch_size: int, shape: tuple[int, int], copy_share: float
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Questions and answers (B, H, W), and the number of each one's rule (B,); ``len(RULES)`` is copying."""
    rules = rng.choice(len(RULES), size=batch_size, p=RULE_WEIGHTS)
    rules[rng.random(batch_size) < copy_share] = len(RULES)
    questions, answers = [], []
    for rule in rules:
        if rule == len(RULES):
            num_codes = NUM_CELL_CODES if rng.random() < 0.3 else 10
            codes = rng.choice(num_codes, size=int(rng.integers(2, 11)), replace=False)
            question = answer = rng.choice(codes, size=shape)
        else:
            question, answer = (CELL_CODES[rule][cells] for cells in RULES[rule].draw(rng, shape))
        questions.append(question)
        answers.append(answer)
    return np.stack(questions).astype(np.int8), np.stack(answers).astype(np.int8), rules


def sample_tokens(
    rng: np.random.Generator,
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    shape: tuple[int, int],
    copy_share: float,
) -> tuple[torch.Tensor, int, npt.NDArray[np.int64]]:
    """Token ids (B, T) of ``[caption] question separator answer end``, the index of the first answer token, the rules.

    All examples of a batch have a caption or none has, so that nothing is padded.
    """
    first_cell = tokenizer.get_vocab()[f"0{CELL_ENDS[0]}"]
    questions, answers, rules = sample_pairs(rng, batch_size, shape, copy_share)
    separator = np.full((batch_size, 1), tokenizer.sep_token_id)
    end = np.full((batch_size, 1), tokenizer.eos_token_id)
    parts = [grid_tokens(questions, first_cell), separator, grid_tokens(answers, first_cell), end]
    if rng.random() < CAPTION_SHARE:
        parts.insert(0, (tokenizer.get_vocab()[caption_token(0)] + rules)[:, None])
    tokens = np.concatenate(parts, axis=1)
    return torch.from_numpy(tokens), tokens.shape[1] - parts[-2].shape[1] - 1, rules


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace, log: TextIO) -> None:
    """AdamW, warm-up, linear decay over the last two fifths; a line of figures every ``args.log_every`` steps."""
    rng = problem_rng("tiny_text", "pretraining", args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    families = np.array([*(rule.family for rule in RULES), "copy"])
    hits: dict[str, list[float]] = defaultdict(list)
    losses: list[float] = []
    num_tokens, started = 0, time.process_time()
    for step in range(args.steps):
        progress = step / args.steps
        shapes = FIRST_SHAPES if progress < FIRST_SHARE else SHAPES
        weights = np.array(list(shapes.values()))
        shape = list(shapes)[rng.choice(len(shapes), p=weights / weights.sum())]
        copy_share = COPY_SHARE * max(0.1, 1 - 2.7 * progress)
        tokens_BT, first_answer, rules_B = sample_tokens(rng, tokenizer, args.batch_size, shape, copy_share)
        targets_BT = tokens_BT[:, first_answer:]
        logits_BTV = model(input_ids=tokens_BT[:, :-1], use_cache=False, logits_to_keep=targets_BT.shape[1]).logits
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * min(1, (step + 1) / 50, (1 - progress) / 0.4)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        num_tokens += tokens_BT.numel()
        losses.append(loss.item())
        right_B = (logits_BTV.argmax(dim=-1) == targets_BT).float().mean(dim=1)
        for family, right in zip(families[rules_B], right_B.tolist(), strict=True):
            hits[family].append(right)
        if (step + 1) % args.log_every == 0 or step + 1 == args.steps:
            figures = {
                "step": step + 1,
                "cpu_s": round(time.process_time() - started, 1),
                "tokens": num_tokens,
                "loss": round(float(np.mean(losses)), 4),
                "token_accuracy": {family: round(float(np.mean(hits[family])), 3) for family in sorted(hits)},
            }
            print(json.dumps(figures), file=log, flush=True)
            print(json.dumps(figures), flush=True)
            hits.clear()
            losses.clear()
            save(model, tokenizer, args.out)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the ordinary ``save_pretrained`` folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Pretrain, and write weights, tokenizer and ``pretraining.jsonl`` to ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=100, help="steps between lines of the log")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, args.seed)
    with (args.out / "pretraining.jsonl").open("w") as log:
        train(model, tokenizer, args, log)


if __name__ == "__main__":
    main()
