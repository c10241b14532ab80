"""Raw logs become a dataset with every value and every play; bad rows are listed."""

import gzip
import hashlib
import tarfile
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from ingest_runs import rejects_of, run, stored_plays
from make_logs import make_log, plays_of, write_csv

from musicbox_env.ingest import assembly
from musicbox_env.ingest.assembly import IdSet, SessionAssembler
from musicbox_env.ingest.sources import csv_tables
from musicbox_env.schema import (
    CONTEXT_TYPES,
    PLAY_COLUMNS,
    REASONS_END,
    REASONS_START,
    REQUIRED_LOG_COLUMNS,
    UNKNOWN,
)


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
    monkeypatch.setattr(csv_tables, "BLOCK_BYTES", block_bytes)
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
    monkeypatch.setattr(csv_tables, "BLOCK_BYTES", 5_000)
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


def test_id_set_against_a_python_set():
    rng = np.random.default_rng(0)
    ours, plain = IdSet(), set()
    for _ in range(60):
        some = np.unique(rng.integers(0, 3000, rng.integers(0, 80)).astype(np.uint64))
        np.testing.assert_array_equal(ours.contains(some), [int(h) in plain for h in some])
        new = some[~ours.contains(some)]
        ours.add(new)
        plain.update(new.tolist())
