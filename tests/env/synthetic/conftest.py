"""A small synthetic dataset without embeddings."""

from pathlib import Path

import pytest
from small_synthetic import SMALL

from musicbox_env.data.dataset import Dataset
from musicbox_env.synthetic.generator import synthesize


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(SMALL, tmp_path_factory.mktemp("synthetic") / "data", embeddings=False)


@pytest.fixture(scope="session")
def dataset(folder: Path) -> Dataset:
    return Dataset(folder)
