"""The simulator validation report: all protocols, the exact law, and the whole command."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from musicbox_agents import make_agent
from musicbox_experiments.evaluate.metrics import PerSession, Rollout
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.trust import exact_law, item_effect, list_reward, queries, trust
from musicbox_experiments.trust.agreement import (
    evaluated_in_run,
    measure_agreement,
    trained_agents,
)
from musicbox_experiments.trust.context import ListenerUnderTest
from musicbox_experiments.trust.item_effect import ITEM_EFFECT
from musicbox_experiments.trust.prediction import CHALLENGE, FREE, NEXT
from musicbox_experiments.trust.queries import Log
from musicbox_experiments.trust.records import Findings, Record
from musicbox_experiments.trust.tables import answer, verdicts
from musicbox_experiments.trust.trust import TrustConfig, open_listeners

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import GroundTruthListener
from musicbox_env.listeners.files import write_fit
from musicbox_env.schema import is_skip


@pytest.fixture(scope="module")
def big_log(synthetic):
    """More sessions than the test split has; the exact law was fitted on none of them."""
    return Log.of(synthetic, np.arange(synthetic.sessions.num_sessions))


def test_song_effects_compare_with_new_songs_that_followed(truth, log):
    made, effects, repeats = item_effect.song_effects(truth, log)
    rows, places = np.nonzero(log.second_half)
    np.testing.assert_array_equal(made.session, rows)
    np.testing.assert_array_equal(made.outcome, is_skip(log.levels[rows, places]))
    for i in (0, 17, 40):
        row, place = rows[i], places[i]
        end = min(place + 5, log.lengths[row])
        heard = set(log.tracks[row, : place + 1])
        new = [track for track in log.tracks[row, place + 1 : end] if track not in heard]
        left = np.array([[log.tracks[row, place], *new]], np.int64)
        chances = queries.query(truth, log, np.array([row]), np.array([place]), left)[0]
        assert made.probability[i] == pytest.approx(chances[0])
        assert effects[i] == pytest.approx(chances[0] - chances.mean())
        assert repeats[i] == (left[0, 0] in log.tracks[row, :place])


@pytest.fixture(scope="module")
def exact(truth, big_log, make_context):
    """The exact law tested on every session."""
    context = make_context(big_log, big_log, samples=10, resamples=200)
    tested = ListenerUnderTest("exact", truth, "ground_truth")
    guess = np.where(big_log.heard & (np.arange(big_log.width) > 0), 0.5, np.nan)
    answers = dict.fromkeys(("next_play", "next_play_from_levels", "second_half"), guess)
    vars(context.boosting["train"]).update(answers)
    trust.measure_prediction(context, tested)
    item_effect.measure_slopes(context, tested)
    return context.findings


def test_the_exact_law_is_calibrated(exact):
    error = exact.get("exact", NEXT, "calibration_excess")
    assert error.value < 0.01
    assert abs(exact.get("exact", NEXT, "bias").value) < 0.012
    assert exact.get("exact", NEXT, "auc").value > 0.75


def test_the_item_effect_of_the_exact_law_is_calibrated(exact):
    for metric in ("slope", "slope_first_hearings", "slope_repeats"):
        record = exact.get("exact", ITEM_EFFECT, metric)
        assert record.low <= 1 <= record.high, metric
    assert exact.get("exact", ITEM_EFFECT, "slope").low > 0.5


def test_free_runs_of_the_exact_law_go_like_the_log(exact):
    """The generator draws constant sessions anew, so the law must be held to the same."""
    outside = [
        r.metric
        for r in exact.records
        if r.protocol == FREE and r.metric.endswith("_off") and r.metric != "constant_off"
        if not (r.low <= 0.0 <= r.high)
    ]
    # Of eleven 95 % intervals, one outside is no surprise.
    assert len(outside) <= 1, outside
    assert exact.get("exact", FREE, "constant").value > 0.01


def test_a_listener_that_answers_always_alike_is_found_out(context, constant):
    tested = ListenerUnderTest("blank", constant([0.3, 0.2, 0.1, 0.1, 0.3]), "")
    trust.measure_prediction(context, tested)
    trust.measure_item_effect(context, tested)
    findings = context.findings
    auc = findings.get("blank", NEXT, "auc")
    assert auc.value == auc.low == auc.high == 0.5
    assert findings.get("blank", NEXT, "auc_over_boosting").high < 0
    assert findings.get("blank", ITEM_EFFECT, "slope") is None
    assert findings.get("blank", ITEM_EFFECT, "reranking_predicted").value == pytest.approx(0)
    assert findings.get("blank", list_reward.LISTS, "correlation") is None
    for part in ("session", "song"):
        figure = findings.get("blank", ITEM_EFFECT, f"variance_{part}")
        assert figure.value == pytest.approx(0)
    assert abs(findings.get("blank", FREE, "autocorrelation_1").value) < 0.1
    rows = dict(verdicts(findings.records))
    assert rows["Does it get out of the past what gradient boosting does?"]["blank"] == "no"


def test_a_listener_of_one_fold_is_compared_with_boosting_on_that_fold(
    synthetic_folder, synthetic, tmp_path
):
    """The baseline knows the same sessions as the listener, its track rates too."""
    similar = {"listener": "similarity", "settings": {"split": "train_a"}}
    write_fit(tmp_path / "similarity-A.npz", similar, {})
    specs = ("similarity", str(tmp_path / "similarity-A.npz"))
    listeners, _ = open_listeners(synthetic, specs)
    assert [(t.name, t.split) for t in listeners] == [
        ("similarity", "train"), ("similarity-A", "train_a"),
    ]  # fmt: skip
    config = TrustConfig(data=synthetic_folder, sessions=30, resamples=5)
    context = trust.make_context(synthetic, config, {t.split for t in listeners})
    assert [baseline.name for baseline in context.boosting.values()] == [
        "gradient boosting", "gradient boosting, fold A",
    ]  # fmt: skip
    fold = context.boosting["train_a"]
    np.testing.assert_array_equal(fold.training.sessions, synthetic.sessions.sessions_in("train_a"))
    unseen = synthetic.sessions.sessions_in("test")[:1]
    _, plays = fold.rates.of(unseen, np.arange(200)[None])
    np.testing.assert_allclose(plays[0], np.log1p(synthetic.catalog.plays("train_a")))
    vars(fold)["next_play"] = np.where(np.isfinite(fold.next_play), 0.5, np.nan)
    trust.measure_prediction(context, listeners[1])
    assert context.findings.get("similarity-A", NEXT, "auc").reference == 0.5


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


def test_agreement_of_the_rankings_of_a_run(tmp_path, context):
    (tmp_path / "rollouts").mkdir()
    skips = {
        "home": {"logged": 5, "honest": 3, "exploiter": 1},
        "away": {"logged": 6, "honest": 4, "exploiter": 6},
    }
    for evaluator, agents in skips.items():
        for agent, count in agents.items():
            write_rollout(tmp_path / "rollouts", evaluator, agent, count)
    PerSession(np.ones(40), np.ones(40)).save(tmp_path / "rollouts" / "rerank-honest-0.npz")
    resampling = Resampling(40, rng=np.random.default_rng(0), resamples=20)
    measure_agreement(replace(context, resampling=resampling), evaluated_in_run(tmp_path))
    findings = context.findings
    value = lambda evaluator, metric: findings.get(evaluator, "agreement", metric).value  # noqa: E731
    assert value("home", "skip_rate[honest]") == pytest.approx(0.3)
    # home ranks exploiter, honest, logged; away honest before the other two, which tie.
    assert value("home", "tau[away]") == pytest.approx(0.0)


def test_a_folder_without_rollouts_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="musicbox compare"):
        evaluated_in_run(tmp_path)


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
    trust.run(config)
    report = json.loads((out / "trust.json").read_text())
    records, made = report["figures"], json.loads((synthetic_folder / "dataset.json").read_text())
    assert report["split"] == made["split"]
    assert all(
        list(r) == ["listener", "protocol", "metric", "value", "low", "high", "reference"]
        for r in records
    )
    found = {(r["listener"], r["protocol"], r["metric"]): r for r in records}
    assert len(found) == len(records)
    for listener in ("replay", "ground_truth"):
        assert 0.5 < found[listener, NEXT, "auc"]["value"] < 1
        assert found[listener, NEXT, "auc"]["reference"] is not None
    for simulator in (*list_reward.SIMULATORS, list_reward.FIRST_MUSICBOX, "ground_truth"):
        for metric in ("correlation", "shuffled", "of_songs"):
            assert found[simulator, list_reward.LISTS, metric]["low"] is not None
    # The exact law is itself the truth; a listener that reads the log does not predict it.
    assert found["ground_truth", "exact law", "bias[own favorites]"]["value"] == 0
    assert ("replay", CHALLENGE, "mean_average_accuracy") not in found
    for r in records:
        if r["low"] is not None:
            assert r["low"] <= r["high"]
    page = re.sub(r"data:image/png;base64,[^\"]*", "picture", (out / "trust.html").read_text())
    assert "://" not in page
    assert page.count('src="picture"') == len(list(out.glob("*.png")))
    assert "None" not in page.split("Reproduce</h2>")[0]
    assert all((out / f"{name}.png").is_file() for name in ("calibration", "skip_by_position"))
    printed = capsys.readouterr().out
    assert "AUC over boosting" in printed
    assert "trust.html" in printed


def test_the_same_seed_gives_the_same_figures(context, truth):
    def figures():
        fresh = replace(context, findings=Findings())
        trust.measure_prediction(fresh, ListenerUnderTest("exact", truth, "ground_truth"))
        return fresh.findings.records

    assert figures() == figures()


def test_listeners_that_the_data_does_not_support_are_noted(synthetic_folder, tmp_path):
    without = tmp_path / "logs"
    shutil.copytree(synthetic_folder, without)
    shutil.rmtree(without / "truth")
    listeners, notes = open_listeners(Dataset(without), ())
    assert "ground_truth" not in [tested.name for tested in listeners]
    assert any("ground_truth" in note for note in notes)
    with pytest.raises(FileNotFoundError):
        open_listeners(Dataset(without), ("ground_truth",))


@pytest.mark.parametrize("name", ["sessions", "samples", "resamples", "members"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        TrustConfig(**{name: 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_validate": True, "run": "a"}, "--cross-validate does not go with --run"),
        ({"pool": ("a", "b"), "data": "c"}, "--pool does not go with a dataset"),
        ({"pool": ("a", "b"), "cross_validate": True}, "does not go with --cross-validate"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, message):
    paths = {name: Path(value) for name, value in options.items() if isinstance(value, str)}
    if "pool" in options:
        paths["pool"] = tuple(map(Path, options["pool"]))
    with pytest.raises(ValueError, match=message):
        TrustConfig(**{**options, **paths})


def test_trained_agents_of_a_run_go_by_their_labels(synthetic, tmp_path):
    """An agent stands beside variants of itself; what needs no training picks no songs."""
    for label, name in (("ddpg", "ddpg"), ("ddpg+mine", "ddpg"), ("best-rate", "best-rate")):
        agent = make_agent(name, synthetic)
        agent.save(tmp_path / "agents" / label / "seed-0" / "best")
    found = trained_agents(tmp_path, synthetic)
    assert list(found) == ["ddpg", "ddpg+mine"]
    assert {agent.name for agent in found.values()} == {"ddpg"}


def test_the_exact_law_tells_all_of_wear_out_and_a_constant_nothing(worn, make_context, constant):
    log = Log.of(worn, worn.sessions.sessions_in("test"))
    context = make_context(log, Log.of(worn, worn.sessions.sessions_in("train")))
    for name, listener in (("exact", GroundTruthListener(worn)), ("constant", constant([0.2] * 5))):
        exact_law.measure_wear_out(context, ListenerUnderTest(name, listener, name))
    found = context.findings
    assert found.get("exact", exact_law.WEAR_OUT, "share_told").value == pytest.approx(1)
    assert found.get("constant", exact_law.WEAR_OUT, "share_told").value == 0
    assert found.get("constant", exact_law.WEAR_OUT, "predicted_change").value == 0
    assert found.get("constant", exact_law.WEAR_OUT, "true_change").value > 0.01


def test_no_order_changes_anything_where_nothing_wears_out(context, truth):
    exact_law.measure_wear_out(context, ListenerUnderTest("exact", truth, "ground_truth"))
    record = context.findings.get("exact", exact_law.WEAR_OUT, "true_change")
    assert record.value == 0
    assert not [r for r in context.findings.records if r.metric == "share_told"]


def test_reordered_songs_stay_among_the_skipped_or_kept_of_the_first_half(log):
    found = exact_law.reordered(log, np.random.default_rng(0))
    moved, skipped = found != log.tracks, is_skip(log.levels)
    first_half = np.arange(log.width) < log.shown[:, None]
    assert moved.any()
    assert not moved[:, : queries.FIRST_PREDICTED].any()
    assert not (moved & ~first_half).any()
    for kind in (skipped, ~skipped):
        mine, there = np.where(kind, found, -2), np.where(kind, log.tracks, -2)
        np.testing.assert_array_equal(np.sort(mine, axis=1), np.sort(there, axis=1))
