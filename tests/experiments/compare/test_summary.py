"""The summary of a comparison: estimates, differences, verdicts and its table."""

import re
from dataclasses import replace

import numpy as np
import pytest
from musicbox_experiments.compare import tables
from musicbox_experiments.compare.report import write_report
from musicbox_experiments.compare.sentences import headline
from musicbox_experiments.compare.study import Study
from musicbox_experiments.compare.summary import champion, summarize
from musicbox_experiments.compare.tables import text_table
from musicbox_experiments.evaluate.metrics import PerSession
from musicbox_experiments.text import relative
from toy_studies import RATES, RESAMPLES, SESSIONS, toy_rollout, toy_study, toy_world


def test_estimates_and_differences(summary: dict) -> None:
    assert list(summary["evaluators"]) == ["honest evaluator", "trained-with"]
    for evaluator, column in (("honest evaluator", 1), ("trained-with", 0)):
        agents = summary["evaluators"][evaluator]["agents"]
        reference = agents["logged"]["metrics"]["skip_rate"]["value"]
        for agent, rates in RATES.items():
            estimate = agents[agent]["metrics"]["skip_rate"]
            assert estimate["value"] == pytest.approx(rates[column], abs=0.06)
            assert estimate["low"] < estimate["value"] < estimate["high"]
            assert estimate["sessions"] == SESSIONS
            assert estimate["seeds"] == len(agents[agent]["seeds"])
            if agent != "logged":
                difference = agents[agent]["differences"]["skip_rate"]
                assert difference["value"] == pytest.approx(estimate["value"] - reference)
        assert agents["logged"]["differences"] == {}
        assert agents["random"]["metrics"]["coverage"]["low"] is None
        assert agents["honest"]["metrics"]["coverage"]["low"] is not None
        assert agents["honest"]["differences"]["skip_rate"]["improvement"] == 1.0
        assert "improvement" not in agents["honest"]["differences"]["novelty"]


def test_a_gain_that_exists_only_where_trained_is_named_so(summary: dict) -> None:
    rows = summary["transfer"]["honest evaluator"]
    assert {agent: row["verdict"] for agent, row in rows.items()} == {
        "logged": "reference",
        "random": "no gain",
        "honest": "holds",
        "exploiter": "exploitation",
    }
    change = rows["exploiter"]["change"]
    assert change["value"] == pytest.approx(
        rows["exploiter"]["evaluator"] - rows["exploiter"]["trained_with"]
    )
    assert change["low"] > 0


def test_what_remains_of_a_gain_is_its_share(summary: dict) -> None:
    rows = summary["transfer"]["honest evaluator"]
    for agent in ("honest", "exploiter"):
        row = rows[agent]
        expected = row["gain_evaluator"]["value"] / row["gain_trained_with"]["value"]
        assert row["remaining"]["value"] == pytest.approx(expected)
        assert row["remaining"]["low"] < expected < row["remaining"]["high"]
    assert rows["random"]["remaining"] is None  # no gain, so no share of one
    table = str(tables.transfer(summary, "honest evaluator"))
    assert re.search(r"exploiter .*\d % \[.*only where trained", table)


@pytest.mark.parametrize(
    ("at_evaluator", "verdict"),
    [(0.22, "holds"), (0.34, "holds"), (0.42, "in part"), (0.5, "exploitation")],
)
def test_a_gain_holds_where_at_least_half_of_it_remains(at_evaluator, verdict) -> None:
    study = toy_study()
    rollouts = [
        toy_rollout("honest", "honest evaluator", at_evaluator, r.seed, SESSIONS)
        if (r.agent, r.evaluator) == ("honest", "honest evaluator")
        else r
        for r in study.rollouts
    ]
    found = summarize(replace(study, rollouts=rollouts), resamples=100)
    row = found["transfer"]["honest evaluator"]["honest"]
    assert row["verdict"] == verdict
    assert (row["remaining"]["value"] >= 0.5) == (verdict == "holds")


def test_no_gap_is_closed_to_a_bound_that_gains_nothing() -> None:
    study = toy_study()
    rollouts = [
        toy_rollout("skyline", r.evaluator, 0.55, r.seed, SESSIONS) if r.agent == "skyline" else r
        for r in study.rollouts
    ]
    at = summarize(replace(study, rollouts=rollouts), resamples=100)["evaluators"]
    for evaluator in at:
        assert at[evaluator]["gap_to"] is None
        assert at[evaluator]["agents"]["honest"]["gap_closed"] is None


def test_the_gap_to_the_bound_that_each_agent_closes(summary: dict) -> None:
    at = summary["evaluators"]["honest evaluator"]
    assert at["gap_to"] == "skyline"
    rates = {a: of["metrics"]["skip_rate"]["value"] for a, of in at["agents"].items()}
    for agent in ("honest", "exploiter", "random"):
        closed = at["agents"][agent]["gap_closed"]
        expected = (rates["logged"] - rates[agent]) / (rates["logged"] - rates["skyline"])
        assert closed["value"] == pytest.approx(expected)
        assert closed["low"] < expected < closed["high"]
    assert at["agents"]["logged"]["gap_closed"] is at["agents"]["skyline"]["gap_closed"] is None


def test_bayes_bounds_the_exact_evaluator_alone() -> None:
    evaluators = ("ground_truth", "trained-with")
    rates = {"logged": 0.5, "bayes": 0.2, "skyline": 0.1}
    study = replace(
        toy_study(),
        bounds=("skyline", "bayes"),
        curves={},
        rollouts=[toy_rollout(a, j, r, 0, SESSIONS) for a, r in rates.items() for j in evaluators],
    )
    study = replace(
        study,
        rollouts=[*study.rollouts, *(toy_rollout("x", j, 0.3, 0, SESSIONS) for j in evaluators)],
    )
    found = summarize(study, resamples=50)["evaluators"]
    assert [found[evaluator]["gap_to"] for evaluator in evaluators] == ["bayes", "skyline"]


def test_learned_agents_are_set_against_every_other(summary: dict) -> None:
    at = summary["evaluators"]["honest evaluator"]
    assert set(at["against"]) == {"honest", "exploiter"}
    assert set(at["against"]["honest"]) == set(RATES) - {"honest"}
    rates, songs = (
        {a: of["metrics"][m]["value"] for a, of in at["agents"].items()}
        for m in ("skip_rate", "effective_catalog_size")
    )
    for other, of in at["against"]["honest"].items():
        assert of["skip_rate"]["value"] == pytest.approx(rates["honest"] - rates[other])
        assert of["effective_catalog_size"]["value"] == pytest.approx(
            songs["honest"] - songs[other]
        )
    assert at["against"]["honest"]["exploiter"]["skip_rate"]["improvement"] == 1.0
    table = str(tables.against(summary, "honest evaluator", "honest"))
    assert "honest against the others, evaluator honest evaluator" in table
    assert re.search(r"exploiter .* 100 % of 9 pairs", table)


def test_variants_of_an_agent_are_paired_by_seed() -> None:
    """Seeds differ by far more than the variants do, and their difference is known all the same."""
    rates = {"logged": [0.5], "x": [0.2, 0.4, 0.6], "x+mine": [0.1, 0.3, 0.5], "y": [0.1, 0.3, 0.5]}
    study = replace(
        toy_study(),
        curves={},
        against="x+mine",
        rollouts=[
            toy_rollout(agent, "replay", rate, seed, SESSIONS)
            for agent, by_seed in rates.items()
            for seed, rate in enumerate(by_seed)
        ],
    )
    [(ours, against)] = summarize(study, resamples=200)["evaluators"]["replay"]["against"].items()
    assert ours == "x+mine"
    paired, unpaired = (against[name]["skip_rate"] for name in ("x", "y"))
    assert paired["value"] == pytest.approx(-0.1, abs=0.03)
    assert paired["high"] < 0
    assert unpaired["low"] < -0.2 < 0.2 < unpaired["high"]
    size = against["x"]["effective_catalog_size"]
    assert size["low"] < size["value"] < size["high"]
    assert champion(summarize(study, resamples=20), "replay") == "x+mine"


def test_the_headline_leaves_upper_bounds_aside(summary: dict) -> None:
    assert summary["headline"][0].startswith("honest has the lowest skip rate")
    assert summary["evaluators"]["honest evaluator"]["training"]["learned"] == "honest"
    assert summary["evaluators"]["honest evaluator"]["training"]["rule"] == "random"
    assert any("Fewer than 10 training seeds" in c for c in summary["cautions"])


def test_reranking_is_relative_to_a_random_choice(summary: dict) -> None:
    assert summary["reranking"]["honest"]["value"] == pytest.approx(-0.06)


def test_the_headline_says_whom_real_labels_show_ahead() -> None:
    rates = {"honest": 0.94, "random": 0.9, "exploiter": 0.9, "skyline": 0.5}
    real = {agent: {0: PerSession(np.full(50, of), np.ones(50))} for agent, of in rates.items()}
    summary = summarize(replace(toy_study(), reranking=real), resamples=20)
    said = " ".join(headline(summary))
    assert "were imputed" in said
    change = relative(summary["reranking"]["random"])
    assert change.startswith("-10.0 %")
    assert f"first choices of random and exploiter are skipped least: {change} against" in said


def test_the_same_seed_gives_the_same_summary() -> None:
    study = toy_study(sessions=40)
    assert summarize(study, resamples=50) == summarize(study, resamples=50)
    assert summarize(study, resamples=50) != summarize(study, seed=1, resamples=50)


def test_the_table_for_the_terminal(summary: dict) -> None:
    table = text_table(summary)
    assert table.isascii()
    assert max(map(len, table.splitlines())) <= 100
    first = table.split("\n\n")[0].splitlines()
    assert first[0] == "Evaluator: honest evaluator; 160 sessions"
    assert [line.split()[0] for line in first[3:]] == [
        "skyline",
        "honest",
        *sorted(["logged", "exploiter"], key=lambda a: table.index(f"\n{a}")),
        "random",
    ]
    assert "skyline ^" in table
    assert "^ upper bound" in table
    real = summary["reranking"]["honest"]
    low, high = f"{100 * real['low']:+.1f}", f"{100 * real['high']:+.1f}"
    assert re.search(rf"honest \* .* -6\.0 % \[{re.escape(low)}, {re.escape(high)}\]", table)
    assert "trained-with" in table.splitlines()[-1]


def test_the_table_for_the_terminal_fits_names_of_any_length() -> None:
    named = {"logged": "logged", "honest": "ddpg+" + "long-name" * 5 + "@rerank=30"}
    study = toy_study()
    rollouts = [replace(r, agent=named[r.agent]) for r in study.rollouts if r.agent in named]
    study = replace(study, rollouts=rollouts, reranking={}, curves={}, bounds=())
    table = text_table(summarize(study, resamples=20))
    assert named["honest"] in table
    assert "skip rate" in table
    assert max(map(len, table.splitlines())) <= 100


def test_the_reference_alone_has_nothing_to_compare() -> None:
    study = Study(
        rollouts=[toy_rollout("logged", "replay", 0.5, 0, 30)],
        world=toy_world(),
        config={},
        dataset={},
    )
    assert "logged" in text_table(summarize(study, resamples=50))


def test_a_study_that_cannot_be_compared_is_refused() -> None:
    study = toy_study(sessions=20)
    with pytest.raises(ValueError, match="there are none"):
        replace(study, rollouts=[])
    with pytest.raises(ValueError, match="no rollout of the reference 'popularity'"):
        replace(study, reference="popularity")
    with pytest.raises(ValueError, match="give each once"):
        replace(study, rollouts=[*study.rollouts, study.rollouts[0]])
    moved = replace(study.rollouts[-1], sessions=np.arange(1, 21))
    with pytest.raises(ValueError, match="different sessions"):
        replace(study, rollouts=[*study.rollouts[:-1], moved])


def test_the_exact_law_is_not_called_blind(tmp_path):
    """Where songs wear out, random ones may be as good as those of the log."""
    honest = [r for r in toy_study().rollouts if r.evaluator == "honest evaluator"]
    at = [replace(r, evaluator="ground_truth") for r in honest if r.agent != "random"]
    at.append(toy_rollout("random", "ground_truth", 0.5, 0, SESSIONS))
    found = write_report(tmp_path, replace(toy_study(), rollouts=at), resamples=RESAMPLES)
    assert not [s for s in found["headline"] + found["cautions"] if "random songs" in s]


@pytest.mark.parametrize("evaluator", ["honest evaluator", "trained-with"])
def test_an_evaluator_that_does_not_tell_random_songs_apart_is_named(evaluator, tmp_path, summary):
    """In the headline if it is the first evaluator; none is named that tells them apart."""
    study = toy_study()
    rollouts = [
        toy_rollout("random", evaluator, 0.5, 0, SESSIONS)
        if (r.agent, r.evaluator) == ("random", evaluator)
        else r
        for r in study.rollouts
    ]
    found = write_report(tmp_path, replace(study, rollouts=rollouts), resamples=RESAMPLES)
    where = "headline" if evaluator == next(iter(found["evaluators"])) else "cautions"
    (warning,) = [s for s in found["headline"] + found["cautions"] if "random songs" in s]
    assert warning in found[where]
    assert warning.startswith(
        f"At the evaluator {evaluator} random songs are not surely skipped more"
    )
    assert not [s for s in summary["headline"] + summary["cautions"] if "random songs" in s]
