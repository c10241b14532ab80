"""Train agents, evaluate them on sessions they never saw, and write a report.

Without --data or --sessions it compares on the bundled synthetic sessions. A run that was
interrupted goes on where it stopped when the same command is given again.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import TIME
from musicbox_env.ingest.training_parts import SOURCE_COLUMN
from musicbox_env.listeners import LISTENERS
from musicbox_env.locks import held
from musicbox_env.schema import SOURCES
from musicbox_env.synthetic.truth import knows_truth
from musicbox_experiments.cluster.tasks import without_option
from musicbox_experiments.compare.arms import (
    Arm,
    arms_of,
    evaluated_together,
    evaluations_of,
    where_of,
)
from musicbox_experiments.compare.config import CompareConfig
from musicbox_experiments.compare.known_gains import gains_known
from musicbox_experiments.compare.presets import (
    PRESETS,
    options_of,
    preset_in,
    require_sessions,
)
from musicbox_experiments.compare.report import write_report
from musicbox_experiments.compare.study import EXACT_EVALUATOR, Study
from musicbox_experiments.compare.summary import Summary
from musicbox_experiments.compare.tables import text_table, wrapped
from musicbox_experiments.data.enough import cautions
from musicbox_experiments.data.sources import without_home
from musicbox_experiments.evaluate.first_musicbox import first_musicbox_figures
from musicbox_experiments.evaluate.metrics import CatalogStats, PerSession, Rollout
from musicbox_experiments.evaluate.order import worth_of_order
from musicbox_experiments.text import say
from musicbox_experiments.train.folder import as_stored, prepared_folder
from musicbox_experiments.train.jobs import curve, train_all, untrained
from musicbox_experiments.train.simulators import OTHERS, OWN, Listeners
from musicbox_experiments.train.variants import about, agent_of, parse_settings

BOUNDS = ("skyline", "bayes")
"""They know what no recommender can: the evaluator's own probabilities, or the law behind the data.
"""
PLANNER = "planner"
"""As `BOUNDS`, with its variants, where it is asked for."""
INCIDENTAL = ("agents", "seeds", "agent_settings", "against", "workers", "overwrite")
"""Options that may change in a run that is there: more agents and seeds add to its trainings."""
FAVOURITES = 5
NO_PICKING = "No validation session picks checkpoints: the last of each training is used."
FITTED = {
    OTHERS: "Fitted on the part of training that the agents do not see.",
    OWN: "Fitted on the part of training that the agents see.",
}
"""What the ends of listeners' names say."""


def defaults(arguments: Sequence[str]) -> CompareConfig:
    """Options to start from: those of the preset that a command line names."""
    preset = preset_in(arguments)
    return CompareConfig() if preset is None else CompareConfig(**options_of(preset, arguments))


def run(config: CompareConfig) -> None:
    """Train, evaluate, report."""
    command = " ".join(["musicbox compare", *without_option(sys.argv[2:])])
    _, summary = compare(config, command=command)
    print_summary(config, summary)


def compare(config: CompareConfig, *, command: str = "") -> tuple[Study, Summary]:
    """Train and evaluate what is not there yet, and write the report.

    Args:
        config: What to compare, and where to write.
        command: Command line that does the same, for the report.

    Returns:
        What was compared, and its figures.
    """
    require_sessions(config.preset, config.source)
    out = config.out
    with (
        held(out),
        prepared_folder(out, config, incidental=INCIDENTAL, overwrite=config.overwrite),
    ):
        study = train_and_evaluate(config, command=command)
        return study, write_report(out, study)


def train_and_evaluate(config: CompareConfig, *, command: str = "") -> Study:
    """All that a report is made from, as far as it is not there yet."""
    arms = arms_of(config)
    jobs = [job for arm in arms for job in arm.jobs]
    say(*untrained(jobs), to_errors=True)
    train_all(jobs, where_of(config), then=evaluations_of(arms))
    study = _study(config, arms, *evaluated_together(arms))
    return replace(study, command=without_home(command), order=_order(study, arms[0].whole))


def _order(study: Study, dataset: Dataset) -> dict[str, Any]:
    """What the order of songs is worth, at the exact law of a world where they wear out."""
    wears = "satiation" in dataset.about.get("synthetic", {})
    if not wears or EXACT_EVALUATOR not in study.evaluators:
        return {}
    return worth_of_order(study.at(EXACT_EVALUATOR), dataset)


def print_summary(config: CompareConfig, summary: Summary) -> None:
    """One table, and what it says in sentences; all else is in the report."""
    say(text_table(summary), "")
    say(*map(wrapped, [*summary["headline"], *summary["notes"]]))
    say(f"\nReport: {config.out / 'report.html'}")


def _study(
    config: CompareConfig,
    arms: Sequence[Arm],
    rollouts: Sequence[Rollout],
    reranking: Mapping[str, Mapping[int, PerSession]],
) -> Study:
    dataset, listeners = arms[0].whole, arms[0].listeners
    world = CatalogStats.of(dataset)
    named = "" if config.preset is None else f" (preset {config.preset})"
    return Study(
        rollouts=rollouts,
        world=world,
        config=as_stored(config),
        dataset=dataset.about,
        title=f"MusicBox: agents compared{named}",
        trained_with=listeners.training_name,
        against=config.against,
        reranking=reranking,
        curves=_curves(config, arms),
        bounds=(*BOUNDS, *(label for label in config.agents if agent_of(label) == PLANNER)),
        descriptions=_descriptions(config, listeners),
        first_figures=_first_figures(
            [r for r in rollouts if r.evaluator == "replay"], world, dataset
        ),
        favourites=_favourites(dataset, rollouts),
        notes=_notes(config, arms),
        sources=tuple(arm.name for arm in arms) if len(arms) > 1 else (),
        fitted_on=config.fit_on if arms[0].direction.evaluator else "",
        gains_known=gains_known(dataset, config.fit_on) if arms[0].direction.evaluator else None,
    )


def _curves(
    config: CompareConfig, arms: Sequence[Arm]
) -> dict[str, dict[int, list[tuple[int, float]]]]:
    """Learning curves by agent and training; trainings of all arms are numbered on."""
    found: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for number, arm in enumerate(arms):
        for job in arm.jobs:
            if points := curve(job):
                found.setdefault(job.agent, {})[number * config.seeds + job.seed] = points
    return found


def _descriptions(config: CompareConfig, listeners: Listeners) -> dict[str, str]:
    """A line for each agent and evaluator: what its variant is, or the first of its docstring."""
    given = parse_settings(config.agent_settings)
    lines = {label: about(label, given) for label in config.agents}
    for evaluator in listeners.evaluators:
        if (kind := evaluator.partition("-")[0]) in LISTENERS:
            lines[evaluator] = (LISTENERS[kind].__doc__ or "").strip().partition("\n")[0]
            lines[evaluator] += "".join(
                f" {fitted}" for end, fitted in FITTED.items() if evaluator.endswith(end)
            )
    return lines


def _first_figures(
    rollouts: Sequence[Rollout], world: CatalogStats, dataset: Dataset
) -> dict[str, dict[str, float]]:
    """The two figures of the first MusicBox for each agent, by its own definition."""
    by_agent: dict[str, list[dict[str, float]]] = {}
    for rollout in rollouts:
        figures = first_musicbox_figures(rollout, world, dataset.sessions)
        by_agent.setdefault(rollout.agent, []).append(figures)
    return {
        agent: {name: float(np.mean([f[name] for f in found])) for name in found[0]}
        for agent, found in by_agent.items()
    }


def _notes(config: CompareConfig, arms: Sequence[Arm]) -> list[str]:
    """What a reader of this very run must know."""
    dataset, listeners = arms[0].whole, arms[0].listeners
    picks = any(len(arm.dataset.sessions.playable("validation")) for arm in arms)
    notes = [*cautions(dataset), _picking(listeners) if picks else NO_PICKING]
    notes += [*_of_data(dataset), *_seen(config, arms)]
    notes += untrained([job for arm in arms for job in arm.jobs])
    if config.split == "validation":
        notes.append(
            "Evaluated on validation sessions other than those that picked checkpoints: settings "
            "may be chosen by this comparison, and claims need test sessions."
        )
    if config.preset is not None:
        notes.append(
            f"Made with the preset {config.preset}: {PRESETS[config.preset].about}. Options set "
            "otherwise show in the configuration below."
        )
    if dataset.about.get("synthetic"):
        notes.append(
            "The sessions are synthetic: they look like the published figures of real ones, but "
            "what a better choice of songs gains in them is the generator's assumption."
        )
    return notes


def _of_data(dataset: Dataset) -> Iterator[str]:
    """What the sessions are, where that bears on what the figures mean."""
    split, log = dataset.about.get("split", {}), dataset.sessions
    if split.get("kind") == TIME:
        yield (
            f"Sessions are split by time, with a gap of {split['gap']}: agents and listeners were "
            "fitted on earlier sessions than those that are evaluated."
        )
    if SOURCE_COLUMN in log.column_names:
        source = log.column(SOURCE_COLUMN)
        recommended = float((source[source >= 0] == SOURCES.index("recommended")).mean())
        yield (
            f"{100 * recommended:.1f} % of the plays were recommended to their listeners, who "
            "chose the others themselves; agents and listeners were fitted on both. `musicbox "
            "trust` says how far what is learned from chosen songs holds for recommended ones."
        )


def _seen(config: CompareConfig, arms: Sequence[Arm]) -> list[str]:
    """What agents saw of training, where that is not plainly all of it."""
    if config.fit_on == "all":
        return [
            "Agents and their listeners were fitted on all of training, to be used afterwards. So "
            "no learned listener evaluates them: figures are of real labels and of the replay "
            "listener" + (", and of the exact law." if knows_truth(arms[0].whole) else ".")
        ]
    if arms[0].direction.evaluator is None:
        return []
    if config.fit_on == "shared":
        return [
            "Agents saw all of training, the plays of their evaluators included: gains at learned "
            "listeners are too good here, and show by how much."
        ]
    directions = {arm.direction.name for arm in arms}
    return [
        "Agents and evaluators share no play of training or validation: each direction has halves "
        "of their own for popularity, rates, embeddings, logs and listeners "
        f"({'; '.join(sorted(directions))}"
        + ("; figures are pooled)." if len(directions) > 1 else ").")
    ]


def _picking(listeners: Listeners) -> str:
    """Which listener picked the checkpoint of each training."""
    by = f"the listener {listeners.picking_name}"
    if listeners.picking != listeners.training:
        evaluates = listeners.picking in listeners.evaluators.values()
        by += (
            f", which {'does not train' if evaluates else 'neither trains nor evaluates'} agents "
            "(its networks are its own, its track "
            "rates are counted from the same plays as those of the listener trained with)"
        )
    elif listeners.training_name == EXACT_EVALUATOR:
        by += ", the exact law, which has no errors to exploit"
    else:
        by += ", which the agents were trained with"
    return (
        "Of each training, the checkpoint with the fewest skips on validation sessions is "
        f"evaluated. Validation answers came from {by}."
    )


def _favourites(
    dataset: Dataset, rollouts: Sequence[Rollout]
) -> dict[str, list[tuple[str, float]]]:
    """The songs that each agent recommends most, and their shares; none without titles."""
    if not dataset.catalog.shows_titles:
        return {}
    heard: dict[str, list[np.ndarray]] = {}
    for rollout in rollouts:
        heard.setdefault(rollout.agent, []).append(rollout.slates[rollout.heard])
    favourites = {}
    for agent, parts in heard.items():
        songs, counts = np.unique(np.concatenate(parts), return_counts=True)
        most = np.argsort(-counts, kind="stable")[:FAVOURITES]
        shares = counts / counts.sum()
        favourites[agent] = [(dataset.catalog.titles[songs[i]], float(shares[i])) for i in most]
    return favourites
