from pathlib import Path

import pytest

from musicbox_env.data.dataset import Dataset
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic dataset folder, made once for all tests."""
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    synthesize(SyntheticConfig(sessions=600, tracks=200, seed=1), folder)
    return folder


@pytest.fixture(scope="session")
def synthetic(synthetic_folder: Path) -> Dataset:
    return Dataset(synthetic_folder)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A synthetic dataset of few sessions, quickly fitted on."""
    folder = tmp_path_factory.mktemp("few") / "data"
    return Dataset(synthesize(SyntheticConfig(sessions=150, tracks=100, seed=1), folder))


@pytest.fixture(scope="session")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A small synthetic dataset in which songs wear out those like them, late."""
    folder = tmp_path_factory.mktemp("worn") / "data"
    return Dataset(synthesize(SyntheticConfig(600, 200, 1, satiation="late"), folder))
