"""Jobs that nothing disturbs, for all attacks to be compared with."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
from jobs import Sources, Workplace, make_sources


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Gives the folder that jobs read from, made when it is first asked for."""
    return cache(lambda: make_sources(tmp_path_factory.mktemp("sources")))


@pytest.fixture(scope="session")
def undisturbed(
    sources: Sources, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, tuple[float, dict[str, bytes]]]:
    """Of each job, made when it is first asked for: seconds that it takes, and what it leaves."""

    class Runs(dict[str, tuple[float, dict[str, bytes]]]):
        def __missing__(self, job: str) -> tuple[float, dict[str, bytes]]:
            place = Workplace(tmp_path_factory.mktemp("whole") / "place", sources, job)
            began = time.monotonic()
            place.run(PYTHONHASHSEED="1")
            self[job] = time.monotonic() - began, place.bytes()
            return self[job]

    return Runs()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print of each module of attacks how many tests were tried, and how many held."""
    held = Counter(_kind(report) for report in terminalreporter.stats.get("passed", []))
    broken = Counter(_kind(report) for report in terminalreporter.stats.get("failed", []))
    for kind in sorted({*held, *broken} - {""}):
        tried = held[kind] + broken[kind]
        terminalreporter.write_line(f"{kind}: {tried} tried, {held[kind]} held")


def _kind(report: pytest.TestReport) -> str:
    file = Path(report.nodeid.partition("::")[0])
    return file.stem.removeprefix("test_") if file.parent.name == "attack" else ""
