"""What `musicbox tune` searches: ranges of settings, by the names that agents give them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final

from musicbox_agents import Agent
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from musicbox_env.schema import require_known

Space = Mapping[str, BaseDistribution]

USUAL: Final[Mapping[str, str]] = {
    "gamma": "0.0..0.95",
    "actor_rate": "1e-5..1e-2:log",
    "critic_rate": "1e-5..1e-2:log",
    "learning_rate": "1e-5..1e-2:log",
    "tau": "5e-4..0.1:log",
    "noise": "0.0..0.6",
    "action_noise": "0.0..0.6",
    "hidden": "16..128:log",
    "updates_per_step": "0.05..1.0:log",
    "offline_fraction": "0.0..1.0",
    "warmup_updates": "100..4000:log",
    "rerank": "0..200",
    "quality_weight": "0.1..1.0",
    "average_critic": "true,false",
    "within_slates": "true,false",
}
"""Ranges by setting, where none are given; of an agent those are searched that it has."""
_RANGE: Final = re.compile(r"(?P<low>[^.:]\S*?)\.\.(?P<high>[^:]+)(?P<log>:log)?")


def space_of(agent: type[Agent], given: Sequence[str]) -> dict[str, BaseDistribution]:
    """What to search of an agent: the ranges that were given, or else the usual ones.

    Args:
        agent: Its class.
        given: ``NAME=LOW..HIGH``, ``NAME=LOW..HIGH:log`` or ``NAME=A,B,C`` each.

    Raises:
        ValueError: A name is no setting of the agent, or a range cannot be.
    """
    names = [field.name for field in fields(agent.Settings)]
    if not given:
        given = [f"{name}={USUAL[name]}" for name in names if name in USUAL]
    space = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"--search is {text!r}; expected NAME=LOW..HIGH or NAME=A,B,C.")
        require_known(f"setting of {agent.name}", name, names)
        space[name] = _distribution(text, values)
    if not space:
        raise ValueError(
            f"{agent.name} has no setting with a usual range; name some, --search NAME=LOW..HIGH; "
            f"its settings are {', '.join(names) or 'none'}."
        )
    return space


def defaults_in(agent: type[Agent], space: Space) -> dict[str, Any]:
    """The defaults of the agent's settings that are searched, as far as its ranges hold them."""
    found = {field.name: field.default for field in fields(agent.Settings)}
    return {
        name: found[name]
        for name, among in space.items()
        if found[name] not in (None, MISSING) and _holds(among, found[name])
    }


def as_settings(label: str, settings: Mapping[str, Any]) -> str:
    """Settings as ``--agent-settings`` takes them, rounded to what a reader can compare.

    >>> as_settings("ddpg+tuned", {"gamma": 0.25, "start": "random", "rerank": 30})
    'ddpg+tuned.gamma=0.25 ddpg+tuned.start=random ddpg+tuned.rerank=30'
    """
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }
    return " ".join(f"{label}.{name}={text}" for name, text in texts.items())


def rounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with three significant digits: as they are tried, so as they are told."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in settings.items()
    }


def _holds(among: BaseDistribution, value: Any) -> bool:
    if isinstance(among, CategoricalDistribution):
        return value in among.choices
    assert isinstance(among, FloatDistribution | IntDistribution)
    return bool(among.low <= value <= among.high)


def _distribution(text: str, values: str) -> BaseDistribution:
    ends = _RANGE.fullmatch(values)
    if ends is None:
        choices = [_read(value) for value in values.split(",")]
        if len(choices) < 2:
            raise ValueError(f"--search is {text!r}; expected LOW..HIGH or two values or more.")
        return CategoricalDistribution(choices)
    low, high, log = _read(ends["low"]), _read(ends["high"]), ends["log"] is not None
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or low >= high or (log and low <= 0):
        raise ValueError(
            f"--search is {text!r}; expected two numbers, the lower one first"
            + (", both above 0 for a logarithmic range." if log else ".")
        )
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
