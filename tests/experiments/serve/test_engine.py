"""Agents asked one by one, in batches and by the command give the same songs."""

import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from musicbox_agents import AGENTS, make_agent
from musicbox_agents.baselines.bounds import PrivilegedAgent
from musicbox_agents.registry import agent_class
from musicbox_experiments.benchmark.worlds import random_dataset
from musicbox_experiments.serve.engine import Engine, ServedAgent, number
from musicbox_experiments.serve.recommend import RecommendConfig, context_of, recommend
from musicbox_experiments.serve.recommender import LiveSession
from musicbox_experiments.serve.songs import AmbiguousSongError, Songs
from served_runs import write_training

from musicbox_env.data.dataset import Dataset
from musicbox_env.errors import UserError

SERVED = [name for name in AGENTS if not issubclass(agent_class(name), PrivilegedAgent)]


def listeners(engine, lengths=(1, 4, 9, 30, 0)):
    """Sessions of several lengths, some longer than any of the log."""
    rng, number = np.random.default_rng(0), len(engine.songs)
    return [
        LiveSession(rng.integers(0, number, n), rng.integers(0, 5, n).astype(np.int8), context_of())
        for n in lengths
    ]


def named(engine, asked):
    pairs = zip(asked.tracks, asked.levels, strict=True)
    return ",".join(f"{engine.songs.id(row)}:{level}" for row, level in pairs)


def rows(songs):
    """Scores of a batch are rounded otherwise than those of one."""
    return [row for row, _ in songs]


def test_all_agents_are_served_but_those_that_read_the_listener(engine):
    assert set(engine.agents) == set(SERVED)
    assert set(engine.left_out) == set(AGENTS) - set(SERVED)
    assert next(iter(engine.agents)) == engine.default == "ddpg"


@pytest.mark.parametrize("name", SERVED)
def test_a_batch_gives_what_the_command_prints(name, engine, run):
    asked = listeners(engine)
    together = engine.agents[name].songs(asked, [3] * len(asked))
    for one, songs in zip(asked, together, strict=True):
        if name == "random":  # draws anew each time it is asked
            continue
        assert rows(engine.agents[name].songs([one], [3])[0]) == rows(songs)
        if len(one.tracks):
            printed = recommend(RecommendConfig(run, named(engine, one), agent=name))
            assert printed == [engine.songs.id(row) for row in rows(songs)]


@pytest.mark.parametrize("name", SERVED)
def test_no_song_comes_twice_or_was_heard_or_is_barred(name, engine):
    one = listeners(engine, [6])[0].without(range(40))
    (songs,) = engine.agents[name].songs([one], [25])
    found = {*rows(songs)}
    assert len(found) == len(songs) == 25
    assert not found & {*one.tracks.tolist(), *range(40)}


def test_a_catalog_that_is_used_up_gives_fewer_songs(engine):
    number = len(engine.songs)
    asked = listeners(engine, [0])[0].without(range(number - 5))
    (songs,) = engine.agents["ddpg"].songs([asked], [100])
    assert {row for row, _ in songs} <= set(range(number - 5, number))
    assert 0 < len(songs) <= 5


def test_a_playlist_holds_no_song_that_is_barred(engine):
    asked = listeners(engine, [5])[0].without(range(60))
    tracks = [place.track for place in engine.agents["played-rate"].playlist(asked, 30)]
    assert len({*tracks}) == 30
    assert not {*tracks} & {*asked.tracks.tolist(), *range(60)}


def test_without_a_learned_listener_there_are_songs_and_no_playlists(tmp_path):
    data = Dataset(random_dataset(tmp_path / "data", 200, 100, dim=4))
    write_training(tmp_path / "run", "played-rate", data)
    engine = Engine.open(tmp_path / "run")
    (asked,) = listeners(engine, [3])
    assert len(engine.agents["played-rate"].songs([asked], [3])[0]) == 3
    with pytest.raises(UserError, match="No listener was learned") as refused:
        engine.agents["played-rate"].playlist(asked, 3)
    assert str(tmp_path) not in str(refused.value)


def test_scores_of_critics_and_points_fall(engine):
    (asked,) = listeners(engine, [5])
    for name in ("ddpg", "played-rate", "bc"):
        (slate,) = engine.agents[name].slates([asked])
        scores = [score for _, score in slate]
        assert scores == sorted(scores, reverse=True)
    assert {score for _, score in engine.agents["popularity"].slates([asked])[0]} == {None}


@pytest.mark.parametrize("settings", [{}, {"reach": "slate"}, {"reach": "song"}, {"rerank": 0}])
def test_scores_are_what_songs_were_chosen_by(synthetic, settings):
    """Walked by hand: each place takes the highest of what is left, and that is its score."""
    agent = make_agent("ddpg", synthetic, settings=settings)
    torch.manual_seed(1)
    for weights in agent.acting_critic.parameters():
        torch.nn.init.normal_(weights.data, std=0.3)
    served = ServedAgent("ddpg", 0, agent, "ground_truth")
    asked = LiveSession(np.array([3, 17, 40]), np.array([4, 0, 4], np.int8), context_of())
    choice = served.choose([asked])
    encoded = agent.acting_critic.encode(agent.space.state(choice.observation))
    mu = choice.decision.proto_actions[0]
    weight = np.append(np.ones(agent.space.dim - 1), agent.settings.quality_weight)
    songs = (agent.space.vectors * weight).astype(np.float32)
    near = np.argsort(-(songs @ mu))
    near = [int(row) for row in near if row not in asked.tracks][: agent.settings.rerank or 3]
    for row, score in zip(choice.slates[0], served.scores(choice)[0], strict=True):
        values = songs[near] @ mu
        if agent.settings.rerank:
            with torch.no_grad():
                left = torch.from_numpy(songs[near][None])
                values = agent.acting_critic.score(encoded, left)[0].numpy()
        best = int(np.argmax(values))
        assert near.pop(best) == row
        assert score == pytest.approx(float(values[best]), abs=1e-5)
        if agent.settings.reach == "song":
            encoded = agent.acting_critic.after(encoded, torch.from_numpy(songs[[[row]]]))


def test_a_song_that_took_the_place_of_another_has_no_score(synthetic):
    served = ServedAgent("ddpg", 0, make_agent("ddpg", synthetic), "ground_truth")
    asked = LiveSession(np.array([3, 17, 40]), np.array([4, 0, 4], np.int8), context_of())
    choice = served.choose([asked])
    slates = choice.slates + np.array([[1, 0, 0]])
    scores, before = served.scores(choice._replace(slates=slates)), served.scores(choice)
    np.testing.assert_array_equal(np.isnan(scores), [[True, False, False]])
    np.testing.assert_array_equal(scores[:, 1:], before[:, 1:])
    decided = choice.decision._replace(values=np.full((1, 3), -np.inf, np.float32))
    assert [number(value) for value in served.scores(choice._replace(decision=decided))[0]] == (
        [None] * 3
    )


def test_songs_are_found_as_the_catalog_finds_them(synthetic):
    songs, catalog = Songs(synthetic.catalog), synthetic.catalog
    spellings = [str.upper, lambda name: name.replace(" - ", " \u2013 "), lambda name: f" {name} "]
    for row in (0, 7, len(catalog) - 1):
        assert songs.find(catalog.track_ids[row]) == row
        for spelled in spellings:
            name = spelled(catalog.titles[row])
            assert songs.find(name) == catalog.find([name])[0] == row
    assert songs.find("Nobody - Nothing") is None


def test_songs_are_found_with_typos(synthetic):
    songs = Songs(synthetic.catalog)
    rng = np.random.default_rng(0)
    for row in range(0, 200, 10):
        name = songs.name(row)
        place = int(rng.integers(1, len(name) - 1))
        assert row in songs.search(name[:place] + name[place + 1 :], 3)
    assert songs.search("zzzzzz", 3) == songs.search("  ", 3) == []


def test_songs_are_found_by_the_words_that_people_remember():
    """With typos in each, without marks, and within texts that have no blanks."""

    class Named:
        titles = np.array(
            [
                "Woolen Sparrows - Our Pavement",
                *(
                    f"Woolen Sparrows - {word} for the Long Way Home"
                    for word in ("Road", "Pavilion")
                ),
                *(f"Woolen Sparrows {n} - Save" for n in range(300)),
                "AC/DC - T.N.T.",
                "\u690e\u540d\u6797\u6a8e - \u4e38\u30ce\u5185",
                "X - </script>alert(1)<script>",
            ],
            object,
        )
        track_ids = np.array([f"t{row}" for row in range(len(titles))], object)
        other_ids: ClassVar = {}
        shows_titles = True

    songs, last = Songs(Named()), len(Named.titles) - 1
    wanted = {"Woolen Sparows Pavment": 0, "tnt": last - 2, "acdc": last - 2, "T.N.T.": last - 2}
    wanted |= {"\u6797\u6a8e": last - 1, "\u30ce\u5185": last - 1, "script": last, "alert": last}
    assert {query: songs.search(query, 8)[:1] for query in wanted} == {
        query: [row] for query, row in wanted.items()
    }


def test_a_word_as_it_stands_comes_before_rarer_ones_that_begin_with_it():
    class Numbered:
        titles = np.array(
            [f"Artist {n % 7} - Song No {n}" for n in range(400, 0, -1)]
            + ["Rain - Love", *(f"Rain - Lovely {n}" for n in range(3)), "Love - Snow"],
            object,
        )
        track_ids = np.array([f"t{row}" for row in range(len(titles))], object)
        other_ids: ClassVar = {}
        shows_titles = True

    songs = Songs(Numbered())
    for n in (1, 2, 7, 12, 40):
        assert songs.search(f"song no {n}", 8)[0] == 400 - n
    assert songs.search("rain love", 2)[0] == 400
    assert set(songs.search("love", 2)) == {400, 404}
    assert songs.search("lovel", 8)[:3] == [401, 402, 403]


def test_thousands_of_songs_of_one_name_are_not_all_read():
    class Same:
        track_ids = np.array([f"t{row}" for row in range(50_000)], object)
        titles = np.array(["X - Song"] * 50_000, object)
        other_ids: ClassVar = {}
        shows_titles = True

    songs, begun = Songs(Same()), time.perf_counter()
    for _ in range(100):
        with pytest.raises(AmbiguousSongError, match=r"50000 songs .*: t0, t1, t2, t3, t4\.$"):
            songs.find("x - SONG")
    assert time.perf_counter() - begun < 1


def test_names_that_several_songs_share_are_not_guessed():
    class Twins:
        track_ids = np.array(["a", "b", "spotify1"], object)
        titles = np.array(["X - Song", "x - song", "X - Other"], object)
        other_ids: ClassVar = {"c": "b"}
        shows_titles = True

    songs = Songs(Twins())
    with pytest.raises(AmbiguousSongError, match=r"2 songs are called so; name one .*: a, b"):
        songs.find("X - SONG")
    assert songs.find("c") == 1
    assert songs.find("https://open.spotify.com/track/spotify1?si=1") == 2


def test_songs_without_names_are_found_by_their_ids():
    class Numbers:
        track_ids = np.array(["4af1-bb", "77c2-bb", "x"], object)
        titles, shows_titles = track_ids, False
        other_ids: ClassVar = {}

    songs = Songs(Numbers())
    assert songs.search("C2-B", 10) == [1]
    assert songs.search("-bb", 10) == [0, 1]
    assert songs.find("x") == 2
    assert songs.artist_and_title(0) == (None, "4af1-bb")


def test_a_run_without_agents_that_can_be_served_is_refused(tmp_path, synthetic):
    write_training(tmp_path / "run", "logged", synthetic)
    with pytest.raises(ValueError, match=r"no agent that can be served; it holds \['logged'\]"):
        Engine.open(tmp_path / "run")
