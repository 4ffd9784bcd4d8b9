"""What analysing and reporting 2 million predictions costs: seconds and memory of every part, and of ``sweep report``.

    python -m benchmarks.report                                   # the synthetic study, written first if need be
    python -m benchmarks.report --folder results/paper --only samples_to_threshold --profile

Each part runs in a Python of its own. ``s`` is the part alone, by the clock; ``CPU s`` and ``peak MiB`` are of the
whole process, imports and loading included, so that analysis parts are to be compared with ``analysis.load``. The
target, for ``sweep report`` as users run it: under ``TARGET_S`` and ``TARGET_MIB`` on two cores.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import os
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

# This process imports neither pandas nor ours: Linux counts the parent's memory at the fork as its child's.

TARGET_S = 60
TARGET_MIB = 4096
LOAD = "analysis.load"
OUTCOMES = "Outcomes.of"
PAGE = "report.write_report"
WHOLE = "sweep report"
WITH_FIGURES = "sweep report --figures"
FUNCTIONS = {
    "curves": ("learning_curves", "areas_under_curve"),
    "thresholds": ("samples_to_threshold", "efficiency_ratios"),
    "paired": ("paired_differences",),
    "effects": ("rank_effects", "seed_effects", "pretraining_effects", "recipe_effects"),
    "arc": ("arc_scores", "concept_scores", "solved_overlap"),
    "baselines": ("reference_scores", "training_repeats", "path_scores"),
    "published": ("compare_published",),
    "findings": ("findings",),
}
"""Files of ``orchestrator.analysis`` and their functions of (trials, predictions)."""
OPTIONS = {"recipe_effects": {"field": "inputs"}}
"""Further arguments of functions that need some."""
MODULES = {name: f"orchestrator.analysis.{module}" for module, names in FUNCTIONS.items() for name in names}
PARTS = (LOAD, OUTCOMES, *MODULES, PAGE, WHOLE, WITH_FIGURES)
PROFILED_LINES = 25


class Cost(NamedTuple):
    """Of one part: seconds by the clock; processor seconds and peak memory of its process."""

    part_s: float
    cpu_s: float
    peak_mib: float


def run(part: str, folder: str, output: Path, profile: bool) -> float:
    """Run one part in this process; its seconds by the clock, without what it needs from others."""
    from orchestrator import analysis, cli
    from orchestrator.analysis.outcomes import Outcomes
    from orchestrator.report import page

    arguments: list[Any] = [folder]
    if part in (WHOLE, WITH_FIGURES):
        figures = ["--figures", str(output / "figures")] if part == WITH_FIGURES else []
        call, arguments = cli.main, [["report", folder, "--out", str(output / "report.html"), *figures]]
    elif part == LOAD:
        call = analysis.load
    else:
        study = analysis.load(folder)
        if part == OUTCOMES:
            call, arguments = Outcomes.of, [study.predictions]
        elif part == PAGE:
            sources = [page.Source(uri=folder)]
            call, arguments = lambda: page.write_report(study, output / "report.html", sources=sources), []
        else:
            call, arguments = getattr(importlib.import_module(MODULES[part]), part), list(study)
    profiler = cProfile.Profile()
    start = time.perf_counter()
    options = OPTIONS.get(part, {})
    status = profiler.runcall(call, *arguments, **options) if profile else call(*arguments, **options)
    elapsed_s = time.perf_counter() - start
    if part in (WHOLE, WITH_FIGURES) and status:
        raise SystemExit(status)
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(PROFILED_LINES)
    return elapsed_s


def measured(part: str, folder: str, profile: bool = False) -> Cost:
    """Run one part in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed; its error is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="report-") as output:
        command = [sys.executable, "-m", "benchmarks.report", "--folder", folder, "--run", part, "--output", output]
        log = Path(output, "log.txt")
        with log.open("wb") as stdout:
            process = subprocess.Popen(command + ["--profile"] * profile, stdout=stdout)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        part_s = float(log.read_text().split()[-1])
    return Cost(part_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    """Print a line a part, and whether the target is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", default="results/synthetic", help="results folder (default: results/synthetic)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--profile", action="store_true", help="where each part spends its time, on stderr")
    parser.add_argument("--run", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(run(arguments.run, arguments.folder, arguments.output, arguments.profile))
        return
    if not Path(arguments.folder, "trials").exists():
        subprocess.run([sys.executable, "-m", "benchmarks.synthetic_study", arguments.folder], check=True)
    print(f"{arguments.folder}, {os.cpu_count()} cores\n{'':<28}{'s':>8}{'CPU s':>8}{'peak MiB':>10}")
    costs = {}
    for part in arguments.only or PARTS:
        cost = costs[part] = measured(part, arguments.folder, arguments.profile)
        print(f"{part:<28}{cost.part_s:>8.1f}{cost.cpu_s:>8.1f}{cost.peak_mib:>10.0f}", flush=True)
    if WHOLE in costs:
        met = costs[WHOLE].part_s < TARGET_S and costs[WHOLE].peak_mib < TARGET_MIB
        print(f"target, under {TARGET_S} s and {TARGET_MIB} MiB: {'met' if met else 'missed'}")


if __name__ == "__main__":
    main()
