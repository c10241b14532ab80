"""The tables of a comparison for a terminal."""

from typing import Final

from musicbox_experiments.compare.study import EXACT_EVALUATOR
from musicbox_experiments.compare.summary import Summary, champion, ranked
from musicbox_experiments.evaluate.metrics import METRICS
from musicbox_experiments.evaluate.resampling import CONFIDENCE
from musicbox_experiments.text import columns, percent, show, table, with_interval

_METRICS: Final = ("effective_catalog_size", "coverage", "diversity", "novelty", "imputed")


def text_table(summary: Summary) -> str:
    """The main figures, a table an evaluator, fewest skips first."""
    blocks = [_outcome(summary, evaluator) for evaluator in summary["evaluators"]]
    main = next(iter(summary["evaluators"]))
    if agent := champion(summary, main):
        blocks.append(_against(summary, main, agent))
    if any(len(of) > 1 for of in summary["transfer"].values()):
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
    rows = []
    for agent in ranked(summary, evaluator):
        of = at["agents"][agent]
        metrics, difference = of["metrics"], of["differences"].get("skip_rate")
        row = {
            "agent": _marked(summary, agent),
            "skip rate": with_interval(metrics["skip_rate"], "percent"),
            f"points vs {summary['reference']}": _optional(difference, "points"),
        }
        if at["gap_to"]:
            row[f"gap to {at['gap_to']} closed"] = _optional(of["gap_closed"], "percent")
        row["return"] = show(metrics["return"]["value"], "number")
        for name in _METRICS:
            label, unit, estimate = METRICS[name].label.lower(), METRICS[name].unit, metrics[name]
            counts = unit == "count"
            row[label] = with_interval(estimate, unit) if counts else show(estimate["value"], unit)
        rows.append({**row, "seeds": str(len(of["seeds"]))})
    trained = ", the listener trained with" if evaluator == summary["trained_with"] else ""
    head = f"Evaluator: {evaluator}{trained}; {at['sessions']:,} sessions"
    lines = table(rows).splitlines()
    return "\n".join([head, lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _optional(estimate: Summary | None, unit: str) -> str:
    return with_interval(estimate, unit) if estimate else ""


def _against(summary: Summary, evaluator: str, agent: str) -> str:
    against = summary["evaluators"][evaluator]["against"][agent]
    rows = [
        {
            f"{agent} minus": _marked(summary, other),
            "points": with_interval(against[other]["skip_rate"], "points"),
            "effective catalog size": with_interval(
                against[other]["effective_catalog_size"], "signed count"
            ),
        }
        for other in ranked(summary, evaluator)
        if other in against
    ]
    return f"{agent} against the others, evaluator {evaluator}\n{table(rows)}"


def _transfer(summary: Summary) -> str:
    rows = [
        {
            "agent": agent,
            "evaluator": evaluator,
            "gain there": with_interval(of[agent]["gain_evaluator"], "points"),
            f"gain at {summary['trained_with']}": with_interval(
                of[agent]["gain_trained_with"], "points"
            ),
            "remaining": _optional(of[agent]["remaining"], "percent"),
        }
        for evaluator, of in summary["transfer"].items()
        for agent in ranked(summary, evaluator)
        if agent in of and agent != summary["reference"]
    ]
    head = f"What remains of the gain over {summary['reference']} at other evaluators, points"
    return f"{head}\n{table(rows, left=2)}"


def _reranking(summary: Summary) -> str:
    ordered = sorted(summary["reranking"].items(), key=lambda item: item[1]["value"] or 0.0)
    rows = [(agent, with_interval(row, "points")) for agent, row in ordered]
    head = "Re-ranking of logged candidates, real labels: skips against a random choice, in percent"
    return f"{head}\n{columns(rows)}"


def text_first(summary: Summary) -> str:
    """The two figures of the first MusicBox by its own definition."""
    rows = [
        {
            "agent": agent,
            "skips of songs in the session": f"{percent(of['skip_rate'])} of "
            f"{percent(of['share_in_session'])}",
            "of all data": percent(of["skip_rate_all_data"]),
            "diversity": f"{show(of['diversity_percent'], 'number')} %",
            "of sessions": f"{show(of['diversity_percent_sessions'], 'number')} %",
        }
        for agent, of in summary["first_musicbox"].items()
    ]
    head = "The first MusicBox's two figures, by its own definition: they prove little"
    return f"{head}\n{table(rows)}"
