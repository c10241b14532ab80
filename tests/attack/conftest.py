"""Jobs that nothing disturbs, for all attacks to be compared with."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
from jobs import SMALL_BUNDLE, Sources, Workplace, files_left, make_sources

from musicbox_env.cache import CACHE_VARIABLE
from musicbox_env.synthetic import generator

CASES = "cases"


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


@pytest.fixture(scope="session")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the job of this name leaves, made in this process."""
    folder = tmp_path_factory.mktemp("first_use")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        patch.setattr(generator, "BUNDLED", generator.SyntheticConfig(**SMALL_BUNDLE))
        generator.bundled_dataset()
    return files_left(folder)


@pytest.fixture
def cases(record_property: Callable[[str, object], None]) -> Callable[[str, int, int], None]:
    """Notes how many cases of a kind a test tried, and how many held; else a test is one."""

    def count(kind: str, tried: int, held: int) -> None:
        record_property(CASES, (kind, tried, held))

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a table of how many cases of each kind of attack were tried, and how many held."""
    tried, held = Counter[str](), Counter[str]()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            if Path(report.nodeid.partition("::")[0]).parent.name == "attack":
                noted = [found for name, found in report.user_properties if name == CASES]
                for kind, cases, held_of_them in noted or [_as_one_case(report, outcome)]:
                    tried[kind] += cases
                    held[kind] += held_of_them
    rows = [(kind, f"{tried[kind]:,}", f"{held[kind]:,}") for kind in sorted(+tried)]
    for row in [("kind", "tried", "held"), ("---",) * 3, *rows] if rows else []:
        terminalreporter.write_line(f"| {' | '.join(row)} |")


def _as_one_case(report: pytest.TestReport, outcome: str) -> tuple[str, int, int]:
    test = report.nodeid.rpartition("::")[2].partition("[")[0]
    return test.removeprefix("test_").replace("_", " "), 1, int(outcome == "passed")
