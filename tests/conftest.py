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
