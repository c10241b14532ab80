"""The trust report: asking listeners, the bar, the whole report, on synthetic sessions."""

import itertools
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from musicbox_agents import make_agent
from musicbox_experiments.evaluate.metrics import PerSession, Rollout
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.trust import asking, measures, protocols
from musicbox_experiments.trust import lists as trust_lists
from musicbox_experiments.trust.asking import ImputingReplay, Log, without_answers
from musicbox_experiments.trust.boosting import (
    RATE_FOLDS,
    Bars,
    Boosting,
    Question,
    TrackRates,
    features,
)
from musicbox_experiments.trust.evaluators import agreement, evaluated_in_run, trained_agents
from musicbox_experiments.trust.measures import NEXT, PRICE, Bench, Findings, Record, Subject
from musicbox_experiments.trust.tables import answer, listeners_of, verdicts
from musicbox_experiments.trust.trust import TrustConfig, lay_out, open_subjects, run
from scipy.special import expit

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import (
    GroundTruthListener,
    History,
    Listener,
    ReplayListener,
    sample_levels,
    skip_probability,
)
from musicbox_env.listeners.files import write_fit
from musicbox_env.listeners.leaving import LeavingModel
from musicbox_env.schema import NUM_LEVELS, PLAY_COLUMNS, UNKNOWN, is_skip


@pytest.fixture(scope="module")
def log(synthetic):
    return Log.of(synthetic, synthetic.sessions.sessions_in("test"))


@pytest.fixture(scope="module")
def truth(synthetic):
    return GroundTruthListener(synthetic)


class Constant(Listener):
    """Answers always alike."""

    def __init__(self, chances):
        self.chances = np.asarray(chances, float)

    def level_probabilities(self, state, history, rows, tracks, plays):
        return np.broadcast_to(self.chances, (*tracks.shape, NUM_LEVELS)).copy()


class Moody(Listener):
    """Skips more after a skip than after a keep."""

    after_keep = np.array([0.1, 0.1, 0.1, 0.2, 0.5])
    after_skip = np.array([0.5, 0.2, 0.1, 0.1, 0.1])

    def level_probabilities(self, state, history, rows, tracks, plays):
        last = history.levels[rows, history.count[rows] - 1]
        chances = np.where(is_skip(last)[:, None], self.after_skip, self.after_keep)
        return np.repeat(chances[:, None], tracks.shape[1], axis=1)


def make_bench(log, training, samples=3, resamples=60):
    rng = np.random.default_rng(0)
    resampling = Resampling(len(log.sessions), rng=rng, resamples=resamples)
    return Bench(log, resampling, {"train": Bars(log, training, "train", 0)}, samples, 20, 0)


@pytest.fixture(scope="module")
def big_log(synthetic):
    """More sessions than the test split has; the exact law was fitted on none of them."""
    return Log.of(synthetic, np.arange(synthetic.sessions.num_sessions))


@pytest.fixture(scope="module")
def bench(synthetic, log):
    return make_bench(log, Log.of(synthetic, synthetic.sessions.sessions_in("train")))


# Asking.


def test_next_plays_are_asked_with_the_true_past(truth, log):
    found = asking.predict_next(truth, log)
    assert np.isnan(found[:, 0]).all()
    assert np.array_equal(np.isfinite(found[:, 1:]), log.heard[:, 1:])
    for row, place in ((0, 1), (3, 7), (5, int(log.lengths[5]) - 1)):
        history = History.logged(log.dataset, log.sessions[[row]], np.array([place]), log.width)
        track, play = log.tracks[[row], place][:, None], np.array([[place]])
        chances = truth.level_probabilities(
            truth.begin(history), history, np.array([0]), track, play
        )
        assert found[row, place] == pytest.approx(skip_probability(chances)[0, 0])


def test_levels_alone_are_the_whole_past_where_the_context_never_changes(truth, log):
    """The law reads levels and the context of the last shown play, and nothing else."""
    column = log.dataset.sessions.padded
    alike = [
        (np.where(log.heard, c, c[:, :1]) == c[:, :1]).all(axis=1)
        for c in (column(name, log.sessions, log.width) for name in ("context_type", "shuffle"))
    ]
    same = alike[0] & alike[1]
    assert same.sum() > 20
    full, levels = asking.predict_next(truth, log), asking.predict_next_from_levels(truth, log)
    np.testing.assert_allclose(levels[same], full[same])


def test_an_examined_replay_listener_does_not_know_the_answer(
    synthetic_folder, synthetic, log, tmp_path
):
    """Every label at one place changes: what is asked about that place must not, the rest must."""
    place, changed = 6, tmp_path / "changed"
    shutil.copytree(synthetic_folder, changed)
    column = np.lib.format.open_memmap(changed / "plays" / "level.npy", mode="r+")
    at = np.asarray(synthetic.sessions.offsets[:-1]) + place
    column[at] = np.where(is_skip(column[at]), 4, 0)
    column.flush()
    answers = [
        asking.predict_next(without_answers(ReplayListener(dataset)), Log.of(dataset, log.sessions))
        for dataset in (synthetic, Dataset(changed))
    ]
    np.testing.assert_array_equal(answers[0][:, place], answers[1][:, place])
    assert not np.allclose(answers[0][:, place + 1], answers[1][:, place + 1])
    asked = np.isfinite(answers[0])
    # Its own labels known, nearly every answer would be on the right side.
    assert ((answers[0][asked] >= 0.5) == is_skip(log.levels)[asked]).mean() < 0.8


def test_imputing_is_unchanged_for_songs_that_the_session_does_not_hold(synthetic, log):
    plain, examined = ReplayListener(synthetic), ImputingReplay(synthetic)
    history = log.history(np.arange(8), log.shown[:8])
    tracks, nowhere = np.tile(np.arange(5), (8, 1)), np.full((8, 5), UNKNOWN)
    answers = [
        listener.level_probabilities(
            listener.begin(history), history, np.arange(8), tracks, nowhere
        )
        for listener in (plain, examined)
    ]
    np.testing.assert_array_equal(*answers)


def test_a_listener_that_looks_the_answer_up_is_refused():
    class Cheat(Constant):
        answers_from_log = True

    with pytest.raises(ValueError, match="Cheat answers from the log"):
        without_answers(Cheat([1, 0, 0, 0, 0]))


def test_free_runs_keep_the_shown_half_and_draw_the_rest(log):
    chances = [0.2, 0.3, 0.1, 0.1, 0.3]
    rolled = asking.run_free(Constant(chances), log, samples=40, rng=np.random.default_rng(0))
    shown = np.arange(log.width) < log.shown[:, None]
    assert (rolled.levels[:, shown] == log.levels[shown]).all()
    assert np.array_equal(rolled.levels[0] >= 0, log.heard)
    drawn = rolled.levels[:, log.second_half].ravel()
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), chances, atol=0.01)
    assert np.array_equal(np.isfinite(rolled.probability[0]), log.second_half)


def test_free_runs_equal_one_session_at_a_time(truth, log):
    part = log.part(np.arange(3))
    rolled = asking.run_free(truth, part, samples=1, rng=np.random.default_rng(3))
    uniforms = np.random.default_rng(3).random((3, log.width))
    for row in range(3):
        history = part.history(np.array([row]), part.shown[[row]])
        state, only = truth.begin(history), np.array([0])
        for place in range(part.shown[row], part.lengths[row]):
            track = part.tracks[[row], place].astype(np.int64)
            chances = truth.level_probabilities(
                state, history, only, track[:, None], np.array([[place]])
            )[:, 0]
            level = sample_levels(chances, uniforms[[row], place])
            assert level[0] == rolled.levels[0, row, place]
            truth.update_state(state, history, only, track, level)
            history.record(only, track, level)


def test_constant_sessions_are_drawn_anew_and_others_left_alone(log):
    listener, rng = Constant([0.45, 0.45, 0, 0, 0.1]), np.random.default_rng(1)
    rolled = asking.run_free(listener, log, samples=5, rng=rng)
    constant = protocols.is_constant(rolled.levels)
    assert constant.any()
    filtered = asking.redraw_constant(listener, log, rolled, rng=rng)
    assert not protocols.is_constant(filtered.levels).any()
    np.testing.assert_array_equal(filtered.levels[~constant], rolled.levels[~constant])


def test_continuations_that_last_as_long_follow_the_hazard(log):
    """Levels drawn independently: given how long a session lasted, each by its own hazard."""
    chances = np.array([0.3, 0.2, 0.1, 0.1, 0.3])
    leaving = LeavingModel(10, (-2.0,) * 10, last=(-2.0, -1.0, 0.0, 0.5, 1.0))
    part = log.part(np.arange(30))
    rolled = asking.run_free(Constant(chances), part, samples=800, rng=np.random.default_rng(0))
    got = asking.lasting(part, rolled, leaving, rng=np.random.default_rng(1)).levels
    hazard = expit(-2.0 + np.array(leaving.last))
    full = np.flatnonzero(part.lengths == 20)
    stayed = chances * (1 - hazard) / (chances @ (1 - hazard))
    left = chances * hazard / (chances @ hazard)
    last = np.concatenate([got[:, row, n - 1] for row, n in enumerate(part.lengths) if n < 20])
    for levels, expected in (
        (got[:, full, 10:19].ravel(), stayed),
        (got[:, full, 19].ravel(), chances),
        (last, left),
    ):
        np.testing.assert_allclose(np.bincount(levels) / len(levels), expected, atol=0.015)


@pytest.mark.parametrize("all_count_alike", [False, True])
def test_foreseen_skips_are_those_of_all_continuations_that_last_as_long(log, all_count_alike):
    """Against every continuation, written out with its chance and its listener's of staying."""
    leaving = LeavingModel(
        10, (-2.0,) * 10, last=(-2, -1, 0, 0.5, 1), before=(1, 0, 0, 0, -1), skip_rate=1.5
    )
    short = np.flatnonzero(log.lengths <= 12)[:12]
    part = log.part(short)
    seen = None if all_count_alike else leaving
    got = asking.predict(Moody(), part, seen, draws=10_000, rng=np.random.default_rng(0))
    assert np.array_equal(np.isfinite(got), part.second_half)
    off = []
    for row, (shown, length) in enumerate(zip(part.shown, part.lengths, strict=True)):
        ways = np.array(list(itertools.product(range(NUM_LEVELS), repeat=length - shown)))
        whole = np.concatenate([np.tile(part.levels[row, :shown], (len(ways), 1)), ways], axis=1)
        chance = np.ones(len(ways))
        for place in range(shown, length):
            skipped = is_skip(whole[:, place - 1])
            after = np.where(skipped[:, None], Moody.after_skip, Moody.after_keep)
            chance *= after[np.arange(len(ways)), whole[:, place]]
            hazard = leaving.chances(whole, np.full(len(ways), place + 1))
            if not all_count_alike and place + 1 < part.width:
                chance *= hazard if place + 1 == length else 1 - hazard
        expected = chance @ is_skip(whole[:, shown:]) / chance.sum()
        off.append(got[row, shown:length] - expected)
    assert np.abs(np.concatenate(off)).max() < 0.02
    assert np.sqrt(np.mean(np.concatenate(off) ** 2)) < 0.008


def test_samples_of_a_session_are_spread_evenly(log):
    """Of 40 samples of a chance of .3, 12 are skipped at every single place."""
    chances = [0.1, 0.2, 0.1, 0.1, 0.5]
    rolled = asking.run_free(Constant(chances), log, samples=40, rng=np.random.default_rng(2))
    for skipped in (is_skip(rolled.levels), rolled.levels == 0):
        counts = skipped.sum(axis=0)[log.second_half]
        assert (counts == counts[0]).all()
    assert is_skip(rolled.levels).sum(axis=0)[log.second_half][0] == 12
    again = asking.run_free(Constant(chances), log, samples=40, rng=np.random.default_rng(2))
    assert np.array_equal(again.levels, rolled.levels)
    orders = is_skip(rolled.levels)[:, log.second_half].T
    assert len(np.unique(orders, axis=0)) > 0.9 * len(orders), "each place has an order of its own"


def test_greedy_takes_the_likelier_side_and_its_likeliest_level(log):
    """Level 4 alone is likeliest of all, but skipping is likelier than keeping."""
    rolled = asking.roll_greedily(Constant([0.3, 0.25, 0, 0.05, 0.4]), log)
    assert (rolled.levels[log.second_half] == 0).all()


def test_song_effects_compare_with_new_songs_that_followed(truth, log):
    effects = asking.song_effects(truth, log)
    assert len(effects.rows) == log.second_half.sum()
    for i in (0, 17, 40):
        row, place = effects.rows[i], effects.places[i]
        end = min(place + 5, log.lengths[row])
        heard = set(log.tracks[row, : place + 1])
        new = [track for track in log.tracks[row, place + 1 : end] if track not in heard]
        left = np.array([[log.tracks[row, place], *new]], np.int64)
        chances = asking.ask(
            truth, log, np.array([row]), np.array([place]), left, np.full(left.shape, UNKNOWN)
        )[0]
        assert effects.probability[i] == pytest.approx(chances[0])
        assert effects.effect[i] == pytest.approx(chances[0] - chances.mean())
        assert effects.repeat[i] == (left[0, 0] in log.tracks[row, :place])


def test_repeats_are_told_by_what_was_heard_before(log):
    in_shown, before = measures.repeats_of(log)
    for row in range(20):
        tracks = log.tracks[row, : log.lengths[row]].tolist()
        for place, track in enumerate(tracks):
            late = place >= log.shown[row]
            assert before[row, place] == (track in tracks[:place])
            assert in_shown[row, place] == (late and track in tracks[: log.shown[row]])


def test_expected_list_reward_equals_all_ways_the_list_can_go(truth, log):
    rows, shown = np.array([0, 1]), log.shown[:2]
    slates = np.array([[5, 9, 70], [3, 3, 11]])
    found = asking.expected_list_reward(
        truth, log, rows, shown, slates, gamma=0.9, samples=20_000, rng=np.random.default_rng(2)
    )
    for row in range(2):
        expected = 0.0
        for path in itertools.product(range(NUM_LEVELS), repeat=2):
            history = History.logged(log.dataset, log.sessions[[row]], shown[[row]], log.width + 3)
            state, only, weight = truth.begin(history), np.array([0]), 1.0
            for k in range(3):
                track = slates[[row], k]
                chances = truth.level_probabilities(
                    state, history, only, track[:, None], np.array([[UNKNOWN]])
                )[:, 0]
                # The last song's reward needs the path up to it, the earlier ones' do not.
                reward = 0.9**k * (1 - skip_probability(chances)[0])
                expected += weight * reward / NUM_LEVELS ** (2 - k)
                if k < 2:
                    weight *= chances[0, path[k]]
                    level = np.array([path[k]], np.int8)
                    truth.update_state(state, history, only, track, level)
                    history.record(only, track, level)
        assert found[row] == pytest.approx(expected, abs=0.01)


# The exact law must pass its own examination.


@pytest.fixture(scope="module")
def exact(truth, big_log):
    """The exact law examined on every session."""
    bench = make_bench(big_log, big_log, samples=10, resamples=200)
    subject, findings = Subject("exact", truth, "ground_truth"), Findings()
    guess = np.where(big_log.heard & (np.arange(big_log.width) > 0), 0.5, np.nan)
    vars(bench.bars["train"]).update(next_play=guess, next_play_from_levels=guess)
    measures.next_play(bench, subject, findings)
    measures.second_halves(bench, subject, findings)
    measures._slopes(bench, subject, findings)
    return findings


def test_the_exact_law_is_calibrated(exact):
    error = exact.value("exact", NEXT, "calibration_excess")
    assert error.value < 0.01
    assert abs(exact.value("exact", NEXT, "bias").value) < 0.012
    assert exact.value("exact", NEXT, "auc").value > 0.75


def test_the_exact_law_prices_songs_rightly(exact):
    for metric in ("slope", "slope_first_hearings", "slope_repeats"):
        record = exact.value("exact", PRICE, metric)
        assert record.low <= 1 <= record.high, metric
    assert exact.value("exact", PRICE, "slope").low > 0.5


def test_sessions_left_to_the_exact_law_run_like_the_log(exact):
    """The generator draws constant sessions anew, so the law must be held to the same."""
    protocol = measures.FREE_FILTERED
    outside = [
        r.metric
        for r in exact.records
        if r.protocol == protocol and r.metric.endswith("_off") and r.metric != "constant_off"
        if not (r.low <= 0.0 <= r.high)
    ]
    # Of eleven 95 % intervals, one outside is no surprise.
    assert len(outside) <= 1, outside
    assert exact.value("exact", protocol, "constant").value == 0
    assert exact.value("exact", measures.FREE, "constant").value > 0.01


def test_a_listener_without_opinions_is_found_out(bench):
    subject, findings = Subject("blank", Constant([0.3, 0.2, 0.1, 0.1, 0.3]), ""), Findings()
    measures.next_play(bench, subject, findings)
    measures.second_halves(bench, subject, findings)
    measures.price(bench, subject, findings)
    auc = findings.value("blank", NEXT, "auc")
    assert auc.value == auc.low == auc.high == 0.5
    assert findings.value("blank", NEXT, "auc_over_bar").high < 0
    assert findings.value("blank", PRICE, "slope").value is None
    assert findings.value("blank", PRICE, "reranking_promised").value == pytest.approx(0)
    trust_lists.of_listener(bench, subject, findings)
    assert findings.value("blank", trust_lists.LISTS, "correlation").value is None
    for part in ("mood", "song"):
        assert findings.value("blank", PRICE, f"variance_{part}").value == pytest.approx(0)
    assert abs(findings.value("blank", measures.FREE, "autocorrelation_1").value) < 0.1
    rows = dict(verdicts(findings, ["blank"]))
    assert rows["Does it get out of the past what gradient boosting does?"]["blank"] == "no"


def test_repeating_the_last_action_is_its_own_baseline(bench):
    findings = Findings()
    measures.challenge_bars(bench, findings)
    gain = findings.value("last action", measures.CHALLENGE, "mean_average_accuracy_over_bar")
    assert gain.value == gain.low == gain.high == 0
    log = bench.log
    expected = []
    for row, first in enumerate(log.shown):
        skips = is_skip(log.levels[row, : log.lengths[row]])
        right = skips[first:] == skips[first - 1]
        expected.append(np.mean([right[: i + 1].mean() * right[i] for i in range(len(right))]))
    found = findings.value("last action", measures.CHALLENGE, "mean_average_accuracy")
    assert found.value == pytest.approx(np.mean(expected))


def test_the_parts_are_told_by_what_is_known_before_the_play(log):
    parts = dict(measures.parts_of(log))
    context = log.dataset.sessions.padded("context_type", log.sessions, log.width)
    chosen = parts["context=radio"]
    row, place = np.argwhere(chosen & (np.arange(log.width) > 0))[0]
    assert context[row, place - 1] == 3
    by_plays = np.sum([m for name, m in parts.items() if name.startswith("plays=")], axis=0)
    assert np.array_equal(by_plays, log.heard)


# The bar.


def test_features_do_not_know_what_comes_after_the_past(synthetic_folder, synthetic, tmp_path):
    """Every column but the track changes from the first play after the shown half on."""
    changed = tmp_path / "changed"
    shutil.copytree(synthetic_folder, changed)
    offsets = np.load(changed / "sessions" / "offsets.npy")
    for name in PLAY_COLUMNS:
        if name == "track":
            continue
        column = np.lib.format.open_memmap(changed / "plays" / f"{name}.npy", mode="r+")
        for start, end in itertools.pairwise(offsets):
            column[start + (end - start) // 2 : end] = 1
        column.flush()
    sessions = synthetic.sessions.sessions_in("test")
    rates = TrackRates(
        synthetic, synthetic.sessions.sessions_in("train"), rng=np.random.default_rng(0)
    )
    logs = [Log.of(dataset, sessions) for dataset in (synthetic, Dataset(changed))]
    assert not np.array_equal(logs[0].levels, logs[1].levels)
    for behaviour in (False, True):
        tables = [
            features(log, Question.second_halves(log), rates, behaviour=behaviour, predict=True)
            for log in logs
        ]
        np.testing.assert_array_equal(*tables)


def test_levels_alone_read_no_behaviour(synthetic_folder, synthetic, tmp_path, log):
    changed = tmp_path / "changed"
    shutil.copytree(synthetic_folder, changed)
    for name in ("reason_end", "reason_start", "pause", "context_switch", "seek_forward"):
        column = np.lib.format.open_memmap(changed / "plays" / f"{name}.npy", mode="r+")
        column[:] = 1
        column.flush()
    rates = TrackRates(
        synthetic, synthetic.sessions.sessions_in("train"), rng=np.random.default_rng(0)
    )
    logs = [log, Log.of(Dataset(changed), log.sessions)]
    for behaviour in (False, True):
        one, other = (
            features(each, Question.next_plays(each), rates, behaviour=behaviour, predict=False)
            for each in logs
        )
        assert np.array_equal(one, other, equal_nan=True) != behaviour


def test_a_track_rate_leaves_the_sessions_own_fold_out(synthetic):
    rates = TrackRates(
        synthetic, synthetic.sessions.sessions_in("train"), rng=np.random.default_rng(0)
    )
    train = synthetic.sessions.sessions_in("train")
    test = synthetic.sessions.sessions_in("test")
    session, track = train[3], 0
    fold = rates._fold[session]
    others = train[rates._fold[train] != fold]
    plays = synthetic.sessions.plays_of(others)
    count = (synthetic.sessions.column("track")[plays] == track).sum()
    _, log_plays = rates.of(np.array([session]), np.array([[track]]))
    assert log_plays[0, 0] == pytest.approx(np.log1p(count))
    _, log_plays = rates.of(test[:1], np.array([[track]]))
    assert log_plays[0, 0] == pytest.approx(np.log1p(synthetic.catalog.plays("train")[track]))
    assert set(rates._fold[train]) == set(range(RATE_FOLDS))


def test_boosting_learns_persistence_and_nothing_from_permuted_labels(bench):
    measure, bars = bench.resampling.measure, bench.bars["train"]
    learned = measure(protocols.AUC(bench.predictions(bars.next_play)))
    assert learned.value > 0.7
    rng = np.random.default_rng(0)
    levels, heard = bars.training.levels.copy(), bars.training.heard
    levels[heard] = rng.permutation(levels[heard])
    model = Boosting(replace(bars.training, levels=levels), bars.rates, behaviour=False)
    nothing = measure(protocols.AUC(bench.predictions(model.predict(bench.log))))
    assert nothing.value < 0.6 < learned.low


def test_boosting_does_without_what_a_history_leaves_unknown(synthetic, tmp_path):
    """Listening histories know no context: columns of nothing but unknown values."""
    folder = tmp_path / "data"
    shutil.copytree(synthetic.folder, folder)
    for name in ("hour", "premium", "context_type", "shuffle"):
        column = np.load(folder / f"plays/{name}.npy")
        np.save(folder / f"plays/{name}.npy", np.full_like(column, UNKNOWN))
    dataset = Dataset(folder)
    training, log = (Log.of(dataset, dataset.sessions.sessions_in(s)) for s in ("train", "test"))
    bench = make_bench(log, training)
    learned = bench.resampling.measure(
        protocols.AUC(bench.predictions(bench.bars["train"].next_play))
    )
    assert learned.value > 0.7


def test_a_listener_of_one_fold_is_held_against_boosting_on_that_fold(
    synthetic_folder, synthetic, tmp_path
):
    """The bar knows the same sessions as the listener, its track rates too."""
    similar = {"listener": "similarity", "settings": {"split": "train_a"}}
    write_fit(tmp_path / "similarity-A.npz", similar, {})
    specs = ("similarity", str(tmp_path / "similarity-A.npz"))
    subjects = open_subjects(synthetic, specs, Findings())
    assert [(s.name, s.split) for s in subjects] == [
        ("similarity", "train"), ("similarity-A", "train_a"),
    ]  # fmt: skip
    config = TrustConfig(data=synthetic_folder, sessions=30, resamples=5)
    bench = lay_out(synthetic, config, {s.split for s in subjects})
    assert [bars.name for bars in bench.bars.values()] == [
        "gradient boosting", "gradient boosting, fold A",
    ]  # fmt: skip
    fold = bench.bars["train_a"]
    np.testing.assert_array_equal(fold.training.sessions, synthetic.sessions.sessions_in("train_a"))
    unseen = synthetic.sessions.sessions_in("test")[:1]
    _, plays = fold.rates.of(unseen, np.arange(200)[None])
    np.testing.assert_allclose(plays[0], np.log1p(synthetic.catalog.plays("train_a")))
    findings = Findings()
    vars(fold)["next_play"] = np.where(np.isfinite(fold.next_play), 0.5, np.nan)
    measures.next_play(bench, subjects[1], findings)
    assert findings.value("similarity-A", NEXT, "auc").bar == 0.5


# Agents before listeners.


def write_rollout(folder, evaluator, agent, skips, sessions=40):
    """A rollout in which the first ``skips`` of each ten songs are skipped."""
    levels = np.where(np.arange(10) < skips, 0, 4).astype(np.int8)
    shape = (sessions, 1, 10)
    Rollout(
        agent=agent,
        seed=0,
        evaluator=evaluator,
        sessions=np.arange(sessions),
        slates=np.zeros(shape, np.int32),
        levels=np.broadcast_to(levels, shape).copy(),
        logged=np.zeros(shape, np.bool_),
        returns=np.zeros(sessions),
    ).save(folder / f"{evaluator}-{agent}-0.npz")


def test_a_run_tells_who_agrees_and_what_was_exploitation(tmp_path):
    (tmp_path / "rollouts").mkdir()
    skips = {
        "home": {"logged": 5, "honest": 3, "exploiter": 1},
        "away": {"logged": 6, "honest": 4, "exploiter": 6},
    }
    for evaluator, agents in skips.items():
        for agent, count in agents.items():
            write_rollout(tmp_path / "rollouts", evaluator, agent, count)
    PerSession(np.ones(40), np.ones(40)).save(tmp_path / "rollouts" / "rerank-honest-0.npz")
    training = tmp_path / "agents" / "ddpg" / "seed-0"
    training.mkdir(parents=True)
    (training / "training.json").write_text(json.dumps({"options": {"listener": "fits/home.npz"}}))
    evaluated = evaluated_in_run(tmp_path)
    assert evaluated.trained_with == "home"
    findings = Findings()
    resampling = Resampling(40, rng=np.random.default_rng(0), resamples=20)
    agreement(evaluated, resampling, findings)
    value = lambda evaluator, metric: findings.value(evaluator, "agreement", metric).value  # noqa: E731
    assert value("home", "skip_rate[honest]") == pytest.approx(0.3)
    # home ranks exploiter, honest, logged; away honest before the other two, which tie.
    assert value("home", "tau[away]") == pytest.approx(0.0)
    assert value("away", "gain_lost[honest]") == pytest.approx(0.0)
    assert value("away", "gain_lost[exploiter]") == pytest.approx(0.4)


def test_a_folder_without_rollouts_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="musicbox compare"):
        evaluated_in_run(tmp_path)


# The report.


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.9, 1.1, "yes"), (0.7, 1.1, "probably"), (0.2, 0.9, "doubtful"), (0.2, 0.5, "no")],
)
def test_answers_follow_the_interval(low, high, expected):
    record = Record("l", "p", "m", (low + high) / 2, low, high)
    assert answer(record, (0.85, 1.15)) == expected


def test_the_whole_report(synthetic_folder, tmp_path, capsys):
    out = tmp_path / "report"
    config = TrustConfig(
        data=synthetic_folder,
        listener=("replay", "ground_truth"),
        out=out,
        sessions=60,
        evaluated_sessions=20,
        samples=2,
        resamples=30,
    )
    run(config)
    records = json.loads((out / "trust.json").read_text())
    assert all(
        list(r) == ["listener", "protocol", "metric", "value", "low", "high", "bar"]
        for r in records
    )
    found = {(r["listener"], r["protocol"], r["metric"]): r for r in records}
    assert len(found) == len(records)
    for listener in ("replay", "ground_truth"):
        assert 0.5 < found[listener, NEXT, "auc"]["value"] < 1
        assert found[listener, NEXT, "auc"]["bar"] is not None
    for simulator in (*trust_lists.SIMULATORS, trust_lists.FIRST_MUSICBOX, "ground_truth"):
        for metric in ("correlation", "shuffled", "of_songs"):
            assert found[simulator, trust_lists.LISTS, metric]["low"] is not None
    # The exact law is itself the truth, and no listener that looks into the log is asked to
    # predict it.
    assert found["ground_truth", "against the truth", "bias[own favourites]"]["value"] == 0
    assert ("replay", measures.CHALLENGE, "mean_average_accuracy") not in found
    for r in records:
        if r["low"] is not None:
            assert r["low"] <= r["high"]
    page = re.sub(r"data:image/png;base64,[^\"]*", "picture", (out / "trust.html").read_text())
    assert "://" not in page
    assert page.count('src="picture"') == len(list(out.glob("*.png")))
    assert "None" not in page.split("Reproduce</h2>")[0]
    assert all((out / f"{name}.png").is_file() for name in ("calibration", "price", "agreement"))
    printed = capsys.readouterr().out
    assert "AUC over boosting" in printed
    assert "trust.html" in printed


def test_the_same_seed_gives_the_same_figures(bench, truth):
    def figures():
        findings = Findings()
        measures.second_halves(bench, Subject("exact", truth, "ground_truth"), findings)
        return findings.records

    assert figures() == figures()


def test_listeners_that_the_data_does_not_support_are_noted(synthetic_folder, tmp_path):
    without = tmp_path / "logs"
    shutil.copytree(synthetic_folder, without)
    shutil.rmtree(without / "truth")
    findings = Findings()
    subjects = open_subjects(Dataset(without), (), findings)
    assert "ground_truth" not in [s.name for s in subjects]
    assert any("ground_truth" in note for note in findings.notes)
    with pytest.raises(FileNotFoundError):
        open_subjects(Dataset(without), ("ground_truth",), findings)


def test_listeners_of_a_report_leave_bars_out(bench, truth):
    findings = Findings()
    measures.challenge_bars(bench, findings)
    measures.second_halves(bench, Subject("exact", truth, "ground_truth"), findings)
    assert listeners_of(findings) == ["exact"]


@pytest.mark.parametrize("name", ["sessions", "samples", "resamples"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        TrustConfig(**{name: 0})


def test_trained_agents_of_a_run_go_by_their_labels(synthetic, tmp_path):
    """An agent stands beside variants of itself; what needs no training picks no songs."""
    for label, name in (("ddpg", "ddpg"), ("ddpg+mine", "ddpg"), ("best-rate", "best-rate")):
        agent = make_agent(name, synthetic)
        agent.save(tmp_path / "agents" / label / "seed-0" / "best")
    found = trained_agents(tmp_path, synthetic)
    assert list(found) == ["ddpg", "ddpg+mine"]
    assert {agent.name for agent in found.values()} == {"ddpg"}
