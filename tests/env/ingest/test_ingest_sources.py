"""Files of logs and track features: limits, filters, and what is refused or passed over."""

import gzip
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ingest_runs import rejects_of, run, stored_plays
from make_logs import make_features, make_log, passed_over, plays_of, write_csv

from musicbox_env.data.splits import SplitConfig
from musicbox_env.ingest.pipeline import IngestConfig


def test_the_first_filters_come_after_sessions_are_evaluated(tmp_path):
    """A session of 20 with unpopular songs is a session of 20; one of 15 never is."""
    log = make_log(60, lengths=[20] * 40 + [15] * 20, num_tracks=150)
    tracks = sorted(set(log["track_id_clean"]))
    features = make_features(tracks[:120])
    features.loc[3, "us_popularity_estimate"] = np.nan
    popular = set(features.loc[features["us_popularity_estimate"] >= 95, "track_id"])
    dataset = run(
        tmp_path,
        write_csv(log, tmp_path / "log.csv"),
        tracks=(str(write_csv(features, tmp_path / "tracks.csv")),),
        session_length=20,
        min_popularity=95,
        split=SplitConfig(train=0.5, validation=0.0, test=0.5, seed=3),
    )
    of_length = plays_of(log[log["session_length"] == "20"])
    left = {s: [p for p in plays if p[1] in popular] for s, plays in of_length.items()}
    assert stored_plays(dataset) == {s: plays for s, plays in left.items() if len(plays) >= 2}
    filters = dataset.about["filters"]
    assert filters["session_length"] == {
        "exactly": 20,
        "sessions_dropped": 20,
        "plays_dropped": 300,
    }
    assert filters["min_popularity"]["plays_dropped"] == 800 - sum(map(len, left.values()))
    short = [plays for plays in left.values() if len(plays) < 2]
    assert filters["fewer_than_two_plays"]["sessions_dropped"] == len(short)
    assert set(dataset.catalog.track_ids) == popular
    assert dataset.about["split"]["seed"] == 3
    assert len(dataset.sessions.sessions_in("validation")) == 0


def test_the_row_limit_counts_over_files(tmp_path):
    logs = [make_log(10, seed=i, prefix=f"f{i}_", lengths=[10] * 10) for i in range(3)]
    for i, log in enumerate(logs):
        write_csv(log, tmp_path / f"logs/{i}.csv")
    dataset = run(tmp_path, tmp_path / "logs", max_rows=135)
    rows = pd.concat(logs).iloc[:135]
    assert stored_plays(dataset) == plays_of(rows)
    assert dataset.about["rows_read"] == 135
    assert dataset.about["incomplete_sessions"]["found"] == 1


def test_foreign_files_are_passed_over_in_a_folder_and_refused_by_name(tmp_path):
    write_csv(make_log(10), tmp_path / "logs/log.csv")
    foreign = {"README.txt": b"About these logs\n", "cover.png": b"\x89PNG\0\0", "_SUCCESS": b""}
    for name, content in foreign.items():
        (tmp_path / "logs" / name).write_bytes(content)
    write_csv(make_features(["t_0001"]), tmp_path / "logs/tracks.csv")
    (tmp_path / "logs/means.csv").write_text("session_position,skip_2\n1,0.374\n")
    dataset = run(tmp_path, tmp_path / "logs")
    assert dataset.about["passed_over"]["files"] == 5
    names = {Path(name).name for name in passed_over(dataset)}
    assert names == {*foreign, "tracks.csv", "means.csv"}
    for name, message in [
        ("README.txt", "is no listening log: columns session_id.*About these logs found"),
        ("cover.png", "is neither text"),
        ("_SUCCESS", "is empty"),
        ("tracks.csv", "holds features of tracks: name it with --tracks"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            run(tmp_path, tmp_path / "logs" / name, tmp_path / "logs/log.csv", out=name)
    (tmp_path / "logs/log.csv").unlink()
    with pytest.raises(ValueError, match="No listening log among the 5 files"):
        run(tmp_path, tmp_path / "logs", out="none")


def test_missing_columns_are_named_with_what_was_found(tmp_path):
    log = make_log(5).drop(columns=["skip_2", "session_length"])
    write_csv(log, tmp_path / "logs/log.csv")
    message = r"log\.csv: missing columns session_length, skip_2; found session_id, session_posi"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, tmp_path / "logs")


def test_a_log_without_rows(tmp_path):
    path = write_csv(make_log(5).iloc[:0], tmp_path / "log.csv")
    for text in (path.read_text(), path.read_text().rstrip()):
        path.write_text(text)
        with pytest.raises(ValueError, match="0 rows read: the sources hold headers at most"):
            run(tmp_path, path)
    assert not (tmp_path / "out").exists()


def test_a_log_of_nothing_but_broken_rows(tmp_path):
    path = write_csv(make_log(5).iloc[:0], tmp_path / "log.csv")
    path.write_text(path.read_text() + "a,b\n\nc\n")
    with pytest.raises(
        ValueError, match=r"2 of 2 rows[\s\S]*2  wrong number of fields[\s\S]*source\.$"
    ):
        run(tmp_path, path)
    with pytest.raises(ValueError, match="No session is left of 2 rows read"):
        run(tmp_path, path, max_rejects=1.0)
    assert rejects_of(tmp_path / "out.partial")["line"].tolist() == [2, 4]


def test_a_truncated_gzip_is_named(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(make_log(50).to_csv(index=False).encode())[:-500])
    with pytest.raises(ValueError, match=r"log\.csv\.gz: cannot be read to its end"):
        run(tmp_path, path)
    assert not (tmp_path / "out").exists()


def test_track_features(tmp_path):
    log = make_log(30, num_tracks=40)
    tracks = sorted(set(log["track_id_clean"]))
    features = make_features([*tracks[:30], "t_never_played"])
    features.loc[2, "tempo"] = np.nan
    some = features.iloc[:5][["track_id", "tempo", "mode"]].assign(mode="major")
    again = features.iloc[5:8]
    text = pd.concat([features, again], ignore_index=True).astype(object)
    text.loc[len(text)] = text.loc[0]
    text.loc[len(text) - 1, ["track_id", "energy"]] = ["t_bad", "loud"]
    text.loc[len(text)] = text.loc[0]
    text.loc[len(text) - 1, "track_id"] = ""
    write_csv(text, tmp_path / "features/tf_0.csv")
    some.to_parquet(tmp_path / "features/tf_1.parquet")
    dataset = run(
        tmp_path,
        write_csv(log, tmp_path / "log.csv"),
        tracks=(str(tmp_path / "features"),),
        max_rejects=0.06,
    )
    told = dataset.about["track_features"]
    assert told["rows_read"] == 31 + 3 + 2 + 5
    assert (told["tracks"], told["repeated_rows"], told["conflicting_rows"]) == (31, 3, 5)
    assert told["rejected"]["reasons"] == {
        "track row: track id is empty": 1,
        "track row: energy is not a finite number": 1,
    }
    assert sorted(rejects_of(dataset.folder)["line"]) == [36, 37]
    catalog = dataset.catalog
    assert set(catalog.track_ids) == {*tracks, "t_never_played"}
    names = tuple(c for c in features.columns if c not in ("track_id", "mode"))
    expected = features.set_index("track_id").reindex(catalog.track_ids)
    np.testing.assert_allclose(
        catalog.features(names), expected[list(names)].to_numpy(np.float32), rtol=1e-6
    )
    mode = expected["mode"].map({"major": 1.0, "minor": 0.0}).to_numpy(np.float32)
    np.testing.assert_array_equal(catalog.features(("mode",))[:, 0], mode)


def test_track_features_are_needed_where_named(tmp_path):
    path = write_csv(make_log(5), tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"log\.csv: holds no track features"):
        run(tmp_path, path, tracks=(str(path),))
    with pytest.raises(ValueError, match="min_popularity needs track features"):
        run(tmp_path, path, min_popularity=95)
    bare = write_csv(make_features(["t_0001"])[["track_id", "tempo"]], tmp_path / "bare.csv")
    with pytest.raises(ValueError, match="min_popularity needs the column us_popularity_estimate"):
        run(tmp_path, path, tracks=(str(bare),), min_popularity=95)


def test_a_row_limit_counts_the_lines_of_a_quote_that_is_never_closed(tmp_path):
    log = write_csv(make_log(20), tmp_path / "log.csv")
    lines = log.read_text().splitlines()
    lines[30] = '"' + lines[30]
    log.write_text("\n".join(lines))
    dataset = run(tmp_path, log, max_rows=35, max_rejects=0.5)
    assert dataset.about["rows_read"] == 35
    assert rejects_of(dataset.folder)["line"].tolist() == list(range(31, 37))


def test_a_damaged_file_beside_logs_is_an_error(tmp_path):
    write_csv(make_log(5), tmp_path / "logs/a.csv")
    (tmp_path / "logs/b.gz").write_bytes(gzip.compress(b"x" * 1000)[:-5])
    with pytest.raises(ValueError, match=r"b\.gz: cannot be read to its end"):
        run(tmp_path, tmp_path / "logs")


def test_archive_members_are_never_written_to_their_paths(tmp_path):
    """A hostile member name reaches messages, never the file system."""
    work = tmp_path / "deep/work"
    work.mkdir(parents=True)
    plain = write_csv(make_log(10), work / "log.csv")
    with tarfile.open(work / "evil.tar.gz", "w:gz") as archive:
        archive.add(plain, "../../evil.csv")
        archive.add(write_csv(make_log(9, prefix="z"), work / "b.csv"), "/tmp/musicbox-evil.csv")
    dataset = run(work, work / "evil.tar.gz")
    assert dataset.sessions.num_sessions == 19
    assert not list(tmp_path.rglob("*evil.csv"))
    assert not Path("/tmp/musicbox-evil.csv").exists()


def test_configuration_is_checked():
    config = IngestConfig(sources=("a",), out=Path("b"))
    for change, message in [
        ({"sources": ()}, "at least one listening log"),
        ({"incomplete": "mend"}, "'keep' or 'drop'"),
        ({"max_rejects": 1.5}, "a share from 0 to 1"),
        ({"max_rows": 0}, "max_rows is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"session_length": 21}, "2 to 20 expected"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(config, **change)
