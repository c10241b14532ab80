"""The tables of a comparison for a terminal."""

from __future__ import annotations

from typing import Final

from musicbox_experiments.compare.study import EXACT_EVALUATOR
from musicbox_experiments.compare.summary import CONFIDENCE, Summary, champion, ranked
from musicbox_experiments.evaluate.metrics import METRICS
from musicbox_experiments.text import columns, percent, show, with_interval

_METRICS: Final = ("effective_catalog_size", "coverage", "diversity", "novelty", "imputed")


def text_table(summary: Summary) -> str:
    """The main figures, a table an evaluator, fewest skips first."""
    blocks = [_outcome(summary, evaluator) for evaluator in summary["evaluators"]]
    main = next(iter(summary["evaluators"]))
    if agent := champion(summary, main):
        blocks.append(_against(summary, main, agent))
    if any(summary["transfer"].values()):
        blocks.append(_transfer(summary))
    if summary["reranking"]:
        blocks.append(_reranking(summary))
    legend = (
        f"[ ] {percent(CONFIDENCE, 0)} intervals over sessions and seeds. Points are percentage "
        "points of skip rate; below 0 is fewer skips."
    )
    if summary["bounds"]:
        legend += "  * upper bound, no competitor."
    if "skyline" in summary["bounds"]:
        legend += (
            "  skyline: the oracle, greedy on the evaluator's probabilities; of all songs at "
            f"{EXACT_EVALUATOR}, of a shortlist at other evaluators."
        )
    return "\n\n".join([*blocks, legend])


def _marked(summary: Summary, agent: str) -> str:
    return agent + (" *" if agent in summary["bounds"] else "")


def _outcome(summary: Summary, evaluator: str) -> str:
    at = summary["evaluators"][evaluator]
    gap = [f"gap to {at['gap_to']} closed"] if at["gap_to"] else []
    labels = [METRICS[name].label.lower() for name in _METRICS]
    rows = [
        [
            "agent",
            "skip rate",
            f"points vs {summary['reference']}",
            *gap,
            "return",
            *labels,
            "seeds",
        ]
    ]
    for agent in ranked(summary, evaluator):
        of = at["agents"][agent]
        metrics, difference = of["metrics"], of["differences"].get("skip_rate")
        closed = [with_interval(of["gap_closed"], "percent") if of["gap_closed"] else ""]
        others = [
            with_interval(metrics[name], unit)
            if unit == "count"
            else show(metrics[name]["value"], unit)
            for name, unit in ((name, METRICS[name].unit) for name in _METRICS)
        ]
        rows.append(
            [
                _marked(summary, agent),
                with_interval(metrics["skip_rate"], "percent"),
                with_interval(difference, "points") if difference else "",
                *(closed if gap else []),
                show(metrics["return"]["value"], "number"),
                *others,
                str(len(of["seeds"])),
            ]
        )
    trained = ", the listener trained with" if evaluator == summary["trained_with"] else ""
    head = f"Evaluator: {evaluator}{trained}; {at['sessions']:,} sessions"
    lines = columns(rows).splitlines()
    return "\n".join([head, lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _against(summary: Summary, evaluator: str, agent: str) -> str:
    against = summary["evaluators"][evaluator]["against"][agent]
    rows = [(f"{agent} minus", "points", "effective catalog size")]
    rows += [
        (
            _marked(summary, other),
            with_interval(against[other]["skip_rate"], "points"),
            with_interval(against[other]["effective_catalog_size"], "signed count"),
        )
        for other in ranked(summary, evaluator)
        if other in against
    ]
    return f"{agent} against the others, evaluator {evaluator}\n{columns(rows)}"


def _transfer(summary: Summary) -> str:
    rows = [("agent", "evaluator", "gain there", f"gain at {summary['trained_with']}", "remaining")]
    for evaluator, of in summary["transfer"].items():
        for agent in ranked(summary, evaluator):
            if agent in of and agent != summary["reference"]:
                row = of[agent]
                rows.append(
                    (
                        agent,
                        evaluator,
                        with_interval(row["gain_evaluator"], "points"),
                        with_interval(row["gain_trained_with"], "points"),
                        with_interval(row["remaining"], "percent") if row["remaining"] else "",
                    )
                )
    head = f"What remains of the gain over {summary['reference']} at other evaluators, points"
    return f"{head}\n{columns(rows)}"


def _reranking(summary: Summary) -> str:
    ordered = sorted(summary["reranking"].items(), key=lambda item: item[1]["value"] or 0.0)
    rows = [(agent, with_interval(row, "points")) for agent, row in ordered]
    head = "Re-ranking of logged candidates, real labels: skips against a random choice, in percent"
    return f"{head}\n{columns(rows)}"


def text_first(summary: Summary) -> str:
    """The two figures of the first MusicBox by its own definition."""
    rows = [("agent", "skips of songs in the session", "of all data", "diversity", "of sessions")]
    for agent, of in summary["first_musicbox"].items():
        rows.append(
            (
                agent,
                f"{percent(of['skip_rate'])} of {percent(of['share_in_session'])}",
                percent(of["skip_rate_all_data"]),
                f"{show(of['diversity_percent'], 'number')} %",
                f"{show(of['diversity_percent_sessions'], 'number')} %",
            )
        )
    head = "The first MusicBox's two figures, by its own definition: they prove little"
    return f"{head}\n{columns(rows)}"
