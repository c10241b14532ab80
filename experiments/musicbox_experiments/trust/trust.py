"""Validate each listener, as a user simulator, on test sessions that it was not fitted on.

Every listener is queried about the same sessions: the next play given the true past, second halves
given first halves, whole continuations, the effect of the choice of song, and the ranking of
agents. On synthetic data it is also compared with the exact law. Where the log says which plays
were recommended, a listener fitted on the others predicts them, beside one fitted on all.

--pool averages reports over test folds of the same sessions. --cross-validate compares the learned
listener with gradient boosting on held-out folds of the training sessions, and leaves the test
sessions alone.
"""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from musicbox_agents import make_agent
from musicbox_agents.base import require_ranges
from tyro.conf import Positional

from musicbox_env.data.dataset import WHOLE, Dataset
from musicbox_env.data.writing import require_folder
from musicbox_env.ingest.training_parts import AS_MANY, ORGANIC, SOURCE_COLUMN, open_part
from musicbox_env.listeners import (
    LISTENERS,
    LearnedListener,
    Listener,
    SimilarityListener,
    make_listener,
)
from musicbox_env.listeners.learned.listener import FittedNetwork
from musicbox_env.locks import held
from musicbox_env.progress import tqdm
from musicbox_env.schema import SOURCES
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.truth import knows_truth
from musicbox_experiments.cluster.tasks import require_address, without_option
from musicbox_experiments.data.enough import inferred_levels
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.data.sources import without_home
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.listeners.fit_listener import (
    EnsembleConfig,
    FitListenerConfig,
    fit_ensemble,
)
from musicbox_experiments.listeners.network import NetworkConfig
from musicbox_experiments.text import say
from musicbox_experiments.train.folder import require_made_on
from musicbox_experiments.trust import agreement, exact_law, item_effect, list_reward, prediction
from musicbox_experiments.trust.boosting import BoostingBaseline
from musicbox_experiments.trust.context import Context, ListenerUnderTest
from musicbox_experiments.trust.cross_validation import cross_validate
from musicbox_experiments.trust.prediction import RECOMMENDED
from musicbox_experiments.trust.queries import (
    FIRST_PREDICTED,
    Array,
    Log,
    Targets,
    predict,
    without_answers,
)
from musicbox_experiments.trust.records import (
    RECORDS_FILE,
    Record,
    pooled,
    pooled_split,
    read_report,
    write_records,
)
from musicbox_experiments.trust.report import write_trust_report
from musicbox_experiments.trust.tables import printed

ON_ORGANIC, ON_ALL = "fitted on organic plays", "fitted on all plays"
ON_AS_MANY = "fitted on as many of all plays"
CHOOSING_AGENT = "played-rate"
"""Agent whose songs are queried beside the exact law, needing no training."""


@dataclass(frozen=True)
class TrustConfig:
    """Options of `musicbox trust`."""

    data: Positional[Path | None] = None
    """Dataset folder; the bundled synthetic one if none is named."""
    listener: tuple[str, ...] = ()
    """Listeners to test, by name or by the path of a fitted one; none named means all that the
    data supports."""
    out: Path | None = None
    """Where the report is written; by default runs/trust, runs/trust-pooled or
    runs/trust-cross-validated."""
    run: Path | None = None
    """A run of `musicbox compare` on the same data: its agents are ranked, and the songs of its
    trained ones are queried. Without it the agents that need no training are rolled out."""
    pool: tuple[Path, ...] = ()
    """Two or more folders that `musicbox trust` wrote, one for each test fold of the same sessions
    that `musicbox ingest` made: write and print their means, and test nothing."""
    cross_validate: bool = False
    """Compare a learned listener with gradient boosting on held-out folds of the training sessions;
    --members and the options of the network say how it is fitted. Test nothing else."""
    sessions: int = 1_000
    """Most test sessions to query."""
    training_sessions: int = 10_000
    """Most training sessions for gradient boosting, and in all for --cross-validate."""
    evaluated_sessions: int = 300
    """Sessions in which agents are rolled out."""
    samples: int = 10
    """Free runs of each session."""
    draws: int = 100
    """Continuations of each session from which its second half is predicted."""
    resamples: int = 500
    """Times that the sessions are drawn anew for the intervals."""
    members: int = 3
    """Networks of the listeners that are fitted here: by --cross-validate, and on data that say
    which plays were recommended."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    cluster: str | None = None
    """Fit the listeners that are fitted here on Ray; see `musicbox compare --help`."""
    seed: int = 0
    """Of everything random, the same for every listener."""

    @property
    def folder(self) -> Path:
        """Where the report is written."""
        mode = "-pooled" if self.pool else "-cross-validated" if self.cross_validate else ""
        return self.out or Path(f"runs/trust{mode}")

    def __post_init__(self) -> None:
        sizes = ("sessions", "training_sessions", "evaluated_sessions", "members")
        require_address(self.cluster)
        most = (1, np.inf)
        require_ranges(self, dict.fromkeys((*sizes, "samples", "draws", "resamples"), most))
        if self.pool and len({path.resolve() for path in self.pool}) < max(2, len(self.pool)):
            raise ValueError(
                f"--pool is {', '.join(map(str, self.pool))}; expected two different folders or "
                "more that `musicbox trust` wrote."
            )
        alone = "--pool" if self.pool else "--cross-validate" if self.cross_validate else ""
        others: dict[str, object] = {"--listener": self.listener, "--run": self.run}
        if self.pool:
            others |= {"a dataset": self.data, "--cross-validate": self.cross_validate}
        if alone and (given := [name for name, value in others.items() if value]):
            raise ValueError(f"{alone} does not go with {' and '.join(given)}; leave one out.")


def run(config: TrustConfig) -> None:
    """Measure, print the tables, write the report."""
    with held(config.folder):
        _run(config)


def _run(config: TrustConfig) -> None:
    require_folder(config.folder)
    if config.pool:
        reports = {str(folder): read_report(folder) for folder in config.pool}
        split = pooled_split({name: report.split for name, report in reports.items()})
        records = pooled([report.figures for report in reports.values()])
        _write_alone(config.folder, records, split, f"Means of {len(config.pool)} test folds")
        return
    dataset = open_dataset(config.data)
    if config.cross_validate:
        networks = EnsembleConfig(
            **asdict(config.network),
            members=config.members,
            max_sessions=config.training_sessions,
            seed=config.seed,
            cluster=config.cluster,
        )
        context = cross_validate(
            networks,
            dataset,
            samples=config.samples,
            draws=config.draws,
            resamples=config.resamples,
        )
        about = _count(context, "training")
        _write_alone(config.folder, context.findings.records, context.split, about)
        return
    if config.run is not None:
        require_made_on(config.run, dataset, "Name the data of that run, or another run.")
    listeners, notes = open_listeners(dataset, config.listener)
    context = make_context(dataset, config, {tested.split for tested in listeners})
    context.findings.notes.extend([*inferred_levels(dataset), *notes])
    measure(config, context, listeners)
    write_trust_report(
        config.folder,
        context,
        config={
            name: without_home(str(value)) if isinstance(value, Path) else value
            for name, value in asdict(config).items()
            if name != "cluster"
        },
        command=without_home(" ".join(["musicbox trust", *without_option(sys.argv[2:])])),
        sees_session=[tested.name for tested in listeners if tested.sees_session],
    )
    say(printed(context.findings.records, _count(context, "test")))
    say(f"\nReport: {config.folder / 'trust.html'}")


def _write_alone(
    folder: Path, records: Sequence[Record], split: Mapping[str, Any], about: str
) -> None:
    """Write and print records for which there is no page."""
    write_records(folder, records, split)
    say(f"{printed(records, about)}\n\nEvery figure: {folder / RECORDS_FILE}")


def _count(context: Context, split: str) -> str:
    return f"{context.num_sessions:,} {split} sessions, {context.log.heard.sum():,} plays"


def open_listeners(
    dataset: Dataset, specs: Sequence[str]
) -> tuple[list[ListenerUnderTest], list[str]]:
    """The listeners named, or all that the data supports; and notes on those left out.

    Without names these are the registered ones and the dataset's own that were fitted on one fold,
    such as learned-A.npz. A fitted listener is called by its file, or by its path if that is taken.
    """
    listeners: list[ListenerUnderTest] = []
    notes = []
    fitted = sorted(str(file) for file in (dataset.folder / "listeners").glob("*-[AB].npz"))
    for spec in specs or (*LISTENERS, *fitted):
        try:
            listener = make_listener(spec, dataset)
        except (OSError, ValueError) as error:
            if specs:
                raise
            notes.append(f"Listener {spec} was left out: {error}")
            continue
        name = spec if spec in LISTENERS else Path(spec).stem
        taken = name in [tested.name for tested in listeners]
        listeners.append(
            ListenerUnderTest(
                spec if taken else name,
                without_answers(listener),
                spec,
                sees_session=listener.answers_from_log,
                split=fitted_split(listener),
            )
        )
    return listeners, notes


def fitted_split(listener: Listener[Any]) -> str:
    """The training split that a listener was fitted on; all of it where nothing was fitted."""
    if isinstance(listener, LearnedListener):
        return str(listener.fit.about.get("part", {}).get("name") or listener.fit.about["split"])
    return listener.config.split if isinstance(listener, SimilarityListener) else "train"


def make_context(dataset: Dataset, config: TrustConfig, splits: Collection[str] = ()) -> Context:
    """The sessions to query, and boosting fitted on all of train and on the given splits."""
    log = Log.of(dataset, draw_sessions(dataset, "test", config.sessions, config.seed))
    boosting = {}
    _step(dataset, 1, f"gradient boosting on {len({'train', *splits})} parts of training")
    for split in sorted({"train", *splits}):
        sessions = draw_sessions(dataset, split, config.training_sessions, config.seed)
        training = Log.of(dataset, sessions)
        boosting[split] = BoostingBaseline.of_split(log, training, split, config.seed)
    return Context(
        log=log,
        resampling=_resampling(config, len(log.sessions)),
        boosting=boosting,
        samples=config.samples,
        draws=config.draws,
        seed=config.seed,
    )


def _step(dataset: Dataset, number: int, what: str) -> None:
    """Say how far it is: each step takes minutes on large data."""
    say(f"Step {number} of {4 + tells_sources(dataset)}: {what}.", to_errors=True)


def _resampling(config: TrustConfig, sessions: int) -> Resampling:
    rng = np.random.default_rng(config.seed)
    return Resampling(sessions, rng=rng, resamples=config.resamples)


def measure(config: TrustConfig, context: Context, listeners: Sequence[ListenerUnderTest]) -> None:
    """Go through all protocols, with progress; what is found joins the findings of the context."""
    dataset, run = context.dataset, config.run
    protocols: list[Callable[[Context, ListenerUnderTest], None]] = [
        measure_prediction,
        measure_item_effect,
    ]
    if knows_truth(dataset):
        known = make_agent(CHOOSING_AGENT, dataset, seed=config.seed)
        trained = agreement.trained_agents(run, dataset) if run else {}
        agents = {known.name: known, **trained}
        protocols.append(partial(exact_law.measure_truth, agents=agents))
        protocols.append(exact_law.measure_wear_out)
    for baseline in context.boosting.values():
        answers = prediction.answers_of_boosting(baseline)
        prediction.measure_answers(context, baseline.name, answers)
    repeated = prediction.last_action(context.log)
    prediction.measure_challenge(context, prediction.LAST_ACTION, repeated)
    _step(dataset, 2, f"{len(listeners)} listeners, {len(protocols)} protocols each")
    with tqdm(total=len(listeners) * len(protocols), unit="protocol") as bar:
        for tested in listeners:
            bar.set_description(tested.name)
            for protocol in protocols:
                protocol(context, tested)
                bar.update()
    _step(dataset, 3, "simulators of whole lists")
    list_reward.measure_simulators(context)
    _step(dataset, 4, "agents, as the listeners rank them")
    if run is None:
        most = config.evaluated_sessions
        skips = agreement.evaluate_baselines(context, listeners, sessions=most)
    else:
        skips = agreement.evaluated_in_run(run)
    num_sessions = len(next(iter(next(iter(skips.values())).values())).numerator)
    of_them = replace(context, resampling=_resampling(config, num_sessions))
    agreement.measure_agreement(of_them, skips)
    if tells_sources(dataset):
        _step(
            dataset, 5, f"recommended plays, by three listeners of {config.members} networks each"
        )
        measure_sources(config, context)


def tells_sources(dataset: Dataset) -> bool:
    """Whether a dataset says which plays were recommended, and is no part already."""
    return SOURCE_COLUMN in dataset.sessions.column_names and dataset.part == WHOLE


def measure_sources(config: TrustConfig, context: Context) -> None:
    """How a listener fitted on organic plays predicts recommended ones.

    Beside it stand one fitted on as many plays, drawn from all of the same sessions, which tells
    what the choice of plays does, and one fitted on all, which tells what fewer plays do. They are
    fitted alike, on the sessions that the test sessions are kept apart from. The data must
    say who chose the songs; where they leave nothing to fit on or to predict, a note says so.
    """
    dataset, log = context.dataset, context.log
    source = dataset.sessions.padded(SOURCE_COLUMN, log.sessions, log.width)
    recommended = source == SOURCES.index("recommended")
    recommended[:, :FIRST_PREDICTED] = False
    settings = FitListenerConfig(
        **asdict(config.network),
        members=config.members,
        max_sessions=config.training_sessions,
        seed=config.seed,
        cluster=config.cluster,
    )
    try:
        if not recommended.any():
            raise ValueError("no test session holds a recommended play that can be predicted.")
        parts = (ORGANIC, AS_MANY, WHOLE)
        fits = [fit_ensemble(settings, open_part(dataset, part)) for part in parts]
    except ValueError as error:
        context.findings.notes.append(f"Recommended plays were left out: {error}")
        return

    def answers(fit: FittedNetwork) -> Array:
        made = predict(LearnedListener(dataset, fit), log, Targets.next_plays(log))
        return np.where(recommended, made, np.nan)

    organic, as_many, everything = map(answers, fits)
    prediction.measure_scores(context, ON_ORGANIC, RECOMMENDED, organic, as_many, "as_many")
    prediction.measure_scores(context, ON_AS_MANY, RECOMMENDED, as_many, everything, "all")
    prediction.measure_scores(context, ON_ALL, RECOMMENDED, everything, None)


def measure_prediction(context: Context, tested: ListenerUnderTest) -> None:
    """Next plays, second halves and free runs, beside boosting on the same training sessions."""
    answers = prediction.answers_of(
        tested.listener,
        context.log,
        context.leaving,
        samples=context.samples,
        draws=context.draws,
        rngs=[context.rng(purpose) for purpose in (2, 3, 10, 11)],
        sees_session=tested.sees_session,
    )
    boosting = prediction.answers_of_boosting(context.boosting[tested.split])
    prediction.measure_answers(context, tested.name, answers, boosting)


def measure_item_effect(context: Context, tested: ListenerUnderTest) -> None:
    """The effect of the choice of song, and the reward of lists."""
    item_effect.measure_variance(context, tested)
    if not tested.sees_session:
        item_effect.measure_slopes(context, tested)
        item_effect.measure_reranking(context, tested)
        list_reward.measure_listener(context, tested)
