"""What is stored of plays that are spelled plainly."""

import pytest
from spelled_plays import PLAIN, SESSIONS, ingested, stored


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    PLAIN.to_csv(folder / "plays.csv", index=False)
    found = stored(ingested(folder, [folder / "plays.csv"]))
    assert len(found) == SESSIONS
    assert {level for _, levels in found for level in levels} == {1, 4}
    return found
