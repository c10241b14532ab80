"""Every sentence of a report is true of its own numbers: recomputed by brute force, over studies
in which agents are better, worse, even or unknown."""

import re
from itertools import chain

import numpy as np
import numpy.typing as npt
import pytest
from musicbox_experiments.compare.sentences import cautions, headline
from musicbox_experiments.compare.study import Study
from musicbox_experiments.compare.summary import summarize
from musicbox_experiments.compare.tables import text_table
from musicbox_experiments.evaluate.metrics import CatalogStats, Rollout

TRACKS = 12
LEARNED = ("ddpg", "bc")
NAMES = ("logged", "random", "popularity", *LEARNED, "skyline")
STUDIES = [*range(15), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(15, 150))]
"""Their seeds."""
WORLD = CatalogStats(np.full((TRACKS, 8), np.nan), np.eye(TRACKS, 4), np.arange(TRACKS))


def rollout(agent: str, evaluator: str, seed: int, levels: npt.NDArray[np.int8]) -> Rollout:
    """Of given levels ``(n, 1, 3)``; -1 where no song was heard."""
    rng = np.random.default_rng(seed)
    slates = rng.permuted(np.tile(np.arange(TRACKS), (len(levels), 1)), axis=1)[:, None, :3]
    return Rollout(
        agent=agent,
        seed=seed,
        evaluator=evaluator,
        sessions=np.arange(len(levels)),
        slates=np.where(levels >= 0, slates, -1).astype(np.int32),
        levels=levels,
        logged=np.full(levels.shape, bool(seed % 2)),
        returns=np.zeros(len(levels)),
    )


def random_levels(rng: np.random.Generator, sessions: int) -> npt.NDArray[np.int8]:
    """Few sessions of rates that are often the same, sometimes nothing heard."""
    shape = (sessions, 1, 3)
    if rng.random() < 0.08:
        return np.full(shape, -1, np.int8)
    if rng.random() < 0.3:
        return np.full(shape, rng.choice([1, 4]), np.int8)
    rate = rng.choice([0.1, 0.3, 0.5, 0.9])
    return np.where(rng.random(shape) < rate, 1, 4).astype(np.int8)


def random_study(rng: np.random.Generator) -> Study:
    agents = ["logged", *(name for name in NAMES[1:] if rng.random() < 0.7)]
    evaluators = ("one", "two")[: rng.integers(1, 3)]
    seeds = {name: int(rng.choice([1, 2, 3, 10])) if name in LEARNED else 1 for name in agents}
    sessions = int(rng.choice([1, 4, 12, 60]))
    return Study(
        rollouts=[
            rollout(agent, evaluator, seed, random_levels(rng, sessions))
            for evaluator in evaluators
            for agent in agents
            for seed in range(seeds[agent])
        ],
        world=WORLD,
        config={},
        dataset={},
        trained_with="two",
        curves={a: {s: [(0, 0.5)] for s in range(seeds[a])} for a in agents if a in LEARNED},
    )


@pytest.fixture(scope="module", params=STUDIES)
def case(request: pytest.FixtureRequest) -> tuple[Study, dict]:
    study = random_study(np.random.default_rng(request.param))
    return study, summarize(study, resamples=20)


def rates(study: Study, evaluator: str) -> dict[str, float]:
    """Skip rate of each agent: interquartile mean over its seeds; NaN where nothing was heard."""
    found = {}
    for agent, by_seed in study.at(evaluator).items():
        levels = [r.levels[r.levels >= 0] for r in by_seed.values()]
        of_seeds = np.sort([(of < 2).mean() if len(of) else np.nan for of in levels])
        cut = len(of_seeds) // 4
        found[agent] = float(np.mean(of_seeds[cut : len(of_seeds) - cut]))
    return found


def named(text: str) -> set[str]:
    return set(re.split(r", | and ", text.replace("the logged policy", "logged")))


def lowest(of: dict[str, float], agents: list[str]) -> set[str]:
    least = min(of[agent] for agent in agents)
    return {agent for agent in agents if of[agent] == pytest.approx(least, abs=1e-9)}


def test_who_has_the_lowest_skip_rate(case: tuple[Study, dict]) -> None:
    study, summary = case
    first, of = headline(summary)[0], rates(study, "one")
    competitors = [a for a in of if a != "skyline" and not np.isnan(of[a])]
    if np.isnan(of["logged"]):
        assert "is unknown" in first
        return
    if competitors == ["logged"]:
        assert first.startswith("The skip rate of logged is ")
        return
    best, difference = lowest(of, competitors), summary["evaluators"]["one"]["agents"]
    if found := re.match(r"No agent has a lower skip rate than the logged policy", first):
        assert best == {"logged"}
        assert lowest(of, [a for a in competitors if a != "logged"]) == named(
            re.findall(r"the nearest is (.*) with", first)[0]
        )
    else:
        found = re.match(r"(.*?) ha(s|ve) the lowest skip rate", first)
        assert found is not None
        assert named(found[1]) == best
        assert (found[2] == "s") == (len(best) == 1)
        assert f"{100 * of[min(best)]:.1f} %" in first
        if "logged" not in best:
            high = difference[competitors_first(found[1])]["differences"]["skip_rate"]["high"]
            assert ("may be chance" in first) == (high is not None and high >= 0)
            assert ("uncertainty is unknown" in first) == (high is None)
    assert ("upper bounds aside" in first) == ("skyline" in of)


def competitors_first(names: str) -> str:
    return re.split(r", | and ", names)[0]


def test_how_many_are_surely_better(case: tuple[Study, dict]) -> None:
    study, summary = case
    for sentence in headline(summary)[1:2]:
        found = re.match(r"(\d+) of (\d+) agents", sentence)
        assert found is not None
        of, agents = rates(study, "one"), summary["evaluators"]["one"]["agents"]
        compared = [a for a in of if a not in ("skyline", "logged") and not np.isnan(of[a])]
        highs = [agents[a]["differences"]["skip_rate"]["high"] for a in compared]
        assert int(found[2]) == len(compared)
        assert int(found[1]) == len([high for high in highs if high is not None and high < 0])


def test_the_best_that_was_trained_and_the_best_that_was_not(case: tuple[Study, dict]) -> None:
    study, summary = case
    of = rates(study, "one")
    known = [a for a in of if a not in ("skyline", "logged") and not np.isnan(of[a])]
    sides = [[a for a in known if (a in LEARNED) == trained] for trained in (True, False)]
    told = [s for s in headline(summary) if s.startswith("The best agent that was trained")]
    assert bool(told) == (all(sides) and not np.isnan(of["logged"]))
    for sentence in told:
        found = re.match(r".* trained is (.*) with .*; .* that was not is (.*) with", sentence)
        assert found is not None
        assert [named(found[1]), named(found[2])] == [lowest(of, side) for side in sides]


def test_what_is_said_of_an_evaluator_that_is_blind_for_songs(case: tuple[Study, dict]) -> None:
    study, summary = case
    told = headline(summary) + cautions(summary)
    for evaluator in study.evaluators:
        agents = summary["evaluators"][evaluator]["agents"]
        about = [s for s in told if s.startswith(f"At the evaluator {evaluator} random songs")]
        if "random" not in agents:
            assert not about
            continue
        low, high = (agents["random"]["differences"]["skip_rate"][end] for end in ("low", "high"))
        expected = (
            ""
            if low is None or low > 0
            else "are skipped less"
            if high < 0
            else "are not surely skipped more"
        )
        if evaluator == "one" and np.isnan(rates(study, "one")["logged"]):
            expected = ""
        assert [expected in s for s in about] == ([True] if expected else [])


def test_what_is_said_of_seeds_and_imputed_answers(case: tuple[Study, dict]) -> None:
    study, summary = case
    told = " ".join(cautions(summary))
    said = " ".join(headline(summary))
    seeds = {a: len(of) for a, of in study.at("one").items() if a in LEARNED}
    once = re.findall(r"Trained with one seed only: ([^.]*)\.", told)
    assert [named(of) for of in once] == (
        [{a for a, n in seeds.items() if n == 1}] if 1 in seeds.values() else []
    )
    few = set(chain(*(re.findall(r"(\w+) \((\d+)\)", told.partition("training seeds: ")[2]),)))
    assert {(a, str(n)) for a, n in seeds.items() if 1 < n < 10} == few
    heard = [r for r in study.rollouts if r.evaluator == "one" and (r.levels >= 0).any()]
    compared = len(headline(summary)) > 1
    assert ("were imputed" in said) == (compared and any(not r.logged.any() for r in heard))


def test_a_verdict_on_a_gain_elsewhere(case: tuple[Study, dict]) -> None:
    _, summary = case
    for rows in summary["transfer"].values():
        for agent, row in rows.items():
            home, away = row["gain_trained_with"], row["gain_evaluator"]
            if agent == "logged":
                assert row["verdict"] == "reference"
            elif home["high"] is None or away["high"] is None:
                assert row["verdict"] == "unknown"
            else:
                sure = home["high"] < 0, away["high"] < 0
                expected = "no gain" if not sure[0] else "holds" if sure[1] else "exploitation"
                assert row["verdict"] == expected


def test_the_table_stands_whatever_is_unknown(case: tuple[Study, dict]) -> None:
    _, summary = case
    assert "skip rate" in text_table(summary)
