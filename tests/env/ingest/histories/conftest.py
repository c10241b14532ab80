"""Plays that several tests of histories read."""

import pytest
from make_histories import History, make_history
from spelled_plays import PLAIN, SESSIONS, ingested, stored


@pytest.fixture(scope="module")
def history() -> History:
    return make_history(80, tracks=200, days=300, seed=5)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    PLAIN.to_csv(folder / "plays.csv", index=False)
    found = stored(ingested(folder, [folder / "plays.csv"]))
    assert len(found) == SESSIONS
    assert {level for _, levels in found for level in levels} == {1, 4}
    return found
