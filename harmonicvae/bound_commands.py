"""The verb "bound": certified Lipschitz bounds of networks in files, without MLflow."""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harmonicvae import options as check
from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz import METHODS, lower_bound, save_certificate
from harmonicvae.lipschitz import bound as upper_bound
from harmonicvae.network import LayeredNetwork
from harmonicvae.network_arguments import network_line, print_rows, read_network, scope_line
from harmonicvae.records import Bound, Bracket
from harmonicvae.solver_watch import INTERRUPTED, SolverWatch

#: Rules that can be named; a box brings its own.
SLOPES = ("activation", "propagated")


@dataclass(frozen=True)
class Request:
    """What is to be bound, and how.

    Parameters
    ----------
    network : LayeredNetwork
        With the outputs that were selected.
    method : str
    errors : tuple of str
        Reproduction errors.
    slopes : str or None
    box : pair of float or None
    options : mapping
        Of the method.
    """

    network: LayeredNetwork
    method: str = "best"
    errors: tuple[str, ...] = ()
    slopes: str | None = None
    box: tuple[float, float] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def solve(self, watch: SolverWatch) -> Bound:
        """Compute the upper bound."""
        return upper_bound(
            self.network,
            self.method,
            self.errors,
            slopes=self.slopes,
            box=self.box,
            progress=watch,
            **self.options,
        )


def bound(parsed: argparse.Namespace) -> int:
    """Bound the Lipschitz constant of a network in a file.

    Parameters
    ----------
    parsed : Namespace
        Options as text; "" means the default.

    Returns
    -------
    int
        0, or 130 if Ctrl-C or SIGTERM stopped it with the best bound so far.

    Raises
    ------
    InputError
        At the first option or file that is not valid, before anything is solved.
    """
    target = _certificate_target(parsed.certificate, parsed.file)
    request = read_request(parsed)
    with SolverWatch() as watch:
        upper = request.solve(watch)
        if target is not None:
            _save(upper, target)
        lower = None
        if parsed.lower and not watch.stop_asked:
            try:
                lower = _lower(request, watch)
            except SolverError as error:  # the upper bound stays what it is
                note = f"no lower bound: {error}"
                message = f"{upper.message}; {note}" if upper.message else note
                upper = replace(upper, message=message)
    if lower is not None:
        bracket = Bracket.joined(lower, upper)
        lower, upper = bracket.lower, bracket.upper
    if parsed.json:
        print(json.dumps(_strict(_as_dict(upper, lower)), indent=1))
    else:
        print_rows(_described(request, upper, lower, parsed))
    return INTERRUPTED if watch.stop_asked else 0


def read_request(parsed: argparse.Namespace) -> Request:
    """Check the options and read the network.

    Parameters
    ----------
    parsed : Namespace

    Returns
    -------
    Request

    Raises
    ------
    InputError
        At the first that is not valid.
    """
    options: dict[str, Any] = {}
    if parsed.split:
        options["split"] = check.integer("split", parsed.split, 1)
    if parsed.gap:
        options["gap"] = check.fraction("gap", parsed.gap)
    if parsed.device not in ("", "cpu"):
        options["device"] = _device(parsed.device)
    method = check.choice("method", parsed.method, ("best", *METHODS))
    slopes = check.choice("slopes", parsed.slopes, SLOPES) if parsed.slopes else None
    box = check.interval("box", parsed.box) if parsed.box else None
    if slopes and box:
        raise InputError("box must not be given with slopes: the box itself says them; leave one")
    network, errors = read_network(parsed)
    return Request(network, method, errors, slopes, box, options)


def _device(text: str) -> str:
    """Return a device that torch has."""
    from harmonicvae.models.parameters import check_device  # imports all of torch and skorch

    return str(check_device(text))


def _certificate_target(text: str, file: str) -> Path | None:
    """Check before the solve that a certificate can be written."""
    if not text:
        return None
    path = Path(text).expanduser()
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"certificate must be a file in an existing folder, got {text!r}")
    if path.resolve() == Path(file).expanduser().resolve():
        raise InputError(f"certificate must not replace the network's file, got {text!r}")
    return path


def _save(upper: Bound, path: Path) -> None:
    """Write the certificate of a bound."""
    if upper.certificate is None:
        raise SolverError(f"{upper.method} gave an estimate, which has no certificate to write")
    save_certificate(upper.certificate, path)


def _lower(request: Request, watch: SolverWatch) -> Bound | None:
    """Compute the lower bound; None if it was interrupted."""
    watch.clear()
    try:
        with watch.ending_at_once():
            return lower_bound(request.network, box=request.box)
    except KeyboardInterrupt:
        return None


def _as_dict(upper: Bound, lower: Bound | None) -> dict[str, Any]:
    """Return a record, or both with their ratio, without certificates."""
    plain = {key: value for key, value in upper.to_dict().items() if key != "certificate"}
    if lower is None:
        return plain
    below = {key: value for key, value in lower.to_dict().items() if key != "certificate"}
    return {"lower": below, "upper": plain, "ratio": Bracket.joined(lower, upper).ratio}


def _strict(value: Any) -> Any:
    """Return plain values with what JSON has no number for as "inf" or null."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    return value


def _described(
    request: Request, upper: Bound, lower: Bound | None, parsed: argparse.Namespace
) -> dict[str, str]:
    """Return the lines of a result; bounds in all digits, so that none is rounded down."""
    label = "estimate" if upper.status == "estimate" else "bound"
    rows = {
        "network": network_line(request.network),
        "method": upper.method,
        label: repr(upper.value),
        "status": upper.status,
        "scope": scope_line(upper.scope, request.box),
        "slopes": str(upper.details.get("slopes", "")),
    }
    if "duality_gap" in upper.details:
        rows["duality gap"] = f"{upper.details['duality_gap']:.1e} (relative)"
    if lower is not None:
        rows["lower bound"] = f"{lower.value!r} ({lower.status}, {lower.method})"
        rows["upper / lower"] = f"{Bracket.joined(lower, upper).ratio:.6g}"
    rows["seconds"] = f"{upper.seconds:.2f}"
    rows |= {f"  {key}": repr(value) for key, value in upper.details.get("compared", {}).items()}
    if upper.message:
        rows["message"] = upper.message
    if parsed.certificate:
        rows["certificate"] = parsed.certificate
        rows["to verify"] = _verify_command(parsed)
    return rows


def _verify_command(parsed: argparse.Namespace) -> str:
    """Return the command that verifies the certificate."""
    parts = ["harmonicvae", "verify", parsed.certificate, parsed.file]
    for option in ("activation", "outputs"):
        if getattr(parsed, option):
            parts += [f"--{option}", getattr(parsed, option)]
    if check.words(parsed.reproduction_errors):
        parts += ["--reproduction-errors", parsed.reproduction_errors]
    return shlex.join(parts)
