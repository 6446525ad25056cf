"""Keep the numbers of EXPERIMENTS.md in files, and render the document from them only.

    python docs/experiments.py collect harmonicvae-results results/quick/sinc
    python docs/experiments.py render

``collect`` copies a study's flat tables without what belongs to one machine (run ids, paths);
``render`` writes EXPERIMENTS.md from results/ and this file's text.  A test renders it again
and compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_tables

from harmonicvae import names
from harmonicvae.report import summarise, to_terminal, training_table
from harmonicvae.report.results import load_results

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCUMENT = ROOT / "results", ROOT / "EXPERIMENTS.md"
KEPT = ("dataset", "preset", "epochs", "seeds", "n_train", "n_validation", "data_digest")
KEPT += ("encoder_std", "input_noise_std", "model", "image_shape", "reproduction_errors")
KEPT += (
    "wall_seconds",
    "started",
    "version",
    "machine",
    "radii",
    "n_images",
    "n_jobs",
    "evaluation_rows",
    "missing_images",
)
PRIVATE_COLUMNS = ["run_id", "model_uri"]

COMMANDS = {
    "sinc": "mlflow run . --env-manager local",
    "cifar10": "mlflow run . --env-manager local -P dataset=cifar10 -P preset=quick "
    "-P data_dir=FOLDER",
    "celeba": "mlflow run . --env-manager local -P dataset=celeba -P preset=quick "
    "-P data_dir=FOLDER",
}

_ELSEWHERE = """python docs/train_elsewhere.py export {name} FOLDER {further}# here
python docs/train_elsewhere.py train FOLDER --parts 0 --device cuda      # where the GPU is
harmonicvae register FOLDER/models/* --dataset {name} --data-dir DIR
mlflow run . --env-manager local -P dataset={name} -P preset=paper -P data_dir=DIR \\
  -P reuse=any {options}"""
PAPER_COMMANDS = {
    names.SINC: "mlflow run . --env-manager local -P preset=paper -P attack_images=16",
    names.CIFAR10: _ELSEWHERE.format(
        name=names.CIFAR10,
        further="--data-dir DIR --further-std 0.2 0.1   ",
        options="-P attack_images=16 \\\n  "
        "-P encoder_std=1,0.5,0.2,0.1 -P input_noise_std=1,0.5,0.2,0.1,0",
    ),
    names.CELEBA: _ELSEWHERE.format(
        name=names.CELEBA,
        further="--data-dir DIR --epochs 1000   ",
        options="-P attack_images=8 -P epochs=1000",
    ),
}

CONV_COMMAND = """python docs/train_elsewhere.py export cifar10 FOLDER --data-dir DIR --model conv
python docs/train_elsewhere.py train FOLDER --device cuda --processes 15  # where the GPU is
harmonicvae register FOLDER/models/* --dataset cifar10 --data-dir DIR
mlflow run . --env-manager local -P dataset=cifar10 -P preset=paper -P model=conv \\
  -P reuse=any -P attack_images=16 -P n_jobs=2 -P data_dir=DIR"""

CONV = """
The same grid with ConvHarmonicVAE's default layers (three convolutions of stride 2 with 8, 16 and
32 channels, ELU; 3,584 hidden neurons in encoder and decoder each): not the networks of the paper,
whose values stand beside for their magnitude only. With ELU no slope range is narrower than the
activation's own, so that "best" is LipSDP-Neuron.
"""

IDENTITY = """
## The degree identity on trained models

Σ k·W_k = σ²·E‖J‖² for every map: the fitted weights up to degree 8 over the mean squared Jacobian,
which is sampled apart from them. It is 1 where no weight lies beyond; where there is some, below 1.
"Largest excess": lower ends of the weights' intervals over the upper end of the Jacobian's; above 1
the identity would be refuted.

"""

DISCREPANCY = """
## The reproduction's constants taken apart

```sh
python docs/train_elsewhere.py export DATASET FOLDER --data-dir DIR
python docs/train_elsewhere.py train FOLDER --factors
python docs/discrepancy.py FOLDER results/paper/DATASET/discrepancy.csv
```

Done right: LipSDP-Neuron with the sigmoid's slope range [0, ¼], geometric mean over seeds. Factors:
the value with one error over the value without. All errors: trained with σ² for σ, noisy targets,
shared noise and the wrong KL, bounded by single matrices with slope 1. "–": not measured, or no
difference by construction.
"""

TABLE_4 = """
## Table 4: the attack at many images, every σ

```sh
python docs/attack_study.py FOLDER results/paper/cifar10/table4.csv --data-dir DIR
```

Models of one seed; mean ± sd over validation images.

"""

SLIPS = """The model with σ_enc = 1 as the reproduction attacked its own: its encoder with another
seed's decoder, images in [0, 1], rows and columns of each image exchanged:

"""

INTRODUCTION = """# Experiments

Every number here is rendered from the files in results/ by `python docs/experiments.py render`;
those files were written by the commands below and copied by
`python docs/experiments.py collect FOLDER results/PRESET/DATASET`.  Nothing is typed by hand.

Lower bounds are Jacobian norms at data points, codes and the end points of an ascent from the
best of them; upper bounds are certified.  Mean ± standard deviation over seeds, "–" for one seed.
The reproduction's and the paper's values stand beside them; their training lengths are the
paper's, ours are stated.  Wall times are those of a shared machine with other work on it, as the
scatter of the training seconds shows.
"""


def collect(source: Path, target: Path) -> None:
    """Copy a study's tables without run ids and paths."""
    results = load_results(source)
    target.mkdir(parents=True, exist_ok=True)
    study = {key: results.study[key] for key in KEPT}
    (target / names.FILE_STUDY).write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
    models = results.models.drop(columns=PRIVATE_COLUMNS)
    models.to_csv(target / names.FILE_MODELS, index=False)
    results.bounds.to_csv(target / names.FILE_BOUNDS, index=False)
    results.attacks.to_csv(target / names.FILE_ATTACKS, index=False)
    for file, table in (
        (names.FILE_MARGINS, results.margins),
        (names.FILE_HARMONICS, _optional(source / names.FILE_HARMONICS)),
        (names.FILE_SPECTRA, results.spectra),
        (names.FILE_LOAD, results.load),
    ):
        if not table.empty:
            table.to_csv(target / file, index=False, float_format="%.8g")
    if results.study["dataset"] != names.CELEBA:  # its licence forbids to pass images on
        _collect_samples(results, target)


def _optional(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _collect_samples(results: Any, target: Path) -> None:
    """Keep the first samples and the first attacked one of the models of the first seed."""
    first = results.models[results.models[names.SEED] == results.models[names.SEED].iloc[0]]
    (target / names.FOLDER_ARRAYS).mkdir(exist_ok=True)
    for model in first[names.MODEL]:
        arrays = results.arrays(model)
        kept = {key: arrays[key] for key in ("originals", "reconstructions", "attack_radii")}
        kept |= {key: arrays[key][:1] for key in ("attack_originals", "decodings")}
        kept |= {key: arrays[key][:, :1] for key in ("attack_inputs", "attack_decodings")}
        small = {key: value.astype(np.float32) for key, value in kept.items()}
        np.savez_compressed(target / names.FOLDER_ARRAYS / f"{model}.npz", **small)


def render() -> str:
    """Return EXPERIMENTS.md."""
    parts = [INTRODUCTION]
    parts += list(_paper_studies())
    parts += [
        _paper_study(folder.name, load_results(folder), CONV_COMMAND, ", convolutions", CONV)
        for folder in sorted(study_tables.CONVOLUTIONS.glob("*"))
    ]
    parts += [_study(folder) for folder in sorted(RESULTS.glob("quick/*")) if folder.is_dir()]
    benchmarks = RESULTS / "benchmarks"
    for name, section in (("training", _training_benchmark), ("lipschitz", _lipschitz_benchmark)):
        path = benchmarks / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text(encoding="utf-8"))))
    for name, section in (
        ("attack_speed", _attack_speed),
        ("attack_quality", _attack_quality),
        ("attacks", _attack_benchmark),
    ):
        path = benchmarks / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text(encoding="utf-8"))))
    if (benchmarks / "tightness.csv").exists():
        parts.append(_tightness(pd.read_csv(benchmarks / "tightness.csv")))
    for name, section in (
        ("sweeps", _sweeps),
        ("together", _together),
        ("harmonics", _harmonics),
        ("conv_training", _conv_training),
        ("conv_norms", _conv_norms),
        ("conv_bounds", _conv_bounds),
        ("conv_lipsdp", _conv_lipsdp),
    ):
        path = benchmarks / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text(encoding="utf-8"))))
    return "\n".join(parts)


def _paper_studies() -> Iterator[str]:
    """Return the sections of the studies of paper length, and of the discrepancy."""
    found = study_tables.studies()
    for name, results in found.items():
        yield _paper_study(name, results, PAPER_COMMANDS[name])
    if found:
        yield IDENTITY + study_tables.identity(found | study_tables.convolutions()) + "\n"
    apart = {name: results for name, results in found.items() if len(results.discrepancy)}
    if apart:
        yield DISCREPANCY
        for name, results in apart.items():
            epochs = int(results.discrepancy[names.EPOCHS].iloc[0])
            yield f"### {study_tables.TITLES[name]}, {epochs} epochs\n"
            yield study_tables.discrepancy(results) + "\n"
    if study_tables.TABLE_4.exists():
        yield TABLE_4 + study_tables.attacks() + "\n\n" + SLIPS
        yield study_tables.attacks(variants=True) + "\n"


def _paper_study(name: str, results: Any, command: str, kind: str = "", note: str = "") -> str:
    """Return the section of one study of paper length."""
    study, machine = results.study, results.study["machine"]
    minutes, seconds = divmod(round(study["wall_seconds"]), 60)
    devices = sorted(set(results.models[names.DEVICE])) if names.DEVICE in results.models else []
    images = study["n_images"]
    return f"""
## {study_tables.TITLES[name]}{kind}: tables 1–3, trends, harmonics

```sh
{command}
```
{note}
{study["n_train"]} training and {study["n_validation"]} validation samples, {study["epochs"]}
epochs, {len(study["seeds"])} seeds, {len(results.models)} models, trained on
{", ".join(devices)}; evaluated in {minutes} min {seconds} s on {machine["cores"]} shared cores
({images} attacked images a model). Data digest {study["data_digest"][:16]}.

{study_tables.training(results)}

ℓ2 Lipschitz constants, mean ± sd over seeds. All upper bounds are certified; "best" is the least of
all methods with propagated ranges of the activations, and of networks with one input the constant
itself to 1e-4:

{study_tables.constants(results)}

Does a quantity fall as the noise grows? Largest σ over smallest: geometric mean over seeds with
Student's 95 % interval of its logarithm.

{study_tables.trends(results)}

Harmonic analysis, mean ± sd over seeds (sampled, no bounds):

{study_tables.harmonics(results)}
"""


def _study(folder: Path) -> str:
    """Return the section of one study."""
    results = load_results(folder)
    study, machine = results.study, results.study["machine"]
    minutes, seconds = divmod(round(study["wall_seconds"]), 60)
    texts = [to_terminal(training_table(results.models)), summarise(folder)]
    samples = f"{study['n_train']} training and {study['n_validation']} validation samples"
    blocks = "\n".join(f"```text\n{text}\n```\n" for text in texts)
    return f"""
## {study["dataset"]}, preset {study["preset"]}

```sh
{COMMANDS[study["dataset"]]}
```

{samples}, {study["epochs"]} epochs,
{len(study["seeds"])} seed(s), {len(results.models)} models, {study["n_jobs"]} at once; wall time
{minutes} min {seconds} s on {machine["cores"]} cores ({machine["device"]}, torch
{machine["torch"]}), without the start of MLflow.

{blocks}"""


def _training_benchmark(figures: dict[str, Any]) -> str:
    """Return the section of the training benchmark."""
    return f"""
## Training speed at CIFAR10 size

```sh
python benchmarks/training.py --rounds {figures["rounds"]} --json results/benchmarks/training.json
```

| loop | median seconds an epoch |
|---|---|
| HarmonicVAE | {figures["harmonicvae_seconds"]:.2f} |
| bare hand-written loop | {figures["bare_seconds"]:.2f} |
| TensorDataset + DataLoader | {figures["loader_seconds"]:.2f} |
| the matrix products alone | {figures["products_seconds"]:.2f} |

HarmonicVAE over bare: {figures["harmonicvae_over_bare"]:.3f}; DataLoader over HarmonicVAE:
{figures["loader_over_harmonicvae"]:.3f}; DataLoader over the matrix products alone, which no
float32 loop can exceed: {figures["loader_over_products"]:.3f} (medians of the ratios of
{figures["rounds"]} rounds in one run, {figures["threads"]} threads).
"""


def _lipschitz_benchmark(figures: dict[str, Any]) -> str:
    """Return the section of the benchmark of LipSDP-Neuron."""
    cases = [
        {
            "network": row["case"],
            "bound": f"{row['bound']:.6g}",
            "relative gap": f"{row['gap']:.1e}",
            "iterations": row["iterations"],
            "seconds": f"{row['seconds']:.2f}",
            "GFLOP": f"{row['gflop']:.0f}",
            "goal (s, GFLOP)": f"{row['goal_s']:g}, {row['goal_gflop']:g}",
            "peak MiB": f"{row['peak_mib']:.0f}",
        }
        for row in figures["cases"]
    ]
    conic = [
        {
            "hidden neurons": row["hidden"],
            "CVXPY with": row["solver"],
            "its seconds": f"{row['solver_seconds']:.3g}",
            "our seconds": f"{row['our_seconds']:.3g}",
            "ratio": f"{row['ratio']:.4g}",
            "its value / ours − 1": f"{row['difference']:.1e}",
        }
        for row in figures["conic"]
    ]
    return f"""
## Speed of LipSDP-Neuron

```sh
python benchmarks/lipschitz.py --rounds {figures["rounds"]} --json results/benchmarks/lipschitz.json
```

Random networks, certified, median of {figures["rounds"]} rounds on {figures["cores"]} cores. GFLOP:
seconds times the rate of float64 matrix products measured in the same process.

{_markdown(cases)}

One hidden layer, the same network in one process:

{_markdown(conic)}
{_unfinished(figures.get("unfinished", []))}"""


def _attack_speed(figures: dict[str, Any]) -> str:
    """Return the section of the default attack's time and memory."""
    return f"""
## Speed of the default attack

```sh
python benchmarks/attack_speed.py MODEL --data-dir DIR --images {figures["images"]} \\
  --json results/benchmarks/attack_speed.json
```

`{figures["method"]}` on {figures["images"]} CIFAR10 images and {figures["radii"]} radii (a model of
the quick preset, σ_enc = {figures["encoder_std"]:g}): {figures["seconds_per_image"]:.2f} s an image
for both radii ({figures["gradients"]} gradient evaluations an image), peak memory
{figures["peak_mib"]:.0f} MiB ({figures["before_mib"]:.0f} MiB before the attack),
{figures["cores"]} cores. The earlier reproduction took 14 hours for one image.
"""


def _attack_quality(rows: list[dict[str, Any]]) -> str:
    """Return the section of the default attack against ten times its budget."""
    table = [
        {
            "data set": row["dataset"],
            "σ_enc": f"{row['encoder_std']:g}",
            "C": f"{row['C']:g}",
            "images": row["images"],
            "damage": f"{row['damage']:.4g}",
            "damage / best found": f"{row['ratio']:.5f}",
            "least": f"{row['least']:.4f}",
            "best found by": row["best_rival"],
            "seconds an image": f"{row['seconds_per_image']:.2f}",
        }
        for row in rows
    ]
    return f"""
## The default attack against ten times its budget

```sh
python benchmarks/attack_quality.py MODEL … --dataset cifar10 --data-dir DIR \\
  --json results/benchmarks/attack_quality.json
```

`best` once, and every method with ten times its gradient evaluations an image; models of the quick
presets. "damage / best found": mean over images of the default's damage over the largest that any
of them found.

{_markdown(table)}
"""


def _attack_benchmark(figures: dict[str, Any]) -> str:
    """Return the section of the attacks against libraries at equal budgets."""
    budget = figures["budget"]
    rows = [
        {
            "model": row["case"],
            "C": f"{row['C']:g}",
            "method": row["method"],
            "images": int(row["images"]),
            "damage / best found": f"{float(row['ratio']):.5f}",
            "least": f"{float(row['least']):.4f}",
            "gradients an image": f"{row['gradients']:.0f}",
            "seconds an image": f"{row['s_image']:.3g}",
        }
        for row in figures["cases"]
    ]
    return f"""
## Attacks against libraries

```sh
python benchmarks/attacks.py --model MODEL … --data-dir DIR --restarts {budget["n_restarts"]} \\
  --steps {budget["n_steps"]} --json results/benchmarks/attacks.json
```

The same objective, no pixel box, {budget["n_restarts"] * budget["n_steps"]} gradient evaluations
an image for every method (SciPy: until it stops, {budget["seconds"]:g} s an image at most), judged
in one place in float64. "damage / best found": mean over images; the best is that of all methods of
the run.

{_markdown(rows)}
"""


def _unfinished(cases: list[str]) -> str:
    """Return which solvers did not finish."""
    return f"\nNot finished: {'; '.join(cases)}.\n" if cases else ""


def _tightness(table: pd.DataFrame) -> str:
    """Return the section of how tight the bounds of trained models are."""
    rows = [
        {
            "network": row["dims"],
            "side": row["side"],
            "σ_enc": f"{row['encoder_std']:g}",
            "σ_N": f"{row['input_noise_std']:g}",
            "epochs": row["epochs"],
            "norm product": f"{row['norm_product']:.4g}",
            "ECLipsE-Fast": f"{row['eclipse_fast']:.4g}",
            "ECLipsE": f"{row['eclipse']:.4g}",
            "LipSDP-Layer": f"{row['lipsdp_layer']:.4g}",
            "LipSDP-Neuron": f"{row['lipsdp_neuron']:.5g}",
            "gain of propagated slopes": f"{row['propagation_gain'] - 1.0:.1e}",
            "lower": f"{row['lower']:.4g}",
            "upper / lower": f"{row['ratio']:.3g}",
        }
        for row in table.to_dict("records")
    ]
    return f"""
## How tight the bounds of trained models are

```sh
python benchmarks/tightness.py MODEL … --output results/benchmarks/tightness.csv
```

One seed; models of the quick presets. Upper bounds certified, with slopes of the activation (¼);
"gain" is LipSDP-Neuron over the same with propagated slopes, minus 1. Lower: ascent from random
starts. For networks with one input the best upper bound is the exact constant (interval).

{_markdown(rows)}
"""


def _markdown(rows: list[dict[str, Any]]) -> str:
    """Return rows as a markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def _sweeps(figures: dict[str, Any]) -> str:
    """Return the section of the benchmark of sweeps."""
    rows = [
        {
            "backend": row["backend"],
            "epochs": str(row["epochs"]),
            "one worker": f"{row['seconds_one_worker']:.1f} s",
            "two workers": f"{row['seconds_two_workers']:.1f} s",
            "speed-up": f"{row['speed_up']:.2f}",
            "of each round": ", ".join(f"{ratio:.2f}" for ratio in row["speed_ups"]),
        }
        for row in figures["rows"]
    ]
    first, last = figures["rows"][0], figures["rows"][-1]
    return f"""
## A sweep in one and in two workers

```sh
python benchmarks/sweeps.py --epochs {first["epochs"]} --rounds {first["rounds"]}
python benchmarks/sweeps.py --epochs {last["epochs"]} --rounds {last["rounds"]} --backend loky
```

{_markdown(rows)}

Whole sweeps of {first["models"]} sinc models, one thread a worker, with starting the workers,
storing and registering; {figures["machine"]["cores"]} cores, load before
the start {figures["machine"]["load_before"]}.
"""


def _together(figures: dict[str, Any]) -> str:
    """Return the section of the benchmark of models trained together."""
    rows = [
        {
            "data": row["dataset"],
            "models": str(row["models"]),
            "a stack": str(row["models_a_stack"]),
            "rows": str(row["rows"]),
            "epochs": str(row["epochs"]),
            "device": str(row["machine"]["device"]).removeprefix("cpu") or "CPU",
            "threads": str(row["threads"]),
            "sequential / together, wall": f"{row['ratio']:.3f}",
            "processor time": f"{row['processor_time_ratio']:.3f}",
            "largest difference of weights": f"{_largest(row):.1e}",
        }
        for row in figures["runs"]
    ]
    return f"""
## Models trained together

```sh
python benchmarks/together.py --help
```

{_markdown(rows)}

Medians of ratios within rounds; differences relative to the largest weight of a tensor. On the CPU
nothing is gained, so `auto` trains together on a GPU only. What a stack took there in longer
trainings stands in the training column of the CIFAR10 and CelebA tables above.
"""


def _largest(row: dict[str, Any]) -> float:
    return max(row["largest_relative_difference"]["weights"])


def _harmonics(figures: dict[str, Any]) -> str:
    """Return the section of the benchmark of the harmonic analysis."""
    rows = [
        {
            "case": row["case"],
            "samples": str(row["samples"]),
            "GFLOP": f"{row['gflop_counted']:.0f}",
            "seconds": f"{row['seconds']:.1f}",
            "peak MiB": f"{row['peak_mib']:.0f}",
            "of these before": f"{row['before_mib']:.0f}",
            "threads": str(row["threads"]),
        }
        for row in figures["cases"]
    ]
    return f"""
## Harmonic analysis

```sh
python benchmarks/harmonics.py --json results/benchmarks/harmonics.json
```

{_markdown(rows)}
"""


def _conv_training(figures: dict[str, Any]) -> str:
    """Return the section of the training benchmark of convolutions."""
    return f"""
## Training convolutions

```sh
python benchmarks/conv_training.py --data-dir DIR --rounds {figures["rounds"]} \\
  --rows {figures["rows"]} --json results/benchmarks/conv_training.json
```

ConvHarmonicVAE over a bare loop of the same network:
{figures["conv_harmonicvae_over_bare"]:.3f}; over a channels-first loop of the same maps:
{figures["conv_harmonicvae_over_usual"]:.3f} (medians of {figures["rounds"]} rounds,
{figures["rows"]} images of CIFAR10, {figures["threads"]} thread); peak memory
{figures["peak_memory_gib"]:.2f} GiB.
"""


def _conv_norms(figures: dict[str, Any]) -> str:
    """Return the section of the benchmark of certified norms of convolutions."""
    rows = [
        {
            "image": f"{row['side']} × {row['side']}",
            "layer": f"{row['part']} {row['layer']}",
            "matrix": f"{row['outputs']} × {row['inputs']}",
            "certified norm": f"{row['certified']:.6g}",
            "over the reference − 1": f"{row['over_reference'] - 1:.1e}",
            "reference": row["reference"],
            "seconds": f"{row['seconds']:.2f}",
        }
        for row in figures["layers"]
    ]
    return f"""
## Certified norms of convolutions

```sh
python benchmarks/conv_norms.py --data-dir DIR --json results/benchmarks/conv_norms.json
```

{_markdown(rows)}
"""


def _conv_bounds(figures: dict[str, Any]) -> str:
    """Return the section of the benchmark of bounds of convolutional networks."""
    methods = {
        "norm_product": "norm product",
        "eclipse_fast": "ECLipsE-Fast",
        "lipsdp_layer": "LipSDP-Layer",
        "lipsdp_neuron": "LipSDP-Neuron",
        "lower": "lower",
    }
    cases = {(row["side"], row["part"], row["method"]): row for row in figures["cases"]}
    networks = sorted({(side, part) for side, part, _ in cases})
    values, costs = [], []
    for side, part in networks:
        found = {name: cases.get((side, part, name)) for name in methods}
        known = next(row for row in found.values() if row)
        network = {"image": f"{side} × {side}", "part": part, "hidden neurons": known["hidden"]}
        bounds = [row["value"] for name, row in found.items() if row and name != "lower"]
        values.append(
            network
            | {methods[name]: f"{row['value']:.4g}" if row else "–" for name, row in found.items()}
            | {"upper / lower": f"{min(bounds) / found['lower']['value']:.3g}"}
        )
        costs += [
            {
                "image": f"{side} × {side}",
                "part": part,
                "bound": methods[name],
                "status": row["status"],
                "processor seconds": f"{row['processor_seconds']:.1f}",
                "wall": f"{row['seconds']:.1f}",
                "peak MiB": f"{row['peak_mib']:.0f}",
                "of these before": f"{row['before_mib']:.0f}",
            }
            for name, row in found.items()
            if row
        ]
    return f"""
## Bounds of convolutional networks

```sh
OMP_NUM_THREADS=1 python benchmarks/conv_bounds.py --data-dir DIR --lipsdp \\
  --json results/benchmarks/conv_bounds.json
```

ConvHarmonicVAE with its default layers and a code of {figures["code"]} numbers,
{figures["epochs"]} epochs on {figures["rows"]} images of CIFAR10. Upper bounds certified, the
smallest over the lower bound; {figures["threads"]} thread on a machine busy with other work, which
the wall seconds show. LipSDP as dense matrices: of 32 × 32 pixels only. "–": not run.

{_markdown(values)}

{_markdown(costs)}
"""


def _conv_lipsdp(cases: list[dict[str, Any]]) -> str:
    """Return the section of LipSDP of trained convolutions on a GPU."""
    rows = [
        {
            "model": row["model"],
            "part": row["side"],
            "LipSDP-Neuron": f"{row['value']:.6g}",
            "status": row["status"],
            "relative gap": f"{row['gap']:.1e}",
            "iterations": str(row["iterations"]),
            "seconds": f"{row['seconds']:.1f}",
            "GPU peak MiB": f"{row['peak_mib']:.0f}",
        }
        for row in cases
    ]
    return f"""
## LipSDP of trained convolutional models on a GPU

```sh
python benchmarks/conv_lipsdp.py FOLDER/models --json results/benchmarks/conv_lipsdp.json
```

{cases[0]["device"]}, with the proof, which the processor makes: models of the study above, stopped
after a minute. The processor's seconds for the same bounds stand in
results/conv/cifar10/bounds.csv.

{_markdown(rows)}
"""


def main() -> None:
    """Run one of the two commands."""
    if sys.argv[1:2] == ["collect"] and len(sys.argv) == 4:
        collect(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:] == ["render"]:
        DOCUMENT.write_text(render(), encoding="utf-8")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
