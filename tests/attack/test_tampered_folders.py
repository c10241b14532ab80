"""Received folders and files that were tampered with are refused by name, or played in range."""

import re
from pathlib import Path

import pytest
from attacking import assert_all_held, attack
from tampering import mutations, prepare

FEWEST = 2_000
SAMPLE = 8
KINDS = "tampered folders: refused by name", "tampered folders: played in range"


@pytest.fixture(scope="module")
def received(synthetic_folder, tmp_path_factory) -> Path:
    """A dataset folder with a file of every kind that can be received."""
    folder = tmp_path_factory.mktemp("received") / "data"
    prepare(synthetic_folder, folder)
    return folder


def broken(outcome: dict[str, str]) -> str:
    """What is wrong with an outcome; empty where the folder was played or refused by name."""
    if not outcome["error"]:
        return ""
    by_name = Path(outcome["file"]).stem in outcome["message"] and outcome["file"]
    # Of another content of a catalog all that was fitted on it is refused.
    by_name = by_name or re.search(r"was made on a dataset of", outcome["message"])
    if outcome["error"] in ("FileError", "ValueError", "FileNotFoundError") and by_name:
        return ""
    return f"{outcome['done']}: {outcome['error']}: {outcome['message'][:300]}"


def test_some_tampered_folders_are_refused_or_played(received, tmp_path, cases):
    names = [name for name, *_ in mutations(received)]
    outcomes = attack(received, tmp_path, "played", names[7 :: len(names) // SAMPLE])
    assert_all_held(outcomes, broken, KINDS, cases)


@pytest.mark.slow
def test_all_tampered_folders_are_refused_or_played(received, tmp_path, cases):
    names = [name for name, *_ in mutations(received)]
    assert len(names) >= FEWEST
    assert len(names) == len(set(names))
    assert_all_held(attack(received, tmp_path, "played", names), broken, KINDS, cases)
