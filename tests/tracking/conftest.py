"""Shared by the tests that need a trained model in an MLflow store."""

import mlflow
import pytest


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An MLflow store of its own, for this process and for those it starts."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield folder
    mlflow.set_tracking_uri(before)
    patch.undo()
