"""The command ``sweep``: plan, run, watch and report sweeps; look at tasks, backbones and problems.

    sweep plan my.yaml && sweep run my.yaml && sweep report my.yaml

What a user got wrong is one line on standard error and exit status 2, before anything is started.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from rich.console import Console

from orchestrator import (
    backbone_commands,
    compare_commands,
    doctor,
    plan_commands,
    report_commands,
    search_commands,
    status_commands,
    sweep_schema,
    task_commands,
)
from orchestrator.failures import ERROR_KINDS, TRANSIENT, is_to_run
from orchestrator.specs import TrialSpec, check_problems
from orchestrator.sweep_entries import LARGEST_INT
from task_generators.problem import Split
from task_generators.transition_video import Interpolation

LOG_WIDTH = 160
"""Characters a line where the output is no terminal."""
BAD_INPUT = 2
INTERRUPTED = 130
ALL_OR_NONE = {"all", "none"}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # --help, or wrong arguments that were reported already
        return int(stop.code or 0)
    command: Callable[[argparse.Namespace, Console], int] = arguments.command
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            return command(arguments, console)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_INPUT
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # the reader of our output has seen enough
            sys.stderr.close()
            return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sweep", description="Sweeps of LoRA-adapted backbones over procedural visual tasks.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace, Console], int], summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    def add_sweep(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("sweep", metavar="SWEEP.yaml")
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="overrides a key of the YAML, for instance recipe.learning_rate=2e-4; may be repeated",
        )

    sub = add("plan", plan_commands.plan, "Check a sweep: what is to run, done, failed, stale; time and money.")
    add_sweep(sub)
    plan_commands.add_plan_arguments(sub)

    sub = add("run", _run, "Run what is missing, and what failed before for a reason that passes.")
    add_sweep(sub)
    sub.add_argument("--workers", type=_positive, metavar="N", help="run at most N trials at once (default: what fits)")
    sub.add_argument(
        "--retry-failed",
        action="append",
        choices=[*ERROR_KINDS, *ALL_OR_NONE],
        metavar="KIND",
        help="run trials again that failed before with this error_kind, or all, or none of them; may be repeated "
        f"(default: the kinds that pass: {', '.join(TRANSIENT)})",
    )
    sub.add_argument("--quiet", action="store_true", help="no progress and no results, errors only")

    sub = add("status", status_commands.status, "Say how far a sweep is, what failed and why, and what is left.")
    add_sweep(sub)
    status_commands.add_status_arguments(sub)

    sub = add(
        "report",
        report_commands.report,
        "Print the results and findings and write them as one HTML page; also of a sweep that still runs.",
    )
    report_commands.add_report_arguments(sub)

    sub = add("compare", compare_commands.compare, "Compare finished trials with the numbers of the paper.")
    compare_commands.add_compare_arguments(sub)

    sub = add(
        "schema",
        sweep_schema.schema,
        "Print the JSON Schema of a sweep's YAML. With --out sweep.schema.json and, as the first line of a YAML beside "
        "it, `# yaml-language-server: $schema=sweep.schema.json`, editors complete and check what is written.",
    )
    sub.add_argument("--out", type=Path, metavar="X.json", help="write it there")

    sub = add("tasks", task_commands.tasks, "List the tasks, or show one: knobs, symmetries, palette, a sample.")
    sub.add_argument("name", nargs="?", metavar="NAME")
    _add_params(sub)

    sub = add(
        "backbones", backbone_commands.backbones, "List the backbones, or show one: weights, recipe, how to use it."
    )
    sub.add_argument("name", nargs="?", metavar="NAME")
    sub.add_argument("--family", choices=backbone_commands.FAMILIES)

    sub = add("doctor", doctor.doctor, "Check this machine, and what a sweep needs of it; says what to do.")
    sub.add_argument("sweep", nargs="?", metavar="SWEEP.yaml")
    sub.add_argument("--no-ray", action="store_true", help="do not start a Ray (or join that of RAY_ADDRESS) to try it")
    sub.add_argument("--json", action="store_true", help="print the checks as JSON")

    sub = add(
        "preview",
        task_commands.preview,
        "Draw problems of a task: a sheet (PNG), or transition videos (GIF, MP4); or of all.",
    )
    _add_problems(sub, "?")
    sub.add_argument("--n", type=_positive, default=8, help="number of problems (default: 8)")
    sub.add_argument("--out", type=Path, metavar="X.png|X.gif|X.mp4", help="default: preview_TASK.png")
    sub.add_argument("--states", action="store_true", help="show the states between question and answer too (sheet)")
    sub.add_argument("--frames", type=_positive, default=9, metavar="F", help="frames of a video (default: 9)")
    sub.add_argument("--interpolation", choices=get_args(Interpolation), default="discrete", help="of a video")

    sub = add("generate", task_commands.generate, "Write problems of a task as Parquet.")
    _add_problems(sub)
    sub.add_argument("--n", type=_positive, required=True, help="number of problems")
    sub.add_argument("--out", type=Path, required=True, metavar="X.parquet")

    sub = add("verify", task_commands.verify, "Check problems that generate wrote, by code apart from the generators.")
    sub.add_argument("problems", type=Path, metavar="X.parquet")

    sub = add("compact", _compact, "Merge the many small files of a results folder; safe while a sweep runs.")
    sub.add_argument("results", metavar="RESULTS", help="a results folder or URI")
    return parser


def _add_problems(sub: argparse.ArgumentParser, nargs: str | None = None) -> None:
    sub.add_argument("task", metavar="TASK", nargs=nargs)
    sub.add_argument("--split", choices=[split.value for split in Split], default=Split.TRAIN.value)
    sub.add_argument("--seed", type=_not_negative, default=0, help="seed of the training split (default: 0)")
    _add_params(sub)


def _add_params(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--param", action="append", default=[], metavar="KNOB=VALUE", help="for instance rule=90; may be repeated"
    )


# --- sweeps


def _run(arguments: argparse.Namespace, console: Console) -> int:
    from orchestrator import results

    sweep, cells, states = plan_commands.read(arguments)
    trials = search_commands.trials_of(sweep, cells)
    kinds = set(arguments.retry_failed or TRANSIENT)
    if kinds & ALL_OR_NONE and len(kinds) > 1:
        raise ValueError(f"--retry-failed: {' or '.join(sorted(kinds & ALL_OR_NONE))} goes with no other kind")
    retried = None if kinds == {"all"} else kinds
    missing = [trial for trial in trials if is_to_run(states.get(trial.trial_id), retried)]
    left = sum(plan_commands.state_of(trial, states) == "failed" for trial in trials) - sum(
        trial.trial_id in states for trial in missing
    )
    left_alone = f"{left} failed before and are left alone (--retry-failed runs them)" if left else ""
    if not missing:
        ended = f"{len(trials) - left} trials are done" + (f", {left_alone}" if left else "")
        console.print(f"Nothing to run: {ended}. Tables: {sweep.results_uri}", highlight=False, soft_wrap=True)
        console.print(f"See them with: sweep report {arguments.sweep}", highlight=False, soft_wrap=True)
        report_commands.print_place(console, sweep.results_uri)
        return int(left > 0)
    check_problems(missing)
    backbone_commands.check_weights(missing)
    results.check_writable(sweep.results_uri)
    if not arguments.quiet:
        again = sum(trial.trial_id in states for trial in missing)
        at_most = "at most " if sweep.search else ""
        console.print(
            f"{sweep.name}: {at_most}{len(missing)} of {len(trials)} trials to run"
            + (f", {again} of them failed before" if again else "")
            + (f"; {left_alone}" if left else "")
            + f"; tables go to {sweep.results_uri}",
            highlight=False,
            soft_wrap=True,
        )
    from orchestrator.estimates import Estimator
    from orchestrator.sweep import run  # ray: seconds, and only needed now

    estimator = Estimator(results.load_trials(sweep.results_uri)) if states else Estimator()

    def measured_s(trial: TrialSpec) -> float | None:
        estimate = estimator.seconds(trial)
        return None if estimate.guessed else estimate.seconds

    outcome = run(
        sweep,
        cells,
        retry_failed=retried,
        workers=arguments.workers,
        quiet=arguments.quiet,
        console=console,
        seconds=measured_s,
    )
    if outcome.stopped_by:
        print(
            f"stopped by {outcome.stopped_by.name}: {outcome.done} trials done, {outcome.missing} missing; finished "
            f"rows are kept, the same command runs what is missing: sweep run {arguments.sweep}",
            file=sys.stderr,
        )
        return outcome.exit_status
    if not arguments.quiet:
        try:
            report_commands.report_of_run(console, sweep, cells, Path(arguments.sweep))
        except ValueError as error:  # such as a full disk: how the trials ended is what counts
            print(f"warning: {error}", file=sys.stderr)
    if outcome.stop_reason:
        print(f"stopped: {outcome.stop_reason}; {outcome.missing} trials are missing", file=sys.stderr)
    if outcome.failed:
        print(f"{outcome.failed} trials failed, see: sweep status {arguments.sweep}", file=sys.stderr)
    return outcome.exit_status


def _compact(arguments: argparse.Namespace, console: Console) -> int:
    from orchestrator import results

    if "://" not in arguments.results and not Path(arguments.results).is_dir():
        raise ValueError(f"{arguments.results}: there is no results folder")
    merged = results.compact(arguments.results)
    console.print(", ".join(f"{table}: {count} files merged" for table, count in merged.items()), highlight=False)
    return 0


def _show_warning(message: Warning | str, *rest: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number above 0")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST_INT:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 0 to {LARGEST_INT}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
