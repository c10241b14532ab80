import logging
from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
from handmade import HISTORY, KEPT, SESSIONS, SKIPPED, observe, write_sessions
from musicbox_agents import make_agent
from musicbox_agents.baselines import base, bounds
from musicbox_agents.baselines.neighbors import strongest
from musicbox_agents.baselines.popularity import most_popular, nth_allowed
from scipy import sparse

import musicbox_env
from musicbox_env.retrieval.spaces import embedding_space
from musicbox_env.schema import Level, is_skip


def act(agent, observation):
    return agent.predict(observation, deterministic=True)[0]


def sessions_begun(agent, dataset, num_envs, **options):
    """A vector environment that has begun the first test sessions; the agent is attached."""
    env = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode="Disabled",
        data=str(dataset.folder),
        split="test",
        **{"listener": "replay", "candidates": "catalog", **options, **agent.env_options},
    )
    sessions = dataset.sessions.sessions_in("test")[:num_envs]
    observation, _ = env.reset(seed=0, options={"session": sessions})
    agent.attach(env.simulator)
    return env, observation


def play_out(agent, dataset, num_envs=60, **options):
    """Slates and levels of whole sessions ``(steps, num_envs, k)``."""
    env, observation = sessions_begun(agent, dataset, num_envs, **options)
    slates, levels = [], []
    state, start, over = None, np.ones(num_envs, np.bool_), np.zeros(num_envs, np.bool_)
    while not over.all():
        action, state = agent.predict(observation, state, start, deterministic=True)
        observation, _, terminated, truncated, info = env.step(action)
        start, over = np.zeros(num_envs, np.bool_), terminated | truncated
        slates.append(info["slate"])
        levels.append(info["slate_levels"])
    return np.stack(slates), np.stack(levels)


def skip_rate(levels):
    return is_skip(levels).sum() / (levels >= 0).sum()


def test_nth_allowed_is_counting_through_the_allowed_ones():
    rng = np.random.default_rng(0)
    excluded = rng.integers(-1, 12, (200, 6))
    ranks = rng.integers(0, 4, (200, 3))
    slates = nth_allowed(excluded, ranks, num_tracks=12)
    for row, rank, slate in zip(excluded, ranks, slates, strict=True):
        allowed = [track for track in range(12) if track not in row]
        assert [allowed.pop(r) for r in rank] == slate.tolist()


def test_most_popular_names_track_0_where_no_song_is_left():
    heard = np.array([[0, 1, 2, 3, 3], [3, 1, 0, -1, -1]])
    assert most_popular(heard, 3, 4).tolist() == [[0, 0, 0], [2, 0, 0]]


def test_most_popular_skips_what_was_heard():
    assert most_popular(np.array([[-1, 0, 2], [-1, -1, -1]]), 3, 9).tolist() == [
        [1, 3, 4],
        [0, 1, 2],
    ]


def test_popularity_recommends_the_most_played(synthetic):
    agent = make_agent("popularity", synthetic)
    plays = synthetic.catalog.plays()
    slate = act(agent, observe([(1, KEPT), (3, SKIPPED)]))[0]
    others = np.setdiff1d(np.arange(len(plays)), [1, 3, *slate])
    assert plays[slate].min() >= plays[others].max()
    assert not np.isin(slate, [1, 3]).any()


def test_random_draws_every_allowed_track_equally_often(tmp_path):
    dataset = write_sessions(tmp_path / "d", [[(f"t{i}", KEPT) for i in range(8)]])
    agent = make_agent("random", dataset, seed=3)
    n = 20_000
    observation = observe(*[[(2, KEPT), (5, KEPT)]] * n)
    observation["context"][:, 0] = np.linspace(-1, 1, n)
    slates = act(agent, observation)
    assert all(len(set(slate)) == 3 for slate in slates[:500].tolist())
    for place in range(3):
        counts = np.bincount(slates[:, place], minlength=8)
        assert counts[[2, 5]].tolist() == [0, 0]
        # Chi-square with 5 degrees of freedom: beyond 25 once in 10,000.
        expected = n / 6
        assert ((np.delete(counts, [2, 5]) - expected) ** 2 / expected).sum() < 25


def test_random_depends_on_seed_and_history_alone(synthetic):
    observation = observe([(1, KEPT)], [(2, KEPT)], [(1, KEPT)])
    first, again, other = (
        act(make_agent("random", synthetic, seed=s), observation) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)


def test_random_draws_candidates_equally_often(synthetic):
    n = 9_000
    candidates = np.full((n, HISTORY), -1)
    candidates[:, :4] = [4, 7, 7, 9]
    observation = observe(*[[(1, KEPT)]] * n, candidates=candidates)
    observation["context"][:, 0] = np.linspace(-1, 1, n)
    slates = act(make_agent("random", synthetic, seed=1), observation)
    # Each of four plays is in 3 of 4 slates; track 7 is two of them.
    counts = Counter(slates.ravel().tolist())
    assert counts[4] == pytest.approx(0.75 * n, rel=0.03)
    assert counts[9] == pytest.approx(0.75 * n, rel=0.03)
    assert counts[7] == pytest.approx(1.5 * n, rel=0.03)


def test_content_points_at_the_mean_of_the_kept_songs(synthetic):
    agent = make_agent("content", synthetic)
    assert agent.env_options["embedding"] == "content"
    vectors = synthetic.embedding("content")
    some, none = act(
        agent,
        observe(
            [(4, KEPT), (5, SKIPPED), (6, Level.MOST)],
            [(4, SKIPPED), (5, Level.SHORT)],
        ),
    )
    for point, songs in ((some, [4, 6]), (none, [4, 5])):
        mean = vectors[songs].mean(axis=0)
        np.testing.assert_allclose(point, mean / np.linalg.norm(mean), atol=1e-6)


def test_content_says_so_where_there_is_none(tmp_path, caplog):
    sessions = [[("a", KEPT), ("b", SKIPPED)]]
    dataset = write_sessions(tmp_path / "d", sessions, {"colisten": np.eye(2)})
    with caplog.at_level(logging.WARNING):
        agent = make_agent("content", dataset)
    assert agent.env_options["embedding"] == "colisten"
    assert "'colisten'" in caplog.text


def test_best_rate_plays_what_is_skipped_least(synthetic):
    agent = make_agent("best-rate", synthetic)
    slates, levels = play_out(agent, synthetic, num_envs=20)
    rates = np.round(embedding_space(synthetic, agent.embedding)[:, -1], 5)
    env, _ = sessions_begun(agent, synthetic, 20)
    shown = env.simulator.history.tracks
    for i in range(20):
        heard = slates[:, i][levels[:, i] >= 0]
        allowed = np.setdiff1d(np.arange(len(rates)), shown[i])
        best = np.sort(rates[allowed])[::-1][: len(heard)]
        np.testing.assert_allclose(rates[heard], best, atol=1e-5)
    # The rate axis is the catalog's skip rate upside down.
    order = np.argsort(rates)
    assert (np.diff(synthetic.catalog.skip_rate()[order]) <= 1e-4).all()


def test_played_rate_scores_mean_cosine_plus_weighted_rate(synthetic):
    agent = make_agent("played-rate", synthetic, settings={"rate_weight": 0.7})
    env, observation = sessions_begun(agent, synthetic, 10)
    info = env.step(act(agent, observation))[-1]
    space = embedding_space(synthetic, agent.embedding).astype(np.float64)
    for tracks, slate in zip(observation["tracks"], info["slate"], strict=True):
        heard = tracks[tracks >= 0]
        scores = (space[heard, :-1] @ space[:, :-1].T).mean(axis=0) + 0.7 * space[:, -1]
        scores[heard] = -np.inf
        assert np.argsort(-scores)[:3].tolist() == slate.tolist()


@pytest.mark.parametrize("name", ["best-rate", "played-rate"])
def test_rate_agents_refuse_a_space_without_rates(synthetic, name):
    agent = make_agent(name, synthetic, settings={"embedding": "content"})
    with pytest.raises(ValueError, match=r"content\+rate"):
        act(agent, observe([(1, KEPT)]))


def sets_of(dataset, *, kept_only):
    log = dataset.sessions
    out = []
    for session in range(log.num_sessions):
        frame = log.frame(session)
        if kept_only:
            frame = frame[~is_skip(frame["level"])]
        out.append(set(frame["track"]))
    return out


@pytest.mark.parametrize("kept_only", [False, True])
def test_item_knn_sums_cosines_of_co_occurrence(tmp_path, kept_only):
    dataset = write_sessions(tmp_path / "d", SESSIONS)
    sessions = sets_of(dataset, kept_only=kept_only)

    def cosine(i, j):
        both = sum(i in s and j in s for s in sessions)
        return both / np.sqrt(sum(i in s for s in sessions) * sum(j in s for s in sessions))

    agent = make_agent("item-knn", dataset, settings={"kept_only": kept_only})
    history = [(0, KEPT), (2, SKIPPED)]
    counted = [0] if kept_only else [0, 2]
    scores = {j: sum(cosine(i, j) for i in counted) for j in range(6) if j not in (0, 2)}
    expected = sorted(scores, key=lambda j: (-round(scores[j], 6), j))[:3]
    assert act(agent, observe(history))[0].tolist() == expected


@pytest.mark.parametrize("neighbors", [2, 500])
def test_session_knn_adds_up_its_nearest_sessions(synthetic, neighbors):
    settings = {"neighbors": neighbors, "kept_only": False}
    agent = make_agent("session-knn", synthetic, settings=settings)
    _, observation = sessions_begun(agent, synthetic, 8)
    log = synthetic.sessions
    training = [set(log.frame(s)["track"]) for s in log.sessions_in("train")]
    for tracks, slate in zip(observation["tracks"], act(agent, observation), strict=True):
        heard = tracks[tracks >= 0].tolist()
        weight = Counter()
        for n, track in enumerate(heard, start=1):
            weight[track] += n / len(heard)
        likeness = [sum(weight[t] for t in s) / np.sqrt(len(s)) for s in training]
        nearest = sorted(range(len(training)), key=lambda s: (-round(likeness[s], 5), s))
        scores = np.zeros(len(synthetic.catalog))
        for session in nearest[:neighbors]:
            scores[list(training[session])] += likeness[session]
        scores[heard] = -1
        np.testing.assert_allclose(scores[slate], np.sort(scores)[::-1][:3], rtol=1e-4)


def test_strongest_keeps_the_largest_of_each_row():
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 6, (20, 9)).astype(np.float32)
    kept = strongest(sparse.csr_array(dense), 3).toarray()
    for row, out in zip(dense, kept, strict=True):
        best = sorted(range(9), key=lambda j: (-row[j], j))[:3]
        np.testing.assert_array_equal(out, np.where(np.isin(range(9), best), row, 0))


@pytest.mark.parametrize("name", ["item-knn", "session-knn"])
def test_neighbours_choose_among_candidates_where_there_are_some(synthetic, name):
    agent = make_agent(name, synthetic)
    candidates = np.full((1, HISTORY), -1)
    candidates[0, :4] = [3, 50, 50, 150]
    slate = act(agent, observe([(1, KEPT), (2, KEPT)], candidates=candidates))[0]
    assert not Counter(slate.tolist()) - Counter([3, 50, 50, 150])


def test_chunks_change_nothing(synthetic, monkeypatch):
    names = ("item-knn", "session-knn", "skyline", "bayes")
    whole = {name: play_out(make_agent(name, synthetic), synthetic, 12) for name in names}
    monkeypatch.setattr(base, "MAX_SCORES", 1_500)
    for name in names:
        np.testing.assert_array_equal(
            play_out(make_agent(name, synthetic), synthetic, 12)[0], whole[name][0]
        )


@pytest.mark.parametrize("candidates", ["catalog", "session"])
def test_logged_replays_the_log(synthetic, candidates):
    agent = make_agent("logged", synthetic)
    env, observation = sessions_begun(agent, synthetic, 30, candidates=candidates)
    heard = [[] for _ in range(30)]
    over = np.zeros(30, np.bool_)
    while not over.all():
        observation, _, over, _, info = env.step(act(agent, observation))
        np.testing.assert_array_equal(info["logged"], info["slate_levels"] >= 0)
        for i in range(30):
            real = info["slate"][i] >= 0
            heard[i] += zip(info["slate"][i][real], info["slate_levels"][i][real], strict=True)
    for session, plays in zip(synthetic.sessions.sessions_in("test"), heard, strict=False):
        frame = synthetic.sessions.frame(session)
        rest = frame.iloc[len(frame) // 2 :]
        logged = list(zip(rest["track"], rest["level"], strict=True))
        if candidates == "catalog" or rest["track"].is_unique:
            assert plays == logged
        else:
            # Which of two plays of one song a candidate is, the environment draws.
            assert sorted(plays) == sorted(logged)


def test_logged_goes_on_with_popular_songs_when_the_log_ends(synthetic):
    agent = make_agent("logged", synthetic)
    slates, levels = play_out(agent, synthetic, num_envs=5, horizon=15)
    assert (levels >= 0).sum(axis=(0, 2)).tolist() == [15] * 5
    assert (slates[-1] < HISTORY + 3).all()


def least_skipped(env, rows):
    """Slates of three by asking the listener about every song there is ``(m, 3)``."""
    simulator, tracks = env.simulator, np.arange(env.simulator.assets.num_tracks)
    skips = simulator.skip_probabilities(rows, tracks[None])
    if not env.config.repeats:
        heard = simulator.history.tracks[rows]
        row, place = np.nonzero(heard >= 0)
        skips[row, heard[row, place]] = np.inf
    return np.argsort(skips, axis=1, kind="stable")[:, :3], skips


@pytest.mark.parametrize(
    ("listener", "options"),
    [
        ("ground_truth", {}),
        ("ground_truth", {"repeats": True}),
        ("ground_truth", {"horizon": 40}),
        ("replay", {}),
        ("replay", {"repeats": True}),
    ],
)
def test_skyline_takes_the_songs_least_likely_to_be_skipped(synthetic, listener, options):
    """Of 200 songs it leaves none out, whoever answers: at every step as by brute force."""
    agent = make_agent("skyline", synthetic)
    env, observation = sessions_begun(agent, synthetic, 30, listener=listener, **options)
    over, rows = np.zeros(30, np.bool_), np.arange(30)
    while not over.all():
        expected, skips = least_skipped(env, rows)
        action = act(agent, observation)
        playing = np.flatnonzero(~over)
        np.testing.assert_allclose(
            np.take_along_axis(skips, action, 1)[playing],
            np.take_along_axis(skips, expected, 1)[playing],
            rtol=1e-6,
        )
        if listener == "ground_truth":
            np.testing.assert_array_equal(action[playing], expected[playing])
        observation, _, terminated, truncated, _ = env.step(action)
        over = terminated | truncated


def test_skyline_on_replay_searches_a_shortlist_and_what_the_log_holds(synthetic, monkeypatch):
    monkeypatch.setattr(bounds, "SHORTLIST", 20)
    agent = make_agent("skyline", synthetic)
    env, observation = sessions_begun(agent, synthetic, 60, listener="replay")
    action, rows = act(agent, observation), np.arange(60)
    expected, skips = least_skipped(env, rows)
    found, best = (np.take_along_axis(skips, slate, 1) for slate in (action, expected))
    kept = best == 0  # a song that the log holds and that was kept, known for certain
    assert kept.any()
    np.testing.assert_array_equal(found[kept], 0)
    usual = np.median(skips, axis=1)
    assert (usual - found.mean(axis=1)).mean() > 0.8 * (usual - best.mean(axis=1)).mean()


@pytest.mark.parametrize("listener", ["learned", "similarity"])
def test_skyline_takes_likely_songs_where_nothing_orders_them(synthetic, listener, monkeypatch):
    monkeypatch.setattr(bounds, "SHORTLIST", 20)
    agent = make_agent("skyline", synthetic)
    env, observation = sessions_begun(agent, synthetic, 40, listener=listener)
    assert env.simulator.ranking_space(np.arange(40)) is None
    skips = least_skipped(env, np.arange(40))[1]
    found = np.take_along_axis(skips, act(agent, observation), 1)
    assert np.isfinite(found).all(), "a song that was heard"
    assert (found.mean(axis=1) < np.median(skips, axis=1)).mean() > 0.9


def test_skyline_on_replayed_candidates_hears_every_kept_play_first(synthetic):
    agent = make_agent("skyline", synthetic)
    slates, levels = play_out(agent, synthetic, candidates="session", listener="replay")
    once = [len(set(t := s[s >= 0].tolist())) == len(t) for s in slates.swapaxes(0, 1)]
    assert sum(once) > 10
    # Of a song that the log holds twice, it cannot choose the play that was kept.
    for i in np.flatnonzero(once):
        skipped = is_skip(levels[:, i][levels[:, i] >= 0])
        assert (np.diff(skipped.astype(int)) >= 0).all(), "a kept play came after a skipped one"


def test_privileged_agents_say_how_to_attach_them(synthetic):
    agent = make_agent("skyline", synthetic)
    with pytest.raises(RuntimeError, match=r"agent\.attach\(env\.unwrapped\.simulator\)"):
        act(agent, observe([(1, KEPT)]))
    sessions_begun(agent, synthetic, 4)
    with pytest.raises(RuntimeError, match="attached to a simulator of 4"):
        act(agent, observe([(1, KEPT)]))


def test_knowing_more_is_worth_something(synthetic):
    rates = {
        name: skip_rate(
            play_out(make_agent(name, synthetic), synthetic, 100, listener="ground_truth")[1]
        )
        for name in ("random", "best-rate", "bayes", "skyline")
    }
    assert rates["skyline"] < rates["bayes"] < rates["random"]
    assert rates["best-rate"] < rates["random"]
