"""MusicBox from Python: from data to a table in five lines.

    from musicbox_experiments import api

    data = api.open_dataset()
    agent = api.train("ddpg", data)
    api.evaluate([agent, api.make_agent("best-rate", data)], data)
    comparison = api.compare(data, agents=("logged", "best-rate", "ddpg"))
    comparison.table

The commands do the same by the same functions; what one of them left is found by the other. Names
here keep their meaning within a minor version; everything else may move.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from musicbox_env.errors import needing

with needing("experiments", "musicbox_experiments.api"):  # before the modules that use them
    import torch  # noqa: F401
    import tyro  # noqa: F401
    from matplotlib.figure import Figure

# isort: split
import musicbox_agents
import pandas as pd
from musicbox_agents import Agent, load_agent

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest import pipeline
from musicbox_env.ingest.pipeline import IngestConfig
from musicbox_env.schema import brief, suggest
from musicbox_env.simulator import assets
from musicbox_env.simulator.checks import require_whole
from musicbox_env.synthetic import generator
from musicbox_env.synthetic.truth import knows_truth
from musicbox_env.synthetic.world import SyntheticConfig
from musicbox_env.workers import require_no_import
from musicbox_experiments.compare import compare as comparing
from musicbox_experiments.compare.config import DEFAULT_AGENTS, CompareConfig
from musicbox_experiments.compare.evaluate import figures
from musicbox_experiments.compare.report import pictures
from musicbox_experiments.compare.study import Study
from musicbox_experiments.compare.summary import Summary, ranked
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.data.sources import Source
from musicbox_experiments.evaluate.metrics import CatalogStats
from musicbox_experiments.evaluate.rollout import roll_out
from musicbox_experiments.serve.recommend import find_training, recommend_next
from musicbox_experiments.train import train as training
from musicbox_experiments.train.jobs import read_training, trained
from musicbox_experiments.train.monitor import BEST
from musicbox_experiments.train.simulators import TRUTH, require_possible
from musicbox_experiments.train.train import TrainConfig

__all__ = [
    "Comparison",
    "compare",
    "evaluate",
    "ingest",
    "make_agent",
    "open_agent",
    "open_dataset",
    "recommend",
    "synthesize",
    "train",
]

Data = Dataset | Path | str | None
"""A dataset, its folder, or None for the bundled synthetic one."""
Config = TypeVar("Config")
MOST_SESSIONS = 2**63 - 1
"""The largest number of sessions that can be asked for; a dataset gives what it holds."""


def open_dataset(folder: Data = None) -> Dataset:
    """Open a dataset folder; the bundled synthetic one, made on first use, if none is named."""
    return folder if isinstance(folder, Dataset) else assets.open_dataset(folder)


def ingest(*sources: Path | str, out: Path | str, **options: Any) -> Dataset:
    """Make a dataset folder of logs or histories, as `musicbox ingest` does, and open it.

    Args:
        sources: Files, folders or globs.
        out: Folder to write.
        options: Of `musicbox ingest`, for example ``tracks``, ``timezone`` or ``map``.

    Raises:
        ValueError: A source cannot be used; the message says why.
        FileExistsError: The folder is there; pass ``overwrite=True`` to replace it.
    """
    config = _configured(
        IngestConfig, {"sources": tuple(map(str, sources)), "out": Path(out), **options}
    )
    return Dataset(pipeline.ingest(config))


def synthesize(out: Path | str, *, overwrite: bool = False, **options: Any) -> Dataset:
    """Make synthetic sessions with the truth behind them, and open them.

    Args:
        out: Folder to write.
        overwrite: Replace the folder if it is there.
        options: Fields of `musicbox_env.synthetic.world.SyntheticConfig`: ``sessions``, ``tracks``,
            ``seed``, ``taste``.
    """
    config = _configured(SyntheticConfig, options)
    return Dataset(generator.synthesize(config, out, overwrite=overwrite))


def make_agent(name: str, data: Data = None, *, seed: int = 0, **settings: Any) -> Agent:
    """Make an agent without training: those that need none can be evaluated as they are.

    Args:
        name: One of `musicbox_agents.AGENTS`.
        data: What it recommends from.
        seed: Of everything random in it.
        settings: Its settings by name, for example ``gamma=0.5``.

    Raises:
        ValueError: The agent or a setting is unknown, or a value cannot be.
    """
    return musicbox_agents.make_agent(name, open_dataset(data), seed=seed, settings=settings)


def train(
    agent: str,
    data: Data = None,
    *,
    steps: int = 4_000,
    out: Path | str = "runs/train",
    **options: Any,
) -> Agent:
    """Train an agent as `musicbox train` does; what is finished in ``out`` is opened.

    Args:
        agent: Name of an agent, or label of a variant.
        data: What it learns on.
        steps: Slates that it recommends while it learns.
        out: Folder of the training; it can be interrupted and goes on there.
        options: Further ones of `musicbox train`, for example ``listener`` or
            ``agent_settings=("ddpg.gamma=0.5",)``.

    Returns:
        The checkpoint with the fewest skips on validation sessions.

    Raises:
        ValueError: An option cannot be.
        FileExistsError: ``out`` holds the training of this agent under other options.
    """
    require_no_import()
    given = {"source": _source(data), "agent": agent, "train_steps": steps, "out": Path(out)}
    config = _configured(TrainConfig, {**given, "seeds": 1, **options})
    return trained(training.train(config)[0])


def open_agent(run: Path | str, agent: str = "ddpg", *, seed: int | None = None) -> Agent:
    """Open an agent that a run trained.

    Args:
        run: Folder of `train` or `compare`, or of the commands of these names.
        agent: Which agent of the run.
        seed: Which of its trainings; the one that validation liked best if left out.

    Raises:
        FileNotFoundError: The folder holds no such training.
    """
    folder = find_training(Path(run), agent, seed)
    return load_agent(folder / BEST, open_dataset(read_training(folder)["options"]["data"]))


def evaluate(
    agents: Agent | Iterable[Agent],
    data: Data = None,
    *,
    evaluator: str | None = None,
    split: str = "test",
    sessions: int = 1_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Let agents recommend into the same sessions, and measure what is heard.

    Args:
        agents: Which.
        data: The sessions are of this dataset, on which the agents were made.
        evaluator: Listener that answers: a name or a fitted file; by default the exact law where
            the data has one, else ``"replay"``.
        split: Which sessions: ``"validation"`` to choose settings, ``"test"`` once.
        sessions: How many at most.
        seed: Which sessions are drawn, and the listener's random numbers.

    Returns:
        A row an agent, fewest skips first: ``evaluator``, ``agent``, ``seed``, and every metric of
        `musicbox_experiments.evaluate.metrics.METRICS`. For intervals use `compare`.

    Raises:
        TypeError: What is no agent is among ``agents``; `make_agent` makes one of a name.
        ValueError: The evaluator, the split or a number cannot be, there is no agent, or one was
            made on another catalog.
    """
    dataset = open_dataset(data)
    given = _agents([agents] if isinstance(agents, Agent | str) else agents, dataset)
    require_whole("sessions", sessions, 1, MOST_SESSIONS)
    require_whole("seed", seed, 0, MOST_SESSIONS)
    listener = evaluator or (TRUTH if knows_truth(dataset) else "replay")
    require_possible([listener], dataset)
    drawn = draw_sessions(dataset, split, sessions, seed)
    options = {"data": str(dataset.folder), "split": split}
    rollouts = [
        roll_out(one, options, drawn, listener=listener, seed=seed, training_seed=one.seed)
        for one in given
    ]
    table = pd.DataFrame(figures(rollouts, CatalogStats.of(dataset)))
    return table.sort_values("skip_rate", kind="stable", ignore_index=True)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        folder: Where everything is written, ``report.html`` included.
        summary: All figures with their intervals, as in ``summary.json``.
        study: What they were made from.
    """

    folder: Path
    summary: Summary
    study: Study

    @property
    def report(self) -> Path:
        """The page that explains itself."""
        return self.folder / "report.html"

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row an evaluator and agent, fewest skips first, with 95 % intervals.

        ``skip_rate``, and ``difference`` in it to the logged policy, each with ``_low`` and
        ``_high``; ``effective_catalog_size``; ``reranking``, skips over real labels against a
        random choice; ``seeds``. NaN where something is unknown.
        """
        rows = {}
        for evaluator, at in self.summary["evaluators"].items():
            for agent in ranked(self.summary, evaluator):
                of = at["agents"][agent]
                rows[evaluator, agent] = {
                    **_flat("skip_rate", of["metrics"]["skip_rate"]),
                    **_flat("difference", of["differences"].get("skip_rate")),
                    "effective_catalog_size": of["metrics"]["effective_catalog_size"]["value"],
                    "reranking": self.summary["reranking"].get(agent, {}).get("value"),
                    "seeds": len(of["seeds"]),
                }
        index = pd.MultiIndex.from_tuples(rows, names=["evaluator", "agent"])
        table = pd.DataFrame(list(rows.values()), index=index)
        return table.astype({name: float for name in table if name != "seeds"})

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The pictures of the report by name, for example ``"skip_rate"``."""
        return {picture.name: picture.figure for picture in pictures(self.study, self.summary)}


def compare(
    data: Data = None,
    agents: Iterable[str] = DEFAULT_AGENTS,
    *,
    out: Path | str = "runs/compare",
    **options: Any,
) -> Comparison:
    """Train agents over seeds, evaluate them on sessions that they never saw, write a report.

    As `musicbox compare` does: a run that was interrupted goes on where it stopped.

    Args:
        data: The sessions.
        agents: Names and labels; ``"logged"``, the logged policy, must be among them.
        out: Folder of the run.
        options: Further ones of `musicbox compare`: ``seeds``, ``train_steps``,
            ``evaluation_sessions``, ``listener``, ``agent_settings``, ...

    Raises:
        ValueError: An option cannot be.
        FileExistsError: ``out`` holds a run with other options.
    """
    require_no_import()
    given = {"source": _source(data), "agents": _names("agents", agents), "out": Path(out)}
    config = _configured(CompareConfig, {**given, **options})
    study, summary = comparing.compare(config)
    return Comparison(config.out, summary, study)


def recommend(agent: Agent, heard: str, data: Data = None) -> pd.DataFrame:
    """The next songs for a listening history.

    Args:
        agent: Who chooses them.
        heard: Songs heard so far, oldest first, as ``SONG:LEVEL`` separated by commas; a song is a
            track id or "Artist - Title", a level a number from 0 to 4, its name, ``skipped`` or
            ``kept``.
        data: What the agent was made on.

    Returns:
        A row a song, best first: ``track_id`` and ``title``.

    Raises:
        KeyError: A song is not in the catalog.
        TypeError: ``agent`` is no agent, or ``heard`` no text.
        ValueError: What was heard cannot be read, or the agent was made on another catalog.
    """
    dataset = open_dataset(data)
    _agents([agent], dataset)
    if not isinstance(heard, str):
        raise TypeError(
            f"heard is {brief(heard)}; expected a text, SONG:LEVEL separated by commas, such as "
            '"t_00000003:full,t_00000017:skipped".'
        )
    rows = recommend_next(agent, dataset, heard)
    catalog = dataset.catalog
    return pd.DataFrame({"track_id": catalog.track_ids[rows], "title": catalog.titles[rows]})


def _agents(agents: Iterable[Agent], dataset: Dataset) -> list[Agent]:
    """Agents that can recommend from a dataset; others would name wrong songs by its rows.

    Raises:
        TypeError: One is no agent.
        ValueError: There is none, or one was made on another catalog.
    """
    listed = list(agents) if isinstance(agents, Iterable) else [agents]
    if not listed:
        raise ValueError("There is no agent to evaluate; make one with make_agent or train.")
    for one in listed:
        if not isinstance(one, Agent):
            raise TypeError(
                f"{brief(one)} is no agent; expected what make_agent, train or open_agent gives, "
                'such as make_agent("best-rate", data).'
            )
        mend = "Pass the dataset that it was made on, or make the agent on this one."
        dataset.require_same_catalog(one.dataset.identity, f"The agent {one.name}", mend)
    return listed


def _names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """Names in a sequence; one text is a slip, since its letters would be the names.

    Raises:
        TypeError: It is a text, no sequence, or holds what is no text.
    """
    sequence = isinstance(names, Iterable) and not isinstance(names, str)
    listed = tuple(names) if sequence else ()
    if not sequence or not all(isinstance(name, str) for name in listed):
        raise TypeError(f"{what} is {brief(names)}; expected texts in a list or tuple.")
    return listed


def _source(data: Data) -> Source:
    folder = data.folder if isinstance(data, Dataset) else data
    if folder is None or generator.is_bundled(folder):  # as commands name it
        return Source()
    return Source(data=Path(folder))


def _configured(kind: type[Config], options: Mapping[str, Any]) -> Config:
    """A configuration from options that, as on the command line, do not say in which part they are.

    Raises:
        TypeError: An option belongs to no part.
    """
    left = dict(options)
    if "agent_settings" in left:
        left["agent_settings"] = _names("agent_settings", left["agent_settings"])
    config = _filled(kind, left)
    for name in left:
        raise TypeError(f"There is no option {name!r}; {suggest(name, sorted(_options(kind)))}")
    return config


def _options(kind: type) -> set[str]:
    """Names of the options of a configuration and its parts."""
    parts = {name: of for name, of in get_type_hints(kind).items() if is_dataclass(of)}
    inner = [_options(of) for of in parts.values() if isinstance(of, type)]
    return {field.name for field in fields(kind)}.difference(parts).union(*inner)


def _filled(kind: type[Config], options: dict[str, Any]) -> Config:
    """A configuration and its parts; options that they take are removed."""
    values: dict[str, Any] = {}
    for name, of in get_type_hints(kind).items():
        is_part = isinstance(of, type) and is_dataclass(of)
        if is_part and not isinstance(options.get(name), of):
            values[name] = _filled(of, options)
        elif name in options:
            values[name] = options.pop(name)
    return kind(**values)


def _flat(name: str, estimate: Mapping[str, Any] | None) -> dict[str, float | None]:
    """An estimate as three columns."""
    of = estimate or {}
    return {
        name: of.get("value"),
        f"{name}_low": of.get("low"),
        f"{name}_high": of.get("high"),
    }
