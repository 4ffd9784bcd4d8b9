"""The commands of ``sweep`` that look at tasks and their problems: tasks, preview, generate, verify."""

from __future__ import annotations

import argparse
import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.sweep_yaml import set_value, unknown
from task_generators.problem import Grid, Split
from task_generators.render import Palette
from task_generators.task import TaskSpec, task_class, task_names

SAMPLE_ROWS = 24
"""A sample with more rows than this is not printed."""
FAULTS_SHOWN = 10
PREVIEW_LIMIT, FRAMES_LIMIT, EXPORT_LIMIT = 500, 1000, 1_000_000


def tasks(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep tasks [NAME]``."""
    if arguments.name is None:
        table = Table("task", "what it is")
        for name in task_names():
            table.add_row(name, _summary(sys.modules[task_class(name).__module__].__doc__))
        console.print(table)
        return 0
    if arguments.name not in task_names():
        raise ValueError(unknown("task", arguments.name, task_names()))
    cls, spec = task_class(arguments.name), task_spec(arguments.name, arguments.param)
    task = spec.build()
    console.print(Text(_summary(sys.modules[cls.__module__].__doc__)))
    console.print(Text(" ".join((cls.__doc__ or "").split())))
    table = Table("knob", "values", "default", "meaning")
    for name, field in cls.model_fields.items():
        table.add_row(Text(name), Text(knob_values(field)), Text(_plain(field.default)), Text(field.description or ""))
    console.print(table)
    (problem,) = [task.given_problems(Split.TRAIN)[0]] if not task.can_generate() else task.draw(1, "sample")
    sides = [tuple(task.style.size_px(grid.shape)) for grid in (problem.question, problem.answer)]
    pictures = " and ".join(f"{height} x {width} px" for height, width in dict.fromkeys(sides))
    for title, text in (
        ("with", spec.label()),
        ("symmetries", task.symmetries),
        ("problem space", task.problem_space()),
        ("test share", f"{task.test_share:g} of it, for test sets only" if task.can_generate() else "given"),
        ("pictures", f"{pictures} (height x width), cells of {task.style.cell_px} px"),
    ):
        console.print(Text(f"{title}: ", style="bold").append(Text(text, style="not bold")), soft_wrap=True)
    palette = Text("palette:", style="bold")
    for code, name in enumerate(task.palette.names):
        palette.append(f"  {code} ", style="not bold").append_text(_cell(task.palette, code)).append(
            f" {name}", style="not bold"
        )
    console.print(palette)
    if max(problem.question.shape[0], problem.answer.shape[0]) <= SAMPLE_ROWS:
        console.print(Text("a sample, question and answer:", style="bold"))
        console.print(_side_by_side(task.palette, problem.question, problem.answer))
    return 0


def preview(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep preview [TASK]``."""
    from orchestrator.preview import write_overview, write_sheet, write_videos

    if arguments.task is None:
        if arguments.param:
            raise ValueError(f"--param {arguments.param[0]}: name the task whose knob this is")
        out = arguments.out or Path("preview.png")
        num_tasks = write_overview(out)
        console.print(f"{out}: a problem of each of {num_tasks} tasks", highlight=False, soft_wrap=True)
        return 0
    if arguments.n > PREVIEW_LIMIT:
        raise ValueError(f"--n {arguments.n}: a preview shows {PREVIEW_LIMIT} problems at most; see: sweep generate")
    if arguments.frames > FRAMES_LIMIT:
        raise ValueError(f"--frames {arguments.frames}: a preview shows {FRAMES_LIMIT} frames at most")
    spec = task_spec(arguments.task, arguments.param)
    out = arguments.out or Path(f"preview_{spec.name}.png")
    if out.suffix in (".gif", ".mp4"):
        frames = arguments.frames, arguments.interpolation
        num_problems = write_videos(spec, Split(arguments.split), arguments.seed, arguments.n, *frames, out)
    else:
        num_problems = write_sheet(spec, Split(arguments.split), arguments.seed, arguments.n, arguments.states, out)
    console.print(f"{out}: {num_problems} problems of {spec.label()}", highlight=False, soft_wrap=True)
    return 0


def generate(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep generate TASK``."""
    from orchestrator.problem_files import problems_table, write_problems

    if arguments.out.suffix != ".parquet":
        raise ValueError(
            f"--out {arguments.out}: problems are written as Parquet; expected a name that ends in .parquet"
        )
    if arguments.n > EXPORT_LIMIT:
        raise ValueError(f"--n {arguments.n}: {EXPORT_LIMIT} problems at most; write several files, with other seeds")
    spec, split = task_spec(arguments.task, arguments.param), Split(arguments.split)
    table = problems_table(spec, split, arguments.seed, arguments.n)
    write_problems(table, arguments.out)
    console.print(
        f"{arguments.out}: {table.num_rows} {split} problems of {spec.label()}", highlight=False, soft_wrap=True
    )
    return 0


def verify(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep verify X.parquet``; exit status 1 when a problem is wrong."""
    from orchestrator.problem_files import read_problems

    spec, split, problems = read_problems(arguments.problems)
    task, num_wrong = spec.build(), 0
    questions: dict[tuple[Any, ...], str] = {}
    for problem in problems:
        try:
            faults = task.verify(problem)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # nothing that the task could have made
            faults = [f"no problem of this task ({type(error).__name__}: {' '.join(str(error).split())})"]
        question = (problem.question.shape, problem.question.tobytes())
        if question in questions and split == Split.TEST:  # a training set repeats once the space is used up
            faults = [*faults, f"the question of {questions[question]} again"]
        questions.setdefault(question, problem.problem_id)
        num_wrong += bool(faults)
        if faults and num_wrong <= FAULTS_SHOWN:
            console.print(Text(f"{problem.problem_id}: {'; '.join(faults)}", style="red"), soft_wrap=True)
    console.print(
        f"{arguments.problems}: {len(problems)} problems of {spec.label()}, {len(questions)} of them distinct, "
        f"{num_wrong} wrong",
        highlight=False,
        soft_wrap=True,
    )
    return int(num_wrong > 0)


def task_spec(name: str, params: list[str]) -> TaskSpec:
    """The task of a command line, its knobs written KNOB=VALUE; ValueError of one line for what is wrong with them."""
    if name not in task_names():
        raise ValueError(unknown("task", name, task_names()))
    knobs: dict[str, Any] = {}
    for param in params:
        set_value(knobs, param, option="--param", example="rule=90")
    valid = [*task_class(name).model_fields, "min_test_distance", "test"]
    for knob in knobs:
        if knob not in valid:
            raise ValueError(unknown(f"knob of {name}", knob, valid))
    try:
        return TaskSpec.model_validate({name: knobs})
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def knob_values(field: FieldInfo) -> str:
    """What a knob may hold, in a few words: ``3 to 60``, ``dead | torus``, ``row, column | null``."""
    return _values(field.annotation, field.metadata)


def _values(annotation: Any, limits: typing.Sequence[Any] = ()) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(_values(argument, limits) for argument in arguments))
    if annotation is type(None):
        return "null"
    if origin is typing.Annotated:
        return _values(arguments[0], [*limits, *arguments[1:]])
    if origin is tuple:
        return f"[{', '.join(_values(argument) for argument in arguments)}]"
    if origin is dict:
        return "mapping"
    lowest = [(getattr(limit, "ge", None), getattr(limit, "gt", None)) for limit in limits]
    highest = [(getattr(limit, "le", None), getattr(limit, "lt", None)) for limit in limits]
    low = next((f"{ge}" if ge is not None else f"above {gt}" for ge, gt in lowest if (ge, gt) != (None, None)), "")
    high = next((f"{le}" if le is not None else f"below {lt}" for le, lt in highest if (le, lt) != (None, None)), "")
    kind = {int: "whole number", float: "number", str: "text", bool: "true | false"}.get(annotation, str(annotation))
    if annotation not in (int, float):
        return kind
    return f"{low} to {high}" if low and high else " ".join(filter(None, [kind, low and f"from {low}", high]))


def _plain(value: Any) -> str:
    """A default as it is written in a YAML."""
    if value is None:
        return "null"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _cell(palette: Palette, code: int) -> Text:
    red, green, blue = palette.colors[code]
    ink = "black" if 299 * red + 587 * green + 114 * blue > 128_000 else "white"
    return Text(f"{code:>2} ", style=f"not bold {ink} on #{red:02x}{green:02x}{blue:02x}")


def _side_by_side(palette: Palette, *grids: Grid) -> Text:
    """Grids as coloured codes, so that they can be read without colours too."""
    text = Text()
    for row in range(max(len(grid) for grid in grids)):
        for grid in grids:
            for column in range(grid.shape[1]):
                text.append_text(_cell(palette, int(grid[row, column])) if row < len(grid) else Text("   "))
            text.append("    ")
        text.append("\n")
    return text


def _summary(docstring: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((docstring or "").strip().split("\n\n")[0].split())
