"""How fast every task makes, draws and reads problems, on one core, beside the published reference's figures.

    make bench-tasks                      # or: python benchmarks/tasks.py [TASK ...]

The reference figures are those of the paper's data-generation code as measured for this project (problems a second on
one core; pictures a second; seconds for a split of 5,000 training and 200 test problems). They were measured on another
day, so a ratio is right to a factor of two or so. Ours is measured here and now: best of several rounds of whole
``Problem`` objects, as training code receives them; splits by the clock, with every check for leaks and repeats; the
first problem in a fresh process with nothing compiled yet.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from task_generators.parse import read_pictures
from task_generators.problem import Split
from task_generators.render import render_many
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec, task_names

MIN_S = 0.4
"""Every figure repeats its work for at least this long, in rounds, and keeps the best round."""
FIRST_PROBLEM_LIMIT_S, IMPORT_LIMIT_S = 5, 0.3
FRESH_PROCESSES = 3
SPLIT = {Split.TRAIN: 5000, Split.TEST: 200}


@dataclass(frozen=True)
class Case:
    """One line of the table. ``reference`` and ``target``: problems a second; None where none is known."""

    spec: TaskSpec
    reference: float | None = None
    target_ratio: float = 5
    split_limit_s: float = 2


def case(named: object, reference: float | None = None, target_ratio: float = 5, split_limit_s: float = 2) -> Case:
    """A case from a task as it is named in a sweep."""
    return Case(TaskSpec.model_validate(named), reference, target_ratio, split_limit_s)


CASES = [
    case("maze", 1055, 50),
    case({"maze": {"height": 13, "width": 13}}, 3840, 50),
    case("shortest_path", 812, 50),
    case("sudoku", 31, 50),
    case({"sudoku": {"size": 4}}, 2270, 50),
    case("hitori", 54, 50),
    case("connect4", 1.14, 50, split_limit_s=10),
    case("life", 7600, 50),
    case("elementary_ca", 2800, 50),
    case({"langton_ant": {"steps": 2}}, 43_800),
    case({"langton_ant": {"steps": 10}}, 21_700),
    case("hanoi", 2010),
]
"""The published reference's tasks; every other task follows with its defaults."""
REFERENCE_DRAW, REFERENCE_READ = (493, 4000), (75, 1087)
"""Pictures a second, from the slowest to the fastest task: taken to be those of 400 and of 128 px a side."""
PICTURE_TARGET_RATIO = 8


def best_rate(work: Callable[[], int]) -> float:
    """Items a second of the best round; ``work`` does one round and returns its number of items."""
    work()
    best, ends = 0.0, time.perf_counter() + MIN_S
    while time.perf_counter() < ends:
        started = time.perf_counter()
        items = work()
        best = max(best, items / (time.perf_counter() - started))
    return best


def reference_at(rates: tuple[float, float], area_px: int) -> float:
    """The reference's pictures a second for a picture of ``area_px``, between the two known ones (a power law)."""
    return float(np.exp(np.interp(np.log(area_px), np.log((128**2, 400**2)), np.log((rates[1], rates[0])))))


def generation_rate(spec: TaskSpec) -> float | None:
    """Whole problems a second; None for a task that generates none."""
    task = spec.build()
    if not task.can_generate():
        return None
    task.generate_many(problem_seeds(("warm",), np.arange(4)))  # compiles
    started = time.perf_counter()
    task.generate_many(problem_seeds(("warm",), np.arange(4, 12)))
    # Rounds of a fifth of a second at most: slow tasks would otherwise take minutes.
    size = int(np.clip(8 * 0.2 / (time.perf_counter() - started), 1, 1024))
    rounds = iter(range(10**9))

    def work() -> int:
        batch = task.generate_many(problem_seeds(("round", next(rounds)), np.arange(size)))
        return len([batch.problem(place, f"id/{place}") for place in range(size)])

    return best_rate(work)


def split_s(spec: TaskSpec) -> tuple[float, int]:
    """Seconds for the training and the test set, free of leaks and repeats, and how many problems they have."""
    task, total = spec.build(), 0
    started = time.perf_counter()
    for split, wanted in SPLIT.items():
        n = wanted if task.can_generate() else len(task.given_problems(split))
        total += len(draw_problems(spec, split, 0, n))
    return time.perf_counter() - started, total


def picture_rates(spec: TaskSpec) -> tuple[float, float, tuple[int, int]]:
    """Pictures drawn and read a second, in batches of 32, and their size in px; read with pixel noise of sigma 8."""
    task = spec.build()
    n = 32 if task.can_generate() else 1
    grids = np.stack([problem.question for problem in draw_problems(spec, Split.TRAIN, 0, n)])
    shape = (int(grids.shape[1]), int(grids.shape[2]))
    images = render_many(grids, task.palette, task.style)
    noise = np.random.default_rng(0).normal(0, 8, images.shape)
    noisy = np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
    assert all(
        np.array_equal(r.grid, g)
        for r, g in zip(read_pictures(noisy, task.palette, task.style, shape), grids, strict=True)
    )
    return (
        best_rate(lambda: len(render_many(grids, task.palette, task.style))),
        best_rate(lambda: len(read_pictures(noisy, task.palette, task.style, shape))),
        (images.shape[1], images.shape[2]),
    )


def first_problem_s(spec: TaskSpec) -> tuple[float, float]:
    """Seconds in a fresh process to import the package, and then to the first problem with nothing compiled yet: the
    best of a few, because other work on the machine doubles them."""
    script = (
        "import sys, time; started = time.perf_counter()\n"
        "from task_generators.task import TaskSpec; import task_generators.splits\n"
        "imported = time.perf_counter()\n"
        "from task_generators.problem import Split\n"
        "spec = TaskSpec.model_validate_json(sys.argv[1]); spec.problem(Split.TRAIN, 0, 0)\n"
        "print(imported - started, time.perf_counter() - imported)"
    )
    command = [sys.executable, "-c", script, spec.model_dump_json()]
    imports, firsts = [], []
    for _ in range(FRESH_PROCESSES):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        imported, first = map(float, printed.split())
        imports.append(imported)
        firsts.append(first)
    return min(imports), min(firsts)


def main() -> int:
    """Print the table; exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    names = parser.parse_args().tasks
    listed = {case.spec.name for case in CASES}
    cases = CASES + [case(name) for name in task_names() if name not in listed]
    cases = [case for case in cases if not names or case.spec.name in names]
    print(
        f"{'task':36} {'problems/s':>10} {'reference':>9} {'ratio':>7} {'target':>6}  {'split s':>7} {'limit':>5}  "
        f"{'first s':>7} {'import s':>8}  {'picture':>9} {'draw/s':>7} {'ratio':>6} {'read/s':>7} {'ratio':>6}"
    )
    missed, imports = [], []
    for item in cases:
        label = item.spec.label()
        rate, (seconds, total) = generation_rate(item.spec), split_s(item.spec)
        draw, read, (height, width) = picture_rates(item.spec)
        imported, first = first_problem_s(item.spec)
        imports.append(imported)
        ratio = rate / item.reference if rate and item.reference else None
        draw_ratio, read_ratio = (
            ours / reference_at(rates, height * width)
            for ours, rates in ((draw, REFERENCE_DRAW), (read, REFERENCE_READ))
        )
        checks = {
            "problems": ratio is None or ratio >= item.target_ratio,
            "split": seconds <= item.split_limit_s,
            "first problem": first < FIRST_PROBLEM_LIMIT_S,
            "draw": draw_ratio >= PICTURE_TARGET_RATIO,
            "read": read_ratio >= PICTURE_TARGET_RATIO,
        }
        missed += [f"{label}: {name}" for name, is_met in checks.items() if not is_met]
        columns = [
            f"{label:36}",
            f"{f'{rate:,.0f}' if rate else 'given':>10}",
            f"{item.reference or '-':>9}",
            f"{f'{ratio:.0f}x' if ratio else '-':>7}",
            f"{f'{item.target_ratio:g}x' if item.reference else '-':>6} ",
            f"{seconds:7.2f} {item.split_limit_s:5g} ",
            f"{first:7.2f} {imported:8.2f} ",
            f"{f'{height}x{width}':>9}",
            f"{draw:7,.0f} {draw_ratio:5.0f}x {read:7,.0f} {read_ratio:5.0f}x",
            f"  ({total} problems)" if total != sum(SPLIT.values()) else "",
        ]
        print(" ".join(columns), flush=True)
    print(
        f"Pictures: the reference draws {REFERENCE_DRAW[0]} to {REFERENCE_DRAW[1]:,} and reads {REFERENCE_READ[0]} to "
        f"{REFERENCE_READ[1]:,} a second, by size; target {PICTURE_TARGET_RATIO}x."
    )
    if min(imports) >= IMPORT_LIMIT_S:  # one package, imported anew for each line: the best says what it takes
        missed.append("import")
    print("every target is met" if not missed else "missed: " + "; ".join(missed))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
