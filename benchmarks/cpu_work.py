"""What a trial's work on the processor costs, and how much of it a device waits for.

    OMP_NUM_THREADS=1 python -m benchmarks.cpu_work [--tables costs prefetch scoring]

``costs`` is processor time, best of several rounds, so that other programs on the machine hardly matter. ``prefetch``
and ``scoring`` are by the clock, with and without in turns, medians. There the device is simulated: a training step or
a batch of answers that sleeps, which leaves the interpreter to other threads as waiting for a GPU does. ``prefetch``
shows beside it a training on this processor, whose many small operations compete for the interpreter.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from orchestrator.problem_cache import ProblemCache
from task_generators import grid_json
from task_generators.problem import Grid, Problem, Split
from task_generators.splits import draw_problems
from task_generators.task import Task, TaskSpec, task_names
from task_generators.transition_video import problem_video, video_pictures
from trainers.backbone import BackboneSpec
from trainers.evaluate import evaluate
from trainers.pictures import canvas_px, draw_on_canvas, picture_style, read_from_canvas
from trainers.recipe import Placement, TrainRecipe

N_TEST, ROUNDS, READ = 200, 3, 20
NOISE = 20.0
"""Standard deviation of the noise on pictures that are read, out of 255."""
RECIPE = TrainRecipe()
FAR = {"shortest_path": {"min_test_distance": 0.5}}


def best_ms(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Processor time of the best round, all threads."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1e3 * min(times)


def costs_of(spec: TaskSpec) -> list[float]:
    """The row of one task, in the order of ``COSTS``, ms."""
    task = spec.build(Split.TEST)
    can_generate = task.can_generate()
    n_test = N_TEST if can_generate else len(task.given_problems(Split.TEST))
    most = 1000 if can_generate else len(task.given_problems(Split.TRAIN))
    first = best_ms(lambda: draw_problems(spec, Split.TEST, 0, 1), rounds=1)
    cache = ProblemCache()
    test, train = cache.get(spec, Split.TEST, 0, n_test), cache.get(spec, Split.TRAIN, 0, most)
    seeds = itertools.count(1)  # another one each round: some generators remember what they made last
    drawing = [best_ms(lambda: draw_problems(spec, Split.TEST, 0, n_test))]
    drawing += [
        best_ms(lambda: draw_problems(spec, Split.TRAIN, next(seeds), n))  # noqa: B023
        for n in (min(n, most) for n in (30, 300, 1000))
    ]
    cached = best_ms(lambda: (cache.get(spec, Split.TEST, 0, n_test), cache.get(spec, Split.TRAIN, 0, most)))

    rng = np.random.default_rng(0)
    shown = test[:READ]
    styles = [picture_style(task, RECIPE, problem) for problem in shown]
    drawn = [draw_on_canvas(p.answer, task, s, canvas_px(p, s)) for p, s in zip(shown, styles, strict=True)]
    frames = [np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255).astype(np.uint8) for frame in drawn]

    def read(output_size: str) -> None:
        recipe = RECIPE.model_copy(update={"output_size": output_size})
        for frame, style, problem in zip(frames, styles, shown, strict=True):
            read_from_canvas(frame, task, style, problem.answer.shape, recipe)

    texts = [grid_json.dumps(problem.answer) for problem in test]
    answering = [best_ms(partial(read, size)) / len(shown) for size in ("given", "inferred")]
    answering.append(best_ms(lambda: [grid_json.loads(text) for text in texts]) / len(texts))
    answering.append(best_ms(lambda: [task.score(problem, problem.answer) for problem in test]) / len(test))

    style = picture_style(task, RECIPE, train[0])
    draw = partial(draw_on_canvas, task=task, style=style, canvas=canvas_px(train[0], style, 16))
    filming = [best_ms(partial(make, train[0], draw, 9, "discrete")) for make in (video_pictures, problem_video)]
    return [first, *drawing, cached, *answering, *filming]


COSTS = [
    "first",
    "test 200",
    "train 30",
    "train 300",
    "train 1000",
    "kept",
    "read given",
    "inferred",
    "JSON",
    "score",
    "pictures",
    "video",
]


def costs() -> None:
    """Print what each task costs: drawing a split, reading and scoring one answer, one training video."""
    print("Processor time, ms: drawing (first in this process; whole splits; test 200 and train 1000 from the cache),")
    print("one answer (read from a picture of given or inferred size, from JSON; scored), one training video")
    print("(its pictures alone, which name its latents; all of its 9 frames)")
    print(f"{'task':<42}" + "".join(f"{name:>11}" for name in COSTS))
    for spec in map(TaskSpec.model_validate, [*task_names(), FAR]):
        print(f"{spec.label():<42}" + "".join(f"{value:>11.3g}" for value in costs_of(spec)), flush=True)


def device_step() -> None:
    """A training of 0.3 s on a device."""
    for _ in range(30):
        time.sleep(0.01)


def processor_step() -> None:
    """A training on one core with tensors so small that most of it is Python."""
    weight = torch.zeros(16, 16, requires_grad=True)
    for _ in range(1500):
        ((torch.ones(4, 16) @ weight - 1) ** 2).mean().backward()
        with torch.no_grad():
            weight -= 0.01 * weight.grad
            weight.grad = None


def trials(spec: TaskSpec, n_train: int, step: Callable[[], None], is_ahead: bool, first_seed: int) -> list[float]:
    """Wait for problems and wall time (ms a trial) of some trials with a seed each; the first one is not counted."""
    cache, waits = ProblemCache(), []
    seeds = range(first_seed, first_seed + 4)
    started = 0.0
    for seed in seeds:
        begun = time.perf_counter()
        started = begun if seed == seeds[1] else started
        cache.get(spec, Split.TEST, 0, N_TEST)
        cache.get(spec, Split.TRAIN, seed, n_train)
        waits.append(time.perf_counter() - begun)
        if is_ahead and seed != seeds[-1]:
            cache.prefetch(spec, Split.TRAIN, seed + 1, n_train)
        step()
    elapsed = time.perf_counter() - started
    return [1e3 * statistics.mean(waits[1:]), 1e3 * elapsed / (len(seeds) - 1)]


def prefetch(rounds: int = 3) -> None:
    """Print what prefetching takes off the start of a trial, and off or onto the trial as a whole."""
    print("\nPrefetch: ms that a trial waits for its problems, and its whole wall time; by the clock, medians")
    print(f"{'task, n_train':<42}{'trained on':<12}{'wait':>9}{'ahead':>9}{'trial':>10}{'ahead':>9}")
    cases: list[tuple[Any, int]] = [("sudoku", 1000), ("hitori", 1000), ("chess_mate_in_1", 1000)]
    for named, n_train in [*cases, (FAR, 1000)]:
        spec = TaskSpec.model_validate(named)
        draw_problems(spec, Split.TRAIN, 0, 30)
        for where, step in (("a device", device_step), ("this core", processor_step)):
            measured: dict[bool, list[list[float]]] = {False: [], True: []}
            for number in range(rounds):
                for is_ahead in (False, True):
                    measured[is_ahead].append(trials(spec, n_train, step, is_ahead, 100 * number))
            medians = [[statistics.median(column) for column in zip(*measured[way], strict=True)] for way in measured]
            (wait, whole), (wait_ahead, whole_ahead) = medians
            print(
                f"{f'{spec.label()}, {n_train}':<42}{where:<12}{wait:>9.1f}{wait_ahead:>9.1f}"
                f"{whole:>10.1f}{whole_ahead:>9.1f}",
                flush=True,
            )


class SleepingBackbone:
    """Answers rightly after ``batch_s``, in which it leaves the interpreter to others."""

    spec = BackboneSpec(name="benchmark/sleeping", family="baseline", trainable=False)

    def __init__(self, batch_s: float) -> None:
        self._batch_s = batch_s

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """The stored answers."""
        time.sleep(self._batch_s)
        return [problem.answer for problem in problems]


def scoring(rounds: int = 7) -> None:
    """Print how long a device that answers waits for the scores of its answers."""
    print(f"\nScoring behind the answers: {N_TEST} answers in batches of 20; ms by the clock, medians")
    print(f"{'task':<42}{'a batch':>10}{'answers':>10}{'scores':>10}{'in turn':>10}{'evaluate':>10}")
    placement = Placement(eval_batch_size=20)
    for name in ("life", "sudoku", "chess_mate_in_1", "shortest_path"):
        spec = TaskSpec(name=name)
        task, problems = spec.build(Split.TEST), draw_problems(spec, Split.TEST, 0, N_TEST)
        for batch_ms in (2.0, 20.0):
            backbone: Any = SleepingBackbone(batch_ms / 1e3)
            times: dict[str, list[float]] = {"answers": [], "scores": [], "evaluate": []}
            for _ in range(rounds):
                marks = [time.perf_counter()]
                for start in range(0, N_TEST, placement.eval_batch_size):
                    backbone.answer(task, problems[start : start + placement.eval_batch_size], RECIPE, 0)
                marks.append(time.perf_counter())
                for problem in problems:
                    task.score(problem, problem.answer)
                marks.append(time.perf_counter())
                evaluate(backbone, task, problems, RECIPE, placement)
                marks.append(time.perf_counter())
                for column, taken in zip(times.values(), np.diff(marks).tolist(), strict=True):
                    column.append(1e3 * taken)
            answers, scores, both = (statistics.median(column) for column in times.values())
            print(
                f"{spec.label():<42}{batch_ms:>10.0f}"
                + "".join(f"{value:>10.1f}" for value in (answers, scores, answers + scores, both)),
                flush=True,
            )


TABLES = {"costs": costs, "prefetch": prefetch, "scoring": scoring}


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description="What a trial's work on the processor costs.")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.tables:
        TABLES[name]()


if __name__ == "__main__":
    main()
