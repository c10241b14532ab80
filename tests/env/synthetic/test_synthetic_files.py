"""Raw files, folders and the bundled dataset in the cache."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_synthetic import SMALL

from musicbox_env.cache import CACHE_VARIABLE
from musicbox_env.data.dataset import Dataset
from musicbox_env.locks import held, lock_file
from musicbox_env.schema import LOG_COLUMNS, PLAY_COLUMNS, TRACK_FEATURES, levels_from_labels
from musicbox_env.synthetic import generator as synthetic
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize, write_raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("raw") / "raw"
    write_raw(SMALL, out)
    return out


def test_raw_files_have_the_published_columns(raw: Path) -> None:
    log = pd.read_csv(raw / "sessions.csv.gz")
    assert tuple(log.columns) == LOG_COLUMNS
    assert log["session_id"].nunique() == SMALL.sessions
    labels = [log[name].to_numpy() for name in ("skip_1", "skip_2", "skip_3", "not_skipped")]
    _, consistent = levels_from_labels(*labels)
    assert consistent.all()
    assert log["date"].str.fullmatch(r"2018-\d\d-\d\d").all()
    tracks = pd.read_csv(raw / "tracks.csv")
    assert tuple(tracks.columns) == ("track_id", *TRACK_FEATURES)
    assert set(tracks["mode"]) == {"major", "minor"}


def test_ingesting_raw_files_gives_the_same_plays(
    raw: Path, dataset: Dataset, tmp_path: Path
) -> None:
    from musicbox_env.ingest.pipeline import IngestConfig, ingest

    config = IngestConfig(
        sources=(str(raw / "sessions.csv.gz"),),
        tracks=(str(raw / "tracks.csv"),),
        out=tmp_path / "ingested",
        embeddings=False,
        workers=1,
        progress=False,
    )
    ingested = Dataset(ingest(config))
    assert ingested.about["rejected"]["rows"] == 0
    assert ingested.sessions.session_ids.tolist() == dataset.sessions.session_ids.tolist()
    np.testing.assert_array_equal(ingested.sessions.split, dataset.sessions.split)
    assert ingested.catalog.track_ids.tolist() == dataset.catalog.track_ids.tolist()
    for name in PLAY_COLUMNS:
        np.testing.assert_array_equal(
            ingested.sessions.column(name), dataset.sessions.column(name), err_msg=name
        )
    np.testing.assert_allclose(
        ingested.catalog.features(), dataset.catalog.features(), rtol=1e-5, atol=1e-6
    )


def test_existing_folder_is_kept_unless_told(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="--overwrite"):
        synthesize(SMALL, folder, embeddings=False)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_raw(SMALL, folder)


def test_leftovers_of_a_killed_run_do_not_come_back(tmp_path: Path) -> None:
    partial = tmp_path / "data.partial"
    (partial / "embeddings").mkdir(parents=True)
    (partial / "embeddings" / "stale.npy").write_bytes(b"")
    made = synthesize(SyntheticConfig(sessions=20, tracks=100), tmp_path / "data", embeddings=False)
    assert not (made / "embeddings").exists()


@pytest.fixture
def small_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(synthetic, "BUNDLED", SyntheticConfig(sessions=200, tracks=150))
    return tmp_path / "cache"


def test_what_killed_first_uses_left_is_removed_but_not_what_is_in_the_making(
    small_bundle: Path,
) -> None:
    dead, alive = (small_bundle / f"synthetic-{name}.partial" for name in ("dead", "alive"))
    for folder in (dead, alive):
        (folder / "plays").mkdir(parents=True)
    lock_file(small_bundle / "synthetic-dead").touch()  # of a process that was killed
    with held(small_bundle / "synthetic-alive"):
        made = synthetic.bundled_dataset()
    assert sorted(f.name for f in small_bundle.iterdir()) == sorted([made.name, alive.name])


def test_raw_logs_are_the_same_bytes_at_any_time(tmp_path: Path, monkeypatch) -> None:
    small = SyntheticConfig(sessions=20, tracks=100)
    write_raw(small, tmp_path / "now")
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write_raw(small, tmp_path / "then")
    for name in ("sessions.csv.gz", "tracks.csv"):
        assert (tmp_path / "now" / name).read_bytes() == (tmp_path / "then" / name).read_bytes()


def test_bundled_dataset_is_made_once(small_bundle: Path) -> None:
    made = synthetic.bundled_dataset()
    assert made.parent == small_bundle
    stamp = (made / "dataset.json").stat().st_mtime_ns
    assert synthetic.bundled_dataset() == made
    assert synthetic.is_bundled(made)
    assert not synthetic.is_bundled(made.parent / "data")
    assert (made / "dataset.json").stat().st_mtime_ns == stamp
    assert Dataset(made).embedding_names
    assert [f.name for f in small_bundle.iterdir()] == [made.name]


def test_bundled_dataset_name_depends_on_what_makes_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(synthetic.PACKAGE, package)
    before = synthetic.fingerprint(synthetic.BUNDLED)
    assert synthetic.fingerprint(synthetic.BUNDLED, package) == before
    assert synthetic.fingerprint(SyntheticConfig(seed=1)) != before
    with (package / "synthetic/law.py").open("a") as law:
        law.write("# another law")
    assert synthetic.fingerprint(synthetic.BUNDLED, package) != before


def test_bundled_dataset_of_whoever_was_first_is_used(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = small_bundle / f"synthetic-{synthetic.fingerprint(synthetic.BUNDLED)}"

    def make_while_another_process_finishes(config: SyntheticConfig, out: Path) -> None:
        synthesize(config, out, embeddings=False)
        synthesize(config, final, embeddings=False)

    monkeypatch.setattr(synthetic, "synthesize", make_while_another_process_finishes)
    assert synthetic.bundled_dataset() == final
    assert [f.name for f in small_bundle.iterdir()] == [final.name]


@pytest.mark.slow
def test_bundled_dataset_survives_a_race(tmp_path: Path) -> None:
    """Two processes at once: all get the same whole dataset, and nothing else is left."""
    script = (
        "from musicbox_env.synthetic import generator as synthetic\n"
        "synthetic.BUNDLED = synthetic.SyntheticConfig(sessions=60, tracks=120)\n"
        "print(synthetic.bundled_dataset())\n"
    )
    environment = {**os.environ, CACHE_VARIABLE: str(tmp_path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = {process.communicate()[0].strip() for process in running}
    assert all(process.returncode == 0 for process in running)
    (only,) = answers
    assert [str(path) for path in tmp_path.iterdir()] == [only]
    assert Dataset(only).sessions.num_sessions == 60


MAKE_A_WORLD = """
import sys
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize
synthesize(SyntheticConfig(sessions=300, tracks=400), sys.argv[1])
"""


def test_a_world_does_not_depend_on_the_number_of_threads(tmp_path):
    """A training from Python and one by `make`, which allows one thread, are on the same songs."""
    for threads in ("1", "2"):
        allowed = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        subprocess.run(
            [sys.executable, "-c", MAKE_A_WORLD, str(tmp_path / threads)],
            env={**os.environ, **allowed},
            check=True,
        )
    one, two = tmp_path / "1", tmp_path / "2"
    files = [file.relative_to(one) for file in one.rglob("*.npy")]
    assert files
    assert not [file for file in files if (one / file).read_bytes() != (two / file).read_bytes()]
