"""The report of a comparison: its page, pictures, table of results and numbers as text."""

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.compare.report import write_report
from musicbox_experiments.compare.study import Study
from musicbox_experiments.compare.tables import text_table
from musicbox_experiments.evaluate.metrics import METRICS, measure
from musicbox_experiments.text import percent, show, signed_points, with_interval
from toy_studies import RATES, SESSIONS, TRACKS, toy_rollout, toy_study, toy_world


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


def test_headings_explain_themselves_and_one_figure_stands_out(
    written: Path, summary: dict
) -> None:
    text = (written / "report.html").read_text()
    tips = re.findall(r'<abbr title="([^"]+)">\s*([^<]*)</abbr>', text)
    assert {"points vs logged", "effective catalog size", "remaining"} <= {name for _, name in tips}
    first = next(iter(summary["evaluators"]))
    assert text.count("<td class=strong>") == len(summary["evaluators"][first]["agents"])
    assert "skip rate at trained-with" in text  # of the other evaluator
    assert len(text) < 2_000_000


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
