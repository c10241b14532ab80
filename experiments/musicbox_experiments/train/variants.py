"""Labels: an agent, a variant of it under other settings, or a trained one that acts otherwise.

=======================  =========================================================================
``ddpg``                 the agent under its defaults
``sb3-ddpg+tuned``       a documented variant, see `VARIANTS`
``ddpg+mine``            a variant of your own: ``--agent-settings ddpg+mine.gamma=0.5``
``ddpg@rerank=3``        the trainings of ``ddpg`` with other settings of acting; nothing is trained
                         again; several are joined by commas
=======================  =========================================================================
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from musicbox_agents import AGENTS, Agent, agent_class

from musicbox_env.schema import require_known

PLUS: Final = "+"
AT: Final = "@"


@dataclass(frozen=True)
class Variant:
    """An agent under other settings than its defaults.

    Attributes:
        about: What it is, in a sentence for the report.
        settings: What differs from the agent's defaults.
        pessimism: Standard deviations that the learned listener which it trains with adds to its
            skip logits.
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
        "The same agent, trained with the learned listener made pessimistic: songs with few plays "
        "count as likelier to be skipped, by one standard deviation.",
        pessimism=1.0,
    ),
    "lird+first": Variant(
        "LIRD under the settings of the first MusicBox, its defects mended.",
        {
            "embedding": "colisten",
            "history_length": 10,
            "gamma": 0.99,
            "tau": 1e-3,
            "actor_rate": 5e-5,
            "critic_rate": 1e-3,
            "batch_size": 64,
            "buffer_size": 10_000,
            "noise_theta": 0.5,
            "noise_sigma": 0.2,
        },
    ),
}
"""Documented variants by label."""

Settings = dict[str, dict[str, Any]]
"""Settings by label."""


def training_of(label: str) -> str:
    """The label whose trainings a label acts with.

    >>> training_of("ddpg+mine@rerank=3"), training_of("ddpg+mine")
    ('ddpg+mine', 'ddpg+mine')
    """
    return label.partition(AT)[0]


def agent_of(label: str) -> str:
    """Name of the agent that a label is a variant of.

    >>> agent_of("sb3-ddpg+tuned"), agent_of("ddpg@rerank=3")
    ('sb3-ddpg', 'ddpg')
    """
    return training_of(label).partition(PLUS)[0]


def class_of(label: str) -> type[Agent]:
    """Class of the agent that a label is a variant of."""
    return agent_class(agent_of(label))


def acting_of(label: str) -> dict[str, Any]:
    """The settings of acting that a label names, empty if it names none.

    Raises:
        ValueError: One is no setting of how the trained agent acts, or its value is none.

    >>> acting_of("ddpg@rerank=30,quality_weight=0.2"), acting_of("ddpg")
    ({'rerank': 30, 'quality_weight': 0.2}, {})
    """
    training, at, text = label.partition(AT)
    if not at:
        return {}
    found = parse_settings([f"{training}.{setting}" for setting in text.split(",")])[training]
    for name in found:
        require_known(
            f"setting of how a trained {agent_of(label)} acts", name, class_of(label).acting
        )
    class_of(label).Settings.from_mapping(found)  # refuses values before anything is trained
    return found


def require_label(label: str, given: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a label without meaning: no agent, a variant without settings, or wrong settings.

    Args:
        label: An agent, or one of its variants, with settings of acting behind it or without.
        given: The user's own settings of agents and variants, by label.

    Raises:
        ValueError: With a suggestion.
    """
    training = training_of(label)
    if PLUS in training and training not in given:
        require_known(
            "variant (none of yours either, it has no --agent-settings)", training, VARIANTS
        )
    require_known("agent", agent_of(label), AGENTS)
    settings = class_of(label).Settings.from_mapping(settings_of(label, given))
    settings.acting_with(acting_of(label))


def require_used(given: Settings, labels: Sequence[str], option: str) -> None:
    """Refuse settings of agents that are not among those named, whose training they cannot change.

    Args:
        given: Settings by label.
        labels: Agents that are trained.
        option: Which option names them, for the message.

    Raises:
        ValueError: With the agents that are named.
    """
    trained = dict.fromkeys(map(training_of, labels))
    if unused := [label for label in given if label not in trained]:
        raise ValueError(
            f"--agent-settings has settings of {', '.join(unused)}, which {option} does not name "
            f"(it names {', '.join(trained)}): name it there, or leave its settings out."
        )


def variant_of(label: str) -> Variant:
    """What the trainings of a label differ in from the defaults, as far as it is documented."""
    training = training_of(label)
    return VARIANTS.get(training) or Variant((class_of(label).__doc__ or "").strip())


def settings_of(label: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of a label's training beside the defaults of its agent; those given win."""
    return {**variant_of(label).settings, **given.get(training_of(label), {})}


def about(label: str, given: Mapping[str, Mapping[str, Any]]) -> str:
    """A line on what a label stands for.

    Args:
        label: An agent, or one of its variants, with settings of acting behind it or without.
        given: The user's own settings of agents and variants, by label.
    """
    training, at, acting = label.partition(AT)
    if at:
        return f"The trainings of {training}, acting with {acting.replace(',', ', ')}."
    line = variant_of(label).about.partition("\n")[0]
    own = ", ".join(f"{name}={value}" for name, value in given.get(label, {}).items())
    return f"{line} With settings of its own: {own}." if own else line


MOST_SEEDS = 10_000
"""Trainings of one agent at most: a larger number is a slip, and its tasks would fill memory."""


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
        except (ValueError, RecursionError):  # no JSON, or none that Python reads
            value = text
        parsed.setdefault(label, {})[name] = value
    return parsed
