"""What the page shows: sessions of simulated listeners and one's own, agents side by side."""

import numpy as np
import pytest
from musicbox_experiments.serve.client import ServiceError

from musicbox_env.schema import is_skip
from musicbox_env.synthetic.truth import GroundTruth


def look(client, **request):
    return client.ask("POST", "/v1/look", request)


def view_of(answer, agent):
    return next(view for view in answer["agents"] if view["agent"] == agent)


def test_a_session_is_played_to_its_end_and_the_same_each_time(client, engine):
    played, lengths = [], []
    while (answer := look(client, listener=3, played=played))["remaining"]:
        lengths.append(len(answer["heard"]))
        played += [song["id"] for song in view_of(answer, "ddpg")["songs"]]
    assert answer["over"]
    assert [view["agent"] for view in answer["agents"]] == [*engine.agents]
    assert all(view["songs"] == view["points"] == view["near"] == [] for view in answer["agents"])
    shown = [song for song in answer["heard"] if song["skip_chance"] is None]
    new = [song for song in answer["heard"] if song["skip_chance"] is not None]
    assert [song["id"] for song in new] == played[: len(new)]
    assert len(shown) == lengths[0]
    assert all(0 <= song["skip_chance"] <= 1 for song in new)
    half = look(client, listener=3, played=played[:3])
    assert half["heard"] == answer["heard"][: len(half["heard"])]


def test_chances_are_those_of_the_listener_who_then_skips_so_often(client):
    chances, skips = [], []
    for seed in range(60):
        answer = look(client, listener=1, played=["t_00000003"], seed=seed, agents=["ddpg"])
        chances.append(answer["heard"][-1]["skip_chance"])
        skips.append(is_skip(answer["heard"][-1]["level"]))
    assert len({*chances}) == 1
    spread = np.sqrt(chances[0] * (1 - chances[0]) / len(skips))
    assert abs(np.mean(skips) - chances[0]) < 4 * spread


def test_the_chance_before_a_song_is_the_one_shown_beside_it(client):
    before = look(client, listener=2)
    assert not before["over"]
    for agent in ("played-rate", "ddpg", "popularity"):
        songs = view_of(before, agent)["songs"]
        after = look(client, listener=2, played=[song["id"] for song in songs])
        heard = after["heard"][len(before["heard"]) :]
        for one, shown in zip(heard, songs, strict=False):
            assert one["skip_chance"] == pytest.approx(shown["skip_chance"])


def test_agents_see_a_session_as_they_see_it_when_asked_for_songs(client, engine):
    heard = [{"song": f"t_0000000{n}", "level": level} for n, level in ((1, 4), (2, 0), (3, 3))]
    answer = look(client, heard=heard)
    for view in answer["agents"]:
        if view["agent"] != "random":
            asked = client.recommend(heard, agent=view["agent"])
            assert [song["id"] for song in view["songs"]] == [song["id"] for song in asked["songs"]]


def test_reasons_are_true(client, engine, looker):
    answer = look(client, heard=[{"song": "t_00000001", "level": 4}])
    skip_rate = engine.dataset.catalog.skip_rate()
    for view in answer["agents"]:
        for song in view["songs"]:
            assert song["skip_chance"] == pytest.approx(skip_rate[song["row"]])
            cosine = looker.map.vectors[song["row"]] @ looker.map.vectors[answer["heard"][0]["row"]]
            assert song["likeness"] == pytest.approx(float(cosine), abs=1e-6)
            assert song["nearest"] == engine.songs.name(answer["heard"][0]["row"])
    played_rate = view_of(answer, "played-rate")
    assert played_rate["near"][:3] == [song["row"] for song in played_rate["songs"]]
    assert len(played_rate["points"]) == 1
    assert len(view_of(answer, "lird")["points"]) == 3
    assert view_of(answer, "popularity")["points"] == []


def test_what_cannot_be_looked_at_is_refused(client):
    with pytest.raises(ServiceError, match="There is no listener 4000000"):
        look(client, listener=4_000_000)
    with pytest.raises(ServiceError, match="No agent 'nobody' is served"):
        look(client, agents=["nobody"])
    with pytest.raises(ServiceError, match="body: give heard or listener"):
        look(client, listener=1, heard=[{"song": "t_00000001", "level": 4}])
    with pytest.raises(ServiceError, match="body: played is for a simulated listener"):
        look(client, played=["t_00000001"])
    answer = look(client, heard=[{"song": "nobody", "level": 4}], agents=["ddpg"])
    assert (answer["heard"], len(answer["unknown"])) == ([], 1)


def test_the_simulated_listener_is_the_exact_law_of_synthetic_data(client, engine):
    assert client.about()["evaluator"] == "ground_truth"
    assert GroundTruth.open(engine.dataset).law


@pytest.mark.parametrize(
    "asked", [{"listener": 0, "played": ["t_00000003"] * 101}, {"agents": ["ddpg"] * 51}]
)
def test_looks_of_too_many_are_refused(client, asked):
    with pytest.raises(ServiceError, match="at most"):
        look(client, **asked)
