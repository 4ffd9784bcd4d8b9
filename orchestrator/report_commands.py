"""``sweep report``: what a study found, on the terminal and as one HTML page; also of a sweep that still runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from orchestrator import search_commands
from orchestrator.specs import SweepSpec, TrialSpec, expand, load_sweep

if TYPE_CHECKING:
    from orchestrator.analysis import Study
    from orchestrator.report import Source

YAML = (".yaml", ".yml")
MANY_POINTS = 200
"""Points of curves above which the figures are drawn by several processes."""


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sweep report``."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SWEEP.yaml|RESULTS",
        help="a sweep, or a results folder or URI; several are reported as one study",
    )
    parser.add_argument(
        "--out", type=Path, metavar="X.html", help="the page (default: report.html beside the tables of the first)"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="every figure as PNG, SVG and PDF, every table as CSV, TeX and MD",
    )
    parser.add_argument(
        "--accuracy",
        type=_share,
        default=0.9,
        metavar="A",
        help="exact match that counts as learnt, for samples-to-threshold (default: 0.9)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrides a key of the YAML, as in sweep run; may be repeated",
    )


def report(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``sweep report``; returns the exit status."""
    from orchestrator import analysis
    from orchestrator.analysis.study import merged, predictions_of
    from orchestrator.report import Source

    page = arguments.out
    if page is not None and page.suffix != ".html":
        raise ValueError(f"--out {page}: expected the name of a page, such as report.html (pictures go to --figures)")
    if page is not None and _is_folder(page):
        raise ValueError(f"--out {page}: it is a folder")
    if arguments.set and not any(Path(source).suffix in YAML for source in arguments.sources):
        raise ValueError("--set: there is no sweep's YAML that it could change")
    frames, sources = [], []
    searches: list[tuple[SweepSpec, list[TrialSpec]]] = []
    for source in arguments.sources:
        if Path(source).suffix in YAML:
            sweep = load_sweep(source, arguments.set)
            cells = expand(sweep)
            frames.append(analysis.study.of_sweep(sweep, search_commands.reported(sweep, cells)))
            sources.append(_source(sweep, Path(source)))
            searches.append((sweep, cells))
        else:
            frames.append(analysis.study.of_folder(source))
            sources.append(Source(uri=source))
    trials = merged(frames)
    analysis.study.check_any_row(trials, [source.uri for source in sources])
    study = analysis.Study(trials, predictions_of(trials))
    write(console, study, sources, page=page, figures=arguments.figures, accuracy=arguments.accuracy)
    for sweep, cells in searches:
        search_commands.print_found(console, sweep, cells)
    return 0


def report_of_run(console: Console, sweep: SweepSpec, cells: list[TrialSpec], yaml: Path) -> None:
    """What ``sweep run`` ends with.

    Raises:
        ValueError: there is nothing to report, or it cannot be written.
    """
    from orchestrator import analysis
    from orchestrator.analysis.study import predictions_of

    trials = analysis.study.of_sweep(sweep, search_commands.reported(sweep, cells))
    analysis.study.check_any_row(trials, [sweep.results_uri])
    write(console, analysis.Study(trials, predictions_of(trials)), [_source(sweep, yaml)])
    search_commands.print_found(console, sweep, cells)


def print_place(console: Console, results_uri: str) -> None:
    """Say where the report of an earlier run is, if it is there."""
    page = _default_page(results_uri)
    if page.is_file():
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)


def write(
    console: Console,
    study: Study,
    sources: Sequence[Source],
    *,
    page: Path | None = None,
    figures: Path | None = None,
    accuracy: float = 0.9,
) -> None:
    """Print the table and the findings, write the page and say where it is."""
    from orchestrator import report as reports

    material = reports.Material.of(study, accuracy)
    console.print(reports.results_table(study.trials, material.curves))
    for note in reports.notes(study.trials):
        console.print(Text(note, style="dim"))
    console.print()
    for finding in material.findings:
        console.print(f"- {finding.text}", highlight=False, soft_wrap=True, markup=False)
    page = page or _default_page(sources[0].uri)
    many = len(material.curves) > (MANY_POINTS if figures is None else MANY_POINTS / 5)  # files take longer to draw
    processes = (os.cpu_count() or 1) if many else 1
    written = reports.write_page(material, page, sources=sources, figures=figures, processes=processes)
    console.print()
    for uri in dict.fromkeys(source.uri for source in sources):
        console.print(f"Tables: {uri}/{{trials,predictions,losses,...}}/*.parquet", highlight=False, soft_wrap=True)
    console.print(f"Report: {written}", highlight=False, soft_wrap=True)
    if figures is not None:
        console.print(f"Figures and tables: {figures}", highlight=False, soft_wrap=True)


def _source(sweep: SweepSpec, path: Path) -> Source:
    from orchestrator.report import Source

    return Source(sweep.results_uri, sweep.name, path.read_text(encoding="utf-8"))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, say: writing to it will tell
        return False


def _default_page(uri: str) -> Path:
    """Beside the tables; for tables at a URI under ``reports/``."""
    if "://" not in uri:
        return Path(uri, "report.html")
    return Path("reports", uri.rstrip("/").rsplit("/", 1)[-1], "report.html")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share above 0, at most 1")
    return value
