"""A listener fitted on organic plays against recommended ones, in worlds whose truth is known."""

import numpy as np
import pytest
from musicbox_experiments.data.describe import describe
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.listeners.network import NetworkConfig
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.prediction import LOG_NAME, RECOMMENDED
from musicbox_experiments.trust.queries import Log
from musicbox_experiments.trust.tables import tables_of
from musicbox_experiments.trust.trust import (
    ON_ALL,
    ON_AS_MANY,
    ON_ORGANIC,
    TrustConfig,
    measure_sources,
    tells_sources,
)

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import PlayBlock, write_dataset
from musicbox_env.retrieval.embeddings import fit_embeddings

PLAYS, TRACKS = 12, 30
KEEP_RATES = np.linspace(0.2, 0.8, TRACKS)


def world(folder, *, sessions=400, apart: bool, recommended=0.5, effect=0.0) -> Dataset:
    """Sessions of songs with known keep rates, recommended half of the time.

    Args:
        folder: Where it is written.
        sessions: How many.
        apart: Whether the last third of the songs is recommended alone and the others chosen, and
            the recommended ones are kept by 10 % or 90 %; else anyone hears any song.
        recommended: Share of recommended plays.
        effect: How much less a song is kept where it was recommended.
    """
    rng = np.random.default_rng(1)
    number = sessions * PLAYS
    source = (rng.random(number) < recommended).astype(np.int8)
    rates, first = KEEP_RATES.copy(), TRACKS * 2 // 3
    track = rng.integers(0, TRACKS, number)
    if apart:
        rates[first:] = np.where(np.arange(TRACKS - first) % 2, 0.9, 0.1)
        own, theirs = rng.integers(0, first, number), rng.integers(first, TRACKS, number)
        track = np.where(source == 1, theirs, own)
    kept = rng.random(number) < rates[track] - effect * source
    block = PlayBlock(
        np.array([f"s{i}" for i in range(sessions)], dtype=object),
        np.full(sessions, PLAYS),
        np.array([f"t{i}" for i in range(TRACKS)], dtype=object),
        {"track": track, "level": np.where(kept, 4, 0), "source": source},
    )
    folder.mkdir()
    write_dataset(folder, [block], features=None, split=SplitConfig(), about={})
    fit_embeddings(folder, dim=4)
    return Dataset(folder)


def measured(dataset, max_epochs=6):
    network = NetworkConfig(max_epochs=max_epochs)
    config = TrustConfig(members=1, network=network, training_sessions=1_000)
    log = Log.of(dataset, dataset.sessions.sessions_in("test"))
    resampling = Resampling(len(log.sessions), rng=np.random.default_rng(0), resamples=100)
    context = Context(log, resampling, boosting={}, samples=1, draws=1, seed=0)
    measure_sources(config, context)
    return context.findings


def test_songs_that_were_only_recommended_are_known_to_one_listener_alone(tmp_path):
    dataset = world(tmp_path / "data", apart=True)
    findings = measured(dataset, max_epochs=3)
    organic, as_many, everything = (
        {m: findings.get(n, RECOMMENDED, m) for m in ("auc", "log_loss")}
        for n in (ON_ORGANIC, ON_AS_MANY, ON_ALL)
    )
    assert organic["auc"].high < 0.7 < as_many["auc"].low
    assert findings.get(ON_ORGANIC, RECOMMENDED, "auc_over_as_many").high < -0.1
    assert abs(findings.get(ON_AS_MANY, RECOMMENDED, "auc_over_all").value) < 0.05
    assert organic["auc"].reference == as_many["auc"].value
    assert as_many["auc"].reference == everything["auc"].value
    assert organic["log_loss"].low > everything["log_loss"].high
    (table,) = tables_of(findings.records)["recommended"]
    assert table.head == (ON_ORGANIC, ON_AS_MANY, ON_ALL)
    labels = [label for label, _ in table.rows]
    assert labels[:2] == ["AUC", "AUC over that fitted on as many"]
    assert LOG_NAME not in table.head
    text = describe(dataset)
    source, level = (dataset.sessions.column(name) for name in ("source", "level"))
    for code, name in enumerate(("organic", "recommended")):
        skipped = 100 * (level[source == code] < 2).mean()
        assert f"{name:<12} {100 * (source == code).mean():.1f} %  of plays" in text
        assert f"of plays, skipped {skipped:.1f} %" in text


@pytest.mark.slow
def test_who_chose_makes_no_difference_where_it_makes_none(tmp_path):
    findings = measured(world(tmp_path / "data", sessions=1_500, apart=False))
    assert abs(findings.get(ON_ORGANIC, RECOMMENDED, "auc_over_as_many").value) < 0.03
    assert abs(findings.get(ON_ORGANIC, RECOMMENDED, "bias").value) < 0.03


@pytest.mark.slow
def test_skips_of_recommended_songs_show_as_bias(tmp_path):
    """Kept .2 less where recommended: one listener knows nothing of it, the other half of it."""
    findings = measured(world(tmp_path / "data", sessions=1_500, apart=False, effect=0.2))
    bias = {n: findings.get(n, RECOMMENDED, "bias").value for n in (ON_ORGANIC, ON_ALL)}
    assert bias[ON_ORGANIC] == pytest.approx(-0.2, abs=0.04)
    assert bias[ON_ALL] == pytest.approx(-0.1, abs=0.04)


def test_data_without_recommended_plays_to_test_on_are_noted(tmp_path, synthetic):
    dataset = world(tmp_path / "data", sessions=60, apart=False, recommended=0.0)
    findings = measured(dataset, max_epochs=1)
    assert findings.records == []
    assert "no test session holds a recommended play" in findings.notes[0]
    assert tells_sources(dataset)
    assert not tells_sources(synthetic)
