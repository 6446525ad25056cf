"""Tables as text: aligned for the terminal, escaped for HTML."""

import html
import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from harmonicvae.exceptions import InputError
from harmonicvae.report.formatting import presentation

#: Columns that name a row when they stand first.
ROW_NAMES = (
    "side",
    "encoder_std",
    "input_noise_std",
    "model",
    "method",
    "radius",
    "configuration",
    "metric",
)

#: Lines of the heading, cells, and whether they are numbers.
Column = tuple[list[str], list[str], bool]


def to_html(table: pd.DataFrame, caption: str = "", *, row_headers: int = 1) -> str:
    """Return the table as an HTML element; every text in it is escaped.

    Parameters
    ----------
    table : DataFrame
        Shown as :func:`presentation` makes it.
    caption : str, default=""
        Text above the table; escaped as well.
    row_headers : int, default=1
        Leading columns that name the row, ≥ 0.

    Returns
    -------
    str

    Examples
    --------
    >>> "<td>&lt;b&gt;</td>" in to_html(pd.DataFrame({"x": [1], "y": ["<b>"]}))
    True
    """
    shown = presentation(table)
    numeric = [_is_numeric(shown.iloc[:, place]) for place in range(shown.shape[1])]
    parts = ["<table>"]
    if caption:
        parts.append(f"<caption><span>{html.escape(caption)}</span></caption>")
    parts.append("<thead><tr>")
    for name, right in zip(shown.columns, numeric, strict=True):
        style = ' class="number"' if right else ""
        parts.append(f'<th scope="col"{style}>{html.escape(name)}</th>')
    parts.append("</tr></thead><tbody>")
    for row in shown.to_numpy().tolist():
        parts.append("<tr>")
        for place, (cell, right) in enumerate(zip(row, numeric, strict=True)):
            tag, scope = ("th", ' scope="row"') if place < row_headers else ("td", "")
            style = ' class="number"' if right else ""
            parts.append(f"<{tag}{scope}{style}>{html.escape(cell)}</{tag}>")
        parts.append("</tr>")
    parts.append("</tbody></table>")
    return "".join(parts)


def to_terminal(table: pd.DataFrame, width: int = 100) -> str:
    """Return the table as aligned plain text of at most ``width`` columns.

    Parameters
    ----------
    table : DataFrame
        Shown as :func:`presentation` makes it.
    width : int, default=100
        Largest line length, terminal columns, ≥ 20.

    Returns
    -------
    str
        Lines without trailing newline; control characters are replaced by "?".

    Raises
    ------
    InputError
        If ``width`` is below 20.

    Notes
    -----
    Headings break at spaces and hyphens; a table that is still too wide continues
    below with its row names and remaining columns; a cell wider than a third is
    cut with "…".

    Examples
    --------
    >>> print(to_terminal(pd.DataFrame({"side": ["decoder"], "paper": [2.25]})))
    side     paper
    -------  -----
    decoder  2.250
    """
    if width < 20:
        raise InputError(f"width must be >= 20 terminal columns, got {width}")
    shown = presentation(table)
    columns = [
        _text_column(name, shown.iloc[:, place].tolist(), width // 3)
        for place, name in enumerate(shown.columns)
    ]
    row_names = columns[: _row_names(table, columns, width)]
    blocks: list[str] = []
    start = 0
    while start < len(columns):
        block, end = [*(row_names if start else ()), columns[start]], start + 1
        while end < len(columns) and _total([*block, columns[end]]) <= width:
            block.append(columns[end])
            end += 1
        blocks.append(_lines(block))
        start = end
    return "\n\n".join(blocks)


def _is_numeric(cells: pd.Series) -> bool:
    return all(cell[:1] in "–−∞0123456789" for cell in cells)


def _row_names(table: pd.DataFrame, columns: Sequence[Column], width: int) -> int:
    """Return how many leading columns name the rows, if they leave room for others."""
    count = 0
    while count < min(len(columns), table.shape[1]) and str(table.columns[count]) in ROW_NAMES:
        count += 1
    return count if _total(columns[:count]) <= width // 2 else 0


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _width(text: str) -> int:
    return sum(_columns_of(character) for character in text)


def cut_to_width(text: str, limit: int) -> str:
    """Return text of at most ``limit`` terminal columns, control characters as "?".

    Examples
    --------
    >>> cut_to_width("decoder", 4)
    'dec…'
    """
    text = "".join(c if unicodedata.category(c)[0] != "C" else "?" for c in text)
    if _width(text) <= limit:
        return text
    kept = ""
    for character in text:
        if _width(kept + character) > limit - 1:
            break
        kept += character
    return kept + "…"


def _text_column(name: str, cells: Sequence[str], limit: int) -> Column:
    heading = [cut_to_width(part, limit) for part in re.findall(r"[^ -]+-?|-", name) or [""]]
    cells = [cut_to_width(cell.replace(" ± ", "±"), limit) for cell in cells]
    room = max([_width(part) for part in [*heading, *cells]])
    lines = heading[:1]
    for part in heading[1:]:
        gap = "" if lines[-1].endswith("-") else " "
        if _width(lines[-1] + gap + part) <= room:
            lines[-1] += gap + part
        else:
            lines.append(part)
    return lines, list(cells), bool(cells) and _is_numeric(pd.Series(cells, dtype=object))


def _total(block: Sequence[Column]) -> int:
    return sum(_room(column) + 2 for column in block) - 2


def _room(column: Column) -> int:
    return max(_width(text) for text in column[0] + column[1])


def _lines(block: Sequence[Column]) -> str:
    height = max(len(heading) for heading, _, _ in block)
    padded = [[""] * (height - len(head)) + head + ["-" * _room((head, cells, right))] + cells
              for head, cells, right in block]  # fmt: skip
    lines = []
    for row in zip(*padded, strict=True):
        parts = []
        for text, column in zip(row, block, strict=True):
            gap = " " * (_room(column) - _width(text))
            parts.append(gap + text if column[2] else text + gap)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
