"""The shell command: parse, call, print one clear line if something is wrong."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from harmonicvae._version import __version__
from harmonicvae.exceptions import HarmonicVAEError, InputError, UnsupportedNetworkError
from harmonicvae.solver_watch import INTERRUPTED

#: Exit codes: something failed on the way, bad input; INTERRUPTED after Ctrl-C.
FAILED, USAGE = 1, 2
#: Modules whose verbs open runs.
_WITH_RUNS = ("commands", "compare_commands")
#: Options whose values may begin with a minus sign.
_SIGNED = ("--box", "--outputs", "--prefer")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments without the program's name; None means those of the process.

    Returns
    -------
    int
        0; 2 for input that is not valid; 1 if anything failed, or a certificate proves
        nothing; 130 after Ctrl-C.
    """
    arguments = _with_signs(sys.argv[1:] if argv is None else argv)
    parsed = _parser().parse_args(arguments)
    given = [part for part in arguments if not part.endswith("=")]  # left alone in MLproject
    parsed.command_line = shlex.join(["harmonicvae", *given])
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with _sigterm_as_interrupt():
        return _run(parsed)


def _run(parsed: argparse.Namespace) -> int:
    """Run a parsed command; whatever goes wrong becomes one line and an exit code."""
    try:
        # after the logging level, and not for --help
        module = importlib.import_module(f"harmonicvae.{parsed.module}")
        return getattr(module, parsed.function)(parsed)
    except (InputError, UnsupportedNetworkError) as error:
        return _fail(str(error), USAGE)
    except HarmonicVAEError as error:
        return _fail(str(error), FAILED)
    except Exception as error:
        if os.environ.get("HARMONICVAE_TRACEBACK"):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        hint = "set HARMONICVAE_TRACEBACK=1 to see where"
        return _fail(f"{type(error).__name__}: {first} ({hint})", FAILED)
    except KeyboardInterrupt as interrupt:
        runs = "; open runs are marked KILLED" if parsed.module in _WITH_RUNS else ""
        further = f"; {interrupt}" if str(interrupt) else ""
        print(f"\nharmonicvae: interrupted{runs}{further}", file=sys.stderr)
        return INTERRUPTED


def _with_signs(arguments: Sequence[str]) -> list[str]:
    """Join options and values that begin with a minus sign, which argparse takes for options."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _SIGNED:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, so that runs are closed; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former or signal.SIG_DFL)


def _terminate(signum: int, frame: Any) -> None:
    """Handle SIGTERM."""
    raise KeyboardInterrupt


def _fail(reason: str, code: int) -> int:
    """Print one clear line, and mark the run of ``mlflow run`` with it."""
    print(f"harmonicvae: {reason}", file=sys.stderr)
    if os.environ.get("MLFLOW_RUN_ID"):
        from harmonicvae.tracking.runs import fail_outer_run

        fail_outer_run(reason)
    return code


# All values arrive as text and are checked in commands.py: MLflow passes them unchecked,
# and "" (a parameter left alone in MLproject) means the default.


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="harmonicvae",
        description="Train variational autoencoders with chosen noise, measure their "
        "robustness, and bound the Lipschitz constants of networks.",
    )
    parser.add_argument("--version", action="version", version=f"harmonicvae {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    parser_of_study = verbs.add_parser("study", help="train, register, bound, attack, report")
    _add_study(parser_of_study)
    parser_of_study.add_argument(
        "--check",
        default="",
        help="FOLDER of recorded results: do that study again, anew, and compare every number",
    )
    _add_study(verbs.add_parser("sweep", help="train and register the study's grid only"))
    _add_train(verbs.add_parser("train", help="train and register one model"))
    _add_register(verbs.add_parser("register", help="store models that were trained elsewhere"))
    _add_lipschitz(verbs.add_parser("lipschitz", help="bound a stored model's constants"))
    _add_attack(verbs.add_parser("attack", help="attack a stored model"))
    _add_harmonics(verbs.add_parser("harmonics", help="measure a stored model's spectra"))
    _add_report(verbs.add_parser("report", help="render a study's report again"))
    _add_compare(verbs.add_parser("compare", help="compare stored models, promote the best"))
    _add_bound(verbs.add_parser("bound", help="bound the constant of a network in a file"))
    _add_verify(verbs.add_parser("verify", help="prove a certificate again"))
    return parser


def _add_data(parser: argparse.ArgumentParser, dataset: str) -> None:
    parser.add_argument("--dataset", default=dataset, help="sinc, cifar10 or celeba")
    parser.add_argument("--data-dir", default="", help="folder of the image files")
    parser.add_argument("--download", default="false", help="true fetches CIFAR10 into data-dir")


def _add_common(parser: argparse.ArgumentParser, function: str) -> None:
    parser.set_defaults(module="commands", function=function)
    parser.add_argument("--experiment", default="", help="MLflow experiment")


def _add_study(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "run_study")
    _add_data(parser, "sinc")
    parser.add_argument("--preset", default="quick", help="quick (minutes) or paper (hours)")
    parser.add_argument("--model", default="mlp", help="mlp or conv (convolutions)")
    parser.add_argument("--encoder-std", default="", help="σ_enc of the decoder column: 1,0.5,0.1")
    parser.add_argument("--input-noise-std", default="", help="σ_N of the encoder column: 1,0.5,0")
    parser.add_argument("--seeds", default="", help="integers in [0, 2**64)")
    parser.add_argument("--epochs", default="", help="the preset's without")
    parser.add_argument("--radii", default="10,20", help="ℓ2 radii of the attack")
    parser.add_argument("--attack-images", default="", help="the preset's without")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--n-jobs", default="auto", help="models at once; auto: one a core for sinc, else 1"
    )
    parser.add_argument("--backend", default="loky", help="loky (this machine) or dask")
    parser.add_argument("--scheduler", default="", help="of Dask: tcp://HOST:8786; workers here")
    parser.add_argument(
        "--together",
        default="auto",
        help="true trains models of one shape as one program; auto: where it is faster",
    )
    parser.add_argument(
        "--reuse",
        default="true",
        help="false trains anew what other sweeps have finished; any also takes what other code "
        "or another device has trained with the same data and parameters",
    )
    parser.add_argument(
        "--reproduction-errors", default="none", help="errors of the reproduction to make"
    )
    parser.add_argument("--output", default="", help="harmonicvae-results/DATASET without")


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "train")
    _add_data(parser, "sinc")
    parser.add_argument("--model", default="mlp", help="mlp or conv (convolutions)")
    parser.add_argument("--encoder-std", default="0.5", help="σ_enc > 0, or learned")
    parser.add_argument("--input-noise-std", default="0", help="σ_N")
    parser.add_argument("--seed", default="0", help="integer in [0, 2**64)")
    parser.add_argument("--epochs", default="", help="that of the quick study without")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--reproduction-errors", default="none", help="errors to make on purpose")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_register(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "register")
    parser.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="written by harmonicvae.save_estimator"
    )
    _add_data(parser, "sinc")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_evaluation(parser: argparse.ArgumentParser, function: str) -> None:
    _add_common(parser, function)
    parser.add_argument(
        "model_uri", metavar="MODEL_URI", help="models:/name/1, models:/name@alias, runs:/id/model"
    )
    _add_data(parser, "")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_lipschitz(parser: argparse.ArgumentParser) -> None:
    _add_evaluation(parser, "lipschitz")
    parser.add_argument(
        "--methods",
        default="",
        help="norm_product, eclipse_fast, lipsdp_neuron, … with slopes from the activation alone, "
        "and best; these four without",
    )
    parser.add_argument("--slopes", default="", help="of best: activation or propagated")
    parser.add_argument("--gap", default="", help="relative duality gap of LipSDP, 1e-6 without")
    parser.add_argument(
        "--max-size", default="", help="hidden neurons that LipSDP takes at most, 4096 without"
    )
    parser.add_argument("--device", default="cpu", help="of LipSDP: auto, cpu, cuda")
    parser.add_argument("--points", default="512", help="data points of the lower bound")
    parser.add_argument("--steps", default="100", help="ascent steps from the best points")
    parser.add_argument("--reproduction-errors", default="none", help="slope_one")


def _add_attack(parser: argparse.ArgumentParser) -> None:
    _add_evaluation(parser, "attack")
    parser.add_argument("--radius", action="append", help="ℓ2 radius; may be given repeatedly")
    parser.add_argument("--radii", default="10,20", help="ℓ2 radii, where no --radius is given")
    parser.add_argument("--images", default="16", help="images attacked")
    parser.add_argument(
        "--methods", default="best", help="best, apgd, pgd, lbfgs, power, linear, random"
    )
    parser.add_argument("--objective", default="damage", help="damage, stochastic_damage, latent")
    parser.add_argument("--box", default="", help="LOW,HIGH of all inputs; attacks stay inside")
    parser.add_argument("--steps", default="", help="the method's own without")
    parser.add_argument("--restarts", default="", help="the method's own without")
    parser.add_argument("--seed", default="0", help="integer in [0, 2**64)")


def _add_harmonics(parser: argparse.ArgumentParser) -> None:
    _add_evaluation(parser, "harmonics")
    parser.add_argument("--sides", default="", help="decoder or encoder; both without")
    parser.add_argument("--encoder-stds", default="", help="σ around data; 1,0.5 without")
    parser.add_argument("--samples", default="", help="pairs of normals a Gaussian; 2000 without")
    parser.add_argument("--centres", default="", help="codes and data points; 16 without")
    parser.add_argument("--max-degree", default="", help="last Hermite degree; 8 without")
    parser.add_argument("--slices", default="", help="random lines; 128 without")
    parser.add_argument("--seed", default="0", help="integer in [0, 2**64)")


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "report")
    parser.add_argument("source", help="result folder, run id or runs:/id of a study")
    parser.add_argument("--output", default="harmonicvae-report", help="folder of the report")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "compare")
    parser.set_defaults(module="compare_commands")
    parser.add_argument(
        "uris",
        nargs="+",
        metavar="MODEL_URI",
        help="models:/name/1, models:/name@alias, models:/m-…, runs:/id/model or runs:/id",
    )
    parser.add_argument("--baseline", default="", help="MODEL_URI compared with; the first without")
    parser.add_argument(
        "--siblings", default="true", help="false: no other versions for the spread over seeds"
    )
    parser.add_argument("--evaluate", default="none", help="lipschitz,max_damage where missing")
    parser.add_argument("--data-dir", default="", help="folder of the image files, to evaluate")
    parser.add_argument(
        "--require",
        action="append",
        help="'METRIC<VALUE', also <=, >, >=; VALUE a number, baseline, baseline+X, baseline-X or "
        "baseline*X; may be given repeatedly, all must hold",
    )
    parser.add_argument("--alias", default="", help="set on the best version that meets the rules")
    parser.add_argument("--prefer", default="elbo", help="METRIC: highest is best; -METRIC: lowest")
    parser.add_argument("--output", default="harmonicvae-comparison", help="folder of the page")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_network(parser: argparse.ArgumentParser, function: str) -> None:
    parser.set_defaults(module=f"{function}_commands", function=function)
    parser.add_argument("file", metavar="FILE", help="network: .mat (weights, bias) or .onnx")
    parser.add_argument(
        "--activation",
        default="",
        help="of a .mat file: sigmoid, tanh, relu, …; or one for each hidden layer",
    )
    parser.add_argument("--outputs", default="", help="3 or 3,5, or 3-5 for a difference; all")
    parser.add_argument("--reproduction-errors", default="none", help="slope_one")


def _add_bound(parser: argparse.ArgumentParser) -> None:
    _add_network(parser, "bound")
    parser.add_argument(
        "--method",
        default="best",
        help="best, norm_product, eclipse_fast, eclipse, lipsdp_layer, lipsdp_neuron, interval",
    )
    parser.add_argument("--slopes", default="", help="activation, or propagated as best does")
    parser.add_argument("--box", default="", help="LOW,HIGH of all inputs; the bound holds there")
    parser.add_argument("--split", default="", help="layers in each part of LipSDP; not split")
    parser.add_argument("--gap", default="", help="relative duality gap of LipSDP, 1e-6 without")
    parser.add_argument("--device", default="cpu", help="of LipSDP: auto, cpu, cuda")
    parser.add_argument("--lower", action="store_true", help="add a lower bound and the ratio")
    parser.add_argument("--certificate", default="", help="file to write the proof to")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("certificate", metavar="CERTIFICATE", help="file that bound wrote")
    _add_network(parser, "verify")
    parser.add_argument(
        "--exact", action="store_true", help="exact arithmetic too; small networks without asking"
    )
    parser.add_argument("--limit", default="128", help="rows up to which exact arithmetic is tried")
