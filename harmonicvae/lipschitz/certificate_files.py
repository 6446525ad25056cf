"""Certificates as JSON files: every float64 number is written so that it is read back exactly."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harmonicvae.exceptions import InputError

#: Keys that every certificate has.
_KEYS = ("version", "network_hash", "scope", "slopes", "kind", "value")
#: Files larger than this, in bytes, are refused unread.
_LARGEST_FILE = 2**30


def save_certificate(certificate: Mapping[str, Any], path: str | Path) -> None:
    """Write a certificate to a JSON file.

    Parameters
    ----------
    certificate : mapping
        ``Bound.certificate``.
    path : str or Path
        File to write or replace; its folder must exist.

    Raises
    ------
    InputError
        If it is no certificate, or the file cannot be written; an existing file is then
        left as it was.

    Notes
    -----
    Written to a temporary file in the same folder, which then replaces the old one. An
    infinite bound is written as the string "inf", which JSON has no number for.

    Examples
    --------
    >>> from harmonicvae.lipschitz.certificate import LayerNorms, prove
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu")
    >>> proof = prove(network, LayerNorms((0.501, 0.751)))
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "certificate.json")
    >>> save_certificate(proof.certificate, path)
    >>> load_certificate(path) == proof.certificate
    True
    >>> folder.cleanup()
    """
    _check_keys(certificate, "the certificate")
    content = dict(certificate)
    if content["value"] == math.inf:
        content["value"] = "inf"
    try:
        text = json.dumps(content, allow_nan=False, indent=1)
    except (TypeError, ValueError) as error:
        raise InputError(f"the certificate holds something other than numbers: {error}") from error
    _write(Path(path), text + "\n")


def _write(path: Path, text: str) -> None:
    """Write a text file at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def load_certificate(path: str | Path) -> dict[str, Any]:
    """Read a certificate from a JSON file.

    Parameters
    ----------
    path : str or Path
        A file that :func:`save_certificate` wrote.

    Returns
    -------
    dict
        The certificate, nothing of it verified; see
        :func:`harmonicvae.lipschitz.certificate.verify_certificate`.

    Raises
    ------
    InputError
        If the file is missing, larger than 1 GiB, not JSON, or not a certificate; if it
        holds NaN, infinite numbers or numbers that float64 does not hold.

    Examples
    --------
    See :func:`save_certificate`.
    """
    try:
        size = os.path.getsize(path)
        if size > _LARGEST_FILE:
            raise InputError(f"{path} must be at most {_LARGEST_FILE} bytes, got {size}")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be a JSON file of a certificate, got other bytes") from error
    content = _parsed(text, path)
    _check_keys(content, str(path))
    if content["value"] == "inf":
        content["value"] = math.inf
    if type(content["value"]) not in (int, float):
        raise InputError(f"value in {path} must be a number, got {content['value']!r:.50}")
    return content


def _parsed(text: str, path: str | Path) -> Any:
    """Return the parsed JSON, refusing what float64 does not hold."""
    try:
        return json.loads(
            text, parse_float=_finite, parse_int=_whole, parse_constant=_refused_constant
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a JSON file of a certificate: {error}") from error


def _finite(text: str) -> float:
    """Return a finite float."""
    number = float(text)
    if not math.isfinite(number):
        raise InputError(f"number {text:.30} does not fit float64")
    return number


def _whole(text: str) -> int:
    """Return an integer that float64 holds exactly."""
    if len(text) > 20 or abs(int(text)) > 2**53:
        raise InputError(f"number {text:.30} does not fit float64")
    return int(text)


def _refused_constant(text: str) -> float:
    """Refuse NaN and infinities."""
    raise InputError(f"a certificate holds finite numbers only, got {text}")


def _check_keys(content: Any, name: str) -> None:
    """Refuse what is not a mapping with the keys of a certificate."""
    if not isinstance(content, Mapping):
        raise InputError(f"{name} must hold a certificate, got {type(content).__name__}")
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise InputError(f"{name} must hold a certificate; missing: {', '.join(missing)}")
