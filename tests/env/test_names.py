"""One normal form of names, whatever wrote them."""

import unicodedata

import pytest

from musicbox_env.names import id_key, is_placeholder, name_key, song_key

ID = "4uLU6hMCjMI75M1A2tKUQC"


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f"  {ID}\n",
        f"spotify:track:{ID}",
        f"spotify:user:someone:track:{ID}",
        f"https://open.spotify.com/track/{ID}",
        f"http://open.spotify.com/track/{ID}?si=abc&x=1",
        f"open.spotify.com/intl-de/track/{ID}#t",
        f"https://play.spotify.com/track/{ID}/",
        f"https://open.spotify.com/embed/track/{ID}",
    ],
)
def test_ids_of_spotify(text):
    assert id_key(text) == ID


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("123.0", "123"),
        ("123.", "123"),
        ("-7.000", "-7"),
        ("1.5", "1.5"),
        ("0042", "0042"),
        ("v1.0", "v1.0"),
        ("t_ab:c", "t_ab:c"),
        ("spotify:episode:xyz", "spotify:episode:xyz"),
        ("Abc", "Abc"),
        ("Bjo\u0308rk", "Bj\u00f6rk"),
    ],
)
def test_other_ids(text, key):
    assert id_key(text) == key
    assert id_key(key) == key


@pytest.mark.parametrize(
    "text",
    [
        "Sigur Rós \u2013 Ágætis byrjun",
        "SIGUR RÓS - ÁGÆTIS BYRJUN",
        unicodedata.normalize("NFD", "Sigur Rós — Ágætis byrjun"),
        "Sigur\u00a0Rós \u2010  Ágætis\tbyrjun",
        "Sigur R\u200bós - Ágæ\u00adtis byrjun",
    ],
)
def test_names_alike(text):
    assert name_key(text) == name_key("Sigur Rós - Ágætis byrjun")


def test_utf8_read_as_windows_1252():
    for name in ("Beyoncé", "Mot\u00f6rhead \u2013 Ace", "Zo\u00eb\u2019s"):
        assert name_key(name.encode().decode("cp1252")) == name_key(name)
    assert name_key("Ã") == "ã", "what is no UTF-8 stays"


@pytest.mark.parametrize(
    ("one", "other"),
    [("Song", "Song (Live)"), ("Song - Remastered 2011", "Song"), ("A", "Á"), ("1", "2")],
)
def test_names_that_differ(one, other):
    assert song_key(one, "X") != song_key(other, "X")
    assert song_key("X", one) != song_key("X", other)


@pytest.mark.parametrize(
    ("title", "artist", "placeholder"),
    [
        ("Unknown Track", "Unknown Artist", True),
        ("<unknown>", "<unknown>", True),
        ("Track 07", "Unknown Artist", True),
        ("UNKNOWN TITLE", "", True),
        ("Untitled", "Various Artists", True),
        ("Unknown Track", "Sumi", False),
        ("Song 3", "Unknown Artist", False),
        ("Unknown", "", False),
        ("", "Unknown Artist", False),
        ("", "", False),
    ],
)
def test_placeholders(title, artist, placeholder):
    assert is_placeholder(title, artist) is placeholder
