"""One self-contained HTML page from a study's folder of flat result files."""

import os
from importlib.resources import files
from pathlib import Path

from harmonicvae import names
from harmonicvae.report.markup import page
from harmonicvae.report.results import load_results
from harmonicvae.report.sections import build_sections
from harmonicvae.report.summary import UNKNOWN
from harmonicvae.report.writer import Writer


def write_report(
    results_dir: str | Path, output_dir: str | Path | None = None, *, spectra: bool = False
) -> Path:
    """Write the report of a study: report.html, its tables as CSV, its figures as SVG and PNG.

    Parameters
    ----------
    results_dir : str or Path
        Folder of result files: study.json and models.csv, and what there is of
        history.csv, bounds.csv, attacks.csv, load.csv and arrays/<model>.npz.
    output_dir : str or Path or None, default=None
        Where report.html, tables/ and figures/ are written; made if absent.
        None means ``results_dir``.
    spectra : bool, default=False
        Draw 20·log10 |FFT2| beside the reconstructions of pictures as well.

    Returns
    -------
    Path
        The page.  It needs no other file and no network.

    Raises
    ------
    InputError
        If results_dir, study.json or models.csv is missing or cannot be read.
        What is missing or broken beside these is named in its section.

    Notes
    -----
    The same results give the same bytes.  The page replaces an older one only
    once it is complete.
    """
    results = load_results(results_dir)
    output = Path(results_dir if output_dir is None else output_dir)
    writer = Writer(results, output / "tables", output / "figures", spectra)
    for folder in (writer.tables, writer.figures):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = str(results.study.get(names.DATASET) or UNKNOWN)
    text = page(
        title=f"Study of {dataset}",
        lead="Variational autoencoders with chosen encoder noise: how well they fit, how far "
        "their Lipschitz constants are known, and what an attack can do to them.",
        css=files("harmonicvae.report").joinpath("style.css").read_text(encoding="utf-8"),
        sections=build_sections(writer),
        footer=f"Written by harmonicvae {results.study.get('version') or ''}. The tables stand as "
        "CSV files in tables/, the figures as SVG and PNG in figures/, beside this page.",
    )
    path = output / names.FILE_REPORT
    draft = path.with_suffix(".html.tmp")
    draft.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(draft, path)
    return path
