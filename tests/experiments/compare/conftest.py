"""The report of a made-up comparison, written once."""

import json
from pathlib import Path

import pytest
from musicbox_experiments.compare.report import write_report
from toy_studies import RESAMPLES, toy_study


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(out, toy_study(), resamples=RESAMPLES)
    return out


@pytest.fixture(scope="session")
def summary(written: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((written / "summary.json").read_text(), parse_constant=refuse)
