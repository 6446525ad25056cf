"""Train a study's models on a machine without MLflow, such as one with a GPU.

    python docs/train_elsewhere.py export cifar10 FOLDER --data-dir DIR    here
    python docs/train_elsewhere.py train FOLDER --device cuda              there
    harmonicvae register --dataset cifar10 --data-dir DIR FOLDER/models/*  here again

"export" writes the rows and the list of models, "train" needs nothing but this file, the
package, torch and skorch, trains models of one shape together (convolutions singly, with
--processes several at once) and keeps each as an estimator's folder; "register" stores them in
the study's MLflow experiment with the machine that trained them, for
``harmonicvae study --reuse any``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harmonicvae import names
from harmonicvae.exceptions import CollapseWarning
from harmonicvae.machine import machine
from harmonicvae.models import HarmonicVAE, fit_together
from harmonicvae.models.persistence import save_estimator
from harmonicvae.tracking.specs import MODELS as MODELS_OF_A_STUDY
from harmonicvae.tracking.specs import DataSpec, ModelSpec

PLAN = "plan.json"
ROWS = "rows.npy"
MODELS = "models"
TRAINED = "trained.json"
FACTORS = "factors.npz"
#: Switches of training whose effect a column of the study can show, one at a time.
DECODER_SWITCHES = ("squared_std",)
ENCODER_SWITCHES = ("squared_std", "noisy_target", "shared_noise")
ALL_SWITCHES = ("squared_std", "noisy_target", "shared_noise", "kl_form")


def export(options: argparse.Namespace) -> None:
    """Write the training rows and the list of models."""
    data = _data(options)
    bunch = data.load("train")
    rows = getattr(bunch.data, "raw", bunch.data)
    options.folder.mkdir(parents=True, exist_ok=True)
    np.save(options.folder / ROWS, np.asarray(rows))
    plan = {
        "dataset": options.dataset,
        "digest": bunch.digest,
        "image_shape": list(bunch.image_shape),
        "parts": [[asdict(spec) for spec in part] for part in _parts(options)],
    }
    (options.folder / PLAN).write_text(json.dumps(plan, indent=1), encoding="utf-8")
    print([len(part) for part in plan["parts"]], "models")


def _data(options: argparse.Namespace) -> DataSpec:
    """Return the data set; of CelebA the images that are there."""
    partial = {"allow_missing": True} if options.dataset == names.CELEBA else {}
    return DataSpec(name=options.dataset, data_dir=options.data_dir, options=partial)


def _parts(options: argparse.Namespace) -> list[list[ModelSpec]]:
    """Return the study's models, those with all errors, those with one: first seed, others."""
    from harmonicvae import study

    shared: dict[str, Any] = {
        "dataset": options.dataset,
        "latent_dim": study.LATENT_DIMS[options.dataset],
        "epochs": options.epochs or study.PRESETS["paper"][options.dataset][0],
        "model": options.model,
    }

    def spec(std: float, noise: float, seed: int, *errors: str) -> ModelSpec:
        return ModelSpec(
            encoder_std=std, input_noise_std=noise, seed=seed, reproduction_errors=errors, **shared
        )

    stds = [*study.ENCODER_STDS, *options.further_std]
    noises = [*study.INPUT_NOISE_STDS, *options.further_std]
    pairs = dict.fromkeys([(std, 0.0) for std in stds] + [(0.5, noise) for noise in noises])
    plain = [spec(*pair, seed) for seed in study.STUDY_SEEDS for pair in pairs]
    if options.model != "mlp":
        return [plain]
    columns = [(std, 0.0) for std in study.ENCODER_STDS]
    columns += [(study.ENCODER_COLUMN_STD, noise) for noise in study.INPUT_NOISE_STDS if noise]
    together = [spec(*pair, s, *ALL_SWITCHES) for s in study.STUDY_SEEDS for pair in columns]
    single = [
        spec(std, noise, seed, error)
        for seed in study.STUDY_SEEDS
        for std, noise in columns
        for error in (ENCODER_SWITCHES if noise else DECODER_SWITCHES)
        if not (error == "squared_std" and std == 1.0)
    ]
    single += [spec(0.5, 0.0, seed, "kl_form") for seed in study.STUDY_SEEDS]
    first = [model for model in single if model.seed == study.STUDY_SEEDS[0]]
    return [plain, together, first, [model for model in single if model not in first]]


def train(options: argparse.Namespace) -> None:
    """Train what is not trained yet in this process, or divided among several."""
    if options.processes == 1:
        return _train(options)
    context = multiprocessing.get_context("spawn")
    processes = []
    for number in range(options.processes):
        own = argparse.Namespace(**{**vars(options), "share": (number, options.processes)})
        processes.append(context.Process(target=_train, args=(own,)))
        processes[-1].start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("not all models were trained; start again for those that are missing")


def _train(options: argparse.Namespace) -> None:
    """Train the process's own share part by part, and keep every model."""
    own, of_all = options.share
    missing = 0
    from harmonicvae.datasets.scaled import ScaledImages

    plan = json.loads((options.folder / PLAN).read_text(encoding="utf-8"))
    raw = np.load(options.folder / ROWS)
    rows = ScaledImages(raw) if raw.dtype == np.uint8 else raw
    warnings.simplefilter("ignore", CollapseWarning)  # it is in the estimator's file
    for index in options.parts or range(len(plan["parts"])):
        specs = [_spec(item) for item in plan["parts"][index]][own::of_all]
        todo = [spec for spec in specs if not (_folder(options, spec) / TRAINED).exists()]
        if not todo:
            continue
        estimators = [
            spec.estimator(tuple(plan["image_shape"]), device=options.device) for spec in todo
        ]
        started = time.perf_counter()
        hooks = [_epochs_printed(started), *[None] * (len(todo) - 1)]
        failures = fit_together(estimators, rows, hooks=hooks, on_error="return")
        seconds = (time.perf_counter() - started) / len(todo)
        for spec, estimator, failure in zip(todo, estimators, failures):
            if failure is not None:
                print(f"{_folder(options, spec).name}: {failure}", flush=True)
                missing += 1
                continue
            folder = _keep(estimator, _folder(options, spec), options.factors)
            figures = {
                "spec": asdict(spec),
                "digest": plan["digest"],
                "seconds": seconds,
                "models_at_once": len(todo),
                "processes": of_all,
                "machine": machine(options.device),
            }
            (folder / TRAINED).write_text(json.dumps(figures, indent=1), encoding="utf-8")
        print(f"part {index}: {len(todo)} models, {seconds * len(todo):.1f} s", flush=True)
    if missing:
        sys.exit(f"{missing} models were not trained, see above")


def _keep(estimator: HarmonicVAE, folder: Path, factors: bool) -> Path:
    """Write the estimator, or what decides its norms and bounds alone."""
    if not factors:
        return save_estimator(estimator, folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = {"encoder": estimator.encoder_, "decoder": estimator.decoder_}
    arrays = {}
    for side, network in networks.items():
        matrices = [layer.weight.detach().cpu().numpy() for layer in _affine(network)]
        first, last = matrices[0].astype(np.float64), matrices[-1].astype(np.float64)
        if first.shape[1] > first.shape[0]:
            matrices[0] = np.linalg.qr(first.T, mode="r").T
        if last.shape[0] > last.shape[1]:
            matrices[-1] = np.linalg.qr(last, mode="r")
        arrays |= {f"{side}_{index}": matrix for index, matrix in enumerate(matrices)}
    np.savez_compressed(folder / FACTORS, **arrays)
    estimator.history_.to_csv(folder / names.FILE_HISTORY, index=False)
    return folder


def _affine(network: Any) -> list[Any]:
    """Return the affine layers of a multilayer perceptron."""
    return [layer for layer in network.modules() if hasattr(layer, "weight")]


def _epochs_printed(started: float) -> Any:
    """Return a hook that prints the first model's figures after every tenth epoch."""

    def told(row: Any) -> None:
        epoch = int(row[names.EPOCH])
        if epoch % 10 == 0 or epoch < 3:
            loss, seconds = row[names.TRAIN_LOSS], time.perf_counter() - started
            print(f"epoch {epoch}: loss {loss:.4f}, {seconds:.1f} s", flush=True)

    return told


def _spec(item: dict[str, Any]) -> ModelSpec:
    return ModelSpec(**{k: tuple(v) if isinstance(v, list) else v for k, v in item.items()})


def _folder(options: argparse.Namespace, spec: ModelSpec) -> Path:
    """Return the folder of a model, named after its noise, seed and errors."""
    errors = "".join(f"-{error}" for error in spec.reproduction_errors)
    return Path(options.folder) / MODELS / f"{spec.name}{errors}"


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("export")
    command.add_argument("dataset")
    command.add_argument("folder", type=Path)
    command.add_argument("--data-dir")
    command.add_argument("--epochs", type=int)
    command.add_argument("--further-std", type=float, nargs="*", default=[])
    command.add_argument("--model", choices=MODELS_OF_A_STUDY, default="mlp")
    command.set_defaults(function=export)
    command = commands.add_parser("train")
    command.add_argument("folder", type=Path)
    command.add_argument("--device", default="cuda")
    command.add_argument("--parts", type=int, nargs="*")
    command.add_argument("--processes", type=int, default=1, help="at once; for convolutions")
    command.add_argument(
        "--factors",
        action="store_true",
        help="keep only triangular factors of the outermost matrices, which have their norms",
    )
    command.set_defaults(function=train, share=(0, 1))
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    sys.exit(main())
