"""How far training with DeepSpeed ZeRO is from plain torch, at the same global batch: a table.

    python -m benchmarks.zero_differences

Trains the tiny video and the tiny language backbone with plain torch on one worker, and with ZeRO 0 to 3 on one and on
two CPU workers; on two also with micro-batches of two and gradient checkpointing. Differences are the largest over
all steps and weights, except those of the gradient norm, which are relative.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from trainers import lora
from trainers.backbone import backbone_spec, load_backbone
from trainers.engine import leave_process_group, world
from trainers.evaluate import evaluate, summarise
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

BACKBONES = ("cogvideox/tiny", "causal_lm/tiny")
TASK = TaskSpec(name="elementary_ca", params={"width": 8, "steps": 1})
BATCH_SIZE = 7
"""Over two workers and micro-batches of two: slices and micro-batches of unequal size."""
LORA_RANK = 4


@dataclass(frozen=True)
class Trained:
    """What one training left."""

    losses: list[float]
    grad_norms: list[float]
    lora_state: dict[str, torch.Tensor]
    exact_match: float
    predicted: list[list[list[int]] | None]


@dataclass(frozen=True)
class Difference:
    """Largest differences between two trainings."""

    loss: float
    grad_norm: float
    """Relative."""
    weight: float
    exact_match: float
    same_answers: float
    """Share of the test problems that got the same grid."""


def placements(num_workers: int) -> Iterator[tuple[str, Placement]]:
    """Name and placement of every way to train on so many workers with DeepSpeed; the sparing ways on several."""
    for stage in (0, 1, 2, 3):
        plain = Placement(num_workers=num_workers, zero_stage=stage, gpus_per_worker=0)
        yield f"ZeRO-{stage}", plain
        if num_workers > 1:
            sparing = {"micro_batch_size": 2, "gradient_checkpointing": True}
            yield f"ZeRO-{stage}, micro-batch 2, recomputed", plain.model_copy(update=sparing)


def train_once(name: str, placement: Placement, steps: int, n_test: int) -> Trained:
    """One training of the backbone ``name`` from its fresh adapter, and its answers, on this rank."""
    spec = backbone_spec(name)
    recipe = TrainRecipe(**{**spec.recipe, "max_steps": steps, "batch_size": BATCH_SIZE, "max_new_tokens": 24})
    backbone = load_backbone(spec, recipe, "cpu")
    task = TASK.build(Split.TEST)
    examples = backbone.encode(TASK.build(Split.TRAIN), draw_problems(TASK, Split.TRAIN, 0, 10), recipe)
    with lora.attached(backbone, lora_rank=LORA_RANK, recipe=recipe, seed=0):
        result = train(backbone, examples, recipe, placement, seed=0)
        state = lora.lora_state(backbone.module)
        predictions = evaluate(backbone, task, draw_problems(TASK, Split.TEST, 0, n_test), recipe, placement)
    return Trained(
        losses=[row.loss for row in result.losses],
        grad_norms=[row.grad_norm for row in result.losses],
        lora_state=state,
        exact_match=summarise(predictions, task)["exact_match"],
        predicted=[None if p.predicted is None else p.predicted.tolist() for p in predictions],
    )


def difference(expected: Trained, got: Trained) -> Difference:
    """How far ``got`` is from ``expected``."""
    assert expected.lora_state.keys() == got.lora_state.keys()
    same = [a == b for a, b in zip(expected.predicted, got.predicted, strict=True)]
    return Difference(
        loss=max(abs(a - b) for a, b in zip(expected.losses, got.losses, strict=True)),
        grad_norm=max(abs(a - b) / a for a, b in zip(expected.grad_norms, got.grad_norms, strict=True)),
        weight=max((expected.lora_state[name] - got.lora_state[name]).abs().max().item() for name in got.lora_state),
        exact_match=abs(expected.exact_match - got.exact_match),
        same_answers=sum(same) / len(same),
    )


def measure(steps: int, n_test: int) -> dict[tuple[str, int, str], tuple[Trained, Difference]]:
    """Training and difference from plain torch by (backbone, workers, name of the placement)."""
    plain = {name: train_once(name, Placement(gpus_per_worker=0), steps, n_test) for name in BACKBONES}
    found = {(name, 1, "torch"): (trained, difference(trained, trained)) for name, trained in plain.items()}
    for num_workers in (1, 2):
        for (name, label), trained in on_ranks(num_workers, steps, n_test).items():
            found[name, num_workers, label] = trained, difference(plain[name], trained)
    return found


def on_ranks(num_workers: int, steps: int, n_test: int) -> dict[tuple[str, str], Trained]:
    """Every placement on so many processes of their own, by (backbone, name of the placement)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trained.pt"
        arguments = ["-m", "benchmarks.zero_differences", "--rank-of", str(num_workers), "--out", str(path)]
        arguments += ["--steps", str(steps), "--n-test", str(n_test)]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_workers)]
        finished = subprocess.run(
            [sys.executable, *(launcher if num_workers > 1 else []), *arguments],
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if finished.returncode:
            raise RuntimeError(f"the ranks failed:\n{finished.stderr[-3000:]}")
        return {case: Trained(**fields) for case, fields in torch.load(path).items()}


def be_a_rank(num_workers: int, out: Path, steps: int, n_test: int) -> None:
    """Train in every way, together with the other ranks; rank 0 saves what came out."""
    trained = {
        (name, label): vars(train_once(name, placement, steps, n_test))
        for name in BACKBONES
        for label, placement in placements(num_workers)
    }
    if world().rank == 0:
        torch.save(trained, out)
    leave_process_group()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zero_differences", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--n-test", type=int, default=32)
    parser.add_argument("--rank-of", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.rank_of:
        be_a_rank(arguments.rank_of, arguments.out, arguments.steps, arguments.n_test)
        return
    print(
        f"{arguments.steps} steps of {BATCH_SIZE} examples, LoRA rank {LORA_RANK}, {arguments.n_test} test problems\n"
    )
    print(
        f"{'backbone':<15}{'workers':>8}  {'engine':<34}{'last loss':>10}{'|d loss|':>10}{'|d norm|':>10}"
        f"{'|d weight|':>11}{'exact':>7}{'|d exact|':>10}{'same answers':>14}"
    )
    for (name, num_workers, label), (trained, d) in measure(arguments.steps, arguments.n_test).items():
        print(
            f"{name:<15}{num_workers:>8}  {label:<34}{trained.losses[-1]:>10.6f}{d.loss:>10.1e}{d.grad_norm:>10.1e}"
            f"{d.weight:>11.1e}{trained.exact_match:>7.3f}{d.exact_match:>10.3f}{d.same_answers:>13.1%}"
        )


if __name__ == "__main__":
    main()
