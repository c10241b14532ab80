"""What each option of the DDPG agent is worth: pairs of trainings that differ in it alone.

Around the agent's defaults an option that they have is taken away, and one that they lack is
added; the published algorithm (see `departures`) gets each option added. Both sides of a pair are
trained with the same seeds and evaluated on the same sessions, so an effect is the mean over seeds
of differences, with the interval of `statistics.paired_change`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from musicbox_agents.ddpg.agent import DDPGSettings

from musicbox_experiments.evaluate.metrics import (
    CatalogStats,
    Rollout,
    effective_catalog_size,
    exposure,
    skip_rate,
)
from musicbox_experiments.evaluate.statistics import Estimate, paired_change, seed_estimate
from musicbox_experiments.train.departures import Departure, published

AGENT: Final = "ddpg"
CONFIDENCE: Final = 0.95
Base = Literal["default", "published"]
BASES: Final[Mapping[Base, str]] = {
    "default": "the agent's defaults",
    "published": "DDPG and LIRD as published",
}


@dataclass(frozen=True)
class Side:
    """An agent to be trained: its label, and what differs from the agent's defaults."""

    label: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two agents that differ in one option.

    Attributes:
        departure: The option.
        base: What else they have in common.
        absent: The one without the option.
        present: The one with it.
    """

    departure: Departure
    base: Base
    absent: Side
    present: Side


def pairs(options: Sequence[Departure], given: Mapping[str, Any] | None = None) -> list[Pair]:
    """Every option around both bases, in the order of the page.

    Labels depend on all options together, so select from the result and not from ``options``.

    Args:
        options: All departures; they make up the published algorithm.
        given: Settings to have in place of the agent's defaults.
    """
    given = given or {}
    sides = _Sides({"default": given, "published": {**given, **published(options)}})
    keys: list[tuple[Base, int]] = [(base, i) for base in BASES for i in range(len(options))]
    # Those that need nothing come first: their names are the telling ones.
    of = {key: sides.pair(options[key[1]], key[0]) for key in keys if not options[key[1]].needs}
    of |= {key: sides.pair(options[key[1]], key[0]) for key in keys if options[key[1]].needs}
    return [of[key] for key in keys]


class _Sides:
    """Gives agents with equal settings one label, so that none is trained twice."""

    def __init__(self, starts: Mapping[Base, Mapping[str, Any]]) -> None:
        self._starts = starts
        self._labels: dict[DDPGSettings, str] = {}
        self._label(AGENT, starts["default"])
        self._label(f"{AGENT}+published", starts["published"])

    def pair(self, option: Departure, base: Base) -> Pair:
        start = self._starts[base]
        stem = AGENT if base == "default" else f"{AGENT}+published"
        absent = {**start, **option.needs, **option.published}
        present = {**start, **option.needs, **option.taken}
        joint = "-" if base == "published" else "+"
        has_it = _full({**start, **option.needs}) == _full(present)
        changed = f"{stem}{joint}{'without' if has_it else 'with'}-{option.name}"
        kept = f"{stem}{joint}for-{option.name}"
        names = (changed, kept) if has_it else (kept, changed)
        return Pair(
            option,
            base,
            Side(self._label(names[0], absent), absent),
            Side(self._label(names[1], present), present),
        )

    def _label(self, label: str, settings: Mapping[str, Any]) -> str:
        return self._labels.setdefault(_full(settings), label)


def _full(settings: Mapping[str, Any]) -> DDPGSettings:
    return DDPGSettings.from_mapping(settings)


def sides_of(all_pairs: Iterable[Pair]) -> dict[str, Mapping[str, Any]]:
    """Settings of every agent to be trained, by label."""
    return {side.label: side.settings for pair in all_pairs for side in (pair.absent, pair.present)}


@dataclass(frozen=True)
class Effect:
    """What an option does: the agent with it minus the agent without it.

    Attributes:
        pair: The two agents.
        skip_rate: Difference in skip rate; below 0 is fewer skips.
        effective_catalog_size: Difference in the effective catalog size.
        values: For each side the values of its seeds, by metric.
    """

    pair: Pair
    skip_rate: Estimate
    effective_catalog_size: Estimate
    values: Mapping[str, Mapping[str, Sequence[float]]]

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        option = self.pair.departure
        return {
            "number": option.number,
            "option": option.name,
            "about": option.about,
            "base": self.pair.base,
            "in_defaults": option.in_defaults,
            "settings": {"absent": dict(option.published), "present": dict(option.taken)},
            "needs": dict(option.needs),
            "absent": self.pair.absent.label,
            "present": self.pair.present.label,
            "effect": {
                "skip_rate": asdict(self.skip_rate),
                "effective_catalog_size": asdict(self.effective_catalog_size),
            },
            "by_seed": self.values,
        }


def effects(
    all_pairs: Sequence[Pair],
    rollouts: Mapping[str, Sequence[Rollout]],
    world: CatalogStats,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> list[Effect]:
    """The effect of each option.

    Args:
        all_pairs: What is compared.
        rollouts: For each label its rollouts, in the order of their seeds; the same seeds and
            sessions for all.
        world: The catalog.
        seed: Of the bootstrap.
        resamples: Of sessions and seeds.
    """
    skips = {label: [skip_rate(r) for r in found] for label, found in rollouts.items()}
    songs = {
        label: [effective_catalog_size(exposure(r, world.num_tracks)) for r in found]
        for label, found in rollouts.items()
    }
    found = []
    for pair in all_pairs:
        absent, present = pair.absent.label, pair.present.label
        change = paired_change(
            skips[absent],
            skips[present],
            rng=np.random.default_rng(seed),
            resamples=resamples,
            confidence=CONFIDENCE,
        )
        variety = seed_estimate(
            [b - a for a, b in zip(songs[absent], songs[present], strict=True)],
            sessions=change.sessions,
            confidence=CONFIDENCE,
        )
        values = {
            side: {
                "skip_rate": [p.mean for p in skips[label]],
                "effective_catalog_size": songs[label],
            }
            for side, label in (("absent", absent), ("present", present))
        }
        found.append(Effect(pair, change, variety, values))
    return found
