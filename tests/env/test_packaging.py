"""What a wheel holds is what the repository holds: every package, and every file beside code."""

import configparser
import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHERE = {
    "musicbox_env": ROOT / "musicbox_env",
    "musicbox_agents": ROOT / "agents/musicbox_agents",
    "musicbox_experiments": ROOT / "experiments/musicbox_experiments",
}


@pytest.fixture(scope="module")
def setup():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    return config


def folder_of(package):
    first, *rest = package.split(".")
    return WHERE[first].joinpath(*rest)


def test_every_folder_of_code_is_a_package_of_the_wheel(setup):
    there = {
        ".".join([name, *file.parent.relative_to(root).parts])
        for name, root in WHERE.items()
        for file in root.rglob("__init__.py")
    }
    assert set(setup["options"]["packages"].split()) == there


def test_every_other_file_is_data_of_its_package(setup):
    data = {
        folder_of(package): [pattern.strip() for pattern in patterns.split(",")]
        for package, patterns in setup["options.package_data"].items()
    }
    files = [
        file
        for root in WHERE.values()
        for file in root.rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    ]
    assert {file.name for file in files} >= {"py.typed", "synthetic.npz", "report.html"}
    for file in files:
        shipped = any(
            file.is_relative_to(folder)
            and any(fnmatch.fnmatch(str(file.relative_to(folder)), pattern) for pattern in patterns)
            for folder, patterns in data.items()
        )
        assert shipped, f"{file} is in no wheel"


def test_every_package_is_typed():
    assert all((root / "py.typed").is_file() for root in WHERE.values())
