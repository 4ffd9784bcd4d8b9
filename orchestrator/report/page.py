"""The report as one HTML file that opens from disk: nothing in it comes from elsewhere, nothing leaves it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pandas as pd

from orchestrator.analysis import Study
from orchestrator.report import figure_files, table_files
from orchestrator.report.gallery import Gallery, gallery
from orchestrator.report.material import Material
from orchestrator.report.page_parts import Figure, Section, Table, counted
from orchestrator.report.provenance import Source, provenance, source_lines, standing, sweep_names
from orchestrator.report.sections import scope, sections
from orchestrator.report.studio import Studio

TEMPLATES = Path(__file__).with_name("page")


@dataclass(frozen=True)
class _Drawn:
    """A figure as the template wants it."""

    name: str
    title: str
    narrow: bool
    svg: str


@dataclass(frozen=True)
class _Laid:
    """A section with its figures drawn."""

    anchor: str
    title: str
    reading: str
    extent: str
    notes: Sequence[str]
    sentences: Sequence[str]
    blocks: Sequence[_Drawn | Table]


def write_report(
    study: Study, path: Path, *, sources: Sequence[Source], figures: Path | None = None, accuracy: float = 0.9
) -> Path:
    """Write the report of ``study`` (as ``analysis.load`` gives it) to the HTML file ``path``; returns ``path``.

    Args:
        study: the trials with ``results_uri``, and their predictions.
        path: the file, whole or absent; its folder is made.
        sources: where the trials come from, for the section on provenance.
        figures: a folder for every figure (PNG, SVG, PDF) and every table (CSV, LaTeX, Markdown) of the page.
        accuracy: exact match that samples-to-threshold are counted to.

    Raises:
        ValueError: the file or a figure cannot be written, or a results folder cannot be read any more.
    """
    return write_page(Material.of(study, accuracy), path, sources=sources, figures=figures)


def write_page(
    material: Material,
    path: Path,
    *,
    sources: Sequence[Source],
    figures: Path | None = None,
    processes: int = 1,
) -> Path:
    """``write_report``, for who has its material; figures are drawn by ``processes``, see ``Studio``."""
    trials = material.trials
    found: list[Section] = []
    drawn: dict[str, Future[str]] = {}
    try:
        with Studio(processes) as studio:
            written: list[Future[list[Path]]] = []
            for section in sections(material):
                found.append(section)
                for block in section.blocks:
                    if isinstance(block, Figure) and block.on_page:
                        drawn[block.name] = studio.svg(block)
                    if isinstance(block, Figure) and figures is not None:
                        written.append(studio.files(block, figures))
            examples = gallery(trials, material.predictions, material.outcomes)
            if examples.cards:
                found.append(_gallery_section(examples))
            found.append(provenance(trials))
            if figures is not None:
                _write_tables(found, figures)
            content = _page(trials, [_laid(section, drawn) for section in found], examples, sources)
            for files in written:
                files.result()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure_files.write_whole(path, figure_files.printable(content).encode())
    except OSError as error:
        place = error.filename if figures is not None and str(figures) in str(error.filename) else path
        raise ValueError(f"{place}: cannot be written: {error.strerror or error}") from None
    return path


def _page(trials: pd.DataFrame, laid: Sequence[_Laid], examples: Gallery, sources: Sequence[Source]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    css = (TEMPLATES / "report.css").read_text().replace("/*dark series*/", figure_files.figure_css())
    script = (TEMPLATES / "report.js").read_text()
    names = sweep_names(sources, trials)
    return environment.get_template("report.html.j2").render(
        title=f"{', '.join(names) or 'results'}: sweep report",
        names=names,
        scope=scope(trials),
        standing=standing(trials),
        sections=laid,
        gallery=examples,
        sources=source_lines(sources, trials),
        version=metadata.version("visual-sweep"),
        policy=_policy(script),
        css=css,
        js=script,
    )


def _policy(script: str) -> str:
    """Nothing may be loaded but pictures in the page itself, and no script runs but ours. Figures colour themselves by
    ``style`` attributes, which no hash can allow."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _laid(section: Section, drawn: Mapping[str, Future[str]]) -> _Laid:
    blocks: list[_Drawn | Table] = []
    for block in section.blocks:
        if isinstance(block, Table):
            blocks.append(block)
        elif block.on_page:
            blocks.append(_Drawn(block.name, block.title, block.narrow, drawn[block.name].result()))
    return _Laid(
        section.anchor, section.title, section.reading, section.extent, section.notes, section.sentences, blocks
    )


def _gallery_section(examples: Gallery) -> Section:
    return Section(
        "gallery",
        "Gallery",
        "Question, right answer and prediction side by side; a cross marks each cell of a prediction that is wrong.",
        [],
        extent=counted(len(examples.cards), "example"),
        notes=[
            "Of each task and backbone: the trial with the most training problems and the smallest seed; of its test "
            "problems the first right, the first wrong and the hardest ones (answered by the fewest trials).",
            *examples.notes,
        ],
    )


def _write_tables(found: Sequence[Section], folder: Path) -> None:
    for section in found:
        for block in section.blocks:
            if not isinstance(block, Figure):
                table_files.write(block.frame, folder, block.name, caption=block.caption, cells=block.texts())
