"""Yambda in its exact schema: recovered against the truth, from each of its layouts."""

from collections import Counter

import make_yambda
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_yambda import FLAT, STEP, YambdaConfig
from read_histories import run

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.sessions import assign_splits
from musicbox_env.data.splits import SplitConfig
from musicbox_env.errors import InputError
from musicbox_env.ingest.histories.timing.copies import without_opinions_again
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.ingest.sources import parquet
from musicbox_env.retrieval.spaces import embedding_space
from musicbox_env.schema import OPINION_COUNTS, OPINIONS, SOURCES, SPLITS

CONFIG = YambdaConfig(listeners=12, plays=6_000, tracks=800)
EDGES = (10, 33, 90, 97)


def run_of(session_id):
    """The run that a session is a window of."""
    return session_id.rpartition("-")[0]


@pytest.fixture(scope="module")
def plays():
    return make_yambda.plays(CONFIG)


@pytest.fixture(scope="module")
def flat(plays, tmp_path_factory):
    file = tmp_path_factory.mktemp("yambda") / "listens.parquet"
    pq.write_table(plays.table, file)
    return file


@pytest.fixture(scope="module")
def dataset(flat, tmp_path_factory):
    return run(tmp_path_factory.mktemp("flat"), flat)


def runs(dataset) -> list[list[tuple[str, int, int]]]:
    """Songs, levels and sources of each run, in the order of its songs."""
    log, ids = dataset.sessions, dataset.catalog.track_ids
    found: dict[str, list[tuple[str, int, int]]] = {}
    track, level, source = (log.column(name) for name in ("track", "level", "source"))
    for number, name in enumerate(log.session_ids):
        rows = slice(log.offsets[number], log.offsets[number + 1])
        of = zip(ids[track[rows]], level[rows].tolist(), source[rows].tolist(), strict=True)
        found.setdefault(run_of(name), []).extend(of)
    return sorted(map(sorted, found.values()))


def true_runs(plays) -> list[list[tuple[str, int, int]]]:
    """The same of the truth: runs of ten plays or more."""
    table = plays.table
    levels = np.searchsorted(EDGES, table["played_ratio_pct"].to_numpy(), side="right")
    sources = np.where(table["is_organic"].to_numpy() == 1, *map(SOURCES.index, SOURCES))
    songs = table["item_id"].to_numpy().astype(str)
    found = [[] for _ in range(plays.run.max() + 1)]
    for number, *play in zip(plays.run, songs, levels.tolist(), sources.tolist(), strict=True):
        found[number].append(tuple(play))
    return sorted(sorted(of) for of in found if len(of) >= 10)


def alike(ours, theirs) -> float:
    """Share of runs that are the same play by play."""
    ours, theirs = (Counter(map(tuple, of)) for of in (ours, theirs))
    return (ours & theirs).total() / theirs.total()


def test_the_generator_has_the_published_shares():
    table = make_yambda.plays(YambdaConfig(listeners=40, plays=40_000)).table
    assert table.schema.equals(FLAT)
    shares = make_yambda.published_shares(table)
    assert 0.12 <= shares["ties"] <= 0.135
    assert shares["zero"] == pytest.approx(0.074, abs=0.005)
    assert shares["below_50"] == pytest.approx(0.366, abs=0.01)
    assert shares["recommended"] == pytest.approx(0.483, abs=0.01)
    assert 150 <= shares["most"] <= 159
    time = table["timestamp"].to_numpy()
    assert not (time % STEP).any()
    assert time.max() <= 26_000_000


def test_flat_listens_against_the_truth(dataset, plays):
    assert alike(runs(dataset), true_runs(plays)) > 0.99
    notes = "\n".join(dataset.about["history"]["notes"])
    assert "read as the end of their plays" in notes
    assert "exact to 5 seconds" in notes
    assert (dataset.sessions.column("hour") == -1).all()


def test_which_end_a_time_is_is_told_from_the_data(tmp_path):
    config = YambdaConfig(listeners=6, plays=3_000, tracks=500, time_is="start")
    plays = make_yambda.plays(config)
    pq.write_table(plays.table, tmp_path / "listens.parquet")
    dataset = run(tmp_path, tmp_path / "listens.parquet", timezone="Europe/Berlin")
    assert alike(runs(dataset), true_runs(plays)) > 0.99
    assert "read as the start of their plays" in "\n".join(dataset.about["history"]["notes"])
    assert (dataset.sessions.column("hour") == -1).all(), "the origin of these times is not known"


def test_lists_of_a_listener_are_read_a_few_at_a_time(tmp_path, plays, dataset, monkeypatch):
    monkeypatch.setattr(parquet, "PARQUET_ROWS", 700)
    file = make_yambda.write_sequential(tmp_path / "listens.parquet", plays.table)
    assert runs(run(tmp_path, file)) == runs(dataset)


def test_opinions_are_counted_in_training_sessions_alone(tmp_path, plays, dataset):
    told = {kind: make_yambda.opinions(plays.table, 0.05, i) for i, kind in enumerate(OPINIONS)}
    for kind, table in told.items():
        pq.write_table(table, tmp_path / f"{kind}s.parquet")
    pq.write_table(plays.table, tmp_path / "listens.parquet")
    (tmp_path / "all").mkdir()
    file = make_yambda.write_multi_event(tmp_path / "all" / "x.parquet", plays.table, told)
    for source in (
        [tmp_path / f for f in ("listens.parquet", *(f"{k}s.parquet" for k in told))],
        [file],
    ):
        found = run(tmp_path, *source, out=f"out{len(source)}")
        assert runs(found) == runs(dataset)
        assert found.about["history"]["rows"]["likes and dislikes"] == sum(map(len, told.values()))
        assert_counts(found, plays, told)


def test_opinions_that_several_files_list_are_counted_once(tmp_path, plays, dataset):
    """A folder of the data set holds each event twice: with all others, and with those alike."""
    told = {kind: make_yambda.opinions(plays.table, 0.05, i) for i, kind in enumerate(OPINIONS)}
    for kind, table in told.items():
        pq.write_table(table, tmp_path / f"{kind}s.parquet")
    pq.write_table(plays.table, tmp_path / "listens.parquet")
    apart = run(tmp_path, *sorted(tmp_path.glob("*.parquet")), out="apart")
    make_yambda.write_multi_event(tmp_path / "multi_event.parquet", plays.table, told)
    (tmp_path / "more").mkdir()
    pq.write_table(told["like"].slice(3, 50), tmp_path / "more" / "likes.parquet")
    sources = sorted(tmp_path.glob("*.parquet"))
    found = run(tmp_path, *sources, tmp_path / "more" / "likes.parquet")
    assert runs(found) == runs(dataset)
    assert_counts(found, plays, told)
    number, rows = sum(map(len, told.values())), found.about["history"]["rows"]
    assert rows["likes and dislikes"] == number
    assert rows["duplicate likes and dislikes"] == number + 50
    assert rows["duplicate plays"] == len(plays.table)
    (which_end,) = [n for n in apart.about["history"]["notes"] if "read as the end" in n]
    assert which_end in found.about["history"]["notes"]


def test_what_differs_in_anything_is_another_opinion():
    same = {"user": 1, "time": 50, "song": 7, "opinion": 0}
    others = [{**same, name: value} for name, value in (("user", 2), ("time", 55), ("song", 8))]
    rows = [same, *others, {**same, "opinion": 1}, same]
    opinions = Listens(len(rows), {name: [row[name] for row in rows] for name in same})
    kept, again = without_opinions_again(opinions)
    assert (len(kept), again) == (5, 1)
    assert kept["time"].tolist() == [50, 50, 55, 50, 50]
    assert without_opinions_again(Listens(0))[1] == 0


def assert_counts(found, plays, told) -> None:
    """Each opinion was given when its song was heard: in a run, or in none that is long enough."""
    table = plays.table
    run_at = dict(
        zip(
            zip(*(table[n].to_pylist() for n in ("uid", "timestamp", "item_id")), strict=True),
            plays.run.tolist(),
            strict=True,
        )
    )
    songs = [set() for _ in range(plays.run.max() + 1)]
    for number, song in zip(plays.run, table["item_id"].to_numpy().astype(str), strict=True):
        songs[number].add(song)
    keys = {}
    log, ids = found.sessions, found.catalog.track_ids
    for number, name in enumerate(log.session_ids):
        tracks = ids[log.column("track")[log.offsets[number] : log.offsets[number + 1]]]
        keys.setdefault(run_of(name), set()).update(tracks)
    by_songs = {frozenset(of): key for key, of in keys.items()}
    codes = {k: assign_splits([k], seed=42, shares=(0.7, 0.1, 0.2))[0] for k in keys}
    unsure = 0
    for kind, opinions in told.items():
        expected = Counter()
        rows = zip(*(opinions[n].to_pylist() for n in ("uid", "timestamp", "item_id")), strict=True)
        for row in rows:
            key = by_songs.get(frozenset(songs[run_at[row]]))
            if key is not None and codes[key] < 2:
                expected[str(row[2])] += 1
        counted = found.catalog.opinions(kind)
        unsure += sum(abs(expected[track] - n) for track, n in zip(ids, counted, strict=True))
    total = sum(found.catalog.opinions(kind).sum() for kind in told)
    assert total > 300
    # A run that was told apart otherwise, or a time rounded out of its run.
    assert unsure <= 0.02 * total
    frame = pq.read_table(found.folder / "catalog.parquet")
    assert set(OPINION_COUNTS) <= set(frame.column_names)


def test_artists_and_albums_of_the_mapping_files(tmp_path, plays):
    items = np.unique(plays.table["item_id"].to_numpy())
    pq.write_table(plays.table, tmp_path / "listens.parquet")
    for name, ids in (("artist", items % 37), ("album", items % 97)):
        columns = {f"{name}_id": ids.astype(np.uint32), "item_id": items}
        pq.write_table(pa.table(columns), tmp_path / f"{name}_item_mapping.parquet")
    make_yambda.write_embeddings(tmp_path / "embeddings.parquet", items)
    dataset = run(tmp_path, tmp_path)
    assert dataset.about["passed_over"]["names"] == ["embeddings.parquet"]
    assert "--embeddings" in dataset.about["passed_over"]["why"][0]
    catalog = pq.read_table(dataset.folder / "catalog.parquet").to_pandas()
    numbers = catalog["track_id"].astype(int)
    assert (catalog["artist"] == (numbers % 37).astype(str)).all()
    assert (catalog["album"] == (numbers % 97).astype(str)).all()
    assert list(dataset.catalog.titles) == list(dataset.catalog.track_ids)


def ingested(tmp_path, flat, embeddings):
    config = IngestConfig(
        (str(flat),),
        tmp_path / "out",
        embeddings=False,
        embedding_files=(str(embeddings),),
        progress=False,
    )
    return Dataset(ingest(config))


def test_embeddings_are_a_space_of_their_own(tmp_path, flat, dataset):
    items = dataset.catalog.track_ids.astype(np.int64)
    file = make_yambda.write_embeddings(tmp_path / "embeddings.parquet", items[:-30], dim=6)
    found = ingested(tmp_path, flat, file)
    assert found.embedding_names == ("embeddings",)
    assert embedding_space(found, "embeddings+rate").shape == (len(items), 7)
    given = np.array(pq.read_table(file)["embed"].to_pylist())
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    plays = found.catalog.plays()[:-30]
    given -= plays @ given / plays.sum()
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    order = found.catalog.index_of(list(dataset.catalog.track_ids))
    ours = found.embedding("embeddings")[order]
    assert ours[:-30] == pytest.approx(given, abs=1e-5)
    assert np.allclose(ours[-30:], ours[-1]), "tracks without a vector lie in the blank direction"


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("has 5 numbers in embed; 6 as before", lambda v: v[1].pop()),
        ("is no finite number in embed", lambda v: v[1].__setitem__(0, float("nan"))),
        ("is no finite number in embed", lambda v: v[1].__setitem__(0, float("inf"))),
        ("nothing but zeros in embed", lambda v: v.__setitem__(1, [0.0] * 6)),
        ("has 0 numbers in embed", lambda v: v.__setitem__(1, None)),
    ],
)
def test_vectors_that_cannot_be_are_refused(tmp_path, flat, dataset, said, change):
    vectors = np.ones((3, 6)).tolist()
    change(vectors)
    table = {"item_id": dataset.catalog.track_ids[:3].astype(np.uint32), "embed": vectors}
    pq.write_table(pa.table(table), tmp_path / "embeddings.parquet")
    with pytest.raises(InputError, match=said):
        ingested(tmp_path, flat, tmp_path / "embeddings.parquet")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("said", "table"),
    [
        ("already in an earlier row", {"item_id": [1, 1], "embed": [[1.0, 2.0], [2.0, 1.0]]}),
        ("none of its 2 vectors", {"item_id": [-1, -2], "embed": [[1.0, 2.0], [2.0, 1.0]]}),
        ("holds no embeddings", {"item_id": [1, 2], "loudness": [1.0, 2.0]}),
    ],
)
def test_files_that_hold_no_embeddings_are_refused(tmp_path, flat, dataset, said, table):
    first = int(dataset.catalog.track_ids[0])
    table["item_id"] = [first if number > 0 else number for number in table["item_id"]]
    pq.write_table(pa.table(table), tmp_path / "embeddings.parquet")
    with pytest.raises(InputError, match=said):
        ingested(tmp_path, flat, tmp_path / "embeddings.parquet")


def test_optional_columns_may_be_missing(tmp_path, plays, dataset):
    table = plays.table.drop_columns(["is_organic", "track_length_seconds"])
    pq.write_table(table, tmp_path / "listens.parquet")
    found = run(tmp_path, tmp_path / "listens.parquet")
    assert found.about["history"]["rows"]["read"] == len(table)
    assert not (found.folder / "plays" / "source.npy").exists()


@pytest.mark.parametrize("column", ["uid", "timestamp", "item_id", "played_ratio_pct"])
def test_without_a_needed_column_the_options_are_named(tmp_path, plays, column):
    pq.write_table(plays.table.drop_columns([column]), tmp_path / "listens.parquet")
    with pytest.raises(InputError, match=r"--map|found"):
        run(tmp_path, tmp_path / "listens.parquet")


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("played_ratio_pct", pa.uint16(), 65_535),
        ("played_ratio_pct", pa.int32(), -1),
        ("timestamp", pa.int64(), -5),
        ("timestamp", pa.int64(), None),
        ("uid", pa.int64(), None),
        ("item_id", pa.int64(), None),
        ("played_ratio_pct", pa.float64(), float("nan")),
    ],
)
def test_impossible_values_are_rejected_one_by_one(tmp_path, plays, column, kind, value):
    table = plays.table
    values = table[column].to_pylist()
    values[7] = value
    changed = table.set_column(FLAT.get_field_index(column), column, pa.array(values, kind))
    pq.write_table(changed, tmp_path / "listens.parquet")
    found = run(tmp_path, tmp_path / "listens.parquet")
    assert found.about["history"]["rows"]["rejected"] == 1
    assert (found.folder / "rejects.csv").read_text().splitlines()[1].split(",")[1] == "8"


def test_lists_of_unequal_length_are_rejected_as_a_whole(tmp_path, plays):
    file = make_yambda.write_sequential(tmp_path / "listens.parquet", plays.table)
    table = pq.read_table(file)
    lists = table["item_id"].to_pylist()
    lost = len(lists[2])
    lists[2] = lists[2][:-1]
    kind = table.schema.field("item_id").type
    place = table.schema.get_field_index("item_id")
    pq.write_table(table.set_column(place, "item_id", pa.array(lists, kind)), file)
    found = run(tmp_path, file, max_rejects=0.9)
    assert found.about["history"]["rows"]["rejected"] == lost
    assert found.about["rows_read"] == len(plays.table)


def test_test_comes_last_in_a_split_by_time(tmp_path, flat, plays):
    """Times are compared with the true ones, which the dataset does not keep."""

    def split(**options):
        config = SplitConfig(split="time", **options)
        out = tmp_path / f"out{len(options)}"
        options = {"split": config, "embeddings": False, "progress": False}
        return Dataset(ingest(IngestConfig((str(flat),), out, **options)))

    with pytest.raises(InputError, match="count from a moment that nobody names"):
        split(train_until="2024-01-01", test_from="2024-03-01")
    found = split(gap="1h")
    of_run = {}
    for name, code in zip(found.sessions.session_ids, found.sessions.split, strict=True):
        of_run.setdefault(run_of(name), SPLITS[code].partition("_")[0])
    songs = plays.table["item_id"].to_numpy().astype(str)
    true = {}
    for number in range(plays.run.max() + 1):
        rows = np.flatnonzero(plays.run == number)
        key = tuple(sorted(songs[rows]))
        true[key] = (plays.start[rows].min(), plays.end[rows].max())
    spans = {"train": [], "validation": [], "test": []}
    for name, of in songs_of_runs(found).items():
        if tuple(sorted(of)) in true:
            spans[of_run[name]].append(true[tuple(sorted(of))])
    train, validation, test = (np.array(spans[name]) for name in spans)
    assert min(map(len, (train, validation, test))) >= 10
    assert validation[:, 0].min() > train[:, 1].max() + 3_600
    assert test[:, 0].min() > validation[:, 1].max()


def songs_of_runs(dataset) -> dict[str, list[str]]:
    log, ids = dataset.sessions, dataset.catalog.track_ids
    found: dict[str, list[str]] = {}
    for number, name in enumerate(log.session_ids):
        rows = slice(log.offsets[number], log.offsets[number + 1])
        found.setdefault(run_of(name), []).extend(ids[log.column("track")[rows]])
    return found


def test_opinions_and_scrobbles_in_one_ingest(tmp_path, plays):
    """Each row is counted once, and levels are inferred where nothing tells them, and there alone.

    `run` checks the account.
    """
    pq.write_table(plays.table, tmp_path / "listens.parquet")
    likes = make_yambda.opinions(plays.table, 0.05, 0)
    pq.write_table(likes, tmp_path / "likes.parquet")
    header = "uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid"
    songs = [f"{1_600_000_000 + 200 * i},,Artist,,Album,,Song {i % 7}," for i in range(40)]
    (tmp_path / "lastfm.csv").write_text("\n".join([header, *songs]))
    found = run(tmp_path, *sorted(tmp_path.iterdir()), inferred_levels=True)
    history = found.about["history"]
    assert history["rows"]["read"] == len(plays.table) + len(likes) + len(songs)
    assert history["rows"]["likes and dislikes"] == len(likes)
    evidence = history["levels"]["evidence"]
    assert evidence["inferred: heard until the next play began, or to the end"]["plays"] == 40
    assert found.catalog.opinions("like").sum() > 0
