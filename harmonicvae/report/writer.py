"""Where the parts of a report are written, and how they come into the page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harmonicvae.report import figures, markup
from harmonicvae.report.results import Results


@dataclass(frozen=True)
class Writer:
    """Results, and where the tables and figures of their report are written.

    Parameters
    ----------
    results : Results
        What the report is about.
    tables, figures : Path
        Existing folders.
    spectra : bool
        Whether spectra are drawn beside reconstructions.
    """

    results: Results
    tables: Path
    figures: Path
    spectra: bool = False

    def table(self, name: str, table: pd.DataFrame, caption: str, *, row_headers: int = 1) -> str:
        """Write a table as CSV file and return it as HTML."""
        table.to_csv(self.tables / f"{name}.csv", index=False, lineterminator="\n")
        return markup.table_block(table, caption, row_headers=row_headers)

    def figure(
        self,
        name: str,
        draw: Callable[[], Any],
        alt: str,
        caption: str = "",
        *,
        vector: bool = True,
        wide: bool = False,
    ) -> str:
        """Write a figure as SVG and PNG and return it as HTML, or why it could not be drawn."""
        try:
            svg, png = figures.save(draw(), self.figures / name)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return markup.paragraph(f"{caption or alt}: not drawn; {error}", "note")
        return markup.picture(svg if vector else png, alt, caption, wide=wide)
