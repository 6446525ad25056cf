"""The study from end to end: train the grid, register, bound, attack, tabulate, report."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.machine import machine
from harmonicvae.models.parameters import check_device
from harmonicvae.progress import StudyProgress
from harmonicvae.report import write_report
from harmonicvae.result_folder import WRITTEN_BY, building, check_output
from harmonicvae.tracking import parallel
from harmonicvae.tracking.backends import Backend
from harmonicvae.tracking.jobs import Evaluation, Outcome, load_split
from harmonicvae.tracking.keys import setting_key, sweep_key, training_key
from harmonicvae.tracking.load import MachineLoad
from harmonicvae.tracking.specs import DataSpec, ModelSpec, StoreSpec
from harmonicvae.tracking.stores import public_uri

#: Seeds of the original study.
STUDY_SEEDS = (14609714069366804553, 10209623728859046282, 13978253786968215756)
#: σ_enc of the decoder column (σ_N = 0) and σ_N of the encoder column (σ_enc = 0.5).
ENCODER_STDS = (1.0, 0.5, 0.1)
INPUT_NOISE_STDS = (1.0, 0.5, 0.0)
ENCODER_COLUMN_STD = 0.5
LATENT_DIMS = {names.SINC: 1, names.CIFAR10: 64, names.CELEBA: 64}
#: Epochs and number of seeds by preset and data set.
PRESETS = {
    "quick": {names.SINC: (100, 2), names.CIFAR10: (15, 1), names.CELEBA: (60, 1)},
    "paper": {names.SINC: (100, 3), names.CIFAR10: (200, 3), names.CELEBA: (200, 3)},
}
#: Attacked images by preset.
ATTACK_IMAGES = {"quick": 8, "paper": 64}
#: An evaluation counts as this share of a model's epochs in the progress line.
EVALUATION_WEIGHT = 1.0
#: Rows handed to the evaluators: validation rows, filled up with training rows.
EVALUATION_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Everything that decides a study's result, checked before any run is created.

    Parameters
    ----------
    data : DataSpec
    preset : {"quick", "paper"}
    model : {"mlp", "conv"}
        Kind of network.
    encoder_stds, input_noise_stds : tuple of float
        The decoder column varies σ_enc at σ_N = 0, the encoder column σ_N at σ_enc = 0.5.
    seeds : tuple of int
    epochs : int
    radii : tuple of float
        ℓ2 radii of the attack.
    n_images : int
        Attacked images.
    device : str
    backend : Backend
        Where models are trained and evaluated; several at once have one thread each.
    together : {"auto", "true", "false"}
        Whether models of one shape are trained as one program; "auto" where it is faster.
    reuse : bool
        Whether models of other sweeps with the same content key are taken over.
    any_code : bool
        Whether models of the same data and parameters are taken over that other code or
        another device has trained; the columns "code" and "device" of models.csv say which.
    reproduction_errors : tuple of str
        Training switches and "slope_one".
    """

    data: DataSpec
    preset: str
    encoder_stds: tuple[float, ...]
    input_noise_stds: tuple[float, ...]
    seeds: tuple[int, ...]
    epochs: int
    radii: tuple[float, ...] = (10.0, 20.0)
    n_images: int = 8
    device: str = "auto"
    backend: Backend = field(default_factory=Backend)
    together: str = "auto"
    reuse: bool = True
    any_code: bool = False
    model: str = "mlp"
    reproduction_errors: tuple[str, ...] = ()

    def specs(self) -> list[ModelSpec]:
        """Return the distinct models: both columns, the shared one once."""
        pairs = [(std, 0.0) for std in self.encoder_stds]
        pairs += [(ENCODER_COLUMN_STD, noise) for noise in self.input_noise_stds]
        training = tuple(error for error in self.reproduction_errors if error != "slope_one")
        return [
            ModelSpec(
                dataset=self.data.name,
                encoder_std=std,
                input_noise_std=noise,
                seed=seed,
                epochs=self.epochs,
                latent_dim=LATENT_DIMS[self.data.name],
                model=self.model,
                reproduction_errors=training,
            )
            for seed in self.seeds
            for std, noise in dict.fromkeys(pairs)
        ]

    def evaluators(self) -> dict[str, dict[str, Any]]:
        """Return the evaluators with their options."""
        slope = tuple(error for error in self.reproduction_errors if error == "slope_one")
        return {
            names.EVALUATOR_LIPSCHITZ: {"reproduction_errors": slope},
            names.EVALUATOR_MAX_DAMAGE: {
                "radii": self.radii,
                "n_images": self.n_images,
                "figures": False,  # the report draws them
            },
            names.EVALUATOR_HARMONICS: {"figures": False},
        }


@dataclass(kw_only=True)
class StudyResult:
    """What a study left behind.

    Parameters
    ----------
    folder : Path
        Flat result files and the report.
    models : DataFrame
        One row a model.
    failures : list of dict
        Model and reason.
    report : Path or None
        The HTML file.
    run_id : str
        Run of the study.
    """

    folder: Path
    models: pd.DataFrame
    failures: list[dict[str, str]] = field(default_factory=list)
    report: Path | None = None
    run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyInput:
    """The data of a study and the keys that tell its models apart from all others.

    Parameters
    ----------
    train, validation : Bunch
    model_keys : tuple of str
        Content key of each model, in the order of :meth:`StudyPlan.specs`.
    settings : tuple of str
        The same of data and parameters alone.
    key : str
        Of the whole study.
    """

    train: Any
    validation: Any
    model_keys: tuple[str, ...]
    settings: tuple[str, ...]
    key: str


def load_input(plan: StudyPlan, *, evaluate: bool = True) -> StudyInput:
    """Load a study's data and derive its keys.

    Parameters
    ----------
    plan : StudyPlan
    evaluate : bool, default=True
        False for a sweep, which trains and registers only.

    Returns
    -------
    StudyInput

    Raises
    ------
    DatasetNotFoundError, DatasetCorruptError
        If files are missing or damaged.
    """
    train, validation = (load_split(plan.data, split) for split in ("train", "validation"))
    digests = {"train": train.digest, "validation": validation.digest}
    device = str(check_device(plan.device))
    model_keys = tuple(training_key(spec, digests, device) for spec in plan.specs())
    settings = tuple(setting_key(spec, digests) for spec in plan.specs())
    decided_by = settings if plan.any_code else model_keys
    key = sweep_key(decided_by, plan.evaluators() if evaluate else None, EVALUATION_ROWS)
    return StudyInput(
        train=train, validation=validation, model_keys=model_keys, settings=settings, key=key
    )


def run_study(
    plan: StudyPlan,
    data: StudyInput,
    store: StoreSpec,
    folder: str | os.PathLike[str],
    *,
    evaluate: bool = True,
    command: str = "",
) -> StudyResult:
    """Run a study inside its MLflow run.

    Parameters
    ----------
    plan : StudyPlan
    data : StudyInput
        From :func:`load_input`.
    store : StoreSpec
        With the study's run as ``parent_run_id``.
    folder : path-like
        Result folder; a former study's files there are replaced when this one has ended.
        Half-trained models are kept beside it in ``{folder}.checkpoints`` until then.
    evaluate : bool, default=True
        False trains and registers only (the sweep).
    command : str
        How to repeat it, for the report.

    Returns
    -------
    StudyResult
        Failed models are in ``failures``; they do not end the study.

    Raises
    ------
    InputError
        If the result folder holds something else.
    StorageError
        If the disk is full, or the store locked or gone.
    KeyboardInterrupt
        After open runs are marked KILLED; finished models stay registered.

    Notes
    -----
    Killed at any moment, by any means, the same call goes on: finished models and
    evaluations are recognised by content keys, others continue from their checkpoints.
    """
    target = check_output(folder)
    started, clock = datetime.now(UTC), time.perf_counter()
    described = _describe(plan, store, data, started, command)
    parallel.log_study_start(store, described, (data.train, data.validation))
    with building(target) as aside:
        trained, evaluated = _measure(plan, data, store, aside, target, evaluate)
        result = _collect(aside, plan, trained, evaluated)
        result.run_id = store.parent_run_id or ""
        described |= {
            "wall_seconds": time.perf_counter() - clock,
            "failures": result.failures,
            "study_run_id": result.run_id,
        }
        (aside / names.FILE_STUDY).write_text(json.dumps(described, indent=1), encoding="utf-8")
        if evaluate and len(result.models):
            write_report(aside)
            result.report = target / names.FILE_REPORT
        parallel.log_study_end(store, aside, described, result.models)
    result.folder = target
    return result


def checkpoint_folder(target: Path) -> Path:
    """Return where half-trained models are kept, beside the result folder.

    Examples
    --------
    >>> checkpoint_folder(Path("results/sinc")).name
    'sinc.checkpoints'
    """
    return target.with_name(f"{target.name}.checkpoints")


def _measure(
    plan: StudyPlan,
    data: StudyInput,
    store: StoreSpec,
    folder: Path,
    target: Path,
    evaluate: bool,
) -> tuple[list[Outcome], list[Outcome]]:
    """Train every model, then bound and attack those that did not fail."""
    specs = plan.specs()
    progress = StudyProgress(
        plan.data.name,
        folder,
        models=len(specs),
        epochs=plan.epochs,
        evaluation_weight=EVALUATION_WEIGHT if evaluate else 0.0,
    )
    execution = parallel.Execution(
        backend=plan.backend,
        device=plan.device,
        checkpoints=checkpoint_folder(target),
        progress=progress.folder,
        together=plan.together,
        reuse=plan.reuse,
        finished=progress.trained,
    )
    with MachineLoad(folder / names.FILE_LOAD) as load, progress:
        load.phase = "training"
        found, trained = parallel.train_all(
            specs,
            data.model_keys,
            plan.data,
            store,
            execution,
            settings=data.settings,
            any_code=plan.any_code,
        )
        parallel.drop_checkpoints(execution.checkpoints)
        load.phase = "evaluation"
        evaluated = []
        if evaluate:
            execution = replace(execution, finished=progress.evaluated)
            template = _evaluation(plan, store)
            evaluated = parallel.evaluate_all(found, trained, template, store, execution)
    shutil.rmtree(progress.folder, ignore_errors=True)
    return trained, evaluated


def _evaluation(plan: StudyPlan, store: StoreSpec) -> Evaluation:
    """Return the evaluation of a model that is not named yet."""
    return Evaluation(
        model="",
        model_uri="",
        evaluators=plan.evaluators(),
        data=plan.data,
        store=store,
        run_id="",
        n_points=EVALUATION_ROWS,
        threads=plan.backend.threads,
    )


def _collect(
    folder: Path, plan: StudyPlan, trained: list[Outcome], evaluated: list[Outcome]
) -> StudyResult:
    """Write the flat tables and return the result."""
    order = {spec.name: index for index, spec in enumerate(plan.specs())}
    by_model = {outcome.model: outcome for outcome in evaluated}
    rows, failures = [], []
    tables: dict[str, list[pd.DataFrame]] = {}
    for outcome in sorted(trained, key=lambda item: order[item.model]):
        further = by_model.get(outcome.model)
        for part in (outcome, further):
            if part is None:
                continue
            if part.failure:
                step = "training" if part is outcome else "evaluation"
                failures.append({"model": part.model, "reason": part.failure, "step": step})
            for file, table in part.tables.items():
                tables.setdefault(file, []).append(table)
            if part.arrays:
                _save_arrays(folder, part.model, part.arrays)
        if not outcome.failure:
            uri = {"run_id": outcome.run_id, "model_uri": outcome.model_uri}
            rows.append(outcome.row | uri | (further.row if further else {}))
    models = pd.DataFrame(rows)
    if rows:
        models[names.SEED] = models[names.SEED].astype(str)
    models.to_csv(folder / names.FILE_MODELS, index=False)
    repeatable = [column for column in models if not _differs_between_runs(str(column))]
    models[repeatable].to_csv(folder / names.FILE_SWEEP, index=False)
    for file, parts in tables.items():
        pd.concat(parts, ignore_index=True).to_csv(folder / file, index=False)
    return StudyResult(folder=folder, models=models, failures=failures)


def _differs_between_runs(column: str) -> bool:
    """Tell whether a column of models.csv holds times or names of runs."""
    return column in ("run_id", "model_uri") or "seconds" in column


def _save_arrays(folder: Path, model: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays of one model beside those already there."""
    path = folder / names.FOLDER_ARRAYS / f"{model}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored: dict[str, Any] = {}
    if path.exists():
        with np.load(path) as former:
            stored = dict(former)
    np.savez_compressed(path, **(stored | arrays))


def _describe(
    plan: StudyPlan, store: StoreSpec, data: StudyInput, started: datetime, command: str
) -> dict[str, Any]:
    """Return study.json: what was run, on what, where."""
    train, validation = data.train, data.validation
    n_validation = min(int(validation.data.shape[0]), EVALUATION_ROWS)
    n_filled = min(int(train.data.shape[0]), EVALUATION_ROWS - n_validation)
    return {
        "written_by": WRITTEN_BY,
        "dataset": plan.data.name,
        "missing_images": int(train.get("missing", 0)) + int(validation.get("missing", 0)),
        "evaluation_rows": {"validation": n_validation, "training": n_filled},
        "model": plan.model,
        "preset": plan.preset,
        "epochs": plan.epochs,
        "seeds": [str(seed) for seed in plan.seeds],
        "encoder_std": list(plan.encoder_stds),
        "input_noise_std": list(plan.input_noise_stds),
        "radii": list(plan.radii),
        "n_images": plan.n_images,
        "n_jobs": plan.backend.n_jobs,
        "backend": plan.backend.name,
        "n_train": int(train.data.shape[0]),
        "n_validation": int(validation.data.shape[0]),
        "image_shape": list(train.image_shape),
        "data_digest": train.digest,
        "key": data.key,
        "started": started.isoformat(timespec="seconds"),
        "version": __version__,
        "machine": machine(plan.device),
        "experiment": store.experiment,
        "tracking_uri": public_uri(store.tracking_uri),
        "command": command,
        "reproduction_errors": list(plan.reproduction_errors),
    }
