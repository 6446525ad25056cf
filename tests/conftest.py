"""Fixtures and settings of all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test asserts times, so none may fail for a slow machine; CI draws the same examples
# every time, everywhere else they are new ones.
settings.register_profile("any-machine", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "any-machine")

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure(config):
    """Keep torch from starting more threads than the parallel test workers leave it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cifar10_dir():
    """Folder that contains the real cifar-10-batches-py."""
    folder = Path(os.environ.get("HARMONICVAE_CIFAR10_DIR", "~/data")).expanduser()
    if folder.name != "cifar-10-batches-py" and not (folder / "cifar-10-batches-py").is_dir():
        pytest.skip(f"no real CIFAR-10 in {folder}; set HARMONICVAE_CIFAR10_DIR")
    return folder


@pytest.fixture(scope="session")
def celeba_dir():
    """Folder with real CelebA images; treat it as read-only and give a cache_dir."""
    default = REPOSITORY.parent / "shared" / "data" / "celeba"
    folder = Path(os.environ.get("HARMONICVAE_CELEBA_DIR", default)).expanduser()
    if not (folder / "list_eval_partition.txt").is_file():
        pytest.skip(f"no real CelebA in {folder}; set HARMONICVAE_CELEBA_DIR")
    return folder


@pytest.fixture(scope="session")
def celeba_cache_dir(tmp_path_factory):
    """Folder for the decoded images of this test session."""
    return tmp_path_factory.mktemp("celeba-cache")
