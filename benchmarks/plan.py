"""What it costs to read, check and expand sweeps of 100,000 cells, and to plan them.

    OMP_NUM_THREADS=1 python -m benchmarks.plan [--shapes product axes arc patterns included listed]

Every figure is of a process of its own: processor time with the start of Python and the imports left out, best of
``--rounds``, and the largest resident memory. ``load`` is ``load_sweep``, which checks and expands; ``plan`` is the
whole command ``sweep plan`` on an empty results folder, ``load`` included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RULES = "".join(f"  - elementary_ca: {{rule: {rule}, width: 12}}\n" for rule in range(100))
PRODUCT = f"""name: product
backbones: [causal_lm/tiny]
tasks:
{RULES}seeds: {list(range(100))}
n_train: {list(range(1, 11))}
"""


def product(folder: Path) -> str:
    """100 tasks x 100 seeds x 10 sizes: one recipe."""
    return PRODUCT


def axes(folder: Path) -> str:
    """50 x 50 x 40 combinations of recipe fields: 100,000 recipes, one task."""
    rates = ", ".join(f"{step * 1e-5:.5f}" for step in range(1, 51))
    fields = f"learning_rate: [{rates}], lora_alpha: {list(range(1, 51))}, max_steps: {list(range(1, 41))}"
    return f"name: axes\nbackbones: [cogvideox/tiny]\ntasks: [life]\nn_train: [3]\naxes: {{{fields}}}\n"


def arc(folder: Path) -> str:
    """The 400 tasks of ARC-AGI-1 x 2 backbones x 125 seeds."""
    return (
        "name: arc\nbackbones: [causal_lm/tiny, cogvideox/tiny]\ntasks: [{arc: {task: '*'}}]\n"
        f"seeds: {list(range(125))}\nn_train: all\n"
    )


def patterns(folder: Path) -> str:
    """``product`` with 25 patterns of ``exclude``, each on one task and seed."""
    excluded = ", ".join(f"{{params: {{rule: {rule}}}, seed: [{rule}], n_train: 10}}" for rule in range(25))
    return f"{PRODUCT}exclude: [{excluded}]\n"


def included(folder: Path) -> str:
    """Five files of 20,000 cells in one sweep, and one of them twice, over another file."""
    for part in range(5):
        seeds = list(range(20 * part, 20 * part + 20))
        text = PRODUCT.replace(f"seeds: {list(range(100))}", f"seeds: {seeds}")
        (folder / f"part_{part}.yaml").write_text(text)
    (folder / "again.yaml").write_text("name: again\ninclude: [part_0.yaml]\n")
    return "name: included\ninclude: [part_0.yaml, part_1.yaml, part_2.yaml, part_3.yaml, part_4.yaml, again.yaml]\n"


def listed(folder: Path) -> str:
    """100,000 cells written out one by one, a file of 9 MB."""
    entry = "- {{backbone: causal_lm/tiny, task: {{elementary_ca: {{rule: {rule}}}}}, seed: {seed}, n_train: 30}}\n"
    cells = "".join(entry.format(rule=cell % 250, seed=cell // 250) for cell in range(100_000))
    return f"name: listed\ntrials:\n{cells}"


SHAPES: dict[str, Callable[[Path], str]] = {
    shape.__name__: shape for shape in (product, axes, arc, patterns, included, listed)
}


def measure_here(what: str, path: str) -> None:
    """Print the figures of one measurement in this process as JSON."""
    from orchestrator import cli, results  # noqa: F401 (their imports are no part of the figure)
    from orchestrator.specs import expand, load_sweep

    started = time.process_time()
    num_cells = 0
    if what == "load":
        num_cells = len(expand(load_sweep(path)))
    elif cli.main(["plan", path, "--set", f"results={Path(path).parent}/results"]) != 0:
        raise SystemExit(1)
    cpu_s = time.process_time() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"num_cells": num_cells, "cpu_s": cpu_s, "peak_mb": peak_mb}))


def measured(what: str, path: Path, rounds: int) -> dict[str, float]:
    """The figures of the best of several processes."""
    command = [sys.executable, "-m", "benchmarks.plan", "--measure", what, str(path)]
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(rounds)]
    return min((json.loads(output.splitlines()[-1]) for output in outputs), key=lambda figures: figures["cpu_s"])


def main() -> None:
    """Print one row a shape."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_here(*arguments.measure)
        return
    print("| sweep | cells | load, CPU s | plan, CPU s | load, peak MB | plan, peak MB |")
    print("|---|---|---|---|---|---|")
    for name in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{name}.yaml")
            path.write_text(SHAPES[name](Path(folder)))
            load, plan = (measured(what, path, arguments.rounds) for what in ("load", "plan"))
        print(
            f"| {name} | {load['num_cells']:,.0f} | {load['cpu_s']:.1f} | {plan['cpu_s']:.1f} "
            f"| {load['peak_mb']:.0f} | {plan['peak_mb']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
