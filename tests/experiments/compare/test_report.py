import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.compare.report import write_report
from musicbox_experiments.compare.study import Study
from musicbox_experiments.compare.summary import summarize
from musicbox_experiments.compare.tables import text_table
from musicbox_experiments.evaluate.metrics import (
    METRICS,
    CatalogStats,
    PerSession,
    Rollout,
    measure,
)
from musicbox_experiments.text import percent, show, signed_points, with_interval

SESSIONS, TRACKS = 160, 40
RATES = {
    # agent: skip rate at the listener trained with, and at the honest evaluator
    "logged": (0.5, 0.5),
    "random": (0.6, 0.6),
    "honest": (0.3, 0.32),
    "exploiter": (0.2, 0.5),
    "skyline": (0.1, 0.1),
}
RESAMPLES = 200


def toy_world() -> CatalogStats:
    rng = np.random.default_rng(0)
    return CatalogStats(
        features=rng.uniform(size=(TRACKS, 8)),
        embedding=rng.normal(size=(TRACKS, 4)),
        plays=rng.integers(0, 50, size=TRACKS),
    )


def toy_rollout(agent: str, evaluator: str, rate: float, seed: int, sessions: int) -> Rollout:
    rng = np.random.default_rng((len(agent), len(evaluator), seed))
    slates = rng.integers(0, TRACKS, size=(sessions, 2, 3)).astype(np.int32)
    levels = np.where(rng.random(slates.shape) < rate, 1, 4).astype(np.int8)
    slates[:, 1, 2] = levels[:, 1, 2] = -1
    return Rollout(
        agent=agent,
        seed=seed,
        evaluator=evaluator,
        sessions=np.arange(sessions),
        slates=slates,
        levels=levels,
        logged=np.full(slates.shape, agent == "logged"),
        returns=(levels == 4).sum(axis=(1, 2)).astype(float),
    )


def toy_study(sessions: int = SESSIONS) -> Study:
    rollouts = [
        toy_rollout(agent, evaluator, rate, seed, sessions)
        for agent, rates in RATES.items()
        for evaluator, rate in zip(("trained-with", "honest evaluator"), rates, strict=True)
        for seed in (range(3) if agent in ("honest", "exploiter") else range(1))
    ]
    return Study(
        rollouts=rollouts,
        world=toy_world(),
        config={"out": Path("runs/toy"), "seeds": 3, "rate": np.float32(0.5)},
        dataset={"sessions": 1000, "plays": 16000, "tracks": TRACKS},
        command="musicbox compare --seeds 3",
        trained_with="trained-with",
        reranking={
            "honest": {s: PerSession(np.full(50, 0.94), np.ones(50)) for s in range(2)},
        },
        curves={
            "honest": {s: [(0, 0.5), (10, 0.4 - 0.01 * s), (20, 0.3)] for s in range(3)},
            "exploiter": {0: [(0, 0.5), (20, 0.2)]},
        },
        first_figures={
            "honest": {
                "skip_rate": 0.49,
                "skip_rate_all_data": 0.54,
                "share_in_session": 0.01,
                "diversity_percent": 9.3,
                "diversity_percent_sessions": 7.6,
            }
        },
        descriptions={"honest": "Learns what is there.", "honest evaluator": "Another listener."},
        notes=["A note for the reader."],
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(out, toy_study(), resamples=RESAMPLES)
    return out


@pytest.fixture(scope="module")
def summary(written: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((written / "summary.json").read_text(), parse_constant=refuse)


class Page(HTMLParser):
    """Collects what a page would load, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "img", "source", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: Path) -> Page:
    parser = Page()
    parser.feed(page.read_text())
    return parser


def test_the_page_is_well_formed_and_loads_nothing(written: Path) -> None:
    page = read(written / "report.html")
    assert page.open == []
    assert not {"script", "link", "iframe"} & set(page.tags)
    anchors = [link for link in page.links if link.startswith("#")]
    assert anchors
    assert {a[1:] for a in anchors} <= set(page.ids)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert "url(" not in (written / "report.html").read_text()


def test_the_page_holds_what_was_compared(written: Path) -> None:
    text = (written / "report.html").read_text()
    for text_part in (
        *RATES,
        "honest evaluator",
        "Learns what is there.",
        "A note for the reader.",
        "musicbox compare --seeds 3",
        "only where trained",
        "runs/toy",
        *(metric.label for metric in METRICS.values()),
    ):
        assert text_part in text


def test_every_picture_is_a_file_and_in_the_page(written: Path) -> None:
    files = sorted(f.name for f in written.glob("*.png"))
    assert files == [
        "exposure.png",
        "learning_curves.png",
        "skip_rate-trained-with.png",
        "skip_rate.png",
        "skip_rate_and_variety.png",
        "skip_rate_by_position.png",
    ]
    assert read(written / "report.html").tags.count("img") == len(files)
    for name in files:
        content = (written / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert int.from_bytes(content[16:20], "big") == 1350


def test_results_hold_every_measured_value(written: Path) -> None:
    study = toy_study()
    with (written / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        (r["agent"], int(r["seed"]), r["evaluator"], r["metric"]): float(r["value"]) for r in rows
    }
    assert len(found) == len(rows) == len(study.rollouts) * len(METRICS) + 2
    for rollout in study.rollouts:
        for name, value in measure(rollout, study.world).items():
            key = rollout.agent, rollout.seed, rollout.evaluator, name
            assert found[key] == pytest.approx(value)


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
    assert rows["random"]["remaining"]["value"] is None
    table = text_table(summary)
    assert re.search(r"exploiter .*\d % \[.*only where trained", table)


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
    table = text_table(summary)
    assert "honest against the others, evaluator honest evaluator" in table


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
    assert "x+mine against the others" in text_table(summarize(study, resamples=20))


def test_the_headline_leaves_upper_bounds_aside(summary: dict) -> None:
    assert summary["headline"][0].startswith("honest has the lowest skip rate")
    assert summary["evaluators"]["honest evaluator"]["training"]["learned"] == "honest"
    assert summary["evaluators"]["honest evaluator"]["training"]["rule"] == "random"
    assert any("Fewer than 10 training seeds" in c for c in summary["cautions"])


def test_reranking_is_relative_to_a_random_choice(summary: dict) -> None:
    assert summary["reranking"]["honest"]["value"] == pytest.approx(-0.06)


def test_the_same_seed_gives_the_same_summary() -> None:
    study = toy_study(sessions=40)
    assert summarize(study, resamples=50) == summarize(study, resamples=50)
    assert summarize(study, resamples=50) != summarize(study, seed=1, resamples=50)


def test_the_table_for_the_terminal(summary: dict) -> None:
    table = text_table(summary)
    assert table.isascii()
    first = table.split("\n\n")[0].splitlines()
    assert first[0] == "Evaluator: honest evaluator; 160 sessions"
    assert [line.split()[0] for line in first[3:]] == [
        "skyline",
        "honest",
        *sorted(["logged", "exploiter"], key=lambda a: table.index(f"\n{a}")),
        "random",
    ]
    assert "skyline (upper bound)" in table
    assert "the listener trained with" in table
    assert re.search(r"honest +-6\.0 \[", table)


def test_a_bare_study_is_enough(tmp_path: Path) -> None:
    """One evaluator, no features known, nothing optional; a name that is HTML with a number."""
    world = replace(toy_world(), features=np.full((TRACKS, 8), np.nan))
    named = replace(toy_rollout("random", "replay", 0.2, 0, 30), agent="<b>sb3-2</b>")
    study = Study(
        rollouts=[toy_rollout("logged", "replay", 0.5, 0, 30), named],
        world=world,
        config={},
        dataset={},
    )
    out = tmp_path / "new" / "folder"
    summary = write_report(out, study, resamples=50)
    metrics = summary["evaluators"]["replay"]["agents"]["logged"]["metrics"]
    assert metrics["diversity"]["value"] is None
    assert metrics["features_known"]["value"] == 0.0
    assert "logged" in text_table(summary)
    text = (out / "report.html").read_text()
    assert read(out / "report.html").open == []
    assert "<b>" not in text
    assert "&lt;b&gt;sb3-2&lt;/b&gt; has the lowest skip rate" in text
    assert "(difference \N{MINUS SIGN}" in text


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.3234), "32.3 %"),
        (percent(None), "-"),
        (show(float("nan"), "number"), "-"),
        (show(0.004, "percent"), "0.40 %"),
        (show(1234.6, "count"), "1,235"),
        (show(9.54, "count"), "9.5"),
        (show(0.99712, "index"), "0.997"),
        (signed_points(-0.123), "-12.3"),
        (signed_points(0.04), "+4.0"),
        (with_interval({"value": 0.5, "low": 0.25, "high": None}, "percent"), "50.0 %"),
        (with_interval({"value": -0.5, "low": -1, "high": 0.1}, "points"), "-50.0 [-100.0, +10.0]"),
    ],
)
def test_numbers_as_text(text: str, expected: str) -> None:
    assert text == expected


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


def test_the_exact_law_is_not_said_to_be_in_error(tmp_path: Path) -> None:
    evaluators = ("ground_truth", "replay")
    rollouts = [toy_rollout(a, j, 0.4, 0, SESSIONS) for a in ("logged", "x") for j in evaluators]
    study = replace(
        toy_study(), rollouts=rollouts, curves={}, bounds=(), trained_with="ground_truth"
    )
    summary = write_report(tmp_path, study, resamples=20)
    page = (tmp_path / "report.html").read_text()
    for said in (" ".join(summary["cautions"]), page):
        assert "exploit" not in said.replace("no errors\n  that an agent could exploit", "")
        assert "does not tell how this listener" not in said
    # One training of each: a share of pairs of seeds would be 0 or 100 %.
    difference = summary["evaluators"]["replay"]["agents"]["x"]["differences"]["skip_rate"]
    assert difference["improvement"] is None
