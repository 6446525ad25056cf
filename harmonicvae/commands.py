"""What each verb of the shell does, from checked values to printed lines."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harmonicvae import names, study
from harmonicvae import options as check
from harmonicvae.attacks import ATTACKS
from harmonicvae.datasets import DATASETS
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.lipschitz import METHODS
from harmonicvae.models.parameters import check_device
from harmonicvae.report import summarise, to_terminal, write_report
from harmonicvae.report.checking import compare_results, worst_by_quantity
from harmonicvae.report.results import load_results
from harmonicvae.reproduction import (
    LIPSCHITZ_ERRORS,
    TRAINING_ERRORS,
    check_reproduction_errors,
)
from harmonicvae.result_folder import check_output, check_report_output
from harmonicvae.tracking import steps, stores
from harmonicvae.tracking.adoption import adopt
from harmonicvae.tracking.backends import BACKENDS, Backend
from harmonicvae.tracking.groups import TOGETHER
from harmonicvae.tracking.max_damage_evaluator import OBJECTIVE_CHOICES
from harmonicvae.tracking.sessions import sweep_session
from harmonicvae.tracking.specs import MODELS, DataSpec, ModelSpec
from harmonicvae.tracking.storage import in_clear_words

#: CelebA's partition lists more images than many copies hold; absent ones are counted.
_DATA_OPTIONS: dict[str, dict[str, Any]] = {names.CELEBA: {"allow_missing": True}}

#: Parts of a study's plan that the shell always tells, and names of options that differ.
_ALWAYS_TOLD = ("radii", "model", "reproduction_errors")
_OPTIONS = {
    "encoder_stds": "--encoder-std",
    "input_noise_stds": "--input-noise-std",
    "n_images": "--attack-images",
}


def run_study(parsed: argparse.Namespace) -> int:
    """Run the study, or with the verb "sweep" its training part only."""
    recorded = _recorded(parsed) if getattr(parsed, "check", "") else None
    plan = study_plan(parsed)
    if recorded is not None:
        plan = _as_recorded(plan, recorded, set(_given(parsed)))
    output = check_output(parsed.output or f"harmonicvae-results/{plan.data.name}")
    if recorded is not None and output.resolve() == recorded.resolve():
        raise InputError(
            f"output must be another folder than the one compared with, got {str(output)!r}; "
            "give --output"
        )
    evaluate = parsed.verb == "study"
    with in_clear_words(), _saying_how_to_continue():
        data = study.load_input(plan, evaluate=evaluate)
        if recorded is not None:
            _refuse_other_data(recorded, data.train.digest)
        opened = stores.open_store(parsed.experiment or None)
        name = f"{plan.data.name} {parsed.verb}"
        with sweep_session(opened, data.key, name, "study", reuse=plan.reuse) as store:
            result = study.run_study(
                plan, data, store, output, evaluate=evaluate, command=parsed.command_line
            )
            _print_result(result)
            if result.failures:
                raise TrackingError(
                    f"{len(result.failures)} models failed, see above; repeat the command to "
                    "try them again"
                )
    return 0 if recorded is None else _compare(result, recorded)


def _recorded(parsed: argparse.Namespace) -> Path:
    """Return the folder of recorded results: the one given, or that of its preset and data set."""
    given = Path(parsed.check).expanduser()
    for folder in (given, given / parsed.preset / parsed.dataset):
        if (folder / names.FILE_STUDY).is_file():
            return folder
    raise InputError(
        f"check must name a folder of results, or one with {parsed.preset}/{parsed.dataset} in "
        f"it, got {parsed.check!r}"
    )


def _as_recorded(plan: study.StudyPlan, recorded: Path, given: set[str]) -> study.StudyPlan:
    """Return the plan of a recorded study, trained anew; refuse what was given otherwise."""
    record = load_results(recorded).study
    if record.get("dataset") != plan.data.name:
        raise InputError(
            f"{str(recorded)!r} records a study of {record.get('dataset')}; give "
            f"--dataset {record.get('dataset')}"
        )
    try:
        known: dict[str, Any] = {
            "preset": record["preset"],
            "epochs": int(record["epochs"]),
            "seeds": tuple(int(seed) for seed in record["seeds"]),
            "radii": tuple(map(float, record["radii"])),
            "n_images": int(record["n_images"]),
            "model": check.choice("model", record.get("model", plan.model), MODELS),
            "reproduction_errors": tuple(record.get("reproduction_errors", ())),
        }
        check_reproduction_errors(known["reproduction_errors"])
        for field, key in (
            ("encoder_stds", "encoder_std"),
            ("input_noise_stds", "input_noise_std"),
        ):
            if key in record:
                known[field] = tuple(map(float, record[key]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{names.FILE_STUDY} of {str(recorded)!r} does not say how the study was run: {error!r}"
        ) from error
    _refuse_other_options(plan, known, given)
    return replace(plan, reuse=False, any_code=False, **known)


def _refuse_other_options(plan: study.StudyPlan, known: dict[str, Any], given: set[str]) -> None:
    """Refuse options of a study that are given, and otherwise than they are recorded."""
    usual = {field.name: field.default for field in fields(plan)}
    always = {name for name in _ALWAYS_TOLD if getattr(plan, name) != usual[name]}
    for name in known:
        if name in given | always and getattr(plan, name) != known[name]:
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise InputError(
                f"a recorded study is repeated as it was: leave out {option}, or give "
                f"{known[name]} as recorded, got {getattr(plan, name)}"
            )


def _refuse_other_data(recorded: Path, digest: str) -> None:
    """Refuse a record of other data before anything is trained."""
    known = load_results(recorded).study.get("data_digest")
    if known != digest:
        raise InputError(
            f"{str(recorded)!r} records a study of different data: digest {known}, here {digest}"
        )


def _compare(result: study.StudyResult, recorded: Path) -> int:
    """Print how far the numbers are from those on record; 1 if one is further than allowed."""
    compared = compare_results(result.folder, recorded)
    worst = worst_by_quantity(compared)
    print(f"\ncompared with {recorded}, largest relative difference over models:\n")
    print(to_terminal(worst))
    failed = compared[~compared["ok"]]
    if len(failed):
        print(f"\n{to_terminal(failed)}")
        first = failed.iloc[0]  # the table cuts long names
        raise TrackingError(
            f"{len(failed)} of {len(compared)} numbers differ from {str(recorded)!r} by more than "
            f"allowed, see above; the first is {first['quantity']} of {first[names.MODEL]}"
        )
    print(f"\nall {len(compared)} numbers agree")
    return 0


@contextmanager
def _saying_how_to_continue() -> Iterator[None]:
    """Add to Ctrl-C what becomes of the work."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "finished models are kept; repeat the command to continue with the others from "
            "their last checkpoints"
        ) from None


def _print_result(result: study.StudyResult) -> None:
    """Print the tables of a study and where the rest is."""
    print()
    if result.report is not None:
        print(summarise(result.folder))
    elif len(result.models):
        columns = [names.MODEL, names.ELBO, names.SQUARED_ERROR, "model_uri"]
        print(result.models[columns].to_string(index=False))
    for failure in result.failures:
        print(f"FAILED {failure['model']}: {failure['reason']}", file=sys.stderr)
    if result.report is not None:
        print(f"\nreport: {result.report.resolve()}")
    print(f"run:    {result.run_id} (all runs: mlflow ui)")


def study_plan(parsed: argparse.Namespace) -> study.StudyPlan:
    """Check every option of a study before anything is created.

    Parameters
    ----------
    parsed : Namespace
        Options as text; "" means the preset's value.

    Returns
    -------
    StudyPlan

    Raises
    ------
    InputError
        At the first option that is not valid.
    """
    data = data_spec(parsed)
    preset = check.choice("preset", parsed.preset, tuple(study.PRESETS))
    epochs, n_seeds = study.PRESETS[preset][data.name]
    errors = check.words(parsed.reproduction_errors)
    check_reproduction_errors(errors)
    device = str(check_device(parsed.device))
    small = data.name == names.SINC and device == "cpu"
    reuse = check.choice("reuse", parsed.reuse, ("true", "false", "any"))
    plan = study.StudyPlan(
        data=data,
        preset=preset,
        encoder_stds=study.ENCODER_STDS,
        input_noise_stds=study.INPUT_NOISE_STDS,
        seeds=study.STUDY_SEEDS[:n_seeds],
        epochs=epochs,
        n_images=study.ATTACK_IMAGES[preset],
        radii=check.numbers("radii", parsed.radii, positive=True),
        device=device,
        backend=Backend(
            name=check.choice("backend", parsed.backend, BACKENDS),
            n_jobs=check.jobs("n_jobs", parsed.n_jobs, small_models=small),
            scheduler=parsed.scheduler or None,
        ),
        model=check.choice("model", parsed.model, MODELS),
        together=check.choice("together", parsed.together, TOGETHER),
        reuse=reuse != "false",
        any_code=reuse == "any",
        reproduction_errors=errors,
    )
    return replace(plan, **_given(parsed))


def _given(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the options that take the place of the preset's values."""
    given: dict[str, Any] = {}
    if parsed.encoder_std:
        given["encoder_stds"] = check.numbers("encoder_std", parsed.encoder_std, positive=True)
    if parsed.input_noise_std:
        given["input_noise_stds"] = check.numbers("input_noise_std", parsed.input_noise_std)
    if parsed.seeds:
        given["seeds"] = check.seeds("seeds", parsed.seeds)
    if parsed.epochs:
        given["epochs"] = check.integer("epochs", parsed.epochs, 1)
    if parsed.attack_images:
        given["n_images"] = check.integer("attack_images", parsed.attack_images, 1)
    return given


def data_spec(parsed: argparse.Namespace) -> DataSpec:
    """Return the checked data set of a command."""
    name = check.choice("dataset", parsed.dataset, tuple(DATASETS))
    download = check.choice("download", parsed.download, ("false", "true")) == "true"
    if download and name != names.CIFAR10:
        raise InputError(f"download is for cifar10 only, not for {name}")
    data_dir = check.folder("data_dir", parsed.data_dir, must_exist=not download)
    if data_dir is None and name != names.SINC:
        raise InputError(
            f"data_dir must name the folder of the {name} files, got ''; give --data-dir FOLDER, "
            "or -P data_dir=FOLDER to mlflow run"
        )
    options = _DATA_OPTIONS.get(name, {}) | ({"download": True} if download else {})
    return DataSpec(name=name, data_dir=data_dir, options=options)


def train(parsed: argparse.Namespace) -> int:
    """Train and register one model."""
    data = data_spec(parsed)
    errors = check.words(parsed.reproduction_errors)
    check_reproduction_errors(errors, TRAINING_ERRORS)
    default_epochs, _ = study.PRESETS["quick"][data.name]
    spec = ModelSpec(
        dataset=data.name,
        encoder_std=_encoder_std(parsed.encoder_std),
        input_noise_std=check.one("input_noise_std", check.numbers, parsed.input_noise_std),
        seed=check.one("seed", check.seeds, parsed.seed),
        epochs=check.integer("epochs", parsed.epochs, 1) if parsed.epochs else default_epochs,
        latent_dim=study.LATENT_DIMS[data.name],
        model=check.choice("model", parsed.model, MODELS),
        reproduction_errors=errors,
    )
    device = str(check_device(parsed.device))
    outcome = steps.train_one(spec, data, experiment=parsed.experiment or None, device=device)
    return _print_outcome(outcome, parsed.json)


def register(parsed: argparse.Namespace) -> int:
    """Store and register models that were trained elsewhere."""
    data = data_spec(parsed)
    with in_clear_words():
        for folder in parsed.folders:
            path = Path(folder).expanduser()
            outcome = adopt(path, data, experiment=parsed.experiment or None)
            _print_outcome(outcome, parsed.json)
    return 0


def _encoder_std(text: str) -> float | str:
    """Return one σ_enc > 0 or "learned"."""
    if text == "learned":
        return text
    value = check.one("encoder_std", check.numbers, text)
    if value == 0:
        raise InputError(f"encoder_std must be > 0 or 'learned', got {text!r}")
    return value


def lipschitz(parsed: argparse.Namespace) -> int:
    """Bound the Lipschitz constants of a stored model."""
    errors = check.words(parsed.reproduction_errors)
    check_reproduction_errors(errors, LIPSCHITZ_ERRORS)
    config: dict[str, Any] = {
        "n_points": check.integer("points", parsed.points, 1),
        "n_steps": check.integer("steps", parsed.steps, 0),
        "reproduction_errors": errors,
    }
    methods = check.words(parsed.methods)
    for method in methods:
        check.choice("methods", method, (*METHODS, names.BEST))
    if methods:
        config["methods"] = methods
    if parsed.slopes:
        config["slopes"] = check.choice("slopes", parsed.slopes, ("activation", "propagated"))
    if parsed.gap:
        config["gap"] = check.fraction("gap", parsed.gap)
    if parsed.max_size:
        config["max_size"] = check.integer("max_size", parsed.max_size, 1)
    if parsed.device:
        config["device"] = str(check_device(parsed.device))
    return _evaluate(parsed, names.EVALUATOR_LIPSCHITZ, config)


def attack(parsed: argparse.Namespace) -> int:
    """Attack a stored model."""
    radii = parsed.radius or [parsed.radii]
    methods = check.words(parsed.methods)
    config: dict[str, Any] = {
        "radii": [r for text in radii for r in check.numbers("radius", text, positive=True)],
        "n_images": check.integer("images", parsed.images, 1),
        "methods": [check.choice("methods", method, tuple(ATTACKS)) for method in methods],
        "objective": check.choice("objective", parsed.objective, OBJECTIVE_CHOICES),
        "random_state": check.one("seed", check.seeds, parsed.seed),
    }
    if parsed.steps:
        config["n_steps"] = check.integer("steps", parsed.steps, 1)
    if parsed.restarts:
        config["n_restarts"] = check.integer("restarts", parsed.restarts, 1)
    if parsed.box:
        config["box"] = check.interval("box", parsed.box)
    return _evaluate(parsed, names.EVALUATOR_MAX_DAMAGE, config)


def harmonics(parsed: argparse.Namespace) -> int:
    """Measure the spectra of a stored model."""
    config: dict[str, Any] = {"random_state": check.one("seed", check.seeds, parsed.seed)}
    if parsed.sides:
        sides = check.words(parsed.sides)
        config["sides"] = [check.choice("sides", side, names.SIDES) for side in sides]
    if parsed.encoder_stds:
        stds = check.numbers("encoder_stds", parsed.encoder_stds, positive=True)
        config["encoder_stds"] = stds
    least = {"samples": 32, "centres": 2, "max_degree": 1, "slices": 2}
    for option, smallest in least.items():
        text = getattr(parsed, option)
        if text:
            key = option if option == "max_degree" else f"n_{option}"
            config[key] = check.integer(option, text, smallest)
    return _evaluate(parsed, names.EVALUATOR_HARMONICS, config)


def _evaluate(parsed: argparse.Namespace, evaluator: str, config: dict[str, Any]) -> int:
    """Run one evaluator on the data a model was trained on, or on the data named."""
    data = data_spec(parsed) if parsed.dataset else None
    if data is None and parsed.data_dir:
        found = steps.trained_on(parsed.model_uri)
        data = replace(found, data_dir=check.folder("data_dir", parsed.data_dir))
    outcome = steps.evaluate_one(
        parsed.model_uri, {evaluator: config}, data=data, experiment=parsed.experiment or None
    )
    return _print_outcome(outcome, parsed.json)


def _print_outcome(outcome: Any, as_json: bool) -> int:
    """Print a step's metrics, as a table or as JSON."""
    if outcome.failure:
        raise TrackingError(outcome.failure)
    row = dict(outcome.row)
    if outcome.model_uri:
        row["model_uri"] = outcome.model_uri
    row["run_id"] = outcome.run_id
    if as_json:
        print(json.dumps(row, indent=1, default=str))
        return 0
    width = max(map(len, row))
    for key, value in row.items():
        print(
            f"{key:<{width}}  {value:.6g}"
            if isinstance(value, float)
            else f"{key:<{width}}  {value}"
        )
    return 0


def report(parsed: argparse.Namespace) -> int:
    """Render a study's report again, from its folder or from its run."""
    source = Path(parsed.source).expanduser()
    output = check_report_output(parsed.output)
    with tempfile.TemporaryDirectory() as scratch:
        if not source.is_dir():
            source = steps.fetch_study(parsed.source, Path(scratch))
        path = write_report(source, output)
        print(summarise(source))
    steps.log_report(output)
    print(f"\nreport: {path.resolve()}")
    return 0
