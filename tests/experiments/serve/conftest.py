"""A run of all agents, untrained, and its service on a port of this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from musicbox_agents import AGENTS
from musicbox_experiments.serve.client import Client
from musicbox_experiments.serve.engine import Engine
from musicbox_experiments.serve.service.app import create_app
from musicbox_experiments.serve.service.guard import Limits
from musicbox_experiments.serve.service.look import Looker
from served_runs import TOKEN, served, write_training


@pytest.fixture(scope="session")
def run(tmp_path_factory, synthetic) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "all"
    for name in AGENTS:
        write_training(folder, name, synthetic)
    return folder


@pytest.fixture(scope="session")
def engine(run) -> Engine:
    return Engine.open(run)


@pytest.fixture(scope="session")
def looker(engine) -> Looker:
    return Looker(engine)


@pytest.fixture(scope="session")
def address(engine, looker) -> Iterator[str]:
    with served(create_app(engine, looker)) as address:
        yield address


@pytest.fixture(scope="session")
def guarded(engine, looker) -> Iterator[str]:
    """The same with a token, checks of the host's name, and short limits."""
    limits = Limits(body=10_000, receiving=0.3)
    app = create_app(
        engine, looker, token=TOKEN, hosts=("127.0.0.1", "::1", "Localhost"), limits=limits
    )
    with served(app) as address:
        yield address


@pytest.fixture
def client(address) -> Iterator[Client]:
    with Client(address, retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    from browsing import CHROMIUM, sync_playwright  # for tests of the page alone

    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; Debian has it as the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address) -> Callable[..., Any]:
    """Opens the page of all agents, or of another address; see `browsing.opening`."""
    from browsing import opening

    def open_page(where: str = address, **options: Any) -> Any:
        return opening(browser, where, **options)

    return open_page
