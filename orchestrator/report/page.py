"""The report as one HTML file that opens from disk: nothing in it comes from elsewhere, nothing leaves it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator.analysis import Outcomes, Study
from orchestrator.report import figure_files, table_files
from orchestrator.report.gallery import Gallery, gallery
from orchestrator.report.material import Material
from orchestrator.report.page_parts import Block, Figure, Section, Table, counted
from orchestrator.report.provenance import Source, provenance, source_lines, standing, sweep_names
from orchestrator.report.sections import scope, sections

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
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy: expected a share above 0 and up to 1, got {accuracy}")
    trials, predictions = study
    outcomes = Outcomes.of(predictions)
    found = sections(Material(trials, predictions, outcomes, accuracy))
    examples = gallery(trials, predictions, outcomes)
    if examples.cards:
        found.append(_gallery_section(examples))
    found.append(provenance(trials))
    content = _page(study, found, examples, sources)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure_files.write_whole(path, content.encode())
        if figures is not None:
            _write_files([block for section in found for block in section.blocks], figures)
    except OSError as error:
        raise ValueError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from None
    return path


def _page(study: Study, found: Sequence[Section], examples: Gallery, sources: Sequence[Source]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    css = (TEMPLATES / "report.css").read_text().replace("/*dark series*/", figure_files.figure_css())
    script = (TEMPLATES / "report.js").read_text()
    names = sweep_names(sources, study.trials)
    return environment.get_template("report.html.j2").render(
        title=f"{', '.join(names) or 'results'}: sweep report",
        names=names,
        scope=scope(study.trials),
        standing=standing(study.trials),
        sections=[_laid(section) for section in found],
        gallery=examples,
        sources=source_lines(sources, study.trials),
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


def _laid(section: Section) -> _Laid:
    shown = [block for block in section.blocks if not isinstance(block, Figure) or block.on_page]
    blocks = [_drawn(block) if isinstance(block, Figure) else block for block in shown]
    return _Laid(
        section.anchor, section.title, section.reading, section.extent, section.notes, section.sentences, blocks
    )


def _drawn(figure: Figure) -> _Drawn:
    svg = figure_files.svg_text(figure.draw(), figure.title, figure.description, name=figure.name)
    return _Drawn(figure.name, figure.title, figure.narrow, svg)


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


def _write_files(blocks: Sequence[Block], folder: Path) -> None:
    for block in blocks:
        if isinstance(block, Figure):
            figure_files.save(block.draw(), folder, block.name)
        else:
            table_files.write(block.frame, folder, block.name, caption=block.caption, estimate=block.estimate)
