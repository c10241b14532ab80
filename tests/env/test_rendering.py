"""Pictures show what was heard: colours, heights, the slate, and a fixed size."""

import re
import subprocess
import sys

import numpy as np
import pytest

from musicbox_env.rendering import (
    BACKGROUND,
    HEIGHT,
    LEVEL_COLOURS,
    WIDTH,
    SessionView,
    ansi,
    rgb_array,
)
from musicbox_env.schema import Level


def view(levels=(4, 0, 3, 2, 1, 4), shown=3, slate=(13, 14, 15), slate_levels=(2, 1, 4), **other):
    tracks = np.arange(10, 10 + len(levels))
    return SessionView(
        tracks=tracks,
        levels=np.array(levels, dtype=np.int8),
        shown=shown,
        slate=np.array(slate),
        slate_levels=np.array(slate_levels, dtype=np.int8),
        titles=other.get("titles", tuple(f"song-{t}" for t in tracks)),
        session="0_abc",
        reward=1.9,
    )


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def pixels_of(picture, colour):
    return int((np.abs(picture.astype(int) - colour).max(axis=2) <= 2).sum())


def test_text_shows_strip_slate_and_reward():
    lines = plain(ansi(view())).splitlines()
    assert lines[0] == "session 0_abc"
    assert lines[1] == "3 songs shown, 3 recommended, 1 skipped"
    assert lines[3] == "  █ ▁ ▆ │ ▅ ▃ █"
    assert lines[5] == "last slate, reward 1.90"
    assert lines[6:9] == [
        "  1  ▅  song-13  most, kept",
        "  2  ▃  song-14  short, skipped",
        "  3  █  song-15  full, kept",
    ]


def test_text_before_the_first_step():
    unheard = view(levels=(4, 0), shown=2, slate=(-1, -1), slate_levels=(-1, -1))
    text = plain(ansi(unheard))
    assert "nothing recommended yet" in text
    assert "no slate yet" in text
    assert "█ ▁ │" in text


def test_text_leaves_out_songs_that_were_not_heard():
    cut_off = view(levels=(4, 0, 3), shown=2, slate=(12, -1, -1), slate_levels=(3, -1, -1))
    assert plain(ansi(cut_off)).count("song-") == 1


def test_a_long_session_is_shown_from_its_end():
    levels = [0] * 60 + [4] * 30
    long = view(levels=levels, shown=10, slate=(99,), slate_levels=(4,))
    strip = plain(ansi(long)).splitlines()[3]
    assert strip.count("▁") == 10
    assert strip.count("█") == 30
    assert rgb_array(long).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("shown", [0, 3, 6])
def test_picture_has_the_declared_form(shown):
    picture = rgb_array(view(shown=shown))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.writeable
    assert (picture[0, 0] == BACKGROUND).all()


def test_a_song_heard_further_has_a_higher_bar():
    nothing_yet = {"shown": 1, "slate": (-1,), "slate_levels": (-1,)}
    empty = rgb_array(view(levels=(), **{**nothing_yet, "shown": 0}))
    areas = []
    for level in range(5):
        picture = rgb_array(view(levels=(level,), **nothing_yet))
        colour = LEVEL_COLOURS[Level(level)]
        areas.append(pixels_of(picture, colour) - pixels_of(empty, colour))
    assert areas[0] > 0
    np.testing.assert_allclose(np.divide(areas, areas[0]), [1, 2, 3, 4, 5], rtol=0.05)


def test_same_view_same_picture_and_another_answer_another_picture():
    first = rgb_array(view())
    np.testing.assert_array_equal(first, rgb_array(view()))
    other = rgb_array(view(levels=(4, 0, 3, 2, 1, 0), slate_levels=(2, 1, 0)))
    assert (first != other).any()


def test_without_pillow_text_works_and_the_picture_says_what_to_install():
    code = """
import sys
sys.modules["PIL"] = None
import numpy as np
from musicbox_env.rendering import SessionView, ansi, rgb_array
one = np.array([0])
view = SessionView(one, one, 0, one, one, ("a",), "s", 0.0)
assert "short" in ansi(view)
try:
    rgb_array(view)
except ImportError as error:
    assert "pip install pillow" in str(error)
else:
    raise AssertionError("drawn without Pillow")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
