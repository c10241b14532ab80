"""Sessions split by time: checked by brute force against histories whose times are known."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from make_histories import FOREIGN_MAP, foreign_table, make_history
from make_logs import make_log, write_csv

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.errors import InputError
from musicbox_env.ingest import registry
from musicbox_env.ingest.histories.formats import HistoryConfig, HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.ingest.time_split import ACROSS, IN_GAP, TEST, TRAIN, UNTIMED, VALIDATION, Spans

HOUR, DAY = 3_600_000, 86_400_000


def split_by_time(tmp_path, *sources, out="out", history=None, **options) -> Dataset:
    config = IngestConfig(
        sources=tuple(map(str, sources)),
        out=tmp_path / out,
        split=SplitConfig(split="time", **options),
        history=history or HistoryConfig(map=FOREIGN_MAP),
        embeddings=False,
        progress=False,
        workers=1,
    )
    return Dataset(ingest(config))


@pytest.fixture(scope="module")
def listening():
    """Four listeners whose sessions lie among each other's."""
    return make_history(120, tracks=300, users=4, days=40, seed=3)


@pytest.fixture(scope="module")
def files(listening, tmp_path_factory):
    """The plays in three files, each of which holds some of every listener's."""
    folder = tmp_path_factory.mktemp("tables")
    table = foreign_table(listening)
    for number in range(3):
        table.iloc[number::3].to_csv(folder / f"{number}.csv", index=False)
    return sorted(folder.iterdir())


def true_spans(listening) -> dict[tuple, tuple[int, int]]:
    """Begin and end of each session, by its tracks."""
    plays = listening.in_sessions.sort_values(["session", "position"])
    return {
        tuple(of["uri"]): (of["start_ms"].min(), of["end_ms"].max())
        for _, of in plays.groupby("session")
    }


def found_splits(dataset) -> dict[tuple, str]:
    """Split of each session, by its tracks."""
    log, ids = dataset.sessions, dataset.catalog.track_ids
    return {
        tuple(ids[log.column("track")[log.offsets[i] : log.offsets[i + 1]]]): name
        for name in ("train", "validation", "test")
        for i in log.sessions_in(name)
    }


def spans_of(spans, splits, name):
    return np.array([spans[tracks] for tracks, of in splits.items() if of == name])


def left_out(dataset, what="sessions") -> int:
    return sum(of[what] for of in dataset.about["split"]["left_out"].values())


def require_whole_account(dataset):
    """Rows read are plays that were kept, left out by the split, or told by the history."""
    rows = dict(dataset.about["history"]["rows"])
    in_sessions = rows["plays in sessions"]
    assert rows.pop("read") == sum(rows.values()) == dataset.about["rows_read"]
    assert in_sessions == dataset.sessions.num_plays + left_out(dataset, "plays")


@pytest.mark.parametrize(("gap", "span"), [("0", 0), ("36h", 36 * HOUR), ("3 days", 3 * DAY)])
def test_test_begins_after_all_training_and_the_gap(tmp_path, listening, files, gap, span):
    dataset = split_by_time(tmp_path, *files, gap=gap)
    spans, splits = true_spans(listening), found_splits(dataset)
    train, validation, test = (
        spans_of(spans, splits, name) for name in ("train", "validation", "test")
    )
    for later in (validation, test):
        for begin, _ in later:
            assert all(begin > end + span for _, end in train)
    assert all(begin > end for begin, _ in test for _, end in validation)
    assert len(splits) + left_out(dataset) == len(spans)
    require_whole_account(dataset)
    assert 0.65 < len(train) / len(spans) <= 0.7
    assert len(validation) / (len(validation) + len(test)) == pytest.approx(1 / 3, abs=0.06)
    by_fold = [len(dataset.sessions.sessions_in(fold)) for fold in ("train_a", "train_b")]
    assert min(by_fold) > 0.35 * sum(by_fold)


@pytest.mark.parametrize(
    ("until", "test_from", "timezone", "hours_ahead"),
    [
        ("2021-03-25", "2021-04-01", None, 0),
        ("2021-03-25T00:00+05:30", "2021-04-01T12:00+05:30", None, 5.5),
        ("2021-03-25", "2021-04-01", "America/New_York", -4),
    ],
)
def test_dates_divide_where_they_say(
    tmp_path, listening, files, until, test_from, timezone, hours_ahead
):
    history = HistoryConfig(map=FOREIGN_MAP, timezone=timezone)
    dataset = split_by_time(
        tmp_path, *files, history=history, train_until=until, test_from=test_from, gap="12h"
    )
    end_of_training, begin_of_test = (
        int(pd.Timestamp(date[:16]).value // 10**6) - hours_ahead * HOUR
        for date in (until, test_from)
    )
    expected, lost = {}, 0
    for tracks, (begin, end) in true_spans(listening).items():
        if end < end_of_training:
            expected[tracks] = "train"
        elif begin >= begin_of_test:
            expected[tracks] = "test"
        elif begin >= end_of_training + 12 * HOUR and end < begin_of_test:
            expected[tracks] = "validation"
        else:
            lost += 1
    assert found_splits(dataset) == expected
    assert left_out(dataset) == lost > 0
    require_whole_account(dataset)


def test_no_time_is_left_in_the_folder(tmp_path, listening, files):
    """Sessions lie in the same order as without times, and no date that was named is kept."""
    dates = {"train_until": "2021-03-25", "test_from": "2021-04-01"}
    dataset = split_by_time(tmp_path, *files, **dates)
    text = json.dumps(dataset.about)
    assert "2021-03" not in text
    assert "2021-04" not in text
    moments = np.concatenate([listening.plays[c] for c in ("start_ms", "end_ms")])
    times = np.concatenate([moments // unit for unit in (1, 1_000, 60_000, DAY)])
    for file in (dataset.folder / "sessions").glob("*.npy"):
        assert not np.isin(np.load(file), times).any()
    assert (dataset.sessions.column("date") == -1).all()
    config = IngestConfig(
        tuple(map(str, files)),
        tmp_path / "hashed",
        history=HistoryConfig(map=FOREIGN_MAP),
        embeddings=False,
        progress=False,
    )
    hashed = list(Dataset(ingest(config)).sessions.session_ids)
    kept = set(dataset.sessions.session_ids)
    assert list(dataset.sessions.session_ids) == [name for name in hashed if name in kept]


def test_windows_of_a_run_are_together(tmp_path):
    """Sixty plays without a pause are four sessions, which no edge divides."""
    plays = []
    for day in range(30):
        begin = pd.Timestamp("2022-01-01T10:00") + pd.Timedelta(days=day)
        for i in range(60):
            time = begin + pd.Timedelta(seconds=200 * i)
            plays.append((time.isoformat(), f"t{day}-{i}", 200_000, 200_000))
    table = pd.DataFrame(plays, columns=["time", "track", "played_ms", "duration_ms"])
    table.to_csv(tmp_path / "plays.csv", index=False)
    mapping = HistoryConfig(
        map="time=time,track=track,played_ms=played_ms,duration_ms=duration_ms,time_is=start"
    )
    dataset = split_by_time(tmp_path, tmp_path / "plays.csv", history=mapping)
    days: dict[str, set[str]] = {}
    for tracks, name in found_splits(dataset).items():
        days.setdefault(tracks[0].split("-")[0], set()).add(name)
    assert len(days) == 30
    assert all(len(names) == 1 for names in days.values())
    assert left_out(dataset) == 0


def codes_of(*spans, runs=None, **options):
    begin, end = np.array(spans).T
    number = np.arange(len(spans))
    found = Spans()
    found.add(number, number if runs is None else np.array(runs), begin, end)
    return found.codes(SplitConfig(split="time", **options)).tolist()


def test_ties_at_an_edge_are_together():
    """Five begin at 70, where training ends: none of them is in training."""
    begins = [10, 20, 30, 40, 50, 60, 70, 70, 70, 70, 70, 80, 90, 90, 90]
    codes = codes_of(*((b, b + 5) for b in begins), train=0.5, validation=0.2, test=0.3)
    assert codes == [TRAIN] * 6 + [VALIDATION] * 5 + [TEST] * 4
    touching = [(b, b + 10 if b == 60 else b + 5) for b in begins]
    codes = codes_of(*touching, train=0.5, validation=0.2, test=0.3)
    assert codes == [TRAIN] * 5 + [ACROSS] + [VALIDATION] * 5 + [TEST] * 4


def test_random_spans_against_brute_force():
    """Small cases, ties and overlaps among them, each against every pair of sessions."""
    rng = np.random.default_rng(0)
    done = 0
    for _ in range(300):
        number = int(rng.integers(3, 30))
        begin = rng.integers(0, 40, number) * 1_000
        end = begin + rng.integers(0, 6, number) * 1_000
        runs, gap = rng.integers(0, number, number), int(rng.integers(0, 8))
        try:
            codes = np.array(codes_of(*zip(begin, end, strict=True), runs=runs, gap=f"{gap}s"))
        except InputError:
            continue
        done += 1
        train, later, test = codes == TRAIN, np.isin(codes, (VALIDATION, TEST)), codes == TEST
        for i in np.flatnonzero(later):
            assert (begin[i] > end[train] + 1_000 * gap).all()
        for i in np.flatnonzero(test):
            assert (begin[i] > end[codes == VALIDATION]).all()
        assert all(len(set(codes[runs == run])) == 1 for run in runs)
        assert np.isin(codes, (TRAIN, VALIDATION, TEST, IN_GAP, ACROSS)).all()
        assert gap or not (codes == IN_GAP).any()
    assert done > 150


def test_sessions_without_a_time_are_in_no_split():
    spans, number = Spans(), np.arange(5)
    begin = np.array([10, 20, 30, 40, -1])
    spans.add(number, number, begin, begin + 1, begin >= 0)
    config = SplitConfig(split="time", train=0.5, validation=0.25, test=0.25)
    assert spans.codes(config).tolist() == [TRAIN, TRAIN, VALIDATION, TEST, UNTIMED]


def test_what_cannot_be_divided_is_refused(tmp_path, files):
    with pytest.raises(InputError, match=r"All 3 sessions began at the same time.*Split by hash"):
        codes_of((5, 9), (5, 9), (5, 7))
    with pytest.raises(InputError, match=r"a gap of 400d 0 of 120 .*shorter --gap"):
        split_by_time(tmp_path, *files, gap="400d")
    with pytest.raises(InputError, match=r"leaves validation or test empty"):
        codes_of((1, 2), (3, 4), (5, 6), train=0.98, validation=0.01, test=0.01)
    outside = {"train_until": "2031-03-25", "test_from": "2031-04-01"}
    with pytest.raises(InputError, match=r"leaves validation and test empty. Sessions: 120 train"):
        split_by_time(tmp_path, *files, **outside)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gap": "7"}, "'7'; a number with its unit expected, as 30m, 36h or 7d"),
        ({"gap": "-1d"}, "a number with its unit"),
        ({"gap": "soon"}, "a number with its unit"),
        ({"gap": "9" * 400 + "d"}, "'9{40}'; 36500d at most"),
        ({"gap": "100000000000 weeks"}, "36500d at most"),
        ({"test_fold": 2}, "one test split, the latest sessions"),
        ({"train": 0.9, "validation": 0.1, "test": 0.0}, "each must be above 0"),
        ({"train_until": "2024-01-01"}, "go together"),
        ({"train_until": "1.2.2024", "test_from": "2024-03-01"}, "train_until is '1.2.2024'"),
        ({"train_until": "2024-03-02", "test_from": "2024-03-01"}, "nothing is left between"),
        ({"train_until": "2024-03-01", "test_from": "2024-03-05", "gap": "4d"}, "nothing is left"),
    ],
)
def test_settings_without_meaning_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        SplitConfig(split="time", **options)
    if not {"test_fold", "train"} & set(options) and not re.search("a number|at most", said):
        with pytest.raises(ValueError, match="belong to --split time"):
            SplitConfig(**options)


def dated_log(seed=0, days=20, first="2018-07-01", **options) -> pd.DataFrame:
    """A log whose sessions fall to days, all plays of one to one day."""
    log = make_log(200, seed=seed, **options)
    of_session = np.random.default_rng(seed).integers(0, days, 200)
    number = pd.factorize(log["session_id"])[0]
    date = pd.Timestamp(first) + pd.to_timedelta(of_session[number], unit="D")
    return log.assign(date=date.strftime("%Y-%m-%d"))


def test_logs_are_divided_by_their_dates(tmp_path):
    logs = [dated_log(0, prefix="a"), dated_log(1, prefix="b")]
    logs[1].loc[logs[1]["session_id"] == "b00003", "date"] = ""
    sources = [write_csv(log, tmp_path / f"{i}.csv") for i, log in enumerate(logs)]
    dataset = split_by_time(tmp_path, *sources, gap="2d")
    day = pd.concat(logs).groupby("session_id")["date"].first()
    log = dataset.sessions
    of_split = [pd.to_datetime(day[log.session_ids[log.sessions_in(s)]]) for s in ("train", "test")]
    assert (of_split[1].min() - of_split[0].max()).days > 2
    assert dataset.about["split"]["left_out"]["without a date"]["sessions"] == 1
    assert log.num_sessions + left_out(dataset) == 400
    rows = dataset.about["rows_read"]
    assert rows == log.num_plays + left_out(dataset, "plays") == sum(map(len, logs))


def test_logs_without_dates_are_refused(tmp_path):
    dated = write_csv(dated_log(0, prefix="a"), tmp_path / "dated.csv")
    log = dated_log(1, prefix="b")
    for i, without in enumerate((log.drop(columns="date"), log.assign(date="unknown"))):
        source = write_csv(without, tmp_path / f"without{i}.csv")
        with pytest.raises(InputError, match=rf"without{i}.csv: no row has a date.*split by hash"):
            split_by_time(tmp_path, dated, source, out=f"out{i}")


def test_histories_beside_logs_need_dates(tmp_path, listening, files):
    log = write_csv(dated_log(first="2021-03-20"), tmp_path / "log.csv")
    with pytest.raises(InputError, match="needs dates"):
        split_by_time(tmp_path, *files, log)
    dataset = split_by_time(
        tmp_path, *files, log, train_until="2021-03-25", test_from="2021-04-01", out="dates"
    )
    assert dataset.sessions.num_sessions + left_out(dataset) == 120 + 200


def relative(table):
    """A service whose times count from a moment that it does not name."""
    if "since" not in table.columns:
        return None
    mapping = PlayMapping(
        user="uid", time="since", track="song_id", played_ms="heard", duration_ms="song_len"
    )
    return HistoryFormat(name="relative", mapping=mapping, relative_times=True)


def test_relative_times_are_divided_by_shares_alone(tmp_path, monkeypatch, listening, files):
    services = registry.SERVICES
    monkeypatch.setattr(registry, "SERVICES", (*services, relative))
    table = foreign_table(listening).rename(columns={"played_at": "since"})
    table.drop(columns=["mixed", "gadget"]).to_csv(tmp_path / "relative.csv", index=False)
    source, own = tmp_path / "relative.csv", HistoryConfig()
    with pytest.raises(InputError, match="Split by shares"):
        split_by_time(
            tmp_path, source, history=own, train_until="2021-03-25", test_from="2021-04-01"
        )
    dataset = split_by_time(tmp_path, source, history=own, gap="1d")
    spans, splits = true_spans(listening), found_splits(dataset)
    train, test = (spans_of(spans, splits, name) for name in ("train", "test"))
    assert test[:, 0].min() > train[:, 1].max() + DAY
    spotify = [
        {"ts": f"2022-01-01T10:{i:02d}:00Z", "ms_played": 60_000, "spotify_track_uri": f"t:{i}"}
        for i in range(20)
    ]
    (tmp_path / "own.json").write_text(json.dumps(spotify))
    with pytest.raises(InputError, match="nothing orders the ones among the others"):
        split_by_time(tmp_path, source, tmp_path / "own.json", history=own, out="both")


def test_the_same_folder_twice(tmp_path, files):
    """Another seed changes folds alone; the same settings nothing."""
    first, again = (split_by_time(tmp_path, *files, out=name) for name in ("one", "two"))
    assert first.identity == again.identity
    config = SplitConfig(split="time", seed=7)
    other = split_by_time(tmp_path, *files, out="three", seed=config.seed)
    assert other.identity != first.identity
    codes = [np.maximum(d.sessions.split, 1) for d in (first, other)]
    np.testing.assert_array_equal(*codes)
    assert replace(config, seed=42).about() == SplitConfig(split="time").about()


@pytest.mark.parametrize("options", [{}, {"train_until": "2021-03-25", "test_from": "2021-04-01"}])
@pytest.mark.parametrize("source", ["history", "relative", "log"])
def test_where_no_session_is_left_nothing_is_divided(
    tmp_path, monkeypatch, listening, source, options
):
    """Too few plays for a session, or no session of the length that is asked for."""
    file, length = tmp_path / "plays.csv", None
    if source == "log":
        write_csv(dated_log(), file)
        length = 2
    else:
        monkeypatch.setattr(registry, "SERVICES", (*registry.SERVICES, relative))
        table = foreign_table(listening).head(5)
        time = {"played_at": "since"} if source == "relative" else {}
        table.rename(columns=time).to_csv(file, index=False)
    config = IngestConfig(
        (str(file),),
        tmp_path / "out",
        session_length=length,
        split=SplitConfig(split="time", **options),
        history=HistoryConfig(map=FOREIGN_MAP if source == "history" else None),
        embeddings=False,
        progress=False,
    )
    said = "No session is left of"
    if source == "relative" and options:
        said = "Split by shares"
    with pytest.raises(InputError, match=said):
        ingest(config)
