"""Parts made into columns side by side: the same bytes whoever does it, and wherever."""

import functools

import numpy as np
import pyarrow as pa
import pytest
from ingest_runs import contents, rejects_of, run
from make_logs import make_log, write_csv

from musicbox_env.ingest.assembly import hash_ids
from musicbox_env.ingest.columns import duplicates as duplicates_module
from musicbox_env.ingest.columns import tracks
from musicbox_env.ingest.columns.duplicates import duplicates
from musicbox_env.ingest.columns.slices import MARK, SLICES
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.workers import Processes


@pytest.fixture
def logs(tmp_path):
    """Five logs, of which two share sessions with others."""
    for number in range(5):
        log = make_log(60, seed=number, prefix=f"p{number % 3}_", num_tracks=90)
        write_csv(log, tmp_path / f"logs/{number}.csv")
    return tmp_path / "logs"


@pytest.mark.parametrize("range_size", [1, 7, 1 << 24])
def test_sessions_that_came_before_against_brute_force(tmp_path, monkeypatch, range_size):
    monkeypatch.setattr(duplicates_module, "HASHES_A_RANGE", range_size)
    rng = np.random.default_rng(0)
    files, expected, seen = [], [], set()
    for number in range(4):
        ids = [f"s{i}" for i in rng.integers(0, 60, 25)]
        files.append(tmp_path / str(number))
        files[-1].write_bytes(hash_ids(pa.array(ids)).data)
        expected.append([i for i, name in enumerate(ids) if name in seen or seen.add(name)])
    found = duplicates(files)
    assert [part.tolist() for part in found] == expected
    assert sum(map(len, expected)) > 20


def test_a_log_of_which_nothing_is_kept_adds_nothing(tmp_path):
    """All its sessions came before."""
    for name in ("a", "b"):
        write_csv(make_log(30), tmp_path / f"logs/{name}.csv")
    twice = run(tmp_path, tmp_path / "logs", out="twice", max_rejects=0.6)
    once = run(tmp_path, tmp_path / "logs/a.csv", out="once")
    assert twice.about["identity"] == once.about["identity"]
    assert twice.about["duplicate_sessions"] == 30


def test_parts_without_a_common_session_have_no_duplicates(tmp_path):
    (tmp_path / "a").write_bytes(np.arange(5, dtype=np.uint64).data)
    (tmp_path / "b").write_bytes(b"")
    assert [len(part) for part in duplicates([tmp_path / "a", tmp_path / "b"])] == [0, 0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"session_length": 12}, marks=pytest.mark.slow),
        pytest.param({"incomplete": "drop"}, marks=pytest.mark.slow),
    ],
)
def test_two_processes_write_the_same_bytes(tmp_path, logs, monkeypatch, options):
    alone = run(tmp_path, logs, out="alone", max_rejects=0.5, **options)
    monkeypatch.setattr(tracks, "PLAYS_A_RANGE", 100)
    two = run(tmp_path, logs, out="two", max_rejects=0.5, workers=2, **options)
    assert contents(alone.folder) == contents(two.folder)
    assert alone.about["duplicate_sessions"] == 120
    assert len(rejects_of(alone.folder)) > 1_000


class _Elsewhere(Processes):
    """Does the last piece first, and sees the folder of nobody else."""

    def __init__(self, out, sent):
        super().__init__(1)
        self._mark, self._sent = out.with_name(f"{out.name}.partial") / SLICES / MARK, sent

    def __call__(self, pieces, progress):
        mark = self._mark.read_text() if self._mark.exists() else None
        if mark is not None:
            self._mark.unlink()
        done = [(n, piece.work(*piece.arguments, progress)) for n, piece in enumerate(pieces)]
        if mark is not None:
            self._mark.write_text(mark)
            self._sent += [result for _, result in done]
        yield from reversed(done)


def test_a_machine_that_does_not_see_the_folder_sends_what_belongs_there(tmp_path, logs):
    here = run(tmp_path, logs, out="here", max_rejects=0.5)
    sent = []
    out, common = tmp_path / "there", {"embeddings": False, "progress": False, "max_rejects": 0.5}
    ingest(IngestConfig((str(logs),), out, **common), functools.partial(_Elsewhere, out, sent))
    assert contents(out) == contents(here.folder)
    assert len(sent) == 5
    assert all("track" in columns for columns in sent)
