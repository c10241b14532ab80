"""Ordered playlists: rolled out from the catalog, or of given songs."""

import numpy as np
import pytest
from musicbox_agents import make_agent
from musicbox_experiments.cli import USER_ERROR, main
from musicbox_experiments.serve.playlist import ListenerModel, playlist
from musicbox_experiments.serve.recommend import heard_session, recommend_next
from musicbox_experiments.serve.recommender import Recommender
from musicbox_experiments.train.jobs import TrainingJob, train

from musicbox_env.listeners import LearnedListener
from musicbox_env.schema import is_skip

HEARD = "t_00000001:full,t_00000007:skipped,t_00000012:most"


@pytest.fixture(scope="module")
def listener(synthetic):
    return LearnedListener(synthetic)


@pytest.mark.parametrize("name", ["popularity", "played-rate", "ddpg"])
def test_a_playlist_begins_with_the_next_slate_and_holds_no_song_twice(synthetic, listener, name):
    agent, heard = make_agent(name, synthetic), heard_session(synthetic, HEARD)
    places = playlist(Recommender(agent), heard, 11, listener)
    tracks = [place.track for place in places]
    assert tracks[:3] == recommend_next(agent, synthetic, HEARD)
    assert len(set(tracks) - set(heard.tracks.tolist())) == 11
    assert places == playlist(Recommender(agent), heard, 11, listener)


def test_chances_are_the_listeners_after_the_songs_before(synthetic, listener):
    heard = heard_session(synthetic, HEARD)
    places = playlist(Recommender(make_agent("popularity", synthetic)), heard, 5, listener)
    model = ListenerModel(listener, heard, 20)
    for place in places:
        chances = model.chances(place.track)
        assert place.skip == pytest.approx(chances[is_skip(np.arange(5))].sum())
        model.hear(place.track, int(chances.argmax()))
    assert len({place.skip for place in places}) == 5


@pytest.mark.parametrize("name", ["popularity", "played-rate", "ddpg"])
def test_given_songs_are_put_in_an_order_of_the_agents(synthetic, listener, name):
    heard, given = heard_session(synthetic, HEARD), [3, 150, 12, 77, 40, 41, 99]
    agent = Recommender(make_agent(name, synthetic), restricted=True)
    places = playlist(agent, heard, len(given), listener, among=given)
    tracks = [place.track for place in places]
    assert sorted(tracks) == sorted(given)
    assert tracks == [p.track for p in playlist(agent, heard, 7, listener, among=given[::-1])]
    if name == "popularity":
        plays = synthetic.catalog.plays()[tracks]
        assert (np.diff(plays.astype(int)) <= 0).all()


def test_more_songs_than_a_logged_session_has_are_put_in_order(synthetic, listener):
    given = list(range(60, 130))
    agent = Recommender(make_agent("popularity", synthetic), restricted=True)
    places = playlist(agent, heard_session(synthetic, HEARD), 70, listener, among=given)
    assert sorted(place.track for place in places) == given


def test_songs_run_out(synthetic, listener):
    """A playlist of the catalog ends with its last slate; given songs are all put in order."""
    agent, heard = make_agent("popularity", synthetic), heard_session(synthetic, HEARD)
    everything, known = list(range(200)), {*range(100, 190), *heard.tracks.tolist()}
    free, among = Recommender(agent), Recommender(agent, restricted=True)
    places = playlist(free, heard.without(range(100, 190)), 200, listener)
    assert len({place.track for place in places} - known) == (200 - len(known)) // 3 * 3
    places = playlist(among, heard, 200, listener, among=everything)
    assert sorted(place.track for place in places) == everything
    with pytest.raises(ValueError, match="no slate of 3 songs is left"):
        playlist(free, heard.without(everything[2:]), 3, listener)


@pytest.mark.parametrize("name", ["logged", "skyline", "planner"])
def test_agents_that_read_the_listener_have_nothing_to_recommend_from(synthetic, name):
    with pytest.raises(ValueError, match=f"{name} cannot recommend"):
        recommend_next(make_agent(name, synthetic), synthetic, HEARD)


@pytest.mark.parametrize("name", ["\udcff", "\0", "", "\ud800 - \udfff"])
def test_what_is_no_text_names_no_song(synthetic, name):
    """Bytes of a command line that are no UTF-8 reach Python as lone surrogates."""
    with pytest.raises(KeyError, match="No song"):
        synthetic.catalog.find([name])


@pytest.fixture(scope="module")
def run(synthetic, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    options = {"data": str(synthetic.folder), "split": "train", "listener": "ground_truth"}
    train(TrainingJob("popularity", 0, {}, options, 10, str(out / "agents/popularity/seed-0")))
    return ["recommend", str(out), "--agent", "popularity", "--heard", HEARD]


def test_the_command_prints_a_line_a_song_with_its_chance(run, capsys):
    main([*run, "--songs", "4"])
    told, *lines = capsys.readouterr().out.splitlines()
    assert "chance that a learned listener" in told
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert all(" skip " in line and "%" in line for line in lines)
    main([*run, "--order", "t_00000050", "t_00000060"])
    _, *lines = capsys.readouterr().out.splitlines()
    assert sorted("t_00000050" in line for line in lines) == [False, True]


@pytest.mark.parametrize("spelled", [str, str.upper, lambda title: f" {title} "])
def test_two_names_of_a_song_to_be_ordered_are_both_told(run, synthetic, capsys, spelled):
    track, title = (str(of[50]) for of in (synthetic.catalog.track_ids, synthetic.catalog.titles))
    with pytest.raises(SystemExit) as stopped:
        main([*run, "--order", "t_00000060", track, spelled(title)])
    assert stopped.value.code == USER_ERROR
    told = "".join(capsys.readouterr())
    assert f"{track!r} and {spelled(title)!r} of --order are the same song" in told


def test_more_places_than_songs_to_order_is_said(run, capsys):
    main([*run, "--songs", "5", "--order", "t_00000050", "t_00000060"])
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "These are 2 of 5 songs: --order names no more."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--songs", "0"], "songs"),
        (["--order"], "names no song"),
        (["--songs", "3", "--order"], "names no song"),
        (["--order", "t_00000060", "t_00000050", "t_00000050"], "'t_00000050' of --order is named"),
        (["--order", "no such song"], "no such song"),
    ],
)
def test_playlists_that_cannot_be_are_refused(run, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        main([*run, *options])
    assert stopped.value.code == USER_ERROR
    assert message in "".join(capsys.readouterr())
