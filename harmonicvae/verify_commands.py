"""The verb "verify": a certificate proved again, independently of the solver."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harmonicvae import options as check
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import load_certificate, verify_certificate, verify_exactly
from harmonicvae.network import LayeredNetwork
from harmonicvae.network_arguments import network_line, print_rows, read_network, scope_line

#: Rows up to which a certificate is verified in exact arithmetic without being asked.
EXACT_ROWS = 128
#: Exit code of a certificate that proves nothing.
NOT_PROVED = 1


def verify(parsed: argparse.Namespace) -> int:
    """Prove a certificate again, in float64 and for small networks in exact arithmetic.

    Parameters
    ----------
    parsed : Namespace
        Options as text.

    Returns
    -------
    int
        0 if the bound is proved, 1 if not.

    Raises
    ------
    InputError
        If a file is missing or damaged, the certificate belongs to another network, or exact
        arithmetic was asked for and is out of reach.
    """
    limit = check.integer("limit", parsed.limit, 1)
    certificate = load_certificate(Path(parsed.certificate).expanduser())
    network, errors = read_network(parsed)
    if errors:
        network = network.with_slopes(0.0, 1.0)
    results = {"float64, rounding errors included": verify_certificate(certificate, network)}
    note = ""
    if parsed.exact:
        results["exact arithmetic"] = verify_exactly(certificate, network, limit)
    elif rows_of(network) <= min(limit, EXACT_ROWS):
        try:
            results["exact arithmetic"] = verify_exactly(certificate, network, limit)
        except InputError as error:  # of a kind, or with numbers, that it cannot decide
            note = str(error)
    proved = all(results.values())
    value, slopes = certificate["value"], certificate["slopes"]
    rows = {
        "network": network_line(network),
        "proved" if proved else "NOT proved": f"‖f(x) − f(y)‖₂ ≤ {value!r}·‖x − y‖₂",
        "scope": _certified_scope(certificate),
        "slopes": str(slopes.get("rule", "")),
        "kind": str(certificate["kind"]),
    }
    rows |= {key: "proved" if held else "not proved" for key, held in results.items()}
    if note:
        rows["exact arithmetic"] = f"not done: {note}"
    print_rows(rows)
    return 0 if proved else NOT_PROVED


def rows_of(network: LayeredNetwork) -> int:
    """Return an upper bound of the rows of the matrix that exact verification decides.

    Parameters
    ----------
    network : LayeredNetwork

    Returns
    -------
    int
        The smaller side of the first layer and all hidden neurons.

    Examples
    --------
    >>> rows_of(LayeredNetwork.from_arrays([[[1.0, 2.0]], [[3.0]]]))
    2
    """
    return min(network.weights[0].shape) + sum(network.hidden_dims)


def _certified_scope(certificate: Mapping[str, Any]) -> str:
    """Return which inputs a certificate speaks of; one box for all inputs in short."""
    if certificate["scope"] == "global":
        return "all inputs"
    low, high = certificate["slopes"]["box"]
    ends = {(one, other) for one, other in zip(low, high)}
    box = ends.pop() if len(ends) == 1 else ("low", "high")
    return scope_line("box", box) + (", see the certificate" if box == ("low", "high") else "")
