"""Content keys: what a result depends on, as one hash, so that finished work is recognised."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.tracking.specs import ModelSpec

#: Modules and packages that decide what a training run returns.
TRAINING_CODE = ("datasets", "models", "reproduction.py", "records.py", "tracking/specs.py")
#: Packages whose version may change the last bits of a result.
_LIBRARIES = ("torch", "skorch", "scikit-learn", "numpy", "scipy")


def content_key(content: Any) -> str:
    """Return a hash of plain values, the same in every process.

    Parameters
    ----------
    content : dict, list, tuple, str, number or None
        Nested plain values; the order of a dict's keys does not matter.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> content_key({"a": 1, "b": (2.0,)}) == content_key({"b": [2.0], "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_version(parts: tuple[str, ...] | None = None) -> str:
    """Return the package's version with a hash of the code and the libraries it runs on.

    Parameters
    ----------
    parts : tuple of str or None
        Files and folders inside the package; None means all of it.

    Returns
    -------
    str
        Such as ``0.1.0+1f6c…``.  Comments, docstrings and layout do not change it.

    Examples
    --------
    >>> code_version(TRAINING_CODE) == code_version(TRAINING_CODE)
    True
    >>> code_version(TRAINING_CODE).startswith(__version__ + "+")
    True
    """
    root = Path(str(resources.files("harmonicvae")))
    digest = hashlib.sha256()
    for path in _sources(root, parts):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(_without_docstrings(path.read_text(encoding="utf-8")).encode())
    digest.update(repr([(name, metadata.version(name)) for name in _LIBRARIES]).encode())
    return f"{__version__}+{digest.hexdigest()[:16]}"


def _sources(root: Path, parts: Iterable[str] | None) -> list[Path]:
    """Return the Python files of the parts, sorted."""
    if parts is None:
        return sorted(root.rglob("*.py"))
    found: list[Path] = []
    for part in parts:
        path = root / part
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sorted(found)


def _without_docstrings(source: str) -> str:
    """Return what Python makes of a source, without docstrings, comments and positions.

    Examples
    --------
    >>> _without_docstrings("x = 1  # one") == _without_docstrings('x = (1)')
    True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            node.body = body[1:]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    """Tell whether a statement is a bare string."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def training_key(spec: ModelSpec, digests: Mapping[str, str], device: str) -> str:
    """Return the key of a trained model: data, parameters, code and kind of device.

    Parameters
    ----------
    spec : ModelSpec
    digests : mapping of str
        Split to digest of the data set.
    device : str
        "cpu", "cuda", "cuda:1"; the number does not matter.

    Returns
    -------
    str
        64 hexadecimal digits.

    Notes
    -----
    The number of threads is left out: it may change the last bits of a result, not
    what the result is.
    """
    return content_key(
        {
            **_setting(spec, digests),
            "code": code_version(TRAINING_CODE),
            "device": device.split(":")[0],
        }
    )


def setting_key(spec: ModelSpec, digests: Mapping[str, str]) -> str:
    """Return the key of what a model is trained on and how, whatever code or device does it.

    Parameters
    ----------
    spec : ModelSpec
    digests : mapping of str
        Split to digest of the data set.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> spec = ModelSpec(dataset="sinc", encoder_std=0.5, input_noise_std=0.0, seed=7,
    ...                  epochs=1, latent_dim=1)
    >>> setting_key(spec, {}) == training_key(spec, {}, "cpu")
    False
    """
    return content_key(_setting(spec, digests))


def _setting(spec: ModelSpec, digests: Mapping[str, str]) -> dict[str, Any]:
    spec = replace(spec, reproduction_errors=tuple(sorted(spec.reproduction_errors)))
    parameters = {key: str(value) for key, value in spec.parameters().items()}
    return {"data": dict(digests), "parameters": parameters}


def evaluation_key(model_key: str, evaluators: Mapping[str, Any], n_points: int) -> str:
    """Return the key of an evaluation: the model, the evaluators' options, all of the code."""
    return content_key(
        {
            names.MODEL: model_key,
            "evaluators": evaluators,
            "n_points": n_points,
            "code": code_version(),
        }
    )


def sweep_key(
    model_keys: Iterable[str], evaluators: Mapping[str, Any] | None, n_points: int
) -> str:
    """Return the key of a whole sweep: its models in order, and how they are evaluated."""
    content = {"models": list(model_keys), "evaluators": evaluators, "n_points": n_points}
    return content_key(content)
