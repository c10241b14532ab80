"""Fitting a listener: nothing leaks in, what is fitted is what answers, calibration calibrates."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from altered import forget_identity
from handmade import write_sessions
from musicbox_experiments.listeners import fit_listener
from musicbox_experiments.listeners.calibration import (
    SongLogits,
    effect_shrinkage,
    held_out_gain,
    scale_and_shift,
    song_logits,
    songs_instead,
)
from musicbox_experiments.listeners.fit_listener import (
    FitListenerConfig,
    calibration_folds,
    fit_ensemble,
    fit_networks,
    listeners_of,
    run,
    uncalibrated,
)
from musicbox_experiments.listeners.network import (
    NetworkConfig,
    TorchNetwork,
    fit_member,
    play_losses,
    running_mean,
)
from musicbox_experiments.listeners.sessions import (
    Inputs,
    SessionArrays,
    TrainingSplit,
    session_arrays,
    usual_track,
)
from scipy.special import expit
from worlds import next_plays

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import (
    History,
    LearnedListener,
    SimilarityListener,
    make_listener,
    skip_probability,
)
from musicbox_env.listeners.learned.features import (
    BEHAVIOUR_INPUTS,
    CONTEXT_INPUTS,
    TRACK_INPUTS,
    WAS_PLAYED,
    WEAR_INPUTS,
    TrackTable,
)
from musicbox_env.listeners.learned.listener import Calibration, FittedNetwork
from musicbox_env.retrieval.crossfit import crossfitted, parts_of
from musicbox_env.schema import SPLITS, is_skip
from musicbox_env.simulator.assets import open_dataset

SMALL = FitListenerConfig(members=2, memory=8, head=4, max_epochs=8, progress=False)


@pytest.fixture(scope="module")
def table(synthetic):
    return TrackTable.of(synthetic, "train", "hybrid")


@pytest.fixture(scope="module")
def sessions(synthetic, table):
    return session_arrays(synthetic, np.arange(40), table)


@pytest.fixture(scope="module")
def fit(synthetic):
    return fit_ensemble(SMALL, synthetic)


def log_loss(skipped, chances):
    return -np.mean(np.log(np.where(skipped, chances, 1 - chances)))


@pytest.mark.parametrize("wear", [False, True])
def test_numpy_answers_as_the_fitted_network_did(synthetic, table, wear):
    torch.manual_seed(0)
    sessions = session_arrays(synthetic, np.arange(40), table, wear=wear)
    network = TorchNetwork(SMALL, sessions).eval()
    none = Calibration.none(np.zeros(len(TRACK_INPUTS) + len(WEAR_INPUTS) * wear))
    listener = LearnedListener(
        synthetic,
        FittedNetwork(network.exported(), none, {"split": "train", "embedding": "hybrid"}),
    )
    ones = np.ones(40, np.int64)
    kinds = {True: Inputs.with_behaviour(sessions), False: Inputs(sessions, ones, ones)}
    for shown, inputs in kinds.items():
        with torch.no_grad():
            outputs = network(inputs).numpy()
        answers = next_plays(listener, np.arange(40), shown=shown)
        real = (sessions.levels >= 0) & np.isfinite(answers[..., 0])
        np.testing.assert_allclose(
            skip_probability(answers)[real], expit(outputs[..., 0])[real], rtol=1e-4
        )
        brief = answers[..., 0] / skip_probability(answers)
        np.testing.assert_allclose(brief[real], expit(outputs[..., 1])[real], rtol=1e-4)
        kept = answers[..., 2:] / answers[..., 2:].sum(axis=2, keepdims=True)
        shares = torch.softmax(torch.from_numpy(outputs[..., 2:]), dim=2).numpy()
        np.testing.assert_allclose(kept[real], shares[real], rtol=1e-4)


def test_the_mean_of_the_weights_written_out():
    """The share of the newest falls with the steps, and never below 1 %."""
    weights = torch.randn(300, generator=torch.Generator().manual_seed(0)).double()
    mean = torch.zeros(()).double()
    expected = 0.0
    for step, newest in enumerate(weights, start=1):
        mean = running_mean(mean, newest, step)
        share = max(0.01, 9 / (10 + step))
        expected = (1 - share) * expected + share * float(newest)
    assert float(mean) == pytest.approx(expected)
    assert float(mean) == pytest.approx(float(weights[-100:].mean()), abs=0.15)


def test_losses_add_up_to_the_likelihood_of_the_level():
    outputs = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    levels = torch.arange(500) % 5
    skip, within = play_losses(outputs, levels)
    o = outputs.numpy()
    chance = expit(o[:, 0])
    shares = np.exp(o[:, 2:]) / np.exp(o[:, 2:]).sum(axis=1, keepdims=True)
    brief = expit(o[:, 1])
    levels_chances = np.column_stack(
        [chance * brief, chance * (1 - brief), (1 - chance)[:, None] * shares]
    )
    expected = -np.log(levels_chances[np.arange(500), levels.numpy()])
    np.testing.assert_allclose((skip + within).numpy(), expected, rtol=1e-4)


def test_a_training_session_has_no_part_in_its_tracks_counts(synthetic):
    """The tracks' plays and skips, counted one by one in all sessions of the fold but those."""
    log = synthetic.sessions
    some = log.sessions_in("train_a")[5:60]
    table = TrainingSplit.of(synthetic, "train_a").table_of(3, some)
    plays, skips = np.zeros(200, int), np.zeros(200, int)
    for session in np.setdiff1d(log.sessions_in("train_a"), some):
        for track, level in zip(*log.frame(session)[["track", "level"]].to_numpy().T, strict=True):
            plays[track] += 1
            skips[track] += level < 2
    expected = TrackTable.counted(plays, skips, None)
    np.testing.assert_array_equal(table.popularity, expected.popularity)
    np.testing.assert_array_equal(table.effect, expected.effect)


def test_what_is_hidden_is_hidden_from_its_place_on(sessions):
    n, width = sessions.levels.shape
    until = np.full(n, 4)
    inputs = Inputs(sessions, until, until)
    behaviour = inputs.plays[..., -len(BEHAVIOUR_INPUTS) :].numpy()
    np.testing.assert_array_equal(behaviour[:, :4], sessions.behaviour[:, :4])
    np.testing.assert_array_equal(behaviour[:, 4:], 0)
    place = slice(-len(BEHAVIOUR_INPUTS) - len(CONTEXT_INPUTS), -len(BEHAVIOUR_INPUTS))
    context = inputs.plays[..., place].numpy()
    np.testing.assert_array_equal(context[:, :4], sessions.context[:, :4])
    np.testing.assert_array_equal(context[:, 4:], np.repeat(sessions.context[:, 3:4], width - 4, 1))
    before = inputs.states[..., -len(CONTEXT_INPUTS) :].numpy()
    np.testing.assert_array_equal(before[:, 0], 0)
    np.testing.assert_array_equal(before[:, 1:5], sessions.context[:, :4])


def test_a_small_fit_beats_the_last_skip_and_keeps_what_it_says(synthetic, fit):
    """Learning proven on 600 sessions; the calibrated mean is the real one."""
    assert fit.network.members == 2
    test = synthetic.sessions.sessions_in("test")
    levels = synthetic.sessions.padded("level", test)
    real = (levels >= 0) & (np.arange(levels.shape[1]) > 0)
    skipped = is_skip(levels)
    answers = next_plays(LearnedListener(synthetic, fit), test)
    chances = skip_probability(answers)
    previous = np.roll(skipped, 1, axis=1)
    by_last = np.where(previous, skipped[real & previous].mean(), skipped[real & ~previous].mean())
    assert log_loss(skipped[real], chances[real]) < log_loss(skipped[real], by_last[real]) - 0.01
    assert chances[real].mean() == pytest.approx(skipped[real].mean(), abs=0.04)


def test_the_same_seed_fits_the_same(few):
    config = FitListenerConfig(members=1, memory=4, head=2, max_epochs=1, progress=False, fold="A")
    first, again = fit_ensemble(config, few), fit_ensemble(config, few)
    assert first.calibration == again.calibration
    np.testing.assert_array_equal(first.network.play_units, again.network.play_units)
    assert first.about["part"]["name"] == "train_a"
    assert first.about["fitted_sessions"] == len(few.sessions.sessions_in("train_a"))


@pytest.mark.parametrize("surely", [-np.inf, np.inf])
def test_likeness_to_songs_heard_is_read_where_it_helps(worn, monkeypatch, tmp_path, surely):
    monkeypatch.setattr(fit_listener, "SURELY", surely)
    config = FitListenerConfig(members=1, memory=4, head=2, max_epochs=1, progress=False)
    fit = fit_ensemble(config, worn)
    assert fit.network.reads_wear == fit.about["wear_out"]["used"] == (surely < 0)
    fit.save(tmp_path / "fit.npz")
    kept = FittedNetwork.load(tmp_path / "fit.npz")
    assert kept.about["wear_out"] == fit.about["wear_out"]
    own, read = (next_plays(LearnedListener(worn, one), np.arange(9)) for one in (fit, kept))
    np.testing.assert_array_equal(own, read)


def test_a_gain_and_its_error_are_those_of_sessions():
    """Plays of a session share their luck: the error is what drawing sessions anew makes it."""
    rng, session = np.random.default_rng(0), np.repeat(np.arange(400), 10)
    one = songs_of(4000, (1, 1), rng)
    luck = rng.normal(0.1, 0.3, 400)[session, None]
    better = one.logit + np.where(one.skipped, 1, -1)[:, None] * luck
    one = dataclasses.replace(one, session=session)
    gain, error = held_out_gain(one, dataclasses.replace(one, logit=better))
    saved = np.log1p(np.exp(np.where(one.skipped, -1, 1) * one.logit[:, 0]))
    saved -= np.log1p(np.exp(np.where(one.skipped, -1, 1) * better[:, 0]))
    assert gain == pytest.approx(saved.mean())
    each = saved.reshape(400, 10).mean(axis=1)
    drawn = each[rng.integers(400, size=(2000, 400))].mean(axis=1)
    assert error == pytest.approx(drawn.std(), rel=0.1)


def test_a_fold_is_evaluated_by_a_network_that_never_saw_it(synthetic):
    """Not in its weights, not in the counts of its tracks, not in its embedding."""
    config = FitListenerConfig(members=1, memory=4, head=2, max_epochs=1, progress=False)
    split = TrainingSplit.of(synthetic, "train_a")
    evaluated = session_arrays(synthetic, synthetic.sessions.sessions_in("validation"), split.table)
    chosen = synthetic.sessions.sessions_in("train_a")
    groups = calibration_folds(config, split, chosen)
    fitted = [fit for fit, _ in fit_networks(config, split, evaluated, groups)]
    found = [song_logits(*asked) for asked in listeners_of(groups, fitted, split)]

    part, spaces = parts_of(synthetic), crossfitted(synthetic, "hybrid")
    held_out = chosen[np.isin(part[chosen], [2, 7])]
    others = [chosen[part[chosen] == p] for p in (0, 1, 3, 4, 5, 6, 8, 9)]
    assert all(len(some) for some in others)
    train = SessionArrays.joined(
        [
            session_arrays(
                synthetic, some, split.table_of(part[some[0]], np.concatenate([some, held_out]))
            )
            for some in others
        ]
    )
    network, _ = fit_member(config, train, evaluated, seed=1 + 2)
    listener = LearnedListener(synthetic, uncalibrated([network], split, usual_track(train)))
    for place, number in ((4, 2), (5, 7)):
        counts = split.table_of(0, held_out)
        listener.table = dataclasses.replace(counts, vectors=spaces[number])
        by_hand = song_logits(listener, held_out[part[held_out] == number])
        np.testing.assert_array_equal(found[place].logit, by_hand.logit)
        np.testing.assert_array_equal(found[place].skipped, by_hand.skipped)

    everyone = song_logits(listener, chosen)
    assert sum(len(fold.skipped) for fold in found) == len(everyone.skipped)
    assert sum(fold.skipped.sum() for fold in found) == everyone.skipped.sum()


def test_one_training_session_is_enough_to_fit_on(tmp_path):
    """Then there are no others to price it out of fold."""
    songs = [[("a", 4), ("b", 0), ("c", 4), ("a", 1)]] * 4
    write_sessions(tmp_path / "d", songs)
    splits = np.load(tmp_path / "d/sessions/split.npy")
    splits[1:] = SPLITS.index("validation")
    np.save(tmp_path / "d/sessions/split.npy", splits)
    forget_identity(tmp_path / "d")
    config = FitListenerConfig(members=1, memory=4, head=2, max_epochs=1, progress=False)
    fit = fit_ensemble(config, Dataset(tmp_path / "d"))
    assert fit.about["fitted_sessions"] == 1
    assert np.isfinite(fit.network.unit_outputs).all()


def test_plays_are_compared_with_those_that_followed(synthetic, fit):
    """One session at a time, asked play by play, the past heard as it really was."""
    listener = LearnedListener(synthetic, fit)
    sessions = synthetic.sessions.sessions_in("test")[:6]
    songs = song_logits(listener, sessions)
    expected = []
    for row, session in enumerate(sessions):
        plays = synthetic.sessions.frame(session)
        shown, only = len(plays) // 2, np.array([0])
        history = History.logged(synthetic, np.array([session]), np.array([shown]), 20)
        state = listener.begin(history)
        for place in range(shown, len(plays)):
            track, level = (plays[name].to_numpy() for name in ("track", "level"))
            usual, logits, repeat = listener.network_logits(
                state, history, only, track[None, place : place + 5]
            )
            following = track[place + 1 : place + 5]
            new = sum(song not in track[: place + 1] for song in following)
            expected.append((place, row, usual.mean(), logits.mean(axis=0)[0], repeat[0], 1 + new))
            listener.update_state(state, history, only, track[[place]], level[[place]])
            history.record(only, track[[place]], level[[place]])
    expected.sort(key=lambda one: one[:2])
    assert len(songs.usual) == len(expected)
    for i, (_, _, usual, logits, repeat, compared) in enumerate(expected):
        assert songs.usual[i] == pytest.approx(usual, rel=2e-6)
        np.testing.assert_allclose(songs.logit[i, : len(logits)], logits, rtol=2e-5)
        np.testing.assert_array_equal(songs.repeat[i, : len(logits)], repeat)
        assert songs.compared[i].sum() == compared
    skipped = sum(
        (synthetic.sessions.frame(s)["level"][int(n) // 2 :] < 2).sum()
        for s, n in zip(sessions, synthetic.sessions.lengths(sessions), strict=True)
    )
    assert songs.skipped.sum() == skipped


def songs_of(count, shrinkage, rng):
    """Songs whose real effect is a part of the predicted one, which differs for repeats."""
    usual, shape = rng.normal(0, 1, count), (count, 5)
    effect = rng.normal(0.3, 0.8, shape)
    repeat, real = rng.random(shape) < 0.3, rng.random(shape) < 0.9
    real[:, 0] = True
    of_session = usual + rng.normal(0.2, 0.5, count)
    truth = of_session + np.where(repeat, shrinkage[1], shrinkage[0])[:, 0] * effect[:, 0]
    skipped = rng.random(count) < expit(truth)
    session = np.arange(count)
    return SongLogits(usual, usual[:, None] + effect, repeat, real, skipped, session)


def test_songs_put_off_are_no_alternatives():
    songs = np.array([[3, 5, 3, 7, 5, 8, 9, 3], [1, 2, 2, 4, 1, -1, -1, -1]])
    rows, places = np.array([0, 0, 0, 1, 1]), np.array([1, 2, 7, 1, 4])
    candidates, compared = songs_instead(songs, rows, places)
    found = [list(songs[row, candidates[i][compared[i]]]) for i, row in enumerate(rows)]
    assert found == [[5, 7, 8], [3, 7, 8, 9], [3], [2, 4], [1]]
    assert (candidates < np.array([8, 5])[rows][:, None]).all(), "padding is never asked about"


def test_the_shrinkage_is_recovered():
    """The network misestimates session effects too, which must not pass for songs' effects."""
    songs = songs_of(60_000, (1.0, 0.5), np.random.default_rng(0))
    assert effect_shrinkage(songs) == pytest.approx((1.0, 0.5), abs=0.08)


def test_few_songs_leave_the_shrinkage_near_one():
    songs = songs_of(10, (3.0, -2.0), np.random.default_rng(1))
    assert effect_shrinkage(songs) == pytest.approx((1, 1), abs=0.25)


def test_scale_and_shift_are_recovered():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 40_000)
    skipped = rng.random(40_000) < expit(0.7 * logits + 0.3)
    assert scale_and_shift(logits, skipped) == pytest.approx((0.7, 0.3), abs=0.05)


def test_the_command_writes_what_the_environment_opens(few, tmp_path):
    out = tmp_path / "a.npz"
    settings = {"members": 1, "memory": 4, "head": 2, "max_epochs": 1, "progress": False}
    config = FitListenerConfig(few.folder, fold="B", out=out, pessimism=0.5, **settings)
    assert run(config) == out
    listener = make_listener(str(out), few)
    assert isinstance(listener, LearnedListener)
    assert listener.pessimism == 0.5
    assert listener.fit.about["part"]["name"] == listener.home.part == "train_b"
    np.testing.assert_array_equal(listener.table.popularity, np.log1p(few.catalog.plays("train_b")))
    run(FitListenerConfig(few.folder, fold="B", out=out, listener="similarity"))
    similar = make_listener(str(out), few)
    assert isinstance(similar, SimilarityListener)
    assert similar.config.split == "train_b"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 0}, "members is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"pessimism": -1.0}, "pessimism is -1.0"),
        ({"mode": "nearest"}, "did you mean"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FitListenerConfig(**settings)


def auc(skipped, chances):
    ranks = np.argsort(np.argsort(chances))
    positive = skipped.sum()
    return (ranks[skipped].sum() - positive * (positive - 1) / 2) / (
        positive * (len(skipped) - positive)
    )


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(
    not {"MUSICBOX_SESSIONS", "MUSICBOX_TRACKS"} <= set(os.environ),
    reason="needs real plays: set MUSICBOX_SESSIONS and MUSICBOX_TRACKS",
)
def test_real_plays_are_predicted_as_well_as_their_number_allows(tmp_path):
    """Of 3,612 sessions, 70 % fitted on; an AUC's standard error is about .004 here."""
    from musicbox_env.ingest.pipeline import IngestConfig, ingest

    folder = ingest(
        IngestConfig(
            sources=(os.environ["MUSICBOX_SESSIONS"],),
            tracks=(os.environ["MUSICBOX_TRACKS"],),
            out=tmp_path / "real",
            progress=False,
        )
    )
    dataset = Dataset(folder)
    fit = fit_ensemble(FitListenerConfig(progress=False), dataset)
    listener = LearnedListener(dataset, fit)
    test = dataset.sessions.sessions_in("test")
    levels = dataset.sessions.padded("level", test)
    real = (levels >= 0) & (np.arange(levels.shape[1]) > 0)
    skipped = is_skip(levels)[real]
    for shown, least_auc, most_loss in ((True, 0.831, 0.504), (False, 0.820, 0.517)):
        answers = next_plays(listener, test, shown=shown)
        chances = skip_probability(answers)[real]
        assert auc(skipped, chances) > least_auc
        assert log_loss(skipped, chances) < most_loss


def test_what_never_varies_in_fitting_decides_nothing(synthetic):
    """A track without plays is not judged by a weight that stayed random, whatever the seed."""
    split = TrainingSplit.of(synthetic, "train")
    sessions = session_arrays(synthetic, synthetic.sessions.sessions_in("train")[:50], split.table)
    sessions.tracks[..., WAS_PLAYED] = 1.0
    for seed in range(3):
        torch.manual_seed(seed)
        exported = TorchNetwork(NetworkConfig(), sessions).exported()
        assert not exported.track_units[0, WAS_PLAYED].any()
        assert not exported.track_outputs[0, WAS_PLAYED].any()
        assert exported.track_units.any()


def test_the_bundled_listener_does_not_favour_a_track_that_nobody_played():
    dataset = open_dataset(None)
    listener, sessions = make_listener("learned", dataset), dataset.sessions.playable("test")[:50]
    shown = dataset.sessions.num_shown(sessions)
    history = History.logged(dataset, sessions, shown, dataset.longest_session)
    tracks = np.arange(len(dataset.catalog))[None]
    chances = listener.level_probabilities(
        listener.begin(history), history, np.arange(len(sessions)), tracks, np.full_like(tracks, -1)
    )
    mean = skip_probability(chances).mean(axis=0)
    unplayed = dataset.catalog.plays() == 0
    assert unplayed.any()
    assert (mean[unplayed] > np.quantile(mean, 0.05)).all()
