"""``sweep plan``: what a sweep will run and has run, whether it can run, how long it takes and what it costs."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from orchestrator import backbone_commands
from orchestrator.capacity import (
    CPUS_A_GPU,
    GPU_MODELS,
    Hardware,
    cluster_hardware,
    gpu_model,
    gpus_per_worker,
    memory_fault,
    parse_gpus,
    placement_fault,
    wants_gpu,
)
from orchestrator.estimates import GUESS_FACTOR, Cost, Estimator, Level, cost
from orchestrator.failures import is_transient
from orchestrator.search_findings import THRESHOLD_COLUMNS, threshold_progress
from orchestrator.search_plan import ROW_COLUMNS, planned_trials
from orchestrator.specs import SweepSpec, TrialSpec, check_problems, expand, load_sweep
from orchestrator.stale import StaleRow, by_change, stale_rows
from orchestrator.trial_counts import ExtraColumn, States, counts_table, duration, number, runs, searches
from orchestrator.trial_counts import state_of as state_of

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.machine_checks import Gpu
    from orchestrator.results import TrialStatus

MAX_CHANGES = 8


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sweep plan`` beside the sweep itself."""
    add_hardware_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def add_hardware_arguments(parser: argparse.ArgumentParser) -> None:
    """``--gpus`` and ``--cluster``: what the sweep is planned for."""
    parser.add_argument(
        "--gpus",
        action="append",
        metavar="KIND:COUNT[xNODES]",
        help="plan for hardware that is not here: H100:8 is a node of eight, H100:8x4 four of them, 48GB:2 a kind by "
        f"its memory, {CPUS_A_GPU:g} CPUs with each (kinds: {', '.join(GPU_MODELS)})",
    )
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="plan for the Ray cluster of RAY_ADDRESS, or one that runs on this machine (asked by itself where "
        "RAY_ADDRESS is set)",
    )


@dataclass(frozen=True)
class Plan:
    """What ``sweep plan`` found out. ``to_run`` are the trials without a row and those that failed in passing."""

    sweep: SweepSpec
    trials: Sequence[TrialSpec]
    states: States
    to_run: Sequence[TrialSpec]
    hardware: Hardware
    faults: Sequence[str]
    """Why some trials cannot run on the hardware."""
    stale: Sequence[StaleRow]
    estimator: Estimator
    cost: Cost

    @property
    def at_most(self) -> str:
        """``at most `` where a search chooses among the trials."""
        return "at most " if searches(self.sweep) else ""

    def failed(self) -> Counter[str]:
        """How many trials failed, by kind."""
        kinds = (self.states[trial.trial_id] for trial in self.trials if state_of(trial, self.states) == "failed")
        return Counter(status.error_kind or "error" for status in kinds)


def plan(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep plan``: check every trial, say what is to run and what it takes; starts nothing. Exit status 1 when the
    hardware that was named cannot run some of it."""
    found = make_plan(arguments)
    if arguments.json:
        print(json.dumps(as_json(found), indent=2))
    else:
        print_plan(console, found, arguments.sweep)
    return int(bool(found.faults) and found.hardware.named)


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Check and count a sweep. ValueError for what can never run anywhere."""
    sweep, cells, states = read(arguments)
    rows = _rows(sweep) if states else None
    trials = trials_of(sweep, cells, rows)
    to_run = [trial for trial in trials if runs(trial, states)]
    check_problems(to_run)
    for fault in backbone_commands.unavailable(_distinct(to_run)):  # no error: a laptop may plan what a cluster runs
        warnings.warn(fault, stacklevel=2)
    hardware = hardware_of(arguments, to_run)
    distinct = _distinct(to_run)
    faults = [fault(trial, hardware) for fault in (placement_fault, memory_fault) for trial in distinct]
    stale: list[StaleRow] = []
    if rows is not None and not draws_points(sweep):  # points that are drawn differ in their recipes on purpose
        missing = [trial for trial in trials if trial.trial_id not in states]
        stale = stale_rows(missing, rows, sweep.name, {trial.trial_id for trial in trials})
    estimator = Estimator(rows, hardware)
    total = cost(to_run, estimator, hardware, sweep.gpu_hour_usd)
    faults = list(dict.fromkeys(filter(None, faults)))
    return Plan(sweep, trials, states, to_run, hardware, faults, stale, estimator, total)


def read(arguments: argparse.Namespace) -> tuple[SweepSpec, list[TrialSpec], dict[str, TrialStatus]]:
    """The sweep of a command line, its trials, and what the tables say of them."""
    from orchestrator import results

    sweep = load_sweep(arguments.sweep, arguments.set)
    return sweep, expand(sweep), results.trial_states(sweep.results_uri)


# --- hardware


def hardware_of(arguments: argparse.Namespace, trials: Sequence[TrialSpec]) -> Hardware:
    """What ``--gpus`` names, or ``--cluster`` or RAY_ADDRESS has, or this machine; where that has no GPU and backbones
    want some, as many H100s as the largest trial asks for. ValueError when the cluster does not answer."""
    if arguments.gpus:
        if arguments.cluster or len(arguments.gpus) > 1:
            raise ValueError("--gpus: give one kind of hardware to plan for, once, and not --cluster with it")
        return parse_gpus(arguments.gpus[0])
    address = os.environ.get("RAY_ADDRESS") or ("auto" if arguments.cluster else None)
    if address:
        from orchestrator.machine_checks import ray_nodes

        nodes, answer = ray_nodes(address)
        if nodes is None:
            raise ValueError(f"the cluster {address} does not answer: {answer}; plan without it: --gpus H100:8")
        return cluster_hardware(nodes, f"the cluster {address}")
    return _this_machine(trials)


def _this_machine(trials: Sequence[TrialSpec]) -> Hardware:
    node = {"CPU": float(os.cpu_count() or 1)}
    asking = [trial for trial in _distinct(trials) if wants_gpu(trial)]
    if not asking:
        return Hardware((node,), None, "this machine", named=False)
    here = _gpus_here()
    if here:
        smallest = min(here, key=lambda gpu: gpu.memory_gb)
        model = gpu_model(smallest.name) or GPU_MODELS["H100"]
        where = f"this machine ({len(here)} x {smallest.name})"
        return Hardware(({**node, "GPU": float(len(here))},), model, where, named=False)
    most = math.ceil(max(trial.placement.num_workers * gpus_per_worker(trial, has_gpus=True) for trial in asking))
    cpus = max(trial.placement.num_workers * trial.placement.cpus_per_worker for trial in asking)
    nodes = ({"CPU": max(cpus, CPUS_A_GPU * most), "GPU": float(most)},)
    return Hardware(nodes, GPU_MODELS["H100"], f"{most} x H100 (there is no GPU here; say which with --gpus)", False)


def _gpus_here() -> list[Gpu]:
    if shutil.which("nvidia-smi") is None and not Path("/dev/kfd").exists():
        return []  # neither driver: spares the seconds that loading torch takes
    from orchestrator.machine_checks import gpus

    return gpus()


# --- what is printed


def print_plan(console: Console, plan: Plan, path: str) -> None:
    """The table of counts, then what failed, what is stale, what cannot run, and what it takes."""
    print_ = partial(console.print, highlight=False, soft_wrap=True, markup=False)
    seconds = {trial.trial_id: plan.estimator.seconds(trial).seconds for trial in plan.to_run}
    extra: dict[str, ExtraColumn] = {
        "stale": (Counter(row.trial.trial_id for row in plan.stale), str),
        "time": (seconds, lambda total: duration(total) if total else ""),
    }
    console.print(counts_table(plan.sweep, plan.trials, plan.states, extra))
    failed = plan.failed()
    again, final = (
        {kind: n for kind, n in failed.items() if is_transient(kind) == passing} for passing in (True, False)
    )
    if again:
        print_(f"{sum(again.values())} failed for a reason that passes and run again: {_listed(again)}")
    if final:
        advice = f"sweep run {path} --retry-failed {next(iter(final)) if len(final) == 1 else 'KIND'}"
        print_(f"{sum(final.values())} failed for good and stay as they are: {_listed(final)}; to run them: {advice}")
    changes = by_change(plan.stale)
    for changed, count, trial in changes[:MAX_CHANGES]:
        rows = f"{count} rows are stale" if count > 1 else "1 row is stale"
        print_(f"{rows}: {', '.join(changed)} (such as {trial.label()})")
    others = changes[MAX_CHANGES:]
    if others:
        print_(f"{sum(count for _, count, _ in others)} more rows are stale, for {len(others)} other changes")
    for fault in plan.faults:
        console.print(Text(f"does not fit: {fault}", style="red"), soft_wrap=True)
    if plan.to_run:
        for line in cost_lines(plan.cost, plan.hardware, plan.at_most):
            print_(line)
    print_(f"{plan.at_most}{len(plan.to_run)} of {len(plan.trials)} trials to run: sweep run {path}".strip())


def cost_lines(total: Cost, hardware: Hardware, at_most: str = "") -> list[str]:
    """Time and money in one line, what they rest on in another."""
    low, high = total.range_factors
    ranged = high > 1.05

    def span(value: float, shown: Callable[[float], str]) -> str:
        return f"{shown(value)} ({shown(value * low)} to {shown(value * high)})" if ranged else shown(value)

    parts = [
        f"{span(total.wall_s, duration)} on {hardware.where}, {total.slots} trial{'s' * (total.slots != 1)} at once"
    ]
    if total.slots > 1:
        parts.append(f"{duration(total.work_s)} one after another")
    if total.gpu_hours:
        parts.append(f"{span(total.gpu_hours, number)} GPU-hours")
    if total.usd is not None and total.gpu_hours:
        parts.append(f"{span(total.usd, lambda usd: f'${number(usd)}')}")
    return [f"Estimate: {at_most}{'; '.join(parts)}", f"It rests on {_basis(total)}"]


def _basis(total: Cost) -> str:
    wide = f"may be {GUESS_FACTOR:g} times more or less"
    if total.basis:
        return f"{total.basis}; it {wide}" if total.levels.get("guess") else total.basis
    words: dict[Level, str] = {
        "task": "finished trials of the same backbone and task for {} trials",
        "backbone": "finished trials of the same backbone on other tasks for {}",
        "guess": "a rough guess from steps and parameters for {} of which nothing like it has finished, which " + wide,
    }
    return ", ".join(text.format(total.levels[level]) for level, text in words.items() if total.levels.get(level))


def as_json(plan: Plan) -> dict[str, Any]:
    """What ``--json`` prints of a plan."""
    low, high = plan.cost.range_factors
    return {
        "sweep": plan.sweep.name,
        "trials": len(plan.trials),
        "upper_bound": searches(plan.sweep),
        "to_run": len(plan.to_run),
        **{state: sum(state_of(trial, plan.states) == state for trial in plan.trials) for state in ("done", "pruned")},
        "failed": dict(plan.failed()),
        "stale": [{"rows": count, "changes": list(changed)} for changed, count, _ in by_change(plan.stale)],
        "faults": list(plan.faults),
        "hardware": plan.hardware.where,
        "estimate": {
            "work_s": plan.cost.work_s,
            "wall_s": plan.cost.wall_s,
            "gpu_hours": plan.cost.gpu_hours,
            "usd": plan.cost.usd,
            "low_factor": low,
            "high_factor": high,
            "trials_by_basis": dict(plan.cost.levels),
        },
    }


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def _distinct(trials: Sequence[TrialSpec]) -> list[TrialSpec]:
    """One trial for each backbone, recipe and placement: what decides where it fits and which weights it needs."""
    kinds = {(trial.backbone, id(trial.recipe), id(trial.placement)): trial for trial in reversed(trials)}
    return list(reversed(kinds.values()))


def draws_points(sweep: SweepSpec) -> bool:
    """Whether the sweep's recipes are drawn as it runs."""
    return sweep.search is not None and sweep.search.optuna is not None


def trials_of(sweep: SweepSpec, cells: Sequence[TrialSpec], rows: pd.DataFrame | None) -> list[TrialSpec]:
    """The trials that a sweep runs at most, as far as ``rows`` of ``trials`` tell: its cells, or what its search has
    had done and may still ask for."""
    if sweep.search is None or (rows is None and not draws_points(sweep)):
        return list(cells)
    kept = [] if rows is None else rows[list({*ROW_COLUMNS, *THRESHOLD_COLUMNS})].to_dict("records")
    records = [{str(name): value for name, value in row.items()} for row in kept]
    if draws_points(sweep):
        return planned_trials(sweep, cells, records)
    return list(threshold_progress(sweep, cells, records).trials)


def _rows(sweep: SweepSpec) -> pd.DataFrame:
    from orchestrator import results
    from orchestrator.row_watch import COLUMNS

    return results.load_trials(sweep.results_uri, COLUMNS)
