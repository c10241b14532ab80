"""Agents with other settings beside the untouched ones, each under a label of its own.

A label is the name of an agent, ``sb3-ddpg``, or of an agent and a variant of it,
``sb3-ddpg+tuned``. `VARIANTS` holds those that are documented; ``AGENT+ANYTHING`` is a variant of
your own, with the settings that ``--agent-settings AGENT+ANYTHING.NAME=VALUE`` gives it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from musicbox_agents import AGENTS, Agent, agent_class

from musicbox_env.schema import require_known

PLUS: Final = "+"


@dataclass(frozen=True)
class Variant:
    """An agent under other settings than its defaults.

    Attributes:
        about: What it is, in a sentence for the report.
        settings: What differs from the agent's defaults.
        pessimism: Spreads that the learned listener which it trains with adds to its skip logits.
    """

    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    pessimism: float = 0.0


VARIANTS: Final[Mapping[str, Variant]] = {
    "sb3-ddpg+tuned": Variant(
        "Stable-Baselines3's DDPG with a slower learning rate, since at its default the outputs "
        "saturate in the corners of the cube, and without a value of later slates: the best of "
        "three tries on validation sessions, one seed each.",
        {"learning_rate": 1e-4, "gamma": 0.0},
    ),
    "ddpg+pessimistic": Variant(
        "The same agent, trained with the learned listener made pessimistic: what it knows little "
        "of counts as likelier to be skipped, by one standard deviation.",
        pessimism=1.0,
    ),
    "lird+first": Variant(
        "LIRD under the settings of the first MusicBox.",
        {
            "embedding": "colisten",
            "history_length": 10,
            "gamma": 0.99,
            "tau": 1e-3,
            "actor_rate": 5e-5,
            "critic_rate": 1e-3,
            "batch_size": 64,
            "buffer_size": 10_000,
            "noise_sigma": 0.2,
        },
    ),
}
"""Documented variants by label."""

Settings = dict[str, dict[str, Any]]
"""Settings by label."""


def agent_of(label: str) -> str:
    """Name of the agent that a label is a variant of.

    >>> agent_of("sb3-ddpg+tuned"), agent_of("ddpg")
    ('sb3-ddpg', 'ddpg')
    """
    return label.partition(PLUS)[0]


def class_of(label: str) -> type[Agent]:
    """Class of the agent that a label is a variant of."""
    return agent_class(agent_of(label))


def require_label(label: str, given: Mapping[str, Any]) -> None:
    """Refuse a label that says nothing: no agent, or a variant without settings.

    Args:
        label: An agent or a variant of one.
        given: Settings by label that the user gave.

    Raises:
        ValueError: With a suggestion.
    """
    if PLUS in label and label not in given:
        require_known("variant (none of yours either, it has no --agent-settings)", label, VARIANTS)
    require_known("agent", agent_of(label), AGENTS)


def settings_of(label: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a label's settings are beside the defaults of its agent; those given win."""
    documented = VARIANTS[label].settings if label in VARIANTS else {}
    return {**documented, **given.get(label, {})}


def pessimism_of(label: str) -> float:
    """Spreads of pessimism of the listener that a label trains with."""
    return VARIANTS[label].pessimism if label in VARIANTS else 0.0


def about(label: str) -> str:
    """A line on what a label stands for."""
    if label in VARIANTS:
        return VARIANTS[label].about
    first = (class_of(label).__doc__ or "").strip().partition("\n")[0]
    return f"Under settings of its own: {first}" if PLUS in label else first


def parse_settings(settings: Sequence[str]) -> Settings:
    """Turn ``LABEL.NAME=VALUE`` into a dictionary for each label; values are read as JSON.

    >>> parse_settings(["ddpg.gamma=0.5", "ddpg+far.start=random"])
    {'ddpg': {'gamma': 0.5}, 'ddpg+far': {'start': 'random'}}
    """
    parsed: Settings = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        label, dot, name = target.partition(".")
        if not (equals and dot and name):
            raise ValueError(f"{setting!r} is no setting; expected AGENT.NAME=VALUE.")
        require_known("agent", agent_of(label), AGENTS)
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        parsed.setdefault(label, {})[name] = value
    return parsed
