"""All agents by name: made untrained, and loaded from checkpoints."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from musicbox_agents.base import AGENT, TRAIN_AGAIN, Agent
from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.dataset import Dataset
from musicbox_env.errors import needing, reading
from musicbox_env.schema import require_known

AGENTS: dict[str, str] = {
    "random": "musicbox_agents.baselines.popularity:RandomAgent",
    "popularity": "musicbox_agents.baselines.popularity:PopularityAgent",
    "logged": "musicbox_agents.baselines.bounds:LoggedAgent",
    "content": "musicbox_agents.baselines.rates:ContentAgent",
    "item-knn": "musicbox_agents.baselines.neighbors:ItemKNNAgent",
    "session-knn": "musicbox_agents.baselines.neighbors:SessionKNNAgent",
    "best-rate": "musicbox_agents.baselines.rates:BestRateAgent",
    "played-rate": "musicbox_agents.baselines.rates:PlayedRateAgent",
    "linucb": "musicbox_agents.baselines.linucb:LinUCBAgent",
    "bayes": "musicbox_agents.baselines.bayes:BayesAgent",
    "ddpg": "musicbox_agents.ddpg.agent:DDPGAgent",
    "lird": "musicbox_agents.lird:LIRDAgent",
    "bc": "musicbox_agents.offline.bc:BCAgent",
    "td3-bc": "musicbox_agents.offline.td3_bc:TD3BCAgent",
    "iql": "musicbox_agents.offline.iql:IQLAgent",
    "sb3-ddpg": "musicbox_agents.sb3:SB3DDPGAgent",
    "sb3-td3": "musicbox_agents.sb3:SB3TD3Agent",
    "sb3-sac": "musicbox_agents.sb3:SB3SACAgent",
    "skyline": "musicbox_agents.baselines.bounds:SkylineAgent",
    "planner": "musicbox_agents.baselines.planner:PlannerAgent",
}
"""Where each agent's class is; imported on first use, since some take seconds to import."""


def agent_class(name: str) -> type[Agent]:
    """Class of an agent, whose module is imported.

    Raises:
        ValueError: No agent has that name; the message suggests one.
        ModuleNotFoundError: It needs a package of the extra [agents], which is not installed.
    """
    require_known("agent", name, AGENTS)
    module, _, attribute = AGENTS[name].partition(":")
    with needing("agents", name):
        cls: type[Agent] = getattr(import_module(module), attribute)
    return cls


def make_agent(
    name: str, dataset: Dataset, *, seed: int = 0, settings: Mapping[str, Any] | None = None
) -> Agent:
    """Make an untrained agent by name; unknown settings are refused with a suggestion."""
    cls = agent_class(name)
    return cls(dataset, seed=seed, settings=cls.Settings.from_mapping(settings or {}))


def load_agent(
    folder: Path, dataset: Dataset, *, changed: Mapping[str, Any] | None = None
) -> Agent:
    """Load whatever agent a checkpoint folder holds; ``changed`` as in `Agent.load`.

    Raises:
        FileNotFoundError: The folder holds no checkpoint.
    """
    file = CheckedFile(folder / AGENT, TRAIN_AGAIN)
    if not file.file.is_file():
        raise FileNotFoundError(f"{folder} holds no agent (no {AGENT}).")
    name = file.field(file.json(), "agent", str)
    with reading(file.file, TRAIN_AGAIN):
        cls = agent_class(name)
    return cls.load(folder, dataset, changed=changed)
