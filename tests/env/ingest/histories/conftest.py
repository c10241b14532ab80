"""Plays that several tests of histories read."""

import pytest
from make_histories import History, make_history


@pytest.fixture(scope="session")
def history() -> History:
    return make_history(80, tracks=200, days=300, seed=5)
