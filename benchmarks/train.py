"""Our LoRA training and whole trials against the loop that a user of the libraries would write, side by side.

    python -m benchmarks.train [--steps 60] [--rounds 3] [--device cpu|cuda:0]        (or: make bench-train)

Language model: transformers' ``Trainer`` on a ``get_peft_model``. Video model: the training step of diffusers'
CogVideoX image-to-video LoRA example, written anew in ``benchmarks/plain_loops.py``. Both see the same frozen weights,
examples, batch sizes, LoRA targets and rank, optimizer and number of steps; rounds take turns, and the best of each
side counts. On a CPU the clock is the processor time of this process, which has one thread: other work on the machine
does not count. On a GPU it is the wall clock.

"Whole trials" are a backbone's four trials of n_train 3, 10, 30, 100, from a started process to the scored answers: we
load once and answer in batches; the plain loop loads each time and answers one problem after another ("one by one"), or
in batches of our size ("batched").
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from benchmarks import plain_loops
from orchestrator.measure import peak_memory_bytes, reset_peak_memory
from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from trainers import lora
from trainers.backbone import backbone_spec, load_backbone
from trainers.evaluate import evaluate
from trainers.latent_store import LatentStore
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

TASK = TaskSpec(name="life", params={"height": 6, "width": 6})
LORA_RANK = 16
N_TRAIN = (3, 10, 30, 100)
N_TEST = 64
BACKBONES = ("causal_lm/tiny", "cogvideox/tiny")


@dataclass(frozen=True)
class Measured:
    """One run: seconds (see above), and the most memory in use above what was in use before."""

    seconds: float
    memory_bytes: int


def recipe_of(name: str, steps: int) -> TrainRecipe:
    """The backbone's recipe for ``steps`` steps; one token is an answer's least, 64 are more than any needs here."""
    return TrainRecipe(**backbone_spec(name).recipe | {"max_steps": steps, "max_new_tokens": 64})


@contextmanager
def measured(device: str, into: list[Measured]) -> Iterator[None]:
    """Append the block's time and memory to ``into``."""
    gc.collect()
    reset_peak_memory(device)
    before = peak_memory_bytes(device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    yield
    into.append(Measured(clock() - started, peak_memory_bytes(device) - before))


def training(name: str, steps: int, rounds: int, device: str) -> str:
    """One line: samples a second and peak memory of both sides."""
    recipe = recipe_of(name, steps)
    problems = draw_problems(TASK, Split.TRAIN, 0, 30)
    task = TASK.build(Split.TRAIN)
    ours: list[Measured] = []
    plain: list[Measured] = []
    backbone = load_backbone(backbone_spec(name), recipe, device)
    examples = backbone.encode(task, problems, recipe)
    loop = plain_loops.LOOPS[name.split("/")[0]](backbone_spec(name), recipe, LORA_RANK, device)
    data = loop.encode(task, problems)
    for round_number in range(rounds):
        for side in (0, 1) if round_number % 2 == 0 else (1, 0):  # neither side always comes first
            if side == 0:
                with lora.attached(backbone, lora_rank=LORA_RANK, recipe=recipe, seed=0), measured(device, ours):
                    train(backbone, examples, recipe, Placement(), seed=0)
            else:
                loop.attach()
                with measured(device, plain):
                    loop.train(data)
    return _line(name, "training", recipe.batch_size * steps, "samples/s", ours, plain)


def whole_trials(name: str, steps: int, rounds: int, device: str, one_by_one: bool) -> str:
    """One line: trials a minute of both sides, from loading to scored answers."""
    recipe = recipe_of(name, steps)
    if one_by_one:
        rounds = 1  # it takes long
    test_problems = draw_problems(TASK, Split.TEST, 0, N_TEST)
    task = TASK.build(Split.TEST)
    ours: list[Measured] = []
    plain: list[Measured] = []

    def our_trials() -> None:
        backbone = load_backbone(backbone_spec(name), recipe, device)
        for n_train in N_TRAIN:
            examples = backbone.encode(task, draw_problems(TASK, Split.TRAIN, 0, n_train), recipe)
            with lora.attached(backbone, lora_rank=LORA_RANK, recipe=recipe, seed=0):
                train(backbone, examples, recipe, Placement(), seed=0)
                evaluate(backbone, task, test_problems, recipe, Placement())

    def plain_trials() -> None:
        for n_train in N_TRAIN:
            loop = plain_loops.LOOPS[name.split("/")[0]](backbone_spec(name), recipe, LORA_RANK, device)
            loop.attach()
            loop.train(loop.encode(task, draw_problems(TASK, Split.TRAIN, 0, n_train)))
            grids = loop.answer(task, test_problems, 1 if one_by_one else 32)
            for grid, problem in zip(grids, test_problems, strict=True):
                task.score(problem, grid)

    sides: list[tuple[Callable[[], None], list[Measured]]] = [(our_trials, ours), (plain_trials, plain)]
    for round_number in range(rounds):
        for run, into in sides if round_number % 2 == 0 else sides[::-1]:
            with measured(device, into):
                run()
    what = f"whole trials, {'one by one' if one_by_one else 'batched'}"
    return _line(name, what, len(N_TRAIN) * 60, "trials/min", ours, plain)


def encoding(name: str, device: str) -> str:
    """One line: encoder calls and seconds for the problems of 4 sizes x 2 ranks, with and without the store."""
    recipe = recipe_of(name, 1)
    task = TASK.build(Split.TRAIN)
    backbone = load_backbone(backbone_spec(name), recipe, device)
    counts, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for store_folder in (Path(folder), None):
            backbone.latent_store = LatentStore(store_folder)
            started = time.perf_counter()
            for n_train in N_TRAIN * 2:
                backbone.encode(task, draw_problems(TASK, Split.TRAIN, 0, n_train), recipe)
            seconds.append(time.perf_counter() - started)
            counts.append(backbone.latent_store.num_encoded)
    return (
        f"{name:16} encoding for n_train {', '.join(map(str, N_TRAIN))} at 2 ranks: {counts[0]} videos and "
        f"{seconds[0]:.2f} s with the latent store, {counts[1]} and {seconds[1]:.2f} s without: "
        f"{counts[1] / counts[0]:.2f}x fewer, {seconds[1] / seconds[0]:.2f}x faster"
    )


def _line(name: str, what: str, amount: float, unit: str, ours: list[Measured], plain: list[Measured]) -> str:
    best_ours, best_plain = (min(side, key=lambda run: run.seconds) for side in (ours, plain))
    ratios = sorted(theirs.seconds / own.seconds for own, theirs in zip(ours, plain, strict=True))
    memory = [min(run.memory_bytes for run in side) / 2**20 for side in (ours, plain)]
    speeds = f"{amount / best_ours.seconds:9.2f} {amount / best_plain.seconds:9.2f} {unit:11}"
    ratio = f"{best_plain.seconds / best_ours.seconds:6.2f}x  {ratios[0]:5.2f}-{ratios[-1]:.2f}x"
    return f"{name:16} {what:26} {speeds}{ratio} {memory[0]:8.0f} {memory[1]:8.0f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps a run (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    print(
        f"{'backbone':16} {'what':26} {'ours':>9} {'plain':>9} {'':11}{'ratio':>6}   {'rounds':10}  MiB ours    plain"
    )
    for name in BACKBONES:
        rest = (arguments.steps, arguments.rounds, arguments.device)
        print(training(name, *rest), flush=True)
        for one_by_one in (False, True):
            print(whole_trials(name, *rest, one_by_one), flush=True)
    print(encoding("cogvideox/tiny", arguments.device))


if __name__ == "__main__":
    main()
