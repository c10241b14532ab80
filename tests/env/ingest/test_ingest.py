"""Raw logs become a dataset whole or not at all, whatever is wrong with them."""

import gzip
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_logs import make_features, make_log, passed_over, plays_of, write_csv
from musicbox_experiments.data import describe as describe_command

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.writing import SplitConfig
from musicbox_env.ingest import assembly, tables
from musicbox_env.ingest.assembly import IdSet, SessionAssembler
from musicbox_env.ingest.parts import make_parts
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.schema import (
    CONTEXT_TYPES,
    PLAY_COLUMNS,
    REASONS_END,
    REASONS_START,
    REQUIRED_LOG_COLUMNS,
    UNKNOWN,
    is_skip,
)


def run(tmp_path, *sources, out="out", **options):
    """Ingest without embeddings, and open what came out."""
    config = IngestConfig(
        sources=tuple(map(str, sources)),
        out=tmp_path / out,
        **{"embeddings": False, "progress": False, "workers": 1, **options},
    )
    return Dataset(ingest(config))


def stored_plays(dataset):
    """Position and track of each session's plays, as stored."""
    sessions, ids = dataset.sessions, dataset.catalog.track_ids
    track, position = sessions.column("track"), sessions.column("position")
    return {
        session: [
            (int(position[row]), ids[track[row]])
            for row in range(sessions.offsets[i], sessions.offsets[i + 1])
        ]
        for i, session in enumerate(sessions.session_ids)
    }


def rejects_of(folder):
    return pd.read_csv(folder / "rejects.csv")


def contents(folder):
    """Every file of a dataset by its bytes."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_every_value_arrives(tmp_path):
    """Each stored column against the text, read the slow way."""
    log = make_log(40)
    dataset = run(tmp_path, write_csv(log, tmp_path / "log.csv"))
    sessions = dataset.sessions
    assert stored_plays(dataset) == plays_of(log)
    assert list(sessions.session_ids) == list(dict.fromkeys(log["session_id"]))

    def true(name):
        return (log[name] == "True").to_numpy()

    level = np.select(
        [true("skip_1"), true("skip_2"), true("skip_3"), true("not_skipped")],
        [0, 1, 2, 4],
        default=3,
    )
    bits = sum(
        (log[name] == "1").to_numpy() * bit
        for name, bit in [
            ("no_pause_before_play", 1),
            ("short_pause_before_play", 2),
            ("long_pause_before_play", 4),
        ]
    )
    expected = {
        "level": level,
        "position": log["session_position"].astype(int),
        "hour": log["hour_of_day"].astype(int),
        "premium": true("premium"),
        "date": (pd.to_datetime(log["date"]) - pd.Timestamp("1970-01-01")).dt.days,
        "context_type": log["context_type"].map(CONTEXT_TYPES.index),
        "shuffle": true("hist_user_behavior_is_shuffle"),
        "context_switch": log["context_switch"].astype(int),
        "pause": bits,
        "reason_start": log["hist_user_behavior_reason_start"].map(REASONS_START.index),
        "reason_end": log["hist_user_behavior_reason_end"].map(REASONS_END.index),
        "seek_forward": log["hist_user_behavior_n_seekfwd"].astype(int),
        "seek_back": log["hist_user_behavior_n_seekback"].astype(int),
    }
    assert set(expected) == set(PLAY_COLUMNS) - {"track"}
    for name, values in expected.items():
        column = sessions.column(name)
        assert column.dtype == PLAY_COLUMNS[name].dtype
        np.testing.assert_array_equal(column, values, err_msg=name)
    about = dataset.about
    assert (
        about["sources"][0]["sha256"]
        == hashlib.sha256((tmp_path / "log.csv").read_bytes()).hexdigest()
    )
    assert about["sources"][0]["rows"] == about["rows_read"] == len(log)
    assert about["rejected"] == {"rows": 0, "reasons": {}}
    assert not (tmp_path / "out.partial").exists()
    assert not (tmp_path / "out" / "parts").exists()


def test_all_formats_give_the_same_dataset(tmp_path):
    log = make_log(25)
    plain = write_csv(log, tmp_path / "log.csv")
    (tmp_path / "log.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with tarfile.open(tmp_path / "true.csv", "w:gz") as archive:
        archive.add(plain, "training/log_0.csv")
    typed = log.copy()
    flags = ["skip_1", "skip_2", "skip_3", "not_skipped", "premium"]
    typed[flags] = typed[flags] == "True"
    typed["session_position"] = typed["session_position"].astype(float)
    typed["date"] = pd.to_datetime(typed["date"]).astype("datetime64[s]")
    typed.to_parquet(tmp_path / "typed")
    expected = run(tmp_path, plain, out="plain")
    for i, name in enumerate(("log.tar.gz", "true.csv", "typed")):
        other = run(tmp_path, tmp_path / name, out=f"out{i}")
        assert stored_plays(other) == stored_plays(expected)
        for column in PLAY_COLUMNS:
            np.testing.assert_array_equal(
                other.sessions.column(column), expected.sessions.column(column), err_msg=column
            )


def test_spellings_of_the_same_value(tmp_path):
    log = make_log(30)
    path = write_csv(log, tmp_path / "a.csv")
    other = log.replace({"True": "true", "False": "0"}).rename(
        columns={"track_id_clean": "track_id"}
    )
    other["hour_of_day"] += ".0"
    other["date"] += " 00:00:00"
    other.insert(3, "listener_mood", "a, b")
    expected = run(tmp_path, path, out="a")
    got = run(tmp_path, write_csv(other[other.columns[::-1]], tmp_path / "b.csv"), out="b")
    assert stored_plays(got) == stored_plays(expected)
    for name in PLAY_COLUMNS:
        np.testing.assert_array_equal(got.sessions.column(name), expected.sessions.column(name))


def test_optional_columns_may_be_absent_or_empty(tmp_path):
    log = make_log(10)
    without = run(tmp_path, write_csv(log[list(REQUIRED_LOG_COLUMNS)], tmp_path / "a.csv"), out="a")
    optional = log.columns.difference(REQUIRED_LOG_COLUMNS)
    log[optional] = ""
    empty = run(tmp_path, write_csv(log, tmp_path / "b.csv"), out="b")
    for dataset in (without, empty):
        assert dataset.sessions.num_plays == len(log)
        assert dataset.about["notes"] == {}
        for name in set(PLAY_COLUMNS) - {"track", "level", "position"}:
            assert (dataset.sessions.column(name) == UNKNOWN).all(), name


BAD_ROWS = {
    "session_id is empty": {"session_id": ""},
    "track_id_clean is empty": {"track_id_clean": " "},
    "session_position is not a whole number": {"session_position": "2.5"},
    "session_position is empty": {"session_position": ""},
    "session_length is not a whole number": {"session_length": "twenty"},
    "session_length is not 1 to 20": {"session_length": "21"},
    "session_position is outside the session": {"session_position": "0"},
    "skip_2 is not true or false": {"skip_2": "maybe"},
    "not_skipped is empty": {"not_skipped": ""},
    "skip labels contradict each other": {"skip_1": "True", "skip_2": "False"},
    "hour_of_day is not a whole number": {"hour_of_day": "noon"},
    "premium is not true or false": {"premium": "gold"},
    "hist_user_behavior_n_seekfwd is not a whole number": {"hist_user_behavior_n_seekfwd": "1e999"},
    "session_length differs from that of the session's first row": {"session_length": "20"},
    "duplicate play (same session and position)": {"session_position": "1"},
}


def test_each_bad_row_is_listed_with_line_and_reason(tmp_path):
    log = make_log(100, lengths=[15] * 100)
    expected = []
    for i, (reason, change) in enumerate(BAD_ROWS.items()):
        row = 45 * i + 7
        for name, value in change.items():
            log.loc[row, name] = value
        expected.append((str(tmp_path / "log.csv"), row + 2, reason))
    dataset = run(tmp_path, write_csv(log, tmp_path / "log.csv"), max_rejects=0.5)
    rejects = rejects_of(dataset.folder)
    assert sorted(rejects.itertuples(index=False, name=None)) == sorted(expected)
    about = dataset.about
    assert about["rejected"]["rows"] == len(BAD_ROWS)
    assert about["rejected"]["reasons"] == dict.fromkeys(BAD_ROWS, 1)
    assert about["incomplete_sessions"] == {"found": len(BAD_ROWS), "rule": "keep"}
    assert dataset.sessions.num_plays == len(log) - len(BAD_ROWS)


def test_too_many_bad_rows_leave_nothing(tmp_path):
    log = make_log(50)
    log.loc[::20, "session_position"] = "x"
    path = write_csv(log, tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"session_position is not a whole number[\s\S]*rejects"):
        run(tmp_path, path)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial" / "dataset.json").exists()
    bad = len(log.loc[::20])
    assert len(rejects_of(tmp_path / "out.partial")) == bad
    assert run(tmp_path, path, max_rejects=0.06).about["rejected"]["rows"] == bad


def test_values_outside_the_vocabulary_are_unknown_and_counted(tmp_path):
    log = make_log(10)
    log.loc[3:5, "context_type"] = "podcast"
    log.loc[7, "hist_user_behavior_reason_end"] = "voice"
    log.loc[8, "date"] = "yesterday"
    log.loc[9, "hour_of_day"] = "24"
    dataset = run(tmp_path, write_csv(log, tmp_path / "log.csv"))
    assert dataset.about["notes"] == {
        "context_type 'podcast' stored as unknown": 3,
        "hist_user_behavior_reason_end 'voice' stored as unknown": 1,
        "date 'yesterday' stored as unknown": 1,
        "hour_of_day '24' stored as unknown": 1,
    }
    assert (dataset.sessions.column("context_type")[3:6] == UNKNOWN).all()
    assert dataset.sessions.column("hour")[9] == UNKNOWN
    assert dataset.about["rejected"]["rows"] == 0


def evaluate_row_by_row(log):
    """The rules once more, a row at a time: plays of each session, lines of rejected rows."""
    kept, lengths, lines = defaultdict(dict), {}, set()
    for i, row in enumerate(log.to_dict("records")):
        good = row["session_id"] and row["track_id_clean"] and row["session_position"].isdigit()
        length = int(row["session_length"])
        labels = [row[n] == "True" for n in ("skip_1", "skip_2", "skip_3", "not_skipped")]
        good = good and 1 <= int(row["session_position"]) <= length <= 20
        good = good and labels[:3] == sorted(labels[:3]) and not (labels[2] and labels[3])
        if good:
            session, position = row["session_id"], int(row["session_position"])
            good = lengths.setdefault(session, length) == length
            good = good and position not in kept[session]
        if good:
            kept[session][position] = row["track_id_clean"]
        else:
            lines.add(i + 2)
    return {s: sorted(plays.items()) for s, plays in kept.items() if plays}, lines


def spoil(log, seed):
    """Break rows in every way that a single row can be broken, and repeat some."""
    rng = np.random.default_rng(seed)
    log = log.copy()
    rows = rng.choice(len(log), len(log) // 8, replace=False)
    for row, change in zip(rows, rng.integers(0, 6, len(rows)), strict=True):
        name, value = [
            ("session_id", ""),
            ("track_id_clean", ""),
            ("session_position", "x"),
            ("session_position", str(rng.integers(0, 22))),
            ("session_length", str(rng.integers(1, 21))),
            ("skip_2", "False"),
        ][change]
        log.loc[row, name] = value
    again = log.iloc[rng.choice(len(log), len(log) // 20)]
    return pd.concat([log, again], ignore_index=True)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("block_bytes", [2_000, 1 << 20])
@pytest.mark.parametrize("max_held", [50, 10_000])
def test_scattered_and_spoilt_rows_against_brute_force(
    tmp_path, monkeypatch, seed, block_bytes, max_held
):
    """Interleaved plays, small blocks, plays spilled to disk: the same sessions, whichever way."""
    monkeypatch.setattr(tables, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(assembly, "MAX_HELD_PLAYS", max_held)
    rng = np.random.default_rng(seed)
    log = spoil(make_log(60, seed=seed), seed)
    # Even seeds are in disorder near by, odd ones all over the file.
    reach = 40 if seed % 2 == 0 else len(log)
    log = log.iloc[np.argsort(np.arange(len(log)) + rng.uniform(0, reach, len(log)))]
    expected, lines = evaluate_row_by_row(log)
    expected = {session: plays for session, plays in expected.items() if len(plays) >= 2}
    dataset = run(tmp_path, write_csv(log, tmp_path / "log.csv"), max_rejects=1.0)
    assert stored_plays(dataset) == expected
    assert set(rejects_of(dataset.folder)["line"]) == lines
    assert dataset.about["rejected"]["rows"] == len(lines)


def test_memory_holds_only_unfinished_sessions(tmp_path, monkeypatch):
    """The assembler lets sessions go as they end, and spills what does not end."""
    log = make_log(60, lengths=[20] * 60)
    path = write_csv(log, tmp_path / "log.csv")
    monkeypatch.setattr(tables, "BLOCK_BYTES", 5_000)
    held = []

    class Watched(SessionAssembler):
        def add(self, plays):
            batch = super().add(plays)
            held.append(len(self.held))
            return batch

    monkeypatch.setattr("musicbox_env.ingest.parts.SessionAssembler", Watched)
    run(tmp_path, path, out="a")
    assert len(held) > 20
    assert max(held) < 20
    held.clear()
    monkeypatch.setattr(assembly, "MAX_HELD_PLAYS", 300)
    scattered = log.sample(frac=1, random_state=0)
    dataset = run(tmp_path, write_csv(scattered, tmp_path / "b.csv"), out="b")
    assert max(held) <= 300
    assert stored_plays(dataset) == plays_of(log)


def test_sessions_with_missing_plays(tmp_path):
    log = make_log(30, lengths=[12] * 30)
    log = log.drop(index=[5, 12 * 3 + 1, 12 * 3 + 2])
    path = write_csv(log, tmp_path / "log.csv")
    kept = run(tmp_path, path, out="keep")
    assert stored_plays(kept) == plays_of(log)
    assert kept.about["incomplete_sessions"] == {"found": 2, "rule": "keep"}
    dropped = run(tmp_path, path, out="drop", incomplete="drop")
    whole = {s: plays for s, plays in plays_of(log).items() if len(plays) == 12}
    assert stored_plays(dropped) == whole
    assert len(whole) == 28
    assert dropped.about["incomplete_sessions"] == {"found": 2, "rule": "drop"}


def test_a_session_seen_in_another_file_is_rejected(tmp_path):
    first, second = make_log(20), make_log(20, seed=1, prefix="z")
    again = first[first["session_id"] == "s00004"]
    write_csv(first, tmp_path / "logs/1.csv")
    write_csv(pd.concat([second, again]), tmp_path / "logs/2.csv")
    dataset = run(tmp_path, tmp_path / "logs", max_rejects=0.1)
    assert stored_plays(dataset) == {**plays_of(first), **plays_of(second)}
    rejects = rejects_of(dataset.folder)
    assert set(rejects["reason"]) == {"duplicate session (each of its plays)"}
    assert set(rejects["file"]) == {str(tmp_path / "logs/2.csv")}
    expected = np.arange(len(second) + 2, len(second) + 2 + len(again))
    np.testing.assert_array_equal(rejects["line"], expected)
    assert dataset.about["duplicate_sessions"] == 1
    with pytest.raises(ValueError, match="duplicate session"):
        run(tmp_path, tmp_path / "logs", out="strict")
    assert not (tmp_path / "strict").exists()


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
        ("tracks.csv", "is no listening log"),
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
        with pytest.raises(ValueError, match="No session is left of 0 rows read"):
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


def test_a_worker_need_not_wait_for_the_compiler():
    code = "import sys, musicbox_env.ingest.parts; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_workers_make_the_same_dataset(tmp_path):
    for i in range(4):
        write_csv(make_log(20, seed=i, prefix=f"f{i}_"), tmp_path / f"logs/{i}.csv")
    alone = run(tmp_path, tmp_path / "logs", out="a")
    together = run(tmp_path, tmp_path / "logs", out="b", workers=2)
    assert contents(alone.folder) == contents(together.folder)


@pytest.mark.slow
def test_workers_pass_errors_on(tmp_path):
    write_csv(make_log(10), tmp_path / "logs/0.csv")
    write_csv(make_log(10).drop(columns="skip_1"), tmp_path / "logs/1.csv")
    with pytest.raises(ValueError, match=r"1\.csv: missing column skip_1;"):
        run(tmp_path, tmp_path / "logs", workers=2)


def test_parts_are_used_again_until_what_they_depend_on_changes(tmp_path):
    files = [write_csv(make_log(5, seed=i), tmp_path / f"{i}.csv") for i in range(2)]

    def parts(max_rows=None):
        made = make_parts(files, tmp_path / "parts", max_rows=max_rows, workers=1)
        return [part.folder for part in made]

    first = parts()
    made = [folder.stat().st_mtime_ns for folder in first]
    assert parts() == first
    assert [folder.stat().st_mtime_ns for folder in first] == made
    assert set(parts(max_rows=20)).isdisjoint(first)
    write_csv(make_log(5, seed=7), files[1])
    changed = parts()
    assert changed[0] == first[0]
    assert changed[1] != first[1]


def test_an_existing_dataset_is_replaced_only_on_demand(tmp_path):
    old = write_csv(make_log(5), tmp_path / "old.csv")
    new = write_csv(make_log(7), tmp_path / "new.csv")
    run(tmp_path, old)
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(tmp_path, new)
    assert Dataset(tmp_path / "out").sessions.num_sessions == 5
    assert run(tmp_path, new, overwrite=True).sessions.num_sessions == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.csv", "old.csv", "out"]


CHILD = """
import sys
from pathlib import Path
from musicbox_env.ingest.pipeline import IngestConfig, ingest
try:
    ingest(IngestConfig((sys.argv[1],), Path(sys.argv[2]), embeddings=False, progress=False,
                        workers=1))
except OSError as error:
    sys.exit(str(error))
"""


def start_ingest(tmp_path, *, file_limit=None):
    def limit():
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "logs"), str(tmp_path / "out")],
        cwd=Path(__file__).parents[3],
        preexec_fn=limit,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when(process, ready):
    """SIGKILL a process as soon as something is seen on disk."""
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def write_many_logs(tmp_path, num_files=8, sessions=400):
    log = make_log(sessions, lengths=[20] * sessions).to_csv(index=False)
    for i in range(num_files):
        path = tmp_path / f"logs/{i}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(log.replace("\ns", f"\n{i}s"))


def finished_parts(tmp_path):
    folder = tmp_path / "out.partial/parts"
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*") if not p.suffix}


def test_a_killed_run_leaves_nothing_that_opens_and_goes_on(tmp_path):
    """Killed among the parts, then again among the columns; the third run makes the same bytes."""
    write_many_logs(tmp_path)
    kill_when(start_ingest(tmp_path), lambda: len(finished_parts(tmp_path)) >= 2)
    done = finished_parts(tmp_path)
    assert 2 <= len(done) < 8
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="is not a dataset folder"):
        Dataset(tmp_path / "out.partial")
    columns = tmp_path / "out.partial/plays"
    kill_when(start_ingest(tmp_path), columns.is_dir)
    assert finished_parts(tmp_path).items() >= done.items(), "a finished part was made again"
    assert not (tmp_path / "out").exists()
    process = start_ingest(tmp_path)
    output = process.communicate()
    assert process.returncode == 0, output
    undisturbed = run(tmp_path, tmp_path / "logs", out="undisturbed")
    assert contents(tmp_path / "out") == contents(undisturbed.folder)
    assert undisturbed.sessions.num_plays == 8 * 400 * 20


@pytest.mark.slow
@pytest.mark.parametrize("where", ["part", "columns"])
def test_a_full_disk_is_told_and_survived(tmp_path, where):
    """A limit on file size fails writes as a full disk does, in the first part or the columns."""
    write_many_logs(tmp_path, num_files=2)
    limit = 20_000
    if where == "columns":
        make_parts(sorted((tmp_path / "logs").iterdir()), tmp_path / "out.partial/parts", workers=1)
    process = start_ingest(tmp_path, file_limit=limit)
    _, error = process.communicate()
    assert process.returncode == 1, error
    assert "No room left to write" in error
    assert "run the same command again" in error
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial/dataset.json").exists()
    assert len(finished_parts(tmp_path)) == (2 if where == "columns" else 0)
    process = start_ingest(tmp_path)
    assert process.wait() == 0
    process.communicate()
    undisturbed = run(tmp_path, tmp_path / "logs", out="undisturbed")
    assert contents(tmp_path / "out") == contents(undisturbed.folder)


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


def test_id_set_against_a_python_set():
    rng = np.random.default_rng(0)
    ours, plain = IdSet(), set()
    for _ in range(60):
        some = np.unique(rng.integers(0, 3000, rng.integers(0, 80)).astype(np.uint64))
        np.testing.assert_array_equal(ours.contains(some), [int(h) in plain for h in some])
        new = some[~ours.contains(some)]
        ours.add(new)
        plain.update(new.tolist())


def test_describe_says_what_was_counted(tmp_path):
    log = make_log(50)
    log["context_type"] = ""
    log.loc[5, "session_position"] = "x"
    tracks = sorted(set(log["track_id_clean"]))
    features = make_features(tracks[:50]).drop(columns="valence")
    dataset = run(
        tmp_path,
        write_csv(log, tmp_path / "log.csv"),
        tracks=(str(write_csv(features, tmp_path / "tracks.csv")),),
    )
    text = describe_command.describe(dataset, top=3)
    level = dataset.sessions.column("level")
    counts = np.bincount(level, minlength=5)
    for code, count in enumerate(counts):
        assert f"{count:,}  {100 * count / len(level):.1f} %" in text, code
    assert f"Skipped: {100 * is_skip(level).mean():.1f} % of plays" in text
    assert "context_type  unknown for 100.0 % of plays" in text
    assert "absent: valence" in text
    assert "session_position is not a whole number" in text
    assert f"1 of {len(log):,} rows rejected" in text
    for track in dataset.catalog.track_ids[:3]:
        assert track in text
    assert dataset.catalog.track_ids[3] not in text
    position = dataset.sessions.column("position")
    assert f"  1 {100 * is_skip(level[position == 1]).mean():>5.1f} %" in text


def test_describe_counts_in_pieces(tmp_path, monkeypatch):
    dataset = run(tmp_path, write_csv(make_log(50), tmp_path / "log.csv"))
    whole = describe_command.describe(dataset)
    monkeypatch.setattr(describe_command, "CHUNK_SESSIONS", 7)
    assert describe_command.describe(dataset) == whole
    repeats = sum(
        len(plays) - len({track for _, track in plays}) for plays in stored_plays(dataset).values()
    )
    assert f"Repeats: {100 * repeats / dataset.sessions.num_plays:.1f} % of plays" in whole


def test_a_dataset_that_names_the_test_fold_as_it_was_is_described(tmp_path):
    log = write_csv(make_log(50), tmp_path / "log.csv")
    folder = run(tmp_path, log, split=SplitConfig(test_fold=3)).folder
    about = json.loads((folder / "dataset.json").read_text())
    assert about["split"]["test_fold"] == 3
    text = describe_command.describe(Dataset(folder))
    assert "seed 42, test fold 3" in text
    about["split"]["turn"] = about["split"].pop("test_fold")
    (folder / "dataset.json").write_text(json.dumps(about))
    assert describe_command.describe(Dataset(folder)) == text


SESSIONS, TRACKS = os.environ.get("MUSICBOX_SESSIONS"), os.environ.get("MUSICBOX_TRACKS")


@pytest.mark.real_data
@pytest.mark.skipif(
    not SESSIONS or not TRACKS, reason="MUSICBOX_SESSIONS and MUSICBOX_TRACKS name no real plays"
)
def test_real_plays_have_the_published_figures(tmp_path):
    """Figures of the full training set, within what a sample of a few thousand sessions allows."""
    dataset = run(tmp_path, SESSIONS, tracks=(TRACKS,))
    sessions, about = dataset.sessions, dataset.about
    assert about["rejected"]["rows"] == 0
    assert about["notes"] == {}
    counts = describe_command.PlayCounts.of(dataset)
    by_level = counts.level / counts.level.sum()
    np.testing.assert_allclose(np.cumsum(by_level)[:3], [0.415, 0.509, 0.639], atol=0.02)
    np.testing.assert_allclose(by_level[3:], [0.019, 0.344], atol=0.02)
    after = counts.skip_rates("previous")[:2]
    np.testing.assert_allclose(after, [0.279, 0.750], atol=0.01)
    by_position = counts.skip_rates("position")[1:21]
    published = [37.4, 46.7, 49.4, 51.6, 52.4, 53.2, 53.1, 53.0, 52.1, 50.3]
    published += [50.7, 51.3, 51.7, 52.2, 52.5, 53.0, 53.3, 53.5, 53.6, 53.6]
    np.testing.assert_allclose(by_position, np.array(published) / 100, atol=0.03)
    lengths = counts.length / sessions.num_sessions
    published_lengths = [8.82, 7.69, 6.73, 5.88, 5.17, 4.53, 4.00, 3.52, 3.14, 2.78, 47.74]
    np.testing.assert_allclose(lengths[10:], np.array(published_lengths) / 100, atol=0.04)
    assert counts.shares("repeat")[1] == pytest.approx(0.128, abs=0.01)
    assert not any(counts.unknown.values())
    assert about["track_features"]["rejected"]["rows"] == 0
    assert about["incomplete_sessions"]["found"] == 1, "the last session of the sample is cut short"
    assert Counter(dataset.catalog.feature_names) == Counter(set(dataset.catalog.feature_names))


def test_json_says_no_paths_of_the_staging_folder(tmp_path):
    dataset = run(tmp_path, write_csv(make_log(5), tmp_path / "log.csv"))
    assert ".partial" not in json.dumps(dataset.about)
