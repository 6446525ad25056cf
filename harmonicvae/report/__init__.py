"""Reports of a study: tables, figures and one self-contained HTML page.

Flat result files in, files out: this package knows neither MLflow nor torch.
Matplotlib is imported when a report is written, not before.
"""

from pathlib import Path

from harmonicvae.report.discrepancy import discrepancy_table
from harmonicvae.report.sentences import findings
from harmonicvae.report.tables import (
    attack_table,
    bounds_table,
    collapse_table,
    configuration_table,
    format_mean_sd,
    lipschitz_table,
    to_html,
    to_terminal,
    training_table,
)
from harmonicvae.report.terminal import summarise
from harmonicvae.report.trends import trend_table

__all__ = [
    "attack_table",
    "bounds_table",
    "collapse_table",
    "configuration_table",
    "discrepancy_table",
    "findings",
    "format_mean_sd",
    "lipschitz_table",
    "summarise",
    "to_html",
    "to_terminal",
    "training_table",
    "trend_table",
    "write_report",
]


def write_report(
    results_dir: str | Path, output_dir: str | Path | None = None, *, spectra: bool = False
) -> Path:
    """Write the report of a study; see :func:`harmonicvae.report.document.write_report`.

    Parameters
    ----------
    results_dir : str or Path
        Folder of a study's result files.
    output_dir : str or Path or None, default=None
        Where the report is written; None means ``results_dir``.
    spectra : bool, default=False
        Draw spectra of pictures as well.

    Returns
    -------
    Path
        The HTML page.

    Raises
    ------
    InputError
        If results_dir, study.json or models.csv is missing or cannot be read.
    """
    from harmonicvae.report.document import write_report as write  # draws in matplotlib

    return write(results_dir, output_dir, spectra=spectra)
