"""The learned listener's answers: written out, the same in any company, and blind to the future."""

import itertools
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from altered import copy_to_alter
from level_summaries import summaries
from scipy.special import expit, logit
from worlds import next_plays

from musicbox_env.data.dataset import Dataset
from musicbox_env.env import MusicSessionEnv
from musicbox_env.listeners import (
    History,
    LearnedListener,
    Listener,
    make_listener,
    skip_probability,
)
from musicbox_env.listeners.learned import kernels
from musicbox_env.listeners.learned import listener as learned
from musicbox_env.listeners.learned.features import (
    HeardSums,
    add_songs,
    behaviour_inputs,
    context_inputs,
    is_repeat,
    log_columns,
    track_inputs,
)
from musicbox_env.listeners.learned.listener import BUNDLED, FittedNetwork
from musicbox_env.listeners.learned.network import Network
from musicbox_env.schema import PLAY_COLUMNS


@pytest.fixture(scope="module")
def listener(synthetic):
    return LearnedListener(synthetic)


def begin(listener, sessions, shown=None, capacity=40):
    sessions = np.asarray(sessions)
    shown = listener.dataset.sessions.num_shown(sessions) if shown is None else shown
    history = History.logged(listener.dataset, sessions, shown, capacity)
    return history, listener.begin(history)


def ask(listener, state, history, tracks):
    rows = np.arange(len(tracks))
    return listener.level_probabilities(state, history, rows, tracks, np.full(tracks.shape, -1))


def skips(listener, history, state, tracks):
    return skip_probability(ask(listener, state, history, tracks))


def test_a_session_written_out_by_hand(synthetic, listener):
    """Memory, head, mean over members, calibration: one session, plain loops over members."""
    fit, network = listener.fit, listener.fit.network
    session = 11
    history, state = begin(listener, [session])
    plays = synthetic.sessions.frame(session)
    shown = len(plays) // 2
    table, heard = listener.table, HeardSums.none(1, listener.table)
    row = np.zeros(1, np.int64)
    memory = np.zeros((network.members, network.memory_size))
    for t in range(shown + 1):
        track = np.array([[plays["track"][t]]])
        before = np.array([t]), (history.tracks, history.levels)
        asked = row, track, *before, table.arrays, heard.arrays, len(fit.calibration.usual)
        of_track = track_inputs(*asked)[0, 0]
        if t == shown:
            break
        offset = synthetic.sessions.offsets[session] + np.array([t])
        one_hot = np.eye(5)[plays["level"][t]]
        context = _context(plays.iloc[t])
        behaviour = behaviour_inputs(offset, log_columns(synthetic)[1])[0]
        x = np.concatenate([one_hot, [t / 20], of_track, context, behaviour])
        for m in range(network.members):
            reading = np.maximum(x @ network.play_units[m] + network.play_bias[m], 0)
            memory[m] = network.keep[m] * memory[m] + (1 - network.keep[m]) * reading
        add_songs(row, track[0], np.array([plays["level"][t]]), table.vectors, heard.arrays)
    summary = summaries(plays["level"][:shown], table)
    usual = np.asarray(fit.calibration.usual)
    outputs = {"song": [], "usual": []}
    for m in range(network.members):
        known = np.concatenate([memory[m], summary, context])
        for name, inputs in (("song", of_track), ("usual", usual)):
            units = known @ network.state_units[m] + inputs @ network.track_units[m]
            units = np.maximum(units + network.units_bias[m], 0)
            direct = known @ network.state_outputs[m] + inputs @ network.track_outputs[m]
            outputs[name].append(units @ network.unit_outputs[m] + direct + network.output_bias[m])
    song, base = np.mean(outputs["song"], axis=0), np.mean(outputs["usual"], axis=0)
    part = fit.calibration.song[int(is_repeat(of_track))]
    scale, shift = fit.calibration.simulated
    z = scale * (base[0] + part * (song[0] - base[0])) + shift
    brief, kept = expit(song[1]), np.exp(song[2:]) / np.exp(song[2:]).sum()
    expected = [expit(z) * brief, expit(z) * (1 - brief), *((1 - expit(z)) * kept)]
    np.testing.assert_allclose(ask(listener, state, history, track)[0, 0], expected, rtol=2e-6)


def _context(play):
    angle = 2 * np.pi * play["hour"] / 24
    kinds = np.arange(6) == play["context_type"]
    signs = [2 * play["premium"] - 1, 2 * play["shuffle"] - 1]
    return np.concatenate([[np.cos(angle), np.sin(angle)], signs, kinds])


def test_answers_do_not_depend_on_who_else_is_asked(synthetic, listener):
    """To the last bit, as the environment promises."""
    sessions = np.arange(300)
    history, state = begin(listener, sessions)
    tracks = np.arange(600).reshape(300, 2) % len(synthetic.catalog)
    together = ask(listener, state, history, tracks)
    for some in (np.array([4]), np.arange(7), np.arange(31) + 9, np.arange(299)):
        history, state = begin(listener, some)
        np.testing.assert_array_equal(ask(listener, state, history, tracks[some]), together[some])


def test_shown_plays_are_read_once_and_as_if_anew(synthetic, listener, monkeypatch):
    """Sessions come back, with more shown or less, in other company, and push each other out."""
    fresh, (_, state) = LearnedListener(synthetic, listener.fit), begin(listener, [0])
    of_one = sum(getattr(state, field.name).nbytes for field in fields(state))
    monkeypatch.setattr(learned, "CACHE_BYTES", 5 * of_one)
    small = LearnedListener(synthetic, listener.fit)
    rng = np.random.default_rng(0)
    for _ in range(6):
        sessions = rng.permutation(40)[:15]
        shown = rng.integers(0, 10, 15)
        _, expected = begin(LearnedListener(synthetic, listener.fit), sessions, shown)
        for one in (fresh, small):
            history, state = begin(one, sessions, shown)
            for field in fields(state):
                got = getattr(state, field.name)
                np.testing.assert_array_equal(got, getattr(expected, field.name))
            rows = np.arange(15)
            heard = np.full(15, 3), np.full(15, 2, np.int8)
            one.update_state(state, history, rows, *heard)
    monkeypatch.setattr(kernels, "read_shown", None)
    begin(fresh, sessions, shown)


def test_shown_plays_are_read_as_one_after_the_other(synthetic, listener):
    """To the last bit: rows of a batch in any order, which heard other things before."""
    sessions, rng = np.random.default_rng(1).permutation(60), np.random.default_rng(0)
    shown = rng.integers(0, 10, 60)
    whole = History.logged(synthetic, sessions, synthetic.sessions.lengths(sessions), 40)
    history, single = begin(listener, sessions, np.zeros(60, np.int64))
    of_context, of_behaviour = log_columns(synthetic)
    table, arrays = listener.table.arrays, single.model_arrays
    for place in range(9):
        rows = np.flatnonzero(place < shown)
        song, level = whole.tracks[rows, place].astype(np.int64), whole.levels[rows, place]
        plays, before = synthetic.sessions.offsets[sessions[rows]] + place, history.count[rows]
        single.context[rows] = context_inputs(plays, of_context)
        heard = history.tracks, history.levels
        width = len(listener.fit.calibration.usual)
        inputs = track_inputs(rows, song[:, None], before, heard, table, single.arrays, width)
        seen = inputs, behaviour_inputs(plays, of_behaviour)
        kernels.add_plays(rows, song[:, None], level, before, *seen, arrays, listener.model)
        history.record(rows, song, level)
    _, state = begin(listener, sessions[::-1])
    for rows in (rng.permutation(60)[:25], rng.permutation(60)):
        listener.begin_rows(state, history, rows)
        for field in fields(state):
            got, expected = getattr(state, field.name), getattr(single, field.name)
            np.testing.assert_array_equal(got[rows], expected[rows])


def test_a_table_of_other_plays_that_replaces_the_first_is_the_one_read(synthetic, listener):
    other, tracks = LearnedListener(synthetic, listener.fit), np.arange(60).reshape(20, 3)
    other.table = replace(other.table, effect=other.table.effect + 1.0)
    first, second = (skips(one, *begin(one, np.arange(20)), tracks) for one in (listener, other))
    assert (second > first).all()


def test_true_past_does_not_see_the_play_in_question(synthetic_folder, listener, tmp_path):
    """Play 6 and all later ones change in every column but the track; answers up to 6 stay."""
    changed = tmp_path / "changed"
    copy_to_alter(synthetic_folder, changed)
    offsets = np.load(changed / "sessions" / "offsets.npy")
    for file in (changed / "plays").glob("*.npy"):
        if file.stem == "track":
            continue
        column = np.lib.format.open_memmap(file, mode="r+")
        for start, end in itertools.pairwise(offsets):
            column[start + 6 : end] = min(2, PLAY_COLUMNS[file.stem].limits[1])
        column.flush()
    other = LearnedListener(Dataset(changed), listener.fit)
    sessions = np.arange(30)
    one, two = next_plays(listener, sessions), next_plays(other, sessions)
    np.testing.assert_array_equal(one[:, :7], two[:, :7])
    assert not np.allclose(one[:, 7:10], two[:, 7:10])


def test_behaviour_is_read_of_shown_plays_and_not_of_simulated_ones(synthetic, listener):
    """The same plays, shown or simulated at the logged levels, in sessions of one context."""
    sessions, rows = np.arange(40), np.arange(40)
    history, shown = begin(listener, sessions, np.full(40, 6))
    so_far, simulated = begin(listener, sessions, np.ones(40, np.int64))
    for place in range(1, 6):
        heard = rows, history.tracks[:, place], history.levels[:, place]
        listener.update_state(simulated, so_far, *heard)
        so_far.record(*heard)
    for name in ("sums", "counts", "last", "deviations", "weight"):
        np.testing.assert_array_equal(getattr(shown, name), getattr(simulated, name))
    assert not np.allclose(shown.memory, simulated.memory)


def test_skips_make_the_next_skip_likelier(listener):
    tracks, rows = np.random.default_rng(0).integers(0, 200, (50, 1)), np.arange(50)
    answers = {}
    for level in (0, 4):
        h, s = begin(listener, np.arange(50))
        for t in (150, 151, 152):
            heard = np.full(50, t)
            levels = np.full(50, level, np.int8)
            listener.update_state(s, h, rows, heard, levels)
            h.record(rows, heard, levels)
        answers[level] = skips(listener, h, s, tracks).mean()
    assert answers[0] > 0.65 > 0.4 > answers[4]


def two_members(fit):
    """The fit, and beside it one that makes more of tracks."""
    other = replace(fit.network, track_outputs=1.3 * fit.network.track_outputs)
    return replace(fit, network=Network.stacked([fit.network, other]))


SETTINGS = {
    "bundled": {},
    "pessimistic": {"pessimism": 0.7},
}


@pytest.mark.parametrize("embedding", ["hybrid", None])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_whole_slates_are_heard_as_song_by_song(synthetic, members, embedding, setting):
    """Levels, history and state to the last bit; slates with gaps, repeats, some sessions idle."""
    fit = FittedNetwork.load(BUNDLED)
    others = (replace(fit.network, keep=fit.network.keep * part) for part in (0.9, 0.7))
    network = Network.stacked([fit.network, *others][:members])
    calibration = replace(fit.calibration, song=(0.8, 0.4), simulated=(0.9, 0.1))
    about = {**fit.about, "embedding": embedding}
    listener = LearnedListener(synthetic, FittedNetwork(network, calibration, about), **setting)
    rng = np.random.default_rng(0)
    (whole, in_whole), (single, in_single) = (begin(listener, np.arange(40)) for _ in range(2))
    for _ in range(4):
        rows = rng.permutation(40)[:30]
        slates = rng.integers(0, 60, (30, 4))
        slates[rng.random(slates.shape) < 0.1] = -1
        slates[:, 3] = np.where(rng.random(30) < 0.5, slates[:, 0], slates[:, 3])
        asked = rows, slates, np.full(slates.shape, -1), rng.random(slates.shape)
        levels = listener.simulate_response(in_whole, whole, *asked)
        expected = Listener.simulate_response(listener, in_single, single, *asked)
        np.testing.assert_array_equal(levels, expected)
        assert ((levels < 0) == (slates < 0)).all()
    for one, other in ((whole, single), (in_whole, in_single)):
        for field in fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_pessimism_adds_what_is_not_known(synthetic, listener):
    listener = LearnedListener(synthetic, two_members(listener.fit))
    history, state = begin(listener, np.arange(20))
    tracks = np.tile(np.arange(200), (20, 1))
    usual, careful, twice = (
        logit(skips(LearnedListener(synthetic, listener.fit, pessimism=p), history, state, tracks))
        for p in (0.0, 1.0, 2.0)
    )
    spread = careful - usual
    assert (spread > 0).all()
    np.testing.assert_allclose(twice - usual, 2 * spread, rtol=1e-6)
    sd = listener.table.effect_sd
    unknown, well_known = np.argsort(-sd)[:20], np.argsort(sd)[:20]
    assert spread[:, unknown].mean() > 1.2 * spread[:, well_known].mean()
    base, logits, repeat = listener.network_logits(state, history, np.arange(20), tracks)
    shrinkage = np.array(listener.fit.calibration.song)[repeat.astype(int)]
    scale, shift = listener.fit.calibration.simulated
    members = scale * (base + shrinkage * (logits - base)) + shift
    np.testing.assert_allclose(members.mean(axis=0), usual, rtol=1e-6, atol=1e-6)
    assert (spread >= members.std(axis=0) - 1e-6).mean() > 0.95


def test_levels_are_shared_out():
    outputs = np.array([[[7.0, 0.0, *np.log([1.0, 1.0, 2.0])]]], np.float32)
    chances = kernels.share_out(np.array([[0.6]]), outputs)
    np.testing.assert_allclose(chances, [[[0.3, 0.3, 0.1, 0.1, 0.2]]])


def test_files_keep_the_answers(synthetic, listener, tmp_path):
    file = tmp_path / "fit.npz"
    about = {**listener.fit.about, "fitted_on": synthetic.identity}
    replace(listener.fit, about=about).save(file)
    again = make_listener(str(file), synthetic)
    copied = pickle.loads(pickle.dumps(again))
    expected = next_plays(listener, np.arange(5))
    for other in (again, copied):
        np.testing.assert_allclose(next_plays(other, np.arange(5)), expected, rtol=1e-6)


def test_the_environment_plays_on_with_it(synthetic_folder):
    env = MusicSessionEnv(data=str(synthetic_folder), listener="learned", horizon=40)
    env.reset(seed=3)
    over, heard = False, 0
    while not over:
        _, _, terminated, over, info = env.step(env.action_space.sample())
        heard += int((info["slate_levels"] >= 0).sum())
        assert not terminated
    assert heard == 40
