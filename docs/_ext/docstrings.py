"""What the package's docstrings take for granted, told to Sphinx."""

from __future__ import annotations

import re
from pydoc import locate
from types import GenericAlias
from typing import Any

from docutils.nodes import Element, TextElement
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def escape_bars(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Let | be the absolute value; docutils would take it for a substitution.

    Examples are left alone, and so is what stands in double backquotes.
    """
    lines[:] = [line if re.match(r"\s*(>>>|\.\.\.)", line) else _escaped(line) for line in lines]


def _escaped(line: str) -> str:
    parts = re.split(r"(``.+?``)", line)
    return "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def skip_member(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what scikit-learn, torch, … bring, and aliases of tuples, which have no text."""
    if isinstance(obj, GenericAlias) and obj.__origin__ is tuple:
        return True
    home = getattr(obj, "__module__", None)
    if what == "class" and isinstance(home, str) and not home.startswith("harmonicvae"):
        return True
    return None


def resolve_bare_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: TextElement
) -> Element | None:
    """Find a name that a docstring gives without its module: the nearest of that name.

    So is one with a module that it may be imported from but is not described in. "Nearest" shares
    the longest path with the place it is named in; of several it is the shortest.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip("~.")
    if target.startswith("harmonicvae.") and locate(target) is not None:
        target = target.rpartition(".")[2]
    domain = env.domains.python_domain
    place = (node.get("py:module") or "").split(".")
    found = [name for name in domain.objects if name.endswith(f".{target}")]
    if not found:
        return None

    def shared(name: str) -> int:
        pairs = zip(place, name.split("."), strict=False)
        return next((k for k, (a, b) in enumerate(pairs) if a != b), len(place))

    best = min(found, key=lambda name: (-shared(name), len(name), name))
    entry = domain.objects[best]
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, title=best
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to autodoc, before numpydoc, and to what is left unresolved."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", escape_bars, priority=400)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", resolve_bare_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
