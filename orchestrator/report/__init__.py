"""What a study found, for people: the terminal's table, figures, tables in files, and one HTML page."""

from orchestrator.report.curve_figures import learning_curve_figure
from orchestrator.report.looks import FAINT, curve_names, look, look_among, notes
from orchestrator.report.material import Material
from orchestrator.report.page import write_page, write_report
from orchestrator.report.provenance import Source
from orchestrator.report.terminal import results_table

__all__ = [
    "FAINT",
    "Material",
    "Source",
    "curve_names",
    "learning_curve_figure",
    "look",
    "look_among",
    "notes",
    "results_table",
    "write_page",
    "write_report",
]
