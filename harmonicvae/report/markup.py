"""Pieces of HTML; every text given to them is escaped here and nowhere else."""

import base64
import html
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from harmonicvae.report.rendering import to_html

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; ``kind`` is "", "note", "warning" or "lead".

    Examples
    --------
    >>> paragraph("a < b", "note")
    '<p class="note">a &lt; b</p>'
    """
    style = f' class="{html.escape(kind)}"' if kind else ""
    return f"<p{style}>{html.escape(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """Return a list of texts.

    Examples
    --------
    >>> bullets(["a < b"])
    '<ul><li>a &lt; b</li></ul>'
    """
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>"


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{html.escape(text)}</h3>"


def section(identifier: str, title: str, parts: Iterable[str]) -> str:
    """Return a section with its heading; ``parts`` are HTML already."""
    name = html.escape(identifier)
    body = "\n".join(parts)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{html.escape(title)}</h2>\n{body}\n</section>'
    )


def facts(items: Mapping[str, str], kind: str = "") -> str:
    """Return a list of names and values."""
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in items.items()
    )
    style = f' class="{html.escape(kind)}"' if kind else ""
    return f"<dl{style}>{rows}</dl>"


def code(text: str) -> str:
    """Return a block of code."""
    return f"<pre><code>{html.escape(text)}</code></pre>"


def table_block(table: pd.DataFrame, caption: str, *, row_headers: int = 1) -> str:
    """Return a table in a box of its own that scrolls sideways on narrow screens."""
    label = html.escape(caption, quote=True)
    body = to_html(table, caption, row_headers=row_headers)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{body}</div>'


def picture(path: Path, alt: str, caption: str = "", *, wide: bool = False) -> str:
    """Return a figure with the image file inside the page.

    Parameters
    ----------
    path : Path
        An ``.svg`` or ``.png`` file.
    alt : str
        What the picture shows, for who cannot see it.
    caption : str, default=""
        Text below the picture.
    wide : bool, default=False
        Keep the picture legible on narrow screens: it scrolls sideways there.
    """
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img src="data:{_TYPES[path.suffix]};base64,{data}" alt="{html.escape(alt)}">'
    if wide:
        label = html.escape(alt)
        image = f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{image}</div>'
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{image}{below}</figure>"


def gallery(figures: Iterable[str]) -> str:
    """Return figures side by side, as many as the screen is wide."""
    return f'<div class="grid">{"".join(figures)}</div>'


def page(title: str, lead: str, css: str, sections: Mapping[str, str], footer: str) -> str:
    """Return the whole page.

    Parameters
    ----------
    title, lead, footer : str
        Texts; escaped here.
    css : str
        Style sheet of the package.
    sections : mapping of str to str
        Title to HTML; the identifier of each is its title in lower case, "-" for spaces.
    """
    links = "".join(
        f'<li><a href="#{html.escape(anchor(name))}">{html.escape(name)}</a></li>'
        for name in sections
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{css}</style>
</head>
<body>
<header>
<h1>{html.escape(title)}</h1>
{paragraph(lead, "lead")}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{chr(10).join(sections.values())}
</main>
<footer>{paragraph(footer)}</footer>
</body>
</html>
"""


def anchor(title: str) -> str:
    """Return the identifier of a section.

    Examples
    --------
    >>> anchor("Machine load")
    'machine-load'
    """
    return title.lower().replace(" ", "-")
