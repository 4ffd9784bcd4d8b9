"""How many pictures of every task are misread after each kind of damage, of the hardest degree that is promised.

    python -m benchmarks.read_damaged [--grids 200] [TASK ...]

Gaussian noise of sigma 60, JPEG quality 5, gain 0.7, offsets of 60 a channel, blur of 2 px, shifts of 3 px, one at
a time, and a mild combination of all; with the grid's shape told, and found in the picture. ``arc``: of all tasks of
ARC-AGI-1's evaluation set. Exit status 1 when a grid is misread.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from task_generators.parse import read_picture
from task_generators.problem import Split
from task_generators.render import render
from task_generators.splits import draw_problems
from task_generators.task import Task, TaskSpec, task_class, task_names
from tests.task_generators.picture_damage import DAMAGES


def pictures(name: str, num_grids: int) -> list[tuple[Task, np.ndarray]]:
    """Questions and answers of a task's training problems, with the task; of all its variants where they are given."""
    if task_class(name).can_generate():
        spec = TaskSpec(name=name)
        task = spec.build()
        problems = draw_problems(spec, Split.TRAIN, 0, -(-num_grids // 2))
        return [(task, grid) for problem in problems for grid in (problem.question, problem.answer)]
    variants = [TaskSpec(name=name, params=params).build() for params in task_class(name).expand({"task": "*"})]
    given = [(task, problem) for task in variants for problem in task.given_problems(Split.TEST)]
    grids = [(task, grid) for task, problem in given for grid in (problem.question, problem.answer)]
    return grids[:: max(1, len(grids) // num_grids)][:num_grids]


def main() -> int:
    """Print misread grids by task and damage, shape told / inferred, and the mean time of a reading."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    parser.add_argument("--grids", type=int, default=200, help="of each task (default: 200)")
    arguments = parser.parse_args()
    print(f"misread of {arguments.grids} grids, shape told / inferred")
    print(f"{'task':16}" + "".join(f"{name[:10]:>11}" for name in ("none", *DAMAGES)) + f"{'ms':>12}")
    total = 0
    for name in arguments.tasks or task_names():
        line, seconds, count = f"{name:16}", [0.0, 0.0], 0
        grids = pictures(name, arguments.grids)
        for damage in ("none", *DAMAGES):
            wrong = [0, 0]
            for task, grid in grids:
                picture = render(grid, task.palette, task.style)
                spoiled = picture if damage == "none" else DAMAGES[damage](picture)
                for mode, shape in enumerate(((grid.shape[0], grid.shape[1]), None)):
                    started = time.perf_counter()
                    reading = read_picture(spoiled, task.palette, task.style, shape)
                    seconds[mode] += time.perf_counter() - started
                    wrong[mode] += not np.array_equal(reading.grid, grid)
            count += len(grids)
            total += sum(wrong)
            line += f"{wrong[0]:>6} / {wrong[1]:<2}"
        print(line + "".join(f"{1000 * each / count:>7.1f}" for each in seconds), flush=True)
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
