"""What the verbs "bound" and "verify" share: the network they are given, and how they print."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harmonicvae import options as check
from harmonicvae.network import LayeredNetwork
from harmonicvae.reproduction import LIPSCHITZ_ERRORS, check_reproduction_errors


def read_network(parsed: argparse.Namespace) -> tuple[LayeredNetwork, tuple[str, ...]]:
    """Read the network of a command, with the outputs that it selects.

    Parameters
    ----------
    parsed : Namespace
        With ``file``, ``activation``, ``outputs`` and ``reproduction_errors``.

    Returns
    -------
    network : LayeredNetwork
    errors : tuple of str
        Reproduction errors, checked.

    Raises
    ------
    InputError
        If the file or an option is not valid.
    UnsupportedNetworkError
        If a layer or activation has no exact form.
    """
    errors = check.words(parsed.reproduction_errors)
    check_reproduction_errors(errors, LIPSCHITZ_ERRORS)
    words: Sequence[str] = check.words(parsed.activation)
    activation = words[0] if len(words) == 1 else words or None
    network = LayeredNetwork.from_file(Path(parsed.file).expanduser(), activation)
    if parsed.outputs:
        chosen = check.outputs("outputs", parsed.outputs, network.output_dim)
        network = network.select_outputs(chosen)
    return network, errors


def network_line(network: LayeredNetwork) -> str:
    """Return sizes and activations of a network as one line.

    Parameters
    ----------
    network : LayeredNetwork

    Returns
    -------
    str

    Examples
    --------
    >>> network_line(LayeredNetwork.from_arrays([[[1.0, 2.0]], [[3.0]]], activation="relu"))
    '2-1-1, 2 affine layers, relu'
    """
    sizes = "-".join(map(str, (network.input_dim, *network.hidden_dims, network.output_dim)))
    plural = "s" if network.n_layers > 1 else ""
    kinds = dict.fromkeys(item.name for item in network.activations)
    return ", ".join([sizes, f"{network.n_layers} affine layer{plural}", *kinds])


def scope_line(scope: str, box: Sequence[Any] | None = None) -> str:
    """Return which inputs a bound holds for.

    Examples
    --------
    >>> scope_line("global"), scope_line("box", (-1.0, 1.0))
    ('all inputs', 'inputs in the box [-1.0, 1.0] only')
    """
    if scope == "global" or box is None:
        return "all inputs"
    return f"inputs in the box [{box[0]}, {box[1]}] only"


def print_rows(rows: Mapping[str, str]) -> None:
    """Print names and values in two columns.

    Examples
    --------
    >>> print_rows({"method": "interval", "bound": "1.5"})
    method  interval
    bound   1.5
    """
    width = max(map(len, rows))
    for key, value in rows.items():
        print(f"{key:<{width}}  {value}")
