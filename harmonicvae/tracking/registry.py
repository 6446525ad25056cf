"""Storing, registering and loading models: no pickle, names and aliases kept in order."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.exceptions import HarmonicVAEError, InputError, TrackingError
from harmonicvae.models import HarmonicVAE, load_estimator, save_estimator
from harmonicvae.tracking.specs import StoreSpec
from harmonicvae.tracking.storage import client_of

#: What a stored model needs to be loaded again.
_REQUIREMENTS = ("torch", "skorch", "scikit-learn", "numpy", "pandas", "mlflow")


def log_model(estimator: HarmonicVAE, params: Mapping[str, Any] | None = None) -> Any:
    """Store a fitted estimator in the active run, as models-from-code, without pickle.

    Parameters
    ----------
    estimator : HarmonicVAE
        Fitted.
    params : mapping, optional
        Parameters shown with the model.

    Returns
    -------
    mlflow.models.model.ModelInfo
    """
    # inputs are samples or, for inverse_transform, codes, in float32 or float64, as arrays
    # or DataFrames: more than one schema of MLflow's can say; the estimator checks them
    signature = ModelSignature(params=ParamSchema([ParamSpec("output", "string", "reconstruct")]))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # MLflow asks for an input example; the signature above is given in full
        warnings.filterwarnings("ignore", message=".*input example was not provided.*")
        saved = save_estimator(estimator, Path(folder) / "estimator")
        return mlflow.pyfunc.log_model(
            name=names.ARTIFACT_MODEL,
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts={"estimator": str(saved)},
            signature=signature,
            pip_requirements=[f"harmonicvae=={__version__}"]
            + [f"{package}=={metadata.version(package)}" for package in _REQUIREMENTS],
            params={key: str(value) for key, value in (params or {}).items()},
            model_type=names.MODEL_TYPE,
            metadata={"n_features": int(estimator.n_features_in_)},
        )


def ensure_registered_model(store: StoreSpec, name: str) -> None:
    """Create the registered model where there is none; to be called by one process only."""
    client = client_of(store)
    try:
        client.get_registered_model(name)
    except MlflowException:
        description = "Variational autoencoders trained by harmonicvae."
        try:
            client.create_registered_model(name, description=description)
        except MlflowException:  # another process was faster, or the store refuses
            client.get_registered_model(name)


def register(
    store: StoreSpec, name: str, model_uri: str, run_id: str, alias: str, tags: Mapping[str, Any]
) -> str:
    """Register a stored model as the next version and point the alias to it, once a run.

    Parameters
    ----------
    store : StoreSpec
    name : str
        Registered model; must exist.
    model_uri : str
        ``models:/m-…`` of the stored model.
    run_id : str
        Run that trained it.
    alias : str
        Moves from an earlier version to this one.
    tags : mapping
        Tags of the version.

    Returns
    -------
    str
        ``models:/name/version``.
    """
    client = client_of(store)
    model_id = model_uri.rpartition("/")[2]
    version = version_of(store, name, run_id)
    if version is None:
        version = client.create_model_version(
            name,
            source=model_uri,
            run_id=run_id,
            tags={key: str(value) for key, value in tags.items()},
            model_id=model_id if model_id.startswith("m-") else None,
        ).version
        client.set_registered_model_alias(name, alias, version)
    return f"models:/{name}/{version}"


def version_of(store: StoreSpec, name: str, run_id: str) -> str | None:
    """Return the version of a registered model that a run has trained; None if there is none."""
    found = client_of(store).search_model_versions(f"name='{name}' and run_id='{run_id}'")
    return max((version.version for version in found), key=int, default=None)


def load_model(uri: str, *, device: str = "auto") -> HarmonicVAE:
    """Load a model from MLflow as a fitted estimator.

    Parameters
    ----------
    uri : str
        ``models:/name/version``, ``models:/name@alias``, ``models:/m-…`` or
        ``runs:/id/model``; a folder written by ``save_estimator`` works too.
    device : str, default="auto"
        Where to put the modules.

    Returns
    -------
    HarmonicVAE
        Fitted.

    Raises
    ------
    TrackingError
        If there is no such model, or it is not one of harmonicvae's.

    Notes
    -----
    Nothing is unpickled and no stored code is run.
    """
    if isinstance(uri, (str, os.PathLike)) and Path(uri).is_dir():
        return load_estimator(uri, device=device)
    if not isinstance(uri, str) or ":/" not in uri:
        raise InputError(
            f"uri must look like 'models:/name/1', 'models:/name@alias' or 'runs:/id/model', "
            f"got {uri!r}"
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
            return load_estimator(path / "artifacts" / "estimator", device=device)
    except (MlflowException, OSError) as error:
        raise TrackingError(f"no model at {uri!r}: {error}") from error
    except HarmonicVAEError as error:
        raise TrackingError(f"{uri!r} is not a model of harmonicvae: {error}") from error


def training_tags(uri: str) -> dict[str, str]:
    """Return the tags of the run that trained a model ({} if it is unknown)."""
    try:
        run_id = mlflow.models.get_model_info(uri).run_id
        return dict(MlflowClient().get_run(run_id).data.tags) if run_id else {}
    except (MlflowException, OSError) as error:
        raise TrackingError(f"no model at {uri!r}: {error}") from error
