"""What the figures of a comparison say, and what they cannot show, in sentences."""

from typing import Final

from musicbox_experiments.compare.study import EXACT_EVALUATOR
from musicbox_experiments.compare.summary import Summary, ranked
from musicbox_experiments.evaluate.resampling import CONFIDENCE
from musicbox_experiments.text import percent, with_interval

ADVISED_SEEDS: Final = 10


def headline(summary: Summary) -> list[str]:
    """The result at the main evaluator in a few sentences."""
    evaluator = next(iter(summary["evaluators"]))
    at, reference = summary["evaluators"][evaluator], summary["reference"]
    skips = {agent: of["metrics"]["skip_rate"] for agent, of in at["agents"].items()}
    others = [
        a for a in ranked(summary, evaluator) if a not in summary["bounds"] and a != reference
    ]
    if not others:
        return [f"The skip rate of {reference} is {with_interval(skips[reference], 'percent')}."]
    best = others[0]
    differences = {agent: at["agents"][agent]["differences"]["skip_rate"] for agent in others}
    sure = sum((difference["high"] or 0) < 0 for difference in differences.values())
    found = [
        f"{best} has the lowest skip rate, {with_interval(skips[best], 'percent')}, against "
        f"{percent(skips[reference]['value'])} for {_named(reference)} "
        f"(difference {with_interval(differences[best], 'points')} percentage points).",
        f"{sure} of {len(others)} agents {'has' if sure == 1 else 'have'} a lower skip rate than "
        f"{_named(reference)} by more than the uncertainty of the comparison.",
    ]
    training = at["training"]
    if training:
        learned, rule = training["learned"], training["rule"]
        found.append(
            f"The best agent that learned from the simulator is {learned} with "
            f"{percent(skips[learned]['value'])}; the best without such training is {rule} with "
            f"{percent(skips[rule]['value'])} (difference {with_interval(training, 'points')} "
            "percentage points)."
        )
    return [*found, *_blind(summary, evaluator)]


def _named(reference: str) -> str:
    return "the logged policy" if reference == "logged" else reference


def _blind(summary: Summary, evaluator: str) -> list[str]:
    """A warning if an evaluator does not tell random songs from those of the reference."""
    agents, reference = summary["evaluators"][evaluator]["agents"], summary["reference"]
    if "random" not in agents or reference == "random":
        return []
    difference = agents["random"]["differences"]["skip_rate"]
    if difference["low"] is None or difference["low"] > 0:
        return []
    return [
        f"At the evaluator {evaluator} random songs are not surely skipped more than those of "
        f"{_named(reference)} ({with_interval(difference, 'points')} percentage points): it hardly "
        "tells songs apart, so its order of the agents proves little."
    ]


def cautions(summary: Summary) -> list[str]:
    """What the numbers cannot show, as far as the numbers themselves tell."""
    evaluator, *further = summary["evaluators"]
    agents = summary["evaluators"][evaluator]["agents"]
    found = []
    imputed = [a["metrics"]["imputed"]["value"] or 0.0 for a in agents.values()]
    if evaluator == EXACT_EVALUATOR:
        found = [
            f"The answers at the evaluator {evaluator} are drawn from the law that made these "
            "synthetic sessions. They are right for these listeners, and say nothing of people."
        ]
    elif max(imputed) > 0:
        found = [
            "The answers come from a simulated listener, not from people. A simulator can be wrong "
            "in ways that an agent learns to exploit; a gain counts for more the more different "
            "evaluators agree on it.",
            f"Between {percent(min(imputed))} and {percent(max(imputed))} of an agent's answers "
            f"at the evaluator {evaluator} were imputed: the log does not tell how this listener "
            "would have heard that song at that moment.",
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
