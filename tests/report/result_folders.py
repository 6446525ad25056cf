"""Synthetic result folders: study-shaped input for the report, with nasty names and numbers.

Nothing here was trained.  The numbers are drawn from seeded generators, so that
every expected value in the tests is computed from the same frames.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names

SEEDS = ("14609714069366804553", "10209623728859046282", "13978253786968215756")
GRID = ((1.0, 0.0), (0.5, 0.0), (0.1, 0.0), (0.5, 1.0), (0.5, 0.5))
NASTY = "<script>alert(1)<|script>$x_1$ ünï “日本” & 'q\" \\frac{"
RADII = (10.0, 20.0)


def model_names(count: int, *, nasty: bool) -> list[str]:
    return [f"{NASTY}-{index}" if nasty else f"model-{index:02d}" for index in range(count)]


def build_models(dataset: str, seeds: tuple[str, ...], *, nasty: bool) -> pd.DataFrame:
    draw = np.random.default_rng(7)
    grid = [(std, noise, seed) for std, noise in GRID for seed in seeds]
    rows = []
    for model, (std, noise, seed) in zip(model_names(len(grid), nasty=nasty), grid, strict=True):
        row: dict[str, Any] = {
            names.MODEL: model,
            "run_id": "0" * 32,
            "model_uri": f"models:/{model}/1",
            names.DATASET: dataset,
            names.ENCODER_STD: std,
            names.INPUT_NOISE_STD: noise,
            names.SEED: seed,
            names.EPOCHS: 30,
            names.TRAIN_SECONDS: draw.uniform(3, 5),
            names.ELBO: -300 - draw.uniform(0, 20),
            names.SQUARED_ERROR: draw.uniform(5, 20),
            names.ACTIVE_UNITS: int(draw.integers(0, 3)),
            names.DECODING_VARIANCE_RATIO: draw.uniform(0, 1),
            names.COLLAPSED: bool(draw.integers(0, 5) == 0),
        }
        for side in names.SIDES:
            lower = draw.uniform(1, 20)
            product, eclipse = lower * draw.uniform(4, 8), lower * draw.uniform(2, 4)
            row |= {
                names.lipschitz_lower(side): lower,
                names.lipschitz_upper(side): eclipse,
                names.lipschitz_ratio(side): eclipse / lower,
                names.lipschitz_upper(side, "norm_product"): product,
                names.lipschitz_upper(side, "eclipse_fast"): eclipse,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def build_history(models: pd.DataFrame, epochs: int = 30) -> pd.DataFrame:
    draw = np.random.default_rng(8)
    frames = []
    for model in models[names.MODEL]:
        epoch = np.arange(1, epochs + 1)
        loss = 900 * np.exp(-epoch / 6) + 20 + draw.normal(0, 1, epochs)
        frames.append(
            pd.DataFrame(
                {
                    names.MODEL: model,
                    names.EPOCH: epoch,
                    names.TRAIN_LOSS: loss,
                    names.TRAIN_RECONSTRUCTION: loss - 3,
                    names.TRAIN_KL: 3.0,
                    names.VALID_LOSS: loss * 1.1,
                    names.EPOCH_SECONDS: 0.1,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def build_bounds(models: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in models.to_dict("records"):
        for side in names.SIDES:
            values = (
                ("upper", "norm_product", row[names.lipschitz_upper(side, "norm_product")]),
                ("upper", "eclipse_fast", row[names.lipschitz_upper(side, "eclipse_fast")]),
                ("lower", "sampled_jacobian", row[names.lipschitz_lower(side)]),
                ("estimate", "gradient", 1.0),
            )
            for kind, method, value in values:
                status = "estimate" if kind == "estimate" else "float64"
                rows.append(
                    (row[names.MODEL], side, kind, method, value, status, "l2", "global", 1)
                    + ("activation", "")
                )
    return pd.DataFrame(rows, columns=list(names.BOUND_COLUMNS))


def build_attacks(models: pd.DataFrame, images: int = 2) -> pd.DataFrame:
    draw = np.random.default_rng(9)
    rows = [
        (model, image, radius, "apgd", *draw.uniform(1, 9, 1), *draw.uniform(0, 1, 5))
        for model in models[names.MODEL]
        for image in range(images)
        for radius in RADII
    ]
    frame = pd.DataFrame(rows, columns=[*names.ATTACK_COLUMNS])
    frame[names.DEGRADATION] *= -1
    return frame


def build_load(count: int = 400) -> pd.DataFrame:
    draw = np.random.default_rng(10)
    return pd.DataFrame(
        {
            "seconds": np.arange(count) * 0.5,
            "cpu_percent": draw.uniform(40, 200, count),
            "memory_mib": np.linspace(300, 900, count),
            "phase": np.repeat(["train", "bound <b>$a$", "attack", "report"], count // 4),
        }
    )


def build_arrays(image_shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    size = int(np.prod(image_shape))
    if image_shape[1:] == (2,):
        t = np.sort(draw.uniform(-1, 1, (2, image_shape[0])), axis=1)
        originals = np.stack([np.sinc(5 * t) * 1.6 - 0.6, t], axis=2).reshape(2, size)
    else:
        h, w, c = image_shape
        y, x = np.mgrid[-1 : 1 : 1j * h, -1 : 1 : 1j * w]
        waves = [
            np.sin(3 * (x * np.cos(k + j) + y * np.sin(k + j))) for k in range(4) for j in range(c)
        ]
        originals = np.moveaxis(np.reshape(waves, (4, c, h, w)), 1, 3).reshape(4, size)
    originals = originals.astype(np.float32)
    noisy = lambda scale: originals[:1] + draw.normal(0, scale, (2, 1, size))  # noqa: E731
    return {
        "originals": originals,
        "reconstructions": originals * 0.8,
        "attack_images": np.array([0]),
        "attack_radii": np.array(RADII),
        "attack_originals": originals[:1],
        "attack_inputs": noisy(0.2),
        "attack_decodings": noisy(0.5) * 0.8,
        "decodings": originals[:1] * 0.8,
    }


def build_study(
    dataset: str, image_shape: tuple[int, ...], seeds: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "preset": "quick",
        "epochs": 30,
        "seeds": list(seeds),
        "encoder_std": [1.0, 0.5, 0.1],
        "input_noise_std": [1.0, 0.5, 0.0],
        "radii": list(RADII),
        "n_train": 4096,
        "n_validation": 1,
        "image_shape": list(image_shape),
        "data_digest": "0123abcd",
        "wall_seconds": 171.3,
        "started": "2025-11-23T01:02:03+00:00",
        "version": "0.1.0",
        "machine": {
            "cpu": "Example <CPU>",
            "cores": 2,
            "memory_gib": 15.6,
            "torch": "2.13.0",
            "python": "3.11",
            "device": "cpu",
        },
        "experiment": "study & more",
        "tracking_uri": "https://user:secret@example.org/mlflow",
        "study_run_id": "f" * 32,
        "command": f"mlflow run . --env-manager local -P dataset={dataset}",
        "reproduction_errors": [],
        "failures": [],
    }


def write_results(
    parent: Path,
    dataset: str = "sinc",
    image_shape: tuple[int, ...] = (172, 2),
    seeds: tuple[str, ...] = SEEDS,
    *,
    nasty: bool = False,
    arrays: bool = True,
    name: str = "results",
    study: dict[str, Any] | None = None,
    **tables: pd.DataFrame | bytes | None,
) -> Path:
    """Write a result folder; keywords replace or (None) leave out a file."""
    folder = parent / name
    (folder / names.FOLDER_ARRAYS).mkdir(parents=True)
    models = tables.get("models", build_models(dataset, seeds, nasty=nasty))
    default = build_models(dataset, seeds, nasty=nasty)
    contents: dict[str, Any] = {
        names.FILE_MODELS: models,
        names.FILE_HISTORY: build_history(default),
        names.FILE_BOUNDS: build_bounds(default),
        names.FILE_ATTACKS: build_attacks(default),
        names.FILE_MARGINS: build_margins(default),
        names.FILE_LOAD: build_load(),
    }
    contents |= {f"{key}.csv": value for key, value in tables.items()}
    for file, content in contents.items():
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        elif content is not None:
            content.to_csv(folder / file, index=False)
    for index, model in enumerate(default[names.MODEL] if arrays else ()):
        path = folder / names.FOLDER_ARRAYS / f"{model}.npz"
        np.savez(path, **build_arrays(image_shape, index))
    entries = build_study(dataset, image_shape, seeds) | (study or {})
    (folder / names.FILE_STUDY).write_text(json.dumps(entries), encoding="utf-8")
    return folder


def build_margins(models: pd.DataFrame, images: int = 3) -> pd.DataFrame:
    draw = np.random.default_rng(10)
    columns = [
        names.MODEL,
        names.IMAGE,
        names.RELATIVE_R,
        "r",
        "status",
        names.CERTIFIED_MARGIN,
        names.FIRST_ORDER_MARGIN,
        *(names.robustness_column(radius) for radius in RADII),
    ]
    rows = [
        (model, image, share, 9 * share, "certified", *draw.uniform(0, 1, 2 + len(RADII)))
        for model in models[names.MODEL]
        for image in range(images)
        for share in (0.5, 1.0)
    ]
    return pd.DataFrame(rows, columns=columns)
