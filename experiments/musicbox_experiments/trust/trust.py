"""Report how far each listener can be believed, on test sessions that it never saw.

Every listener is asked about the same sessions: the next play given the true past, second halves
from first halves, whole continuations left to itself, what the choice of a song is worth, and which
agents it prefers. Where the data is synthetic, it is also held against the exact law.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from musicbox_agents import Agent, make_agent
from tqdm import tqdm
from tyro.conf import Positional

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import (
    LISTENERS,
    LearnedListener,
    Listener,
    SimilarityListener,
    make_listener,
)
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.data.sources import without_home
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.train.simulators import knows_truth
from musicbox_experiments.trust import evaluators, lists, measures
from musicbox_experiments.trust.asking import Log, without_answers
from musicbox_experiments.trust.boosting import Bars
from musicbox_experiments.trust.measures import Bench, Findings, Subject
from musicbox_experiments.trust.report import write_trust_report
from musicbox_experiments.trust.tables import About, text_table


@dataclass(frozen=True)
class TrustConfig:
    """Options of `musicbox trust`."""

    data: Positional[Path | None] = None
    """Dataset folder; the bundled synthetic one if none is named."""
    listener: tuple[str, ...] = ()
    """Listeners to examine, by name or by the path of a fitted one; none named means all that the
    data supports."""
    out: Path = Path("runs/trust")
    """Where the report is written."""
    run: Path | None = None
    """A run of `musicbox compare` on the same data: its agents are ranked, and its trained ones say
    which songs to ask about. Without it the agents that need no training are rolled out."""
    sessions: int = 1_000
    """Most test sessions to ask about."""
    training_sessions: int = 10_000
    """Most training sessions for the gradient-boosting bar."""
    evaluated_sessions: int = 300
    """Sessions in which agents are rolled out."""
    samples: int = 10
    """Free runs of each session."""
    draws: int = 100
    """Continuations of each session from which its second half is predicted."""
    resamples: int = 500
    """Times that the sessions are drawn anew for the intervals."""
    seed: int = 0
    """Of everything random, the same for every listener."""

    def __post_init__(self) -> None:
        for name in (
            "sessions",
            "training_sessions",
            "evaluated_sessions",
            "samples",
            "draws",
            "resamples",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")


def run(config: TrustConfig) -> None:
    """Examine the listeners, print the table, write the report."""
    dataset = open_dataset(config.data)
    findings = Findings()
    subjects = open_subjects(dataset, config.listener, findings)
    bench = lay_out(dataset, config, {subject.split for subject in subjects})
    examine(config, bench, subjects, findings)
    about = About(
        dataset=dataset.about,
        sessions=bench.num_sessions,
        plays=int(bench.log.heard.sum()),
        config={
            name: without_home(str(value)) if isinstance(value, Path) else value
            for name, value in asdict(config).items()
        },
        command=without_home("musicbox trust " + " ".join(sys.argv[2:])),
        sees_session=tuple(s.name for s in subjects if s.sees_session),
    )
    write_trust_report(config.out, findings, about)
    print(text_table(findings.records, about))
    print(f"\nReport: {config.out / 'trust.html'}")


def open_subjects(dataset: Dataset, specs: Sequence[str], findings: Findings) -> list[Subject]:
    """Open the listeners named, or all that the data supports; the rest is noted."""
    subjects: list[Subject] = []
    for spec in specs or (*LISTENERS, *fitted_on_folds(dataset)):
        try:
            listener = make_listener(spec, dataset)
        except (OSError, ValueError) as error:
            if specs:
                raise
            findings.notes.append(f"Listener {spec} was left out: {error}")
            continue
        subjects.append(
            Subject(
                _name_of(spec, [s.name for s in subjects]),
                without_answers(listener),
                spec,
                sees_session=listener.answers_from_log,
                split=fitted_split(listener),
            )
        )
    return subjects


def fitted_on_folds(dataset: Dataset) -> list[str]:
    """The dataset's own listeners that were fitted on one fold, such as learned-A.npz."""
    return sorted(str(file) for file in (dataset.folder / "listeners").glob("*-[AB].npz"))


def fitted_split(listener: Listener[Any]) -> str:
    """The training split that a listener was fitted on; all of it where nothing was fitted."""
    if isinstance(listener, LearnedListener):
        return str(listener.fit.about["split"])
    return listener.config.split if isinstance(listener, SimilarityListener) else "train"


def _name_of(spec: str, taken: Sequence[str]) -> str:
    """Short name of a listener: a fitted one is called by its file, or by its path if taken."""
    name = spec if spec in LISTENERS else Path(spec).stem
    return spec if name in taken else name


def lay_out(dataset: Dataset, config: TrustConfig, splits: Collection[str] = ()) -> Bench:
    """The sessions to ask about, and bars fitted on all of train and on the given splits."""
    sessions = draw_sessions(dataset, "test", config.sessions, config.seed)
    log, bars = Log.of(dataset, sessions), {}
    for split in sorted({"train", *splits}):
        training = draw_sessions(dataset, split, config.training_sessions, config.seed)
        bars[split] = Bars(log, Log.of(dataset, training), split, config.seed)
    rng = np.random.default_rng(config.seed)
    return Bench(
        log=log,
        resampling=Resampling(len(sessions), rng=rng, resamples=config.resamples),
        bars=bars,
        samples=config.samples,
        draws=config.draws,
        seed=config.seed,
    )


def examine(
    config: TrustConfig, bench: Bench, subjects: Sequence[Subject], findings: Findings
) -> None:
    """Go through all protocols, with progress; what they find joins ``findings``."""
    steps: list[tuple[str, Callable[[], None]]] = [
        ("gradient boosting: next play", lambda: measures.next_play_bars(bench, findings)),
        ("gradient boosting: second halves", lambda: measures.challenge_bars(bench, findings)),
    ]
    agents = _picking_agents(config, bench) if knows_truth(str(bench.dataset.folder)) else {}
    for subject in subjects:
        steps += [
            (f"{subject.name}: next play", _step(measures.next_play, bench, subject, findings)),
            (
                f"{subject.name}: second halves",
                _step(measures.second_halves, bench, subject, findings),
            ),
            (f"{subject.name}: price of a song", _step(measures.price, bench, subject, findings)),
        ]
        if not subject.sees_session:
            step = _step(lists.of_listener, bench, subject, findings)
            steps.append((f"{subject.name}: list reward", step))
        if agents:
            steps.append(
                (
                    f"{subject.name}: against the truth",
                    lambda s=subject: evaluators.against_truth(bench, s, agents, findings),  # type: ignore[misc]
                )
            )
    steps.append(("LIRD: list reward", lambda: lists.of_simulators(bench, findings)))
    steps.append(("agreement", lambda: _agree(config, bench, subjects, findings)))
    with tqdm(total=len(steps), unit="step") as bar:
        for name, step in steps:
            bar.set_description(name)
            step()
            bar.update()


def _step(
    protocol: Callable[[Bench, Subject, Findings], None],
    bench: Bench,
    subject: Subject,
    findings: Findings,
) -> Callable[[], None]:
    return lambda: protocol(bench, subject, findings)


def _picking_agents(config: TrustConfig, bench: Bench) -> dict[str, Agent]:
    """Agents that say which songs to ask about, by label."""
    known = make_agent(evaluators.PICKING_AGENT, bench.dataset, seed=config.seed)
    trained = evaluators.trained_agents(config.run, bench.dataset) if config.run else {}
    return {known.name: known, **trained}


def _agree(
    config: TrustConfig, bench: Bench, subjects: Sequence[Subject], findings: Findings
) -> None:
    if config.run is not None:
        evaluated = evaluators.evaluated_in_run(config.run)
    else:
        evaluated = evaluators.evaluate_baselines(
            bench, subjects, sessions=config.evaluated_sessions
        )
    rng = np.random.default_rng(config.seed)
    resampling = Resampling(evaluated.num_sessions, rng=rng, resamples=config.resamples)
    evaluators.agreement(evaluated, resampling, findings)
