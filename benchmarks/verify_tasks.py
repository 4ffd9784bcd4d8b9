"""Exports 10,000 problems of every task, as ``sweep generate`` does, and checks each, as ``sweep verify`` does.

    make verify-tasks                     # or: python benchmarks/verify_tasks.py [TASK ...]

The checks are those of each task's ``verify``: plain code apart from the generators. Ten minutes or so, most of it for
proofs that mates in two have one solution. Exit status 1 when a problem is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.problem_files import problems_table, read_problems, write_problems
from task_generators.problem import Split
from task_generators.task import TaskSpec, task_class, task_names

NUM_PROBLEMS = 10_000


def main() -> int:
    """Print one line a task: problems, distinct questions, wrong ones, and the seconds it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    names = parser.parse_args().tasks or task_names()
    print(f"{'task':20} {'problems':>9} {'distinct':>9} {'wrong':>6} {'draw s':>8} {'verify s':>9}")
    total_wrong = 0
    for name in names:
        spec = TaskSpec(name=name)
        task = spec.build()
        n = NUM_PROBLEMS if task_class(name).can_generate() else len(task.given_problems(Split.TRAIN))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "problems.parquet")
            started = time.perf_counter()
            write_problems(problems_table(spec, Split.TRAIN, 0, n), path)
            drawn = time.perf_counter()
            _, _, problems = read_problems(path)
        wrong = [(problem, faults) for problem in problems if (faults := task.verify(problem))]
        questions = {(problem.question.shape, problem.question.tobytes()) for problem in problems}
        seconds = drawn - started, time.perf_counter() - drawn
        print(
            f"{name:20} {len(problems):9,} {len(questions):9,} {len(wrong):6,} {seconds[0]:8.1f} {seconds[1]:9.1f}",
            flush=True,
        )
        for problem, faults in wrong[:3]:
            print(f"    {problem.problem_id}: {'; '.join(faults)}")
        total_wrong += len(wrong)
    return int(total_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
