"""Where the numbers come from, what is missing or failed, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pandas as pd

from orchestrator.analysis import MISSING
from orchestrator.estimates import elapsed_s
from orchestrator.failures import is_transient
from orchestrator.report.figures_cost import cost_figure
from orchestrator.report.page_parts import Figure, Section, counted, redacted, table
from orchestrator.tables import TrialState, task_label

GIB = 2**30
VERSIONS = {
    "code_version": "code",
    "python_version": "Python",
    "torch_version": "torch",
    "diffusers_version": "diffusers",
    "transformers_version": "transformers",
    "peft_version": "peft",
    "deepspeed_version": "DeepSpeed",
    "ray_version": "Ray",
    "numpy_version": "numpy",
}
HARDWARE = {"device": "device", "num_workers": "workers a trial", "zero_stage": "ZeRO stage"}


class Source(NamedTuple):
    """One of the places that a report is made from."""

    uri: str
    """The results folder."""
    sweep: str | None = None
    """Name of the sweep, where the report is of one."""
    yaml: str | None = None
    """The text of the sweep's file."""


@dataclass(frozen=True)
class Standing:
    """How much of what was asked for there is."""

    done: int
    pruned: int
    failed: int
    missing: int

    @property
    def total(self) -> int:
        """All trials."""
        return self.done + self.pruned + self.failed + self.missing

    @property
    def sentence(self) -> str:
        """``20 of 28 trials are done; 3 failed; 5 have not run yet.``"""
        are = "is" if self.done == 1 else "are"
        parts = [f"{self.done:,} of {counted(self.total, 'trial')} {are} done"]
        parts += [f"{self.pruned:,} stopped early by a search"] if self.pruned else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.missing:,} {'has' if self.missing == 1 else 'have'} not run yet"] if self.missing else []
        return "; ".join(parts) + "."

    @property
    def whole(self) -> bool:
        """Whether nothing failed and nothing is missing."""
        return not self.failed and not self.missing


def standing(trials: pd.DataFrame) -> Standing:
    """Trials by state."""
    counts = trials["state"].value_counts()
    states = (TrialState.DONE, TrialState.PRUNED, TrialState.FAILED, MISSING)
    return Standing(*(int(counts.get(str(state), 0)) for state in states))


def failures(trials: pd.DataFrame) -> Section | None:
    """Failed trials by cause; numbers in the last line of the error make no difference."""
    failed = trials[trials["state"] == TrialState.FAILED]
    if failed.empty:
        return None
    kinds = [kind if isinstance(kind, str) else "error" for kind in failed["error_kind"]]
    lines = [_last_line(error) for error in failed["error"]]
    frame = pd.DataFrame(
        {
            "error_kind": kinds,
            "key": [re.sub(r"0x[0-9a-f]+|[0-9]+", "#", line) for line in lines],
            "last_line": lines,
            "example": _labels(failed),
            "backbone": failed["backbone"].tolist(),
            "attempts": pd.to_numeric(failed["attempts"], errors="coerce").tolist(),
        }
    )
    grouped = (
        frame.groupby(["error_kind", "key"], sort=False)
        .agg(
            last_line=("last_line", "first"),
            trials=("key", "size"),
            backbones=("backbone", "nunique"),
            example=("example", "first"),
            attempts=("attempts", "max"),
        )
        .reset_index()
        .drop(columns="key")
        .sort_values("trials", ascending=False, kind="stable", ignore_index=True)
    )
    grouped["passes"] = [is_transient(kind) for kind in grouped["error_kind"]]
    grouped["attempts"] = grouped["attempts"].astype("Int64")
    headings = {
        "error_kind": "kind",
        "last_line": "last line of the error",
        "trials": "trials",
        "backbones": "backbones",
        "example": "for instance",
        "attempts": "attempts, at most",
        "passes": "run again by itself",
    }
    return Section(
        "failures",
        "Failures by cause",
        "Each row is one cause: errors of one kind whose last line is the same but for numbers.",
        [table("failures", f"Failed trials by cause ({counted(len(failed), 'trial')})", grouped, headings)],
        notes=["Kinds that pass by themselves are run again by the next `sweep run`; others want --retry-failed."],
    )


def costs(trials: pd.DataFrame) -> Section | None:
    """Time and GPU-hours by backbone; failed and pruned trials count, for what they took was spent."""
    rows = trials[trials["state"] != MISSING]
    if rows.empty:
        return None
    numbers = {
        name: pd.to_numeric(rows[name], errors="coerce").astype("float64")
        for name in ("load_s", "encode_s", "train_s", "eval_s", "num_workers", "peak_memory_bytes")
    }
    parts_s = pd.DataFrame({name: numbers[name] for name in ("load_s", "encode_s", "train_s", "eval_s")})
    took_s = pd.Series(elapsed_s(rows), index=rows.index).fillna(parts_s.sum(axis=1, min_count=1))
    on_gpu = rows["device"].map(lambda device: isinstance(device, str) and device != "cpu")
    frame = pd.DataFrame(
        {
            "backbone": rows["backbone"],
            "hours": took_s / 3600,
            "gpu_hours": (took_s * numbers["num_workers"].fillna(1) / 3600).where(on_gpu),
            "lost_hours": (took_s / 3600).where(rows["state"] == TrialState.FAILED),
            "median_s": took_s.where(rows["state"] == TrialState.DONE),
            "train_hours": numbers["train_s"] / 3600,
            "eval_hours": numbers["eval_s"] / 3600,
            "load_hours": numbers["load_s"] / 3600,
            "peak_memory_gib": numbers["peak_memory_bytes"] / GIB,
        }
    )
    sums = ("hours", "gpu_hours", "train_hours", "eval_hours", "load_hours", "lost_hours")
    grouped = frame.groupby("backbone", sort=False)
    by_backbone = pd.DataFrame({"trials": grouped.size()})
    for name in sums:
        by_backbone[name] = grouped[name].sum(min_count=1)
    by_backbone["median_s"] = grouped["median_s"].median()
    by_backbone["peak_memory_gib"] = grouped["peak_memory_gib"].max()
    by_backbone = by_backbone.reset_index()
    total = by_backbone[["trials", *sums]].sum(min_count=1)
    last = {"backbone": "all", **total, "peak_memory_gib": by_backbone["peak_memory_gib"].max()}
    whole = pd.concat([by_backbone, pd.DataFrame([last])], ignore_index=True)
    whole["trials"] = whole["trials"].astype(int)
    unit, in_an_hour = ("h", 1) if last["hours"] >= 3 else ("min", 60)
    shown = whole.assign(**{name: (whole[name] * in_an_hour).round(1) for name in sums})
    shown["median_s"] = shown["median_s"].round(1)
    headings = {
        "backbone": "backbone",
        "trials": "trials",
        "hours": f"time ({unit})",
        "gpu_hours": f"GPU-{unit}",
        "median_s": "median trial (s)",
        "train_hours": f"training ({unit})",
        "eval_hours": f"answering ({unit})",
        "load_hours": f"loading ({unit})",
        "lost_hours": f"in failed trials ({unit})",
        "peak_memory_gib": "peak memory (GiB)",
    }
    by_time = table("costs", "Time by backbone", shown, headings, decimals=1, total=True)
    return Section(
        "costs",
        "Time and GPU-hours",
        "Times are those of the trials one after another, from start to row; a worker on a GPU counts as one GPU.",
        [
            Figure("costs", "Time by backbone", "The table below has the numbers.", partial(cost_figure, rows)),
            by_time.of(whole),
        ],
        notes=[] if on_gpu.any() else ["Nothing here ran on a GPU."],
    )


def provenance(trials: pd.DataFrame) -> Section:
    """Versions, hardware and dates, each with the number of trials that ran so."""
    rows = trials[trials["state"] != MISSING]
    facts: list[tuple[str, str, int]] = []
    for column, name in (VERSIONS | HARDWARE).items():
        counts = rows[column].dropna().astype(str).value_counts() if column in rows.columns else pd.Series(dtype=int)
        facts += [(name, redacted(str(value)), int(count)) for value, count in counts.items()]
    if rows["host"].notna().any():
        facts.append(("machines", str(rows["host"].nunique()), int(rows["host"].notna().sum())))
    frame = pd.DataFrame(facts, columns=["what", "value", "trials"])
    return Section(
        "provenance",
        "Provenance",
        "What the numbers above were computed from, and with; several values of one thing mean that trials differ.",
        [table("provenance", "Versions and hardware", frame, {"what": "what", "value": "value", "trials": "trials"})],
        extent=_dates(rows),
    )


def source_lines(sources: Sequence[Source], trials: pd.DataFrame) -> list[Source]:
    """The sources as the page shows them: without passwords, and those of the trials that are not named."""
    named = [
        source._replace(uri=redacted(source.uri), yaml=source.yaml and redacted(source.yaml)) for source in sources
    ]
    known = {source.uri for source in named}
    uris = list(map(str, trials["results_uri"].dropna().unique())) if "results_uri" in trials.columns else []
    return named + [Source(uri) for uri in map(redacted, uris) if uri not in known]


def sweep_names(sources: Sequence[Source], trials: pd.DataFrame) -> list[str]:
    """The sweeps of a report, in order: of a source that names none those that wrote its rows."""
    names: list[str] = []
    for source in sources:
        here = trials if "results_uri" not in trials else trials[trials["results_uri"] == source.uri]
        names += [source.sweep] if source.sweep else [str(name) for name in here["sweep"].dropna().unique()]
    return list(dict.fromkeys(names or map(str, trials["sweep"].dropna().unique())))


def _dates(rows: pd.DataFrame) -> str:
    first, last = (pd.to_datetime(rows[name], utc=True) for name in ("started_at", "finished_at"))
    began, ended = first.min() if first.notna().any() else last.min(), last.max()
    if pd.isna(began) or pd.isna(ended):
        return ""
    return f"Run from {began:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC"


def _last_line(error: object) -> str:
    lines = error.strip().splitlines() if isinstance(error, str) else []
    line = redacted(lines[-1].strip()) if lines else ""
    return line if len(line) <= 400 else line[:399] + "…"


def _labels(rows: pd.DataFrame) -> list[str]:
    columns = (rows[name] for name in ("backbone", "task", "task_params", "n_train", "seed"))
    return [
        f"{backbone} {task_label(str(task), str(params))} n={n_train} seed={seed}"
        for backbone, task, params, n_train, seed in zip(*columns, strict=True)
    ]
