"""The tables of a comparison, for a terminal and for the page."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from musicbox_experiments.compare.study import EXACT_EVALUATOR
from musicbox_experiments.compare.summary import Summary, fewest_skips_first, ranked
from musicbox_experiments.evaluate.knowledge import HEARD
from musicbox_experiments.evaluate.metrics import METRICS
from musicbox_experiments.evaluate.resampling import CONFIDENCE
from musicbox_experiments.text import Cell, Table, columns, percent, relative, show

_KNOWN: Final = {
    **{f"heard_{plays}": f"heard {plays}+ times" for plays in HEARD},
    "never_heard": "never heard",
}
_OF_SONGS: Final = (
    *("effective_catalog_size", "coverage", "gini", "diversity", "diversity_embedding"),
    *("novelty", "popularity", "imputed"),
)
_MARKS: Final = {"learned": "*", "upper bound": "^"}
_VERDICTS: Final[Mapping[str, Cell]] = {
    "holds": Cell("holds", verdict="yes"),
    "in part": Cell("less than half remains"),
    "exploitation": Cell("sure only where trained", verdict="no"),
    "no gain": Cell("no sure gain"),
    "unknown": Cell("unknown"),
}


WIDTH: Final = 100
"""Columns of a terminal that the table and its sentences fit."""


def text_table(summary: Summary) -> str:
    """The main figures in one table no wider than `WIDTH`, fewest skips first.

    What does not fit is left to the report, the last columns first.
    """
    main, reference = next(iter(summary["evaluators"])), summary["reference"]
    agents, tags = summary["evaluators"][main]["agents"], _tags(summary)
    rows = [["", "skip rate", f"points vs {reference}", "eff. catalog", "real labels"]]
    for agent in ranked(summary, main):
        of, real = agents[agent], summary["reranking"].get(agent)
        size = of["metrics"]["effective_catalog_size"]["value"]
        rows.append(
            [
                f"{agent} {_MARKS[tags[agent]]}" if agent in tags else agent,
                str(Cell.of(of["metrics"]["skip_rate"], "percent")),
                str(_points(of["differences"].get("skip_rate"))),
                show(size, "count"),
                relative(real) if real else "",
            ]
        )
    if not summary["reranking"]:
        rows = [row[:-1] for row in rows]
    while max(map(len, columns(rows).splitlines())) > WIDTH and len(rows[0]) > 2:
        rows = [row[:-1] for row in rows]
    first, *others = columns(rows).splitlines()
    title = f"Evaluator: {main}; {summary['evaluators'][main]['sessions']:,} sessions"
    rule = "-" * max(map(len, [first, *others]))
    return "\n".join([title, first, rule, *others, "", wrapped(_legend(summary, rows[0]))])


def _legend(summary: Summary, head: Sequence[str]) -> str:
    """What the marks and columns of `text_table` mean."""
    said = [f"[ ]: {percent(CONFIDENCE, 0)} intervals over sessions and seeds."]
    if summary["learned"]:
        said.append(f"{_MARKS['learned']} learned.")
    if summary["bounds"]:
        said.append(f"{_MARKS['upper bound']} upper bound, no competitor.")
    said.append("Points: percentage points of skip rate, below 0 is fewer skips.")
    if "eff. catalog" in head:
        said.append("Eff. catalog: effective catalog size.")
    if "real labels" in head:
        said.append(
            "Real labels: skips of the first choices among the plays that the log still held, "
            "against a random choice."
        )
    others = [name for name in summary["evaluators"]][1:]
    if others:
        said.append(f"The report has the other evaluators ({', '.join(others)}) and all else.")
    return " ".join(said)


def wrapped(text: str) -> str:
    """A text in lines no longer than `WIDTH`; words are never cut.

    >>> wrapped("short")
    'short'
    """
    return "\n".join(
        textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def _tags(summary: Summary) -> dict[str, str]:
    return dict.fromkeys(summary["learned"], "learned") | dict.fromkeys(
        summary["bounds"], "upper bound"
    )


def _points(difference: Summary | None) -> Cell:
    """A difference in skip rate; good where it surely is below 0."""
    if not difference:
        return Cell()
    low, high = difference["low"], difference["high"]
    verdict = "yes" if (high or 0) < 0 else "no" if (low or 0) > 0 else ""
    return Cell.of(difference, "points", verdict)


def outcome(summary: Summary, evaluator: str) -> Table:
    """Skip rates at an evaluator, beside the reference and the bound."""
    at, rows = summary["evaluators"][evaluator], {}
    main = evaluator == next(iter(summary["evaluators"]))
    rate = "skip rate" if main else f"skip rate at {evaluator}"
    references = len(at["agents"][summary["reference"]]["seeds"])
    for agent in ranked(summary, evaluator):
        of = at["agents"][agent]
        difference = of["differences"].get("skip_rate")
        row = {
            rate: Cell.of(of["metrics"]["skip_rate"], "percent"),
            f"points vs {summary['reference']}": _points(difference),
        }
        if at["gap_to"]:
            row[f"gap to {at['gap_to']} closed"] = Cell.of(of["gap_closed"], "percent")
        row["probability of improvement"] = _probability(difference, len(of["seeds"]) * references)
        row["return"] = Cell.of(of["metrics"]["return"], "number")
        rows[agent] = {**row, "seeds": Cell(str(len(of["seeds"])))}
    trained = ", the listener trained with" if evaluator == summary["trained_with"] else ""
    title = f"Evaluator: {evaluator}{trained}; {at['sessions']:,} sessions"
    return Table.by_name(title, rows, _tags(summary), strong=rate if main else "")


def _probability(difference: Summary | None, pairs: int) -> Cell:
    """Probability of improvement, and of how many pairs of trainings it is the share."""
    if not difference or difference["improvement"] is None:
        return Cell()
    return Cell(percent(difference["improvement"], 0), f"of {pairs} pairs")


def songs_played(summary: Summary, evaluator: str) -> Table:
    """How varied, new and popular the songs of each agent are."""
    rows = {}
    for agent in ranked(summary, evaluator):
        metrics = summary["evaluators"][evaluator]["agents"][agent]["metrics"]
        row = {
            METRICS[name].label.lower(): Cell(show(metrics[name]["value"], METRICS[name].unit))
            for name in _OF_SONGS
        }
        size = Cell.of(metrics["effective_catalog_size"], "count")
        rows[agent] = {**row, "effective catalog size": size}
    return Table.by_name(f"Songs played, evaluator {evaluator}", rows)


def against(summary: Summary, evaluator: str, agent: str) -> Table:
    """One agent minus every other."""
    of = summary["evaluators"][evaluator]["against"][agent]
    agents = summary["evaluators"][evaluator]["agents"]
    ours = len(agents[agent]["seeds"])
    rows = {
        other: {
            "points": _points(of[other]["skip_rate"]),
            f"probability that {agent} is better": _probability(
                of[other]["skip_rate"], ours * len(agents[other]["seeds"])
            ),
            "effective catalog size": Cell.of(of[other]["effective_catalog_size"], "signed count"),
        }
        for other in ranked(summary, evaluator)
        if other in of
    }
    title = f"{agent} against the others, evaluator {evaluator}"
    return Table.by_name(title, rows, _tags(summary))


def transfer(summary: Summary, evaluator: str) -> Table:
    """What remains at an evaluator of the gains at the listener that agents were trained with."""
    home, of = summary["trained_with"], summary["transfer"][evaluator]
    rows = {
        agent: {
            f"skip rate at {home}": Cell(percent(row["trained_with"])),
            f"at {evaluator}": Cell(percent(row["evaluator"])),
            "change": Cell.of(row["change"], "points") if row["change"] else Cell("other sessions"),
            f"gain at {home}": _points(row["gain_trained_with"]),
            f"gain at {evaluator}": _points(row["gain_evaluator"]),
            "remaining": Cell.of(row["gain_evaluator"] and row["remaining"], "percent"),
            "verdict": _VERDICTS.get(row["verdict"], Cell("reference")),
        }
        for agent in ranked(summary, evaluator)
        if (row := of.get(agent))
    }
    title = f"What remains of the gain over {summary['reference']} at {evaluator}, points"
    return Table.by_name(title, rows)


def songs_known(summary: Summary, evaluator: str) -> Table:
    """What a learned evaluator knows of each agent's songs, and the skips by what it knows."""
    rows = {}
    for agent in ranked(summary, evaluator):
        of, row = summary["knowledge"][evaluator][agent], {}
        for kind, heading in _KNOWN.items():
            row[heading] = Cell(show(of[kind]["share"]["value"], "percent"))
            row[f"{heading}: skipped"] = Cell.of(of[kind]["skip_rate"], "percent")
            row[f"{heading}: points vs {summary['reference']}"] = _points(of[kind]["difference"])
        row["held by the session"] = Cell(show(of["held"]["share"]["value"], "percent"))
        rows[agent] = row
    title = f"Plays by how often the evaluator {evaluator} heard the song"
    return Table.by_name(title, rows, _tags(summary))


def directions(summary: Summary, evaluator: str) -> Table:
    """Differences to the reference in each direction and test fold by itself."""
    agents = summary["evaluators"][evaluator]["agents"]
    rows = {
        agent: {name: Cell(show(of["difference"], "points")) for name, of in by_source.items()}
        for agent in ranked(summary, evaluator)
        if (by_source := agents[agent]["by_source"]) and agent != summary["reference"]
    }
    title = f"Points vs {summary['reference']} at {evaluator}, each direction by itself"
    return Table.by_name(title, rows, _tags(summary))


def order(summary: Summary) -> Table:
    """What the order of each agent's songs is worth, and how alike neighbours are."""
    at = summary["evaluators"][EXACT_EVALUATOR]["agents"]
    rows = {}
    for agent in ranked(summary, EXACT_EVALUATOR):
        metrics, of = at[agent]["metrics"], summary["order"][agent]
        rows[agent] = {
            "skip rate": Cell.of(metrics["skip_rate"], "percent"),
            "the same songs in random order": Cell.of(of["shuffled"], "percent"),
            "points as played": _points(of["difference"]),
            **{
                METRICS[name].label.lower(): Cell(show(metrics[name]["value"], METRICS[name].unit))
                for name in ("neighbours", "diversity_embedding")
            },
        }
    return Table.by_name("What the order is worth", rows, _tags(summary))


def reranking(summary: Summary) -> Table:
    """Skips of first choices among logged plays, against a random choice."""
    ordered = fewest_skips_first(summary["reranking"])
    rows = {
        agent: {
            "skips against a random choice, in percent": _points(row),
            "sessions": Cell(f"{row['sessions']:,}"),
            "seeds": Cell(str(row["seeds"])),
        }
        for agent, row in ordered
    }
    return Table.by_name("Re-ranking of logged candidates, real labels", rows)


def first_figures(summary: Summary) -> Table:
    """The two figures of the first MusicBox by its own definition."""
    rows = {
        agent: {
            "skips of songs in the session": Cell(percent(of["skip_rate"])),
            "share of songs it rests on": Cell(percent(of["share_in_session"], 2)),
            "skips of all data": Cell(percent(of["skip_rate_all_data"])),
            "diversity": Cell(f"{show(of['diversity_percent'], 'number')} %"),
            "of sessions": Cell(f"{show(of['diversity_percent_sessions'], 'number')} %"),
        }
        for agent, of in summary["first_musicbox"].items()
    }
    title = "The first MusicBox's two figures, by its own definition: they prove little"
    return Table.by_name(title, rows)
