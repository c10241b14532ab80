"""A song is not its id: one catalog track a song, found under every name it has."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
from evenings import account_rows, evenings, ingested, sizes, spotify_records, table
from make_logs import make_log

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.names import song_key


@pytest.fixture(scope="module")
def plays() -> pd.DataFrame:
    return evenings()


def of_two_ids(plays) -> pd.DataFrame:
    """Every second play under another id of the song."""
    other = "Z" + plays["id"].str[1:]
    return plays.assign(id=plays["id"].where(plays.index % 2 == 0, other))


def spelled_anew(plays) -> pd.DataFrame:
    """Every second play with its names in capitals, decomposed, with other dashes."""
    accents = plays.assign(
        title="Höhe - " + plays["title"], artist="Ö\u2019" + plays["artist"].str.replace(" ", "-")
    )
    odd = accents.index % 2 == 1
    for name in ("title", "artist"):
        anew = accents[name].str.upper().map(lambda text: unicodedata.normalize("NFD", text))
        anew = anew.str.replace("-", "\u2013").str.replace("\u2019", "'")
        accents[name] = accents[name].where(~odd, anew)
    return accents


def test_ids_of_one_title_are_one_track(tmp_path, plays):
    dataset, _, _ = ingested(tmp_path, spotify_records(of_two_ids(plays)))
    assert sizes(dataset) == (40, 600)
    assert len(dataset.catalog) == 60
    assert dataset.about["history"]["merged_ids"] > 50
    assert len({song_key(title, "") for title in dataset.catalog.titles}) == 60
    ids = of_two_ids(plays)
    for name in (*ids["id"][:20], *("spotify:track:" + ids["id"])[:20]):
        (row,) = dataset.catalog.find([name])
        expected = plays.loc[ids["id"] == name.removeprefix("spotify:track:"), "title"].iloc[0]
        assert dataset.catalog.titles[row].endswith(f" - {expected}")


def test_names_without_ids_in_every_spelling(tmp_path, plays):
    told = spelled_anew(plays)
    dataset, rows, _ = ingested(tmp_path, account_rows(told))
    assert len(dataset.catalog) == 60
    assert rows["plays in sessions"] == 600
    for names in ("NFC", "NFD"):
        title = unicodedata.normalize(names, told["artist"][1] + " \u2014 " + told["title"][1])
        assert len(dataset.catalog.find([title])) == 1


def test_versions_of_a_title_stay_apart(tmp_path, plays):
    odd = plays.index % 2 == 1
    for ending in (" - Remastered 2011", " (Live)", " (feat. Sumi)"):
        told = of_two_ids(plays).assign(title=plays["title"].where(~odd, plays["title"] + ending))
        dataset, _, _ = ingested(tmp_path, spotify_records(told))
        assert len(dataset.catalog) > 100
        assert dataset.about["history"]["merged_ids"] == 0


def test_lengths_of_two_recordings_are_not_mixed(tmp_path, plays):
    """A short version and a long one: each is full where it ended, and both are one song."""
    long = plays.index % 2 == 1
    ms = plays["ms"].where(~(long & plays["full"]), plays["ms"] * 3 // 2)
    told = of_two_ids(plays).assign(ms=ms, session=plays["session"])
    end = told["ms"].groupby(told["session"]).cumsum() + 1_641_232_800_000
    told["end_ms"] = end + told["session"] * 86_400_000
    dataset, _, _ = ingested(tmp_path, spotify_records(told))
    full = dataset.sessions.column("level") == 4
    assert full.mean() == pytest.approx(plays["full"].mean(), abs=0.02)


def test_placeholders_enter_no_catalog(tmp_path, plays):
    unknown = plays[:90].assign(title="Unknown Track", artist="Unknown Artist")
    told = pd.concat([unknown, plays[90:]])
    dataset, rows, _ = ingested(tmp_path, spotify_records(told))
    (left_out,) = [n for what, n in rows.items() if "placeholder" in what]
    assert left_out == 90
    assert sizes(dataset) == (34, 510)
    assert not [title for title in dataset.catalog.titles if "Unknown" in title]


@pytest.mark.parametrize("spelling", ["{}.0", "{}", " {} ", "{}."])
def test_users_and_tracks_as_floats(tmp_path, plays, spelling):
    source = table(plays, "start_ms", 1_000, "%Y-%m-%dT%H:%M:%SZ")
    source["track_id"] = plays["track"].astype(str)
    source["user_id"] = "7"
    odd = plays.index % 2 == 1
    for name in ("track_id", "user_id"):
        source[name] = source[name].where(~odd, source[name].map(spelling.format))
    dataset, _, _ = ingested(tmp_path, source)
    assert dataset.about["history"]["listeners"] == 1
    assert sorted(map(int, dataset.catalog.track_ids)) == sorted(set(plays["track"]))


def test_windows_1252_beside_utf8(tmp_path, plays):
    told = plays.assign(title="Égalité " + plays["title"], artist="Beyoncé")
    source = table(told, "start_ms", 1_000, "%Y-%m-%dT%H:%M:%SZ").drop(columns="track_id")
    source = source.assign(title=told["title"], artist=told["artist"])
    for name, encoding, rows in (("a", "utf-8", slice(300)), ("b", "cp1252", slice(300, None))):
        source[rows].to_csv(tmp_path / f"{name}.csv", index=False, encoding=encoding)
    dataset = ingest_files(tmp_path, "a.csv", "b.csv")
    assert sizes(dataset) == (40, 600)
    assert len(dataset.catalog) == 60
    assert len(dataset.catalog.find(["beyoncé - égalité song 05"])) == 1


def ingest_files(tmp_path, *names, **options) -> Dataset:
    sources = tuple(str(tmp_path / name) for name in names)
    return Dataset(
        ingest(
            IngestConfig(
                sources,
                tmp_path / "out",
                embeddings=False,
                progress=False,
                history=HistoryConfig(map="auto"),
                **options,
            )
        )
    )


def test_ids_of_logs_have_the_same_form(tmp_path):
    """In session logs too: floats in one row, whole numbers in the other, and in the features."""
    log = pd.DataFrame(make_log(20))
    number = pd.factorize(log["track_id_clean"])[0]
    odd = np.arange(len(log)) % 2 == 1
    log["track_id_clean"] = np.where(odd, [f"{n}.0" for n in number], number.astype(str))
    log.to_csv(tmp_path / "log.csv", index=False)
    features = pd.DataFrame({"track_id": [f"{n}.0" for n in set(number)], "tempo": 1.0})
    features.to_csv(tmp_path / "features.csv", index=False)
    catalog = ingest_files(tmp_path, "log.csv", tracks=(str(tmp_path / "features.csv"),)).catalog
    assert sorted(map(int, catalog.track_ids)) == sorted(set(number))
    assert (catalog.features(("tempo",)) == 1).all()


def test_features_are_found_under_any_id(tmp_path, plays):
    """As links, of ids that were merged; no song joins the catalog twice."""
    pd.DataFrame(spotify_records(of_two_ids(plays))).to_csv(tmp_path / "plays.csv", index=False)
    ids = "Z" + plays["id"].drop_duplicates().str[1:]
    features = pd.DataFrame({"track_id": "https://open.spotify.com/track/" + ids})
    features["tempo"] = np.arange(len(features), dtype=np.float32)
    features.to_csv(tmp_path / "features.csv", index=False)
    dataset = ingest_files(tmp_path, "plays.csv", tracks=(str(tmp_path / "features.csv"),))
    assert len(dataset.catalog) == 60
    tempo = dataset.catalog.features(("tempo",))[:, 0]
    assert np.isfinite(tempo).all()
    for track, value in zip(ids, features["tempo"], strict=True):
        assert tempo[dataset.catalog.find([track])[0]] == value
