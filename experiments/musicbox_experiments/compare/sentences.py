"""What the figures of a comparison say, and what they cannot show, in sentences."""

import math
from collections.abc import Sequence
from typing import Final

from musicbox_experiments.compare.study import EXACT_EVALUATOR
from musicbox_experiments.compare.summary import Summary, ranked
from musicbox_experiments.evaluate.resampling import CONFIDENCE
from musicbox_experiments.text import percent, relative, with_interval

ADVISED_SEEDS: Final = 10


def headline(summary: Summary) -> list[str]:
    """The result at the main evaluator in a few sentences."""
    evaluator = next(iter(summary["evaluators"]))
    at, reference = summary["evaluators"][evaluator], summary["reference"]
    skips = {agent: of["metrics"]["skip_rate"] for agent, of in at["agents"].items()}
    known = [a for a in ranked(summary, evaluator) if skips[a]["value"] is not None]
    others = [a for a in known if a not in summary["bounds"] and a != reference]
    if reference not in known:
        return [f"The skip rate of {_named(reference)} is unknown: no song of it was heard."]
    if not others:
        return [f"The skip rate of {reference} is {with_interval(skips[reference], 'percent')}."]
    differences = {agent: at["agents"][agent]["differences"]["skip_rate"] for agent in others}
    surely = sum(_below(difference) for difference in differences.values())
    return [
        _lowest(summary, skips, others, differences[others[0]]),
        f"{surely} of {len(others)} agents {'has' if surely == 1 else 'have'} a lower skip rate "
        f"than {_named(reference)} by more than the uncertainty of the comparison.",
        *_training(summary, skips, others),
        *_imputed(summary, evaluator),
        *_blind(summary, evaluator),
    ]


def _lowest(summary: Summary, skips: Summary, others: list[str], difference: Summary) -> str:
    """Who has the lowest skip rate: agents, the reference, or both alike."""
    reference, best = summary["reference"], others[0]
    ours, theirs = skips[best]["value"], skips[reference]["value"]
    least = _joined([agent for agent in others if _even(skips[agent]["value"], ours)])
    aside = ", upper bounds aside" if summary["bounds"] else ""
    of_reference = f"{percent(theirs)} for {_named(reference)}"
    by = f"(difference {with_interval(difference, 'points')} percentage points)"
    rate = with_interval(skips[best], "percent")
    if _even(ours, theirs):
        return f"{least} and {_named(reference)} have the lowest skip rate{aside}: {rate}."
    if ours > theirs:
        return (
            f"No agent has a lower skip rate than {_named(reference)}{aside}: {percent(theirs)}; "
            f"the nearest is {least} with {rate} {by}."
        )
    has = "has" if least == best else "have"
    unsure = "" if _below(difference) else "; the interval includes 0, so this may be chance"
    if difference["high"] is None:
        unsure = "; the uncertainty is unknown"
    return (
        f"{least} {has} the lowest skip rate{aside}, {rate}, against {of_reference} {by}{unsure}."
    )


def _training(summary: Summary, skips: Summary, others: list[str]) -> list[str]:
    """The best agent that was trained beside the best that was not."""
    at = summary["evaluators"][next(iter(summary["evaluators"]))]
    training = at["training"]
    if not training:
        return []
    sides = []
    for trained in (True, False):
        side = [agent for agent in others if (agent in summary["learned"]) == trained]
        least = min(skips[agent]["value"] for agent in side)
        names = _joined([agent for agent in side if _even(skips[agent]["value"], least)])
        sides.append(f"{names} with {percent(least)}")
    return [
        f"The best agent that was trained is {sides[0]}; {_named(summary['reference'])} aside, the "
        f"best that was not is {sides[1]} (difference {with_interval(training, 'points')} "
        "percentage points)."
    ]


def _imputed(summary: Summary, evaluator: str) -> list[str]:
    """How many answers no log tells, and whom real labels show ahead."""
    shares = _shares_imputed(summary, evaluator)
    if evaluator == EXACT_EVALUATOR or not any(shares):
        return []
    return [
        f"{_from_to(shares)} of an agent's answers at the evaluator {evaluator} were imputed: "
        "the log does not tell how this listener would have heard that song at that moment.",
        *_by_real_labels(summary),
    ]


def _shares_imputed(summary: Summary, evaluator: str) -> list[float]:
    """Of each agent's answers, where any song was heard."""
    agents = summary["evaluators"][evaluator]["agents"].values()
    shares = [of["metrics"]["imputed"]["value"] for of in agents]
    return [share for share in shares if share is not None]


def _by_real_labels(summary: Summary) -> list[str]:
    """Who chooses best among the plays that the log still held."""
    real = {
        agent: of
        for agent, of in summary["reranking"].items()
        if of["value"] is not None and agent not in summary["bounds"]
    }
    if not real:
        return []
    best = min(real, key=lambda agent: real[agent]["value"])
    names = [agent for agent in real if _even(real[agent]["value"], real[best]["value"])]
    return [
        f"Over real labels, none of them imputed, the first choices of {_joined(names)} are "
        f"skipped least: {relative(real[best])} against a random choice."
    ]


def _below(difference: Summary) -> bool:
    """Whether the whole interval of a difference lies below 0."""
    return difference["high"] is not None and difference["high"] < 0


def _even(rate: float, other: float) -> bool:
    """Whether two rates are the same but for rounding."""
    return math.isclose(rate, other, abs_tol=1e-9)


def _joined(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _named(reference: str) -> str:
    return "the logged policy" if reference == "logged" else reference


def _blind(summary: Summary, evaluator: str) -> list[str]:
    """A warning if an evaluator, which may err, does not tell random songs from the reference's."""
    agents, reference = summary["evaluators"][evaluator]["agents"], summary["reference"]
    if "random" not in agents or reference == "random" or evaluator == EXACT_EVALUATOR:
        return []
    difference = agents["random"]["differences"]["skip_rate"]
    if difference["low"] is None or difference["low"] > 0:
        return []
    by = f"({with_interval(difference, 'points')} percentage points)"
    if _below(difference):
        return [
            f"At the evaluator {evaluator} random songs are skipped less than those of "
            f"{_named(reference)} {by}: either these were chosen badly, or the evaluator is wrong "
            "about songs, and so may be its order of the agents."
        ]
    return [
        f"At the evaluator {evaluator} random songs are not surely skipped more than those of "
        f"{_named(reference)} {by}: it hardly tells songs apart, or the sessions are too few to "
        "show it, so its order of the agents proves little."
    ]


def _from_to(shares: Sequence[float]) -> str:
    """The least and the largest of some shares, once where they look the same."""
    least, most = percent(min(shares)), percent(max(shares))
    return least if least == most else f"Between {least} and {most}"


def cautions(summary: Summary) -> list[str]:
    """What the numbers cannot show, as far as the numbers themselves tell."""
    evaluator, *further = summary["evaluators"]
    agents = summary["evaluators"][evaluator]["agents"]
    found = []
    if evaluator == EXACT_EVALUATOR:
        found = [
            f"The answers at the evaluator {evaluator} are drawn from the law that made these "
            "synthetic sessions. They are right for these listeners, and say nothing of people."
        ]
    elif any(_shares_imputed(summary, evaluator)):
        found = [
            "The answers come from a simulated listener, not from people. A simulator can be wrong "
            "in ways that an agent learns to exploit; a gain counts for more the more different "
            "evaluators agree on it."
        ]
    seeds = {a: len(agents[a]["seeds"]) for a in summary["learned"] if a in agents}
    once = [agent for agent, number in seeds.items() if number == 1]
    if once:
        found.append(
            f"Trained with one seed only: {', '.join(once)}. The interval then covers the "
            "sessions alone, and another training could end elsewhere."
        )
    few = [f"{agent} ({number})" for agent, number in seeds.items() if 1 < number < ADVISED_SEEDS]
    if few:
        found.append(
            f"Fewer than {ADVISED_SEEDS} training seeds: {', '.join(few)}. Intervals are widened "
            "for that, but the spread between so few seeds is itself known only roughly."
        )
    for each in further:
        found += _blind(summary, each)
    competitors = [a for a in agents if a not in summary["bounds"] and a != summary["reference"]]
    if len(competitors) > 2:
        found.append(
            f"{len(competitors)} agents are compared at {percent(CONFIDENCE, 0)} each, so a "
            "difference that only just clears its interval can be chance; and the best of many is "
            "chosen on the sessions that evaluate it, which flatters it a little."
        )
    return found
